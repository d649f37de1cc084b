"""The real OpenAI SDK on a real port, answered with what the pure modules make of chat completions."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import orjson
import pytest
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from gateway.chat_request import read_chat_request
from gateway.errors import Problem
from gateway.surfaces.responses_answer import answer, problem_body
from gateway.surfaces.responses_events import Events
from gateway.surfaces.responses_request import to_chat
from router.reasons import Fault
from tests.gateway.surfaces.spoken import USAGE, call, chunk, completion

Json = dict[str, Any]
LOST = Problem(502, "stream_broken", "The upstream closed the stream.", Fault.PROVIDER)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


class City(BaseModel):
    """A structured answer."""

    name: str
    people: int


@dataclass
class Script:
    """What the server answers; `chats` are the chat requests that the bodies were translated to."""

    url: str = ""
    message: Json = field(default_factory=lambda: {"content": "Hello there."})
    finish: str = "stop"
    chunks: list[Json] = field(default_factory=list)
    problem: Problem | None = None
    chats: list[Json] = field(default_factory=list)

    def answer(self, body: Json) -> bytes:
        made = answer(completion(self.message, self.finish), body, answer_id="resp_1", created=1)
        return orjson.dumps(made)

    def stream(self, body: Json) -> Iterator[bytes]:
        events = Events(body, answer_id="resp_1", created=1, model="m")
        for each in self.chunks:
            yield events.chunk(each)
        yield events.broke(self.problem) if self.problem else events.end(USAGE)


def handler_of(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            translation = to_chat(body)
            read_chat_request(orjson.dumps(translation.body))
            script.chats.append(translation.body)
            if translation.lacking:
                refused = translation.lacking[0]
                problem = Problem(400, "unsupported_parameter", refused.sentence, Fault.CALLER, param=refused.param)
                self.send(400, "application/json", [problem_body(problem)])
            elif body.get("stream"):
                self.send(200, "text/event-stream", script.stream(body))
            else:
                self.send(200, "application/json", [script.answer(body)])

        def send(self, status: int, kind: str, parts: Any) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("connection", "close")
            self.end_headers()
            for part in parts:
                self.wfile.write(part)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(made)) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
async def client(script: Script) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=script.url, api_key="sk-x", max_retries=0) as made:
        yield made


async def test_a_plain_answer(script: Script, client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model="m", input="hello", instructions="be brief", max_output_tokens=20)
    assert made.output_text == "Hello there."
    assert made.status == "completed"
    assert made.usage is not None
    assert made.usage.input_tokens_details.cached_tokens == 5
    assert script.chats == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "max_completion_tokens": 20,
        }
    ]


async def test_a_stream(script: Script, client: openai.AsyncOpenAI) -> None:
    script.chunks = [chunk({"role": "assistant"}), *(chunk({"content": each}) for each in "Hello"), chunk({}, "stop")]
    stream = await client.responses.create(model="m", input="hello", stream=True)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello"


async def test_the_stream_helper_with_a_tool(script: Script, client: openai.AsyncOpenAI) -> None:
    script.chunks = [
        chunk({"reasoning_content": "They ask for Oslo."}),
        chunk({"content": "I look."}),
        chunk(call(0, id="c1", name="weather")),
        chunk(call(0, '{"city":')),
        chunk(call(0, ' "Oslo"}'), "tool_calls"),
    ]
    async with client.responses.stream(model="m", input="hello", tools=[WEATHER]) as stream:
        snapshots = [event.snapshot async for event in stream if "arguments.delta" in event.type]  # type: ignore[union-attr]
        final = await stream.get_final_response()
    assert snapshots == ['{"city":', '{"city": "Oslo"}']
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    called = final.output[2]
    assert isinstance(called, ResponseFunctionToolCall)
    assert (called.call_id, json.loads(called.arguments)) == ("c1", {"city": "Oslo"})
    assert script.chats[0]["tools"][0]["function"]["strict"] is True


async def test_a_round_of_tools_with_the_items_that_came_back(script: Script, client: openai.AsyncOpenAI) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
    script.message, script.finish = {"content": None, "reasoning_content": "hm", "tool_calls": calls}, "tool_calls"
    first = await client.responses.create(model="m", input="hello", tools=[WEATHER], store=False)
    said: Any = [{"role": "user", "content": "hello"}, *(item.to_dict() for item in first.output)]
    said.append({"type": "function_call_output", "call_id": "c1", "output": "rain"})
    await client.responses.create(model="m", input=said, tools=[WEATHER], store=False)
    assert script.chats[1]["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]


async def test_a_structured_answer_plain_and_streamed(script: Script, client: openai.AsyncOpenAI) -> None:
    script.message = {"content": '{"name": "Oslo", "people": 700000}'}
    parsed = await client.responses.parse(model="m", input="hello", text_format=City)
    assert parsed.output_parsed == City(name="Oslo", people=700000)
    assert script.chats[0]["response_format"]["json_schema"]["strict"] is True
    script.chunks = [chunk({"content": each}) for each in ('{"name": "Os', 'lo", "people": 7', "00000}")]
    async with client.responses.stream(model="m", input="hello", text_format=City) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == City(name="Oslo", people=700000)


async def test_an_answer_cut_at_its_limit(script: Script, client: openai.AsyncOpenAI) -> None:
    script.finish = "length"
    made = await client.responses.create(model="m", input="hello")
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


async def test_a_break_is_raised_by_the_sdk_and_never_a_final_answer(
    script: Script, client: openai.AsyncOpenAI
) -> None:
    script.chunks, script.problem = [chunk({"content": "Once"})], LOST
    stream = await client.responses.create(model="m", input="hello", stream=True)
    seen = []
    with pytest.raises(openai.APIError) as raised:
        async for event in stream:
            seen.append(event.type)
    assert raised.value.message == LOST.message
    assert raised.value.code == "stream_broken"
    assert seen[-1] == "response.output_text.delta"
    async with client.responses.stream(model="m", input="hello") as helped:
        with pytest.raises(openai.APIError, match="The upstream closed"):
            await helped.get_final_response()


async def test_what_chat_cannot_carry_is_refused_by_name(script: Script, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(model="m", input="hello", previous_response_id="resp_0")
    assert (raised.value.param, raised.value.code) == ("previous_response_id", "unsupported_parameter")
