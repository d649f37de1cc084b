"""The sandbox upstream, driven over real connections: by httpx, by bare sockets, by the providers' own SDKs."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway.sandbox.behaviours import Behaviour, BehaviourError, Cut, Finish, Malformed, from_json, in_message, parse
from gateway.sandbox.behaviours import in_model as in_model_name
from gateway.sandbox.keys import GivenKey
from gateway.sandbox.schema import fill
from gateway.sandbox.server import SandboxError, SandboxServer

KEY = "sk-sandbox-tests-0123456789"
MODEL = "gpt-4o"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello there"}]}
SPOKEN = "This is gpt-4o on the sandbox's openai wire. You said: hello there"
WORDS = len(SPOKEN.split())
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
CLAUDE: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "hello there"}],
}
GEMINI: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]}


@pytest.fixture
def http(sandbox: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {KEY}"}, timeout=10) as client:
        yield client


@pytest.fixture
def sdk(sandbox: SandboxServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def claude(sandbox: SandboxServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sandbox.url, api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


def chat(http: httpx.Client, order: str = "", *, stream: bool = False, **fields: Any) -> httpx.Response:
    headers = {"x-sandbox": order} if order else {}
    return http.post("/v1/chat/completions", json={**ASK, "stream": stream, **fields}, headers=headers)


def data_lines(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def spoken(lines: list[str]) -> str:
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))


# ---- orders


@pytest.mark.parametrize(
    ("order", "behaviour"),
    [
        ("", Behaviour()),
        ("status=429; retry-after=2", Behaviour(status=429, retry_after="2")),
        ("delay=0.3;cut-after=3;cut=fin", Behaviour(delay=0.3, cut_after=3, cut=Cut.FIN)),
        ("malformed-after=2; malformed=chunk", Behaviour(malformed_after=2, malformed=Malformed.CHUNK)),
        ("silence; no-done; no-usage; reset", Behaviour(silence=True, no_done=True, no_usage=True, reset=True)),
        ("redirect=http://a.b/c?d=e; set-cookie", Behaviour(redirect="http://a.b/c?d=e", set_cookie=True)),
        ("huge=7; finish=length; gap=0", Behaviour(huge=7, finish=Finish.LENGTH, gap=0.0)),
    ],
)
def test_order_is_read_and_written_the_same_way(order: str, behaviour: Behaviour) -> None:
    assert parse(order) == behaviour
    assert parse(behaviour.to_text()) == behaviour


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ("statsu=3", "did you mean 'status'?"),
        ("status=200", "takes an HTTP status, 300 to 599, not '200'"),
        ("cut=half", "takes one of rst, fin, not 'half'"),
        ("delay=soon", "takes seconds"),
        ("delay=nan", "takes seconds"),
        ("cut-after=-1", "takes a whole number"),
        ("silence=maybe", "takes no value"),
        ("redirect", "needs a value"),
    ],
)
def test_order_is_refused_when_it_cannot_be_read(order: str, complaint: str, http: httpx.Client) -> None:
    with pytest.raises(BehaviourError, match=re.escape(complaint)):
        parse(order)
    answer = chat(http, order)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "sandbox_order")


@pytest.mark.parametrize(
    ("model", "behaviour"),
    [
        ("sandbox-status-429", Behaviour(status=429)),
        ("openai/sandbox-cut-after-3-cut-fin", Behaviour(cut_after=3, cut=Cut.FIN)),
        ("sandbox-delay-0.5-silence", Behaviour(delay=0.5, silence=True)),
        ("sandbox-small", None),
        ("gpt-4o", None),
    ],
)
def test_model_name_is_an_order_when_it_begins_with_an_option(model: str, behaviour: Behaviour | None) -> None:
    assert in_model_name(model) == behaviour


def test_message_holds_an_order_when_it_has_a_directive() -> None:
    assert in_message("please [sandbox: status=500] now") == Behaviour(status=500)
    assert in_message("please") is None


def test_script_entry_may_be_an_object_of_options() -> None:
    assert from_json({"status": 500, "set_cookie": True, "no-done": False}) == Behaviour(status=500, set_cookie=True)


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"headers": {"x-sandbox": "status=418"}}, 418),
        ({"json": {**ASK, "messages": [{"role": "user", "content": "hi [sandbox: status=500]"}]}}, 500),
        ({"json": {**ASK, "model": "sandbox-status-429"}}, 429),
    ],
)
def test_order_is_obeyed_wherever_it_stands(how: dict[str, Any], status: int, http: httpx.Client) -> None:
    assert http.post("/v1/chat/completions", **{"json": ASK, **how}).status_code == status


# ---- keys


@pytest.mark.parametrize(
    ("path", "body", "key", "status", "error"),
    [
        (
            "/v1/chat/completions",
            ASK,
            "sk-test-wrong-1234",
            401,
            {
                "message": "Incorrect API key provided: sk-te***1234.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            },
        ),
        ("/v1/messages", CLAUDE, "sk-ant-1234", 401, {"type": "authentication_error", "message": "invalid x-api-key"}),
        ("/v1beta/models/g:generateContent", GEMINI, "AIza-wrong", 400, {"code": 400, "status": "INVALID_ARGUMENT"}),
    ],
)
def test_wrong_key_is_refused_as_the_provider_would(
    path: str, body: object, key: str, status: int, error: dict[str, object], http: httpx.Client
) -> None:
    answer = http.post(path, json=body, headers={"authorization": f"Bearer {key}", "x-sandbox": "status=500"})
    assert answer.status_code == status
    assert error.items() <= answer.json()["error"].items()


def test_gemini_names_the_reason_when_the_key_is_wrong(sandbox: SandboxServer) -> None:
    answer = httpx.post(f"{sandbox.url}/v1beta/models/g:generateContent?key=wrong", json=GEMINI)
    assert answer.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("headers", "query", "carrier"),
    [
        ({"authorization": f"Bearer {KEY}"}, {}, "authorization"),
        ({"x-api-key": KEY}, {}, "x-api-key"),
        ({"api-key": KEY}, {}, "api-key"),
        ({"x-goog-api-key": KEY}, {}, "x-goog-api-key"),
        ({}, {"key": KEY}, "?key"),
        ({}, {}, ""),
    ],
)
def test_key_is_found_in_every_carrier_and_never_recorded(
    headers: dict[str, str], query: dict[str, str], carrier: str, sandbox: SandboxServer
) -> None:
    answer = httpx.get(f"{sandbox.url}/v1/models", headers=headers, params=query)
    assert answer.status_code == (200 if carrier else 401)
    (seen,) = sandbox.finished()
    assert (seen.key_carrier, seen.key_tail) == (carrier, "6789" if carrier else "")
    assert seen.key_sha256 == (hashlib.sha256(KEY.encode()).hexdigest() if carrier else "")
    shown = httpx.get(f"{sandbox.url}/_sandbox/requests").text
    assert KEY not in shown + repr(seen) + repr(GivenKey(KEY, carrier))


def test_only_the_given_keys_are_accepted_when_keys_are_given() -> None:
    with SandboxServer(keys=["my-own-key"]) as own:
        statuses = [
            httpx.get(f"{own.url}/v1/models", headers={"x-api-key": key}).status_code for key in ("my-own-key", KEY)
        ]
    assert statuses == [200, 401]


# ---- good answers


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_openai_sdk_gets_a_plain_answer(prefix: str, sandbox: SandboxServer) -> None:
    with openai.OpenAI(base_url=sandbox.url + prefix, api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == SPOKEN
    assert (answer.model, answer.choices[0].finish_reason) == (MODEL, "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        2,
        WORDS,
        WORDS + 2,
    )
    assert answer._request_id == f"req_sandbox_{sandbox.finished()[0].number}"


@pytest.mark.parametrize("counted", [True, False])
def test_openai_sdk_gets_one_token_per_event_when_streaming(counted: bool, sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": counted}) as stream:
        chunks = list(stream)
    told = [chunk for chunk in chunks if chunk.choices]
    pieces = [chunk.choices[0].delta.content for chunk in told if chunk.choices[0].delta.content]
    assert (len(pieces), "".join(pieces)) == (WORDS, SPOKEN)
    assert (told[0].choices[0].delta.role, told[-1].choices[0].finish_reason) == ("assistant", "stop")
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    usage = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert usage == ([WORDS] if counted else [])


def test_stream_ends_with_usage_and_done_when_usage_is_asked_for(http: httpx.Client) -> None:
    answer = chat(http, stream=True, stream_options={"include_usage": True})
    lines = data_lines(answer.text)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert lines[-1] == "[DONE]"
    assert (json.loads(lines[-2])["choices"], json.loads(lines[-3])["usage"]) == ([], None)


def test_n_choices_take_turns_and_are_all_counted(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(**ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    with sdk.chat.completions.create(**ASK, n=3, stream=True) as stream:
        texts = ["", "", ""]
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(len(text.split()) for text in texts)


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"messages": [{"role": "user", "content": "please use get_weather"}]},
    ],
)
def test_tool_is_called_when_forced_or_named(fields: dict[str, Any], sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(**{**ASK, "tools": TOOLS, **fields})
    message = answer.choices[0].message
    assert message.tool_calls is not None
    assert message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    arguments = message.tool_calls[0].function.arguments
    assert json.loads(arguments) == {"city": "text", "days": 1}

    with sdk.chat.completions.create(**{**ASK, "tools": TOOLS, **fields}, stream=True) as stream:
        calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in calls if call.function and call.function.name] == ["get_weather"]
    assert len(calls) > 2
    assert "".join(call.function.arguments or "" for call in calls if call.function) == arguments


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none", "messages": [{"role": "user", "content": "get_weather"}]},
        {"messages": [*ASK["messages"], {"role": "tool", "tool_call_id": "c", "content": "get_weather"}]},
        {},
    ],
)
def test_tool_is_not_called_when_forbidden_or_answered(fields: dict[str, Any], http: httpx.Client) -> None:
    assert "tool_calls" not in chat(http, tools=TOOLS, **fields).json()["choices"][0]["message"]


def test_json_schema_answer_fits_the_schema(http: httpx.Client) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "trip", "schema": CITY}}
    content = chat(http, response_format=schema).json()["choices"][0]["message"]["content"]
    assert json.loads(content) == {"city": "text", "days": 1}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "OBJECT", "properties": {"n": {"type": "NUMBER", "minimum": 3}}}, {"n": 3}),
        ({"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}}, ["a", "a"]),
        ({"$ref": "#/$defs/Yes", "$defs": {"Yes": {"type": "boolean"}}}, True),
        ({"anyOf": [{"type": ["null", "string"], "maxLength": 2}, {"type": "null"}]}, "te"),
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}, "$ref": "#/$defs/T"}, [[[[None]]]]),
    ],
)
def test_schema_is_filled_by_type(schema: dict[str, Any], value: object) -> None:
    assert fill(schema) == value


def test_answer_is_cut_with_its_reason_when_max_tokens_is_reached(http: httpx.Client) -> None:
    body = chat(http, max_completion_tokens=2).json()
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("This is", "length")
    assert body["usage"]["completion_tokens"] == 2


def test_embeddings_are_the_same_in_both_encodings(http: httpx.Client, sdk: openai.OpenAI) -> None:
    texts = ["one", "two words"]
    packed = sdk.embeddings.create(model="e", input=texts, dimensions=8)  # the SDK asks for base64
    body = http.post("/v1/embeddings", json={"model": "e", "input": texts, "dimensions": 8}).json()
    assert [row.embedding for row in packed.data] == [row["embedding"] for row in body["data"]]
    assert [row["index"] for row in body["data"]] == [0, 1]
    assert sum(x * x for x in body["data"][0]["embedding"]) == pytest.approx(1)
    assert (len(body["data"][0]["embedding"]), body["usage"]["prompt_tokens"]) == (8, 3)


def test_tokens_of_messages_are_counted_as_the_answer_counts_them(claude: anthropic.Anthropic) -> None:
    asked: Any = {**CLAUDE, "system": "Be brief."}
    answered = claude.messages.create(**asked).usage.input_tokens
    del asked["max_tokens"]
    assert claude.messages.count_tokens(**asked).input_tokens == answered > 0


def test_models_are_listed_and_found_by_id(sdk: openai.OpenAI) -> None:
    ids = [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(ids[0]).id == ids[0]
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.models.retrieve("a/b")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "param"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, None),
        ("POST", "/v1/chat/completions", b"[]", 400, None),
        ("POST", "/v1/chat/completions", b'{"messages": []}', 400, "model"),
        ("POST", "/v1/chat/completions", b'{"model": "m", "messages": []}', 400, "messages"),
        (
            "POST",
            "/v1/chat/completions",
            b'{"model": "m", "messages": [{}], "stream_options": {}}',
            400,
            "stream_options",
        ),
        ("POST", "/v1/embeddings", b'{"model": "m", "input": []}', 400, "input"),
        ("POST", "/v1/embeddings", b'{"model": "m", "input": [[0], 0, false]}', 400, "input"),
        ("GET", "/v1/chat/completions", b"", 405, None),
        ("POST", "/v1/v1/chat/completions", b"{}", 404, None),
    ],
)
def test_bad_request_is_refused_in_openai_shape(
    method: str, path: str, content: bytes, status: int, param: str | None, http: httpx.Client
) -> None:
    answer = http.request(method, path, content=content)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param


# ---- the other wires


def test_anthropic_sdk_gets_plain_and_streamed_answers(claude: anthropic.Anthropic) -> None:
    plain = claude.messages.create(**CLAUDE, system="be kind")
    text = SPOKEN.replace("gpt-4o", "claude-x").replace("openai", "anthropic")
    assert (plain.content[0].text, plain.stop_reason) == (text, "end_turn")
    assert (plain.usage.input_tokens, plain.usage.output_tokens) == (4, WORDS)
    with claude.messages.stream(**CLAUDE) as stream:
        assert "".join(stream.text_stream) == text
        assert stream.get_final_message().usage.output_tokens == WORDS


def test_anthropic_sdk_gets_a_tool_call_when_forced(claude: anthropic.Anthropic) -> None:
    fields: dict[str, Any] = {"tools": [{"name": "get_weather", "input_schema": CITY}], "tool_choice": {"type": "any"}}
    plain = claude.messages.create(**CLAUDE, **fields)
    with claude.messages.stream(**CLAUDE, **fields) as stream:
        streamed = stream.get_final_message()
    for message in (plain, streamed):
        assert message.content[0].input == {"city": "text", "days": 1}  # type: ignore[union-attr]
        assert message.stop_reason == "tool_use"


def test_anthropic_sdk_counts_cached_tokens_apart(claude: anthropic.Anthropic) -> None:
    usage = claude.messages.create(**CLAUDE, extra_headers={"x-sandbox": "cached=1"}).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (1, 1)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error"), (529, "overloaded_error")]
)
def test_anthropic_sdk_raises_its_own_errors(status: int, kind: str, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.create(**{**CLAUDE, "model": f"sandbox-status-{status}"})
    assert (raised.value.status_code, raised.value.body["error"]["type"]) == (status, kind)  # type: ignore[index]


def test_anthropic_sdk_raises_when_an_error_comes_inside_the_stream(claude: anthropic.Anthropic) -> None:
    claude_headers = {"x-sandbox": "error-in-stream-after=2; status=529"}
    heard: list[str] = []
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        claude.messages.stream(**CLAUDE, extra_headers=claude_headers) as stream,
    ):
        heard.extend(stream.text_stream)
    assert heard == ["This", " is"]


def test_gemini_answers_plain_and_streamed(http: httpx.Client) -> None:
    plain = http.post("/v1beta/models/gemini-x:generateContent", json=GEMINI).json()
    streamed = http.post("/models/gemini-x:streamGenerateContent?alt=sse", json=GEMINI).text
    chunks = [json.loads(line) for line in data_lines(streamed)]
    parts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks]
    assert "".join(parts) == plain["candidates"][0]["content"]["parts"][0]["text"]
    assert "gemini-x on the sandbox's gemini wire" in "".join(parts)
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * WORDS + ["STOP"]
    assert chunks[-1]["usageMetadata"] == plain["usageMetadata"]
    assert plain["usageMetadata"]["totalTokenCount"] == WORDS + 2


def test_gemini_calls_a_function_when_forced(http: httpx.Client) -> None:
    fields = {
        "tools": [{"functionDeclarations": [{"name": "get_weather", "parameters": CITY}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    }
    body = http.post("/v1beta/models/gemini-x:generateContent", json={**GEMINI, **fields}).json()
    call = body["candidates"][0]["content"]["parts"][0]["functionCall"]
    assert call == {"name": "get_weather", "args": {"city": "text", "days": 1}}


LITELLM_CALLS = """
import asyncio, json, sys, litellm
litellm.suppress_debug_info = True

async def call(fields):
    try:
        reply = await litellm.acompletion(**fields)
    except Exception as error:
        return {"error": type(error).__name__, "status": error.status_code}
    if not fields.get("stream"):
        choice, usage = reply.choices[0], reply.usage
        calls = [json.loads(call.function.arguments) for call in choice.message.tool_calls or []]
        return {"text": choice.message.content, "finish": choice.finish_reason, "calls": calls,
                "usage": [usage.prompt_tokens, usage.completion_tokens]}
    chunks = [chunk async for chunk in reply]
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    usage = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)][-1]
    return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
            "finish": ends[-1], "usage": [usage.prompt_tokens, usage.completion_tokens]}

async def main():
    print(json.dumps([await call(fields) for fields in json.load(sys.stdin)]))

asyncio.run(main())
"""


@pytest.mark.slow
def test_litellm_translates_the_anthropic_and_gemini_wires(sandbox: SandboxServer) -> None:
    calls = []
    for model, base in (("anthropic/claude-x", sandbox.url), ("gemini/gemini-x", f"{sandbox.url}/v1beta")):
        fields = {"model": model, "messages": ASK["messages"], "api_base": base, "api_key": KEY, "max_retries": 0}
        calls += [
            fields,
            {**fields, "stream": True, "stream_options": {"include_usage": True}},
            {**fields, "tools": TOOLS, "tool_choice": "required", "_skip_mcp_handler": True},
            {**fields, "api_key": "wrong-key"},
            {**fields, "messages": [{"role": "user", "content": "[sandbox: status=429]"}]},
        ]
    switches = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore", **switches}
    done = subprocess.run(
        [sys.executable, "-c", LITELLM_CALLS], input=json.dumps(calls), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    for start, wire, model in ((0, "anthropic", "claude-x"), (5, "gemini", "gemini-x")):
        plain, streamed, tool, wrong_key, limited = outcomes[start : start + 5]
        assert plain["text"] == SPOKEN.replace("gpt-4o", model).replace("openai", wire)
        assert (streamed["text"], streamed["finish"]) == (plain["text"], "stop")
        assert plain["usage"] == streamed["usage"] == [2, WORDS]
        assert (tool["calls"], tool["finish"]) == ([{"city": "text", "days": 1}], "tool_calls")
        assert wrong_key == {"error": "AuthenticationError", "status": 401}
        assert limited == {"error": "RateLimitError", "status": 429}
    assert {seen.wire for seen in sandbox.finished(len(calls))} == {"anthropic", "gemini"}


# ---- misbehaviour


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_ordered_status_has_the_provider_error_body(status: int, http: httpx.Client) -> None:
    answer = chat(http, f"status={status}; retry-after=2; retry-after-ms=50")
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "50")


def test_ordered_error_has_the_ordered_words(http: httpx.Client) -> None:
    error = chat(http, "status=400; code=context_length_exceeded; message=too long").json()["error"]
    assert (error["code"], error["message"]) == ("context_length_exceeded", "too long")


def test_key_is_echoed_when_ordered(http: httpx.Client) -> None:
    assert KEY in chat(http, "status=401; echo-key").json()["error"]["message"]


def test_page_redirect_and_cookie_come_when_ordered(http: httpx.Client) -> None:
    page = chat(http, "html")
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    moved = chat(http, "redirect=http://127.0.0.1:9/x")
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.1:9/x")
    assert chat(http, "set-cookie").cookies["sandbox_session"] == hashlib.sha256(KEY.encode()).hexdigest()[:12]


@pytest.mark.parametrize("stream", [True, False])
def test_answer_is_huge_when_ordered(stream: bool, http: httpx.Client) -> None:
    answer = chat(http, "huge=200000", stream=stream)
    assert len(answer.content) > 200_000
    assert (spoken(data_lines(answer.text)) if stream else answer.json()["choices"][0]["message"]["content"]) == SPOKEN


def test_answer_has_the_ordered_length_and_counts_nothing(http: httpx.Client) -> None:
    body = chat(http, "tokens=50; no-usage").json()
    assert len(body["choices"][0]["message"]["content"].split()) == 50
    assert "usage" not in body


def test_answer_comes_late_when_delayed(http: httpx.Client) -> None:
    began = time.monotonic()
    chat(http, "delay=0.15")
    assert time.monotonic() - began >= 0.15


def test_tokens_come_with_a_gap_when_ordered(http: httpx.Client) -> None:
    began = time.monotonic()
    chat(http, "gap=0.03; tokens=6", stream=True)
    assert time.monotonic() - began >= 5 * 0.03


def test_stream_just_ends_when_done_is_withheld(http: httpx.Client) -> None:
    lines = data_lines(chat(http, "no-done", stream=True, stream_options={"include_usage": True}).text)
    assert spoken(lines) == SPOKEN
    assert [json.loads(line)["choices"][0]["finish_reason"] for line in lines] == [None] * (WORDS + 1)


def test_one_event_is_broken_when_malformed_json_is_ordered(http: httpx.Client) -> None:
    lines = data_lines(chat(http, "malformed-after=2", stream=True).text)
    broken = [line for line in lines if line != "[DONE]" and not line.endswith("}")]
    assert (lines.index(broken[0]), len(broken), lines[-1]) == (3, 1, "[DONE]")
    with pytest.raises(json.JSONDecodeError):
        chat(http, "malformed-after=0").json()


def test_sdk_raises_when_an_error_comes_inside_the_stream(sdk: openai.OpenAI) -> None:
    heard: list[str | None] = []
    order = {"x-sandbox": "error-in-stream-after=2; code=overloaded"}
    with (
        pytest.raises(openai.APIError) as raised,
        sdk.chat.completions.create(**ASK, stream=True, extra_headers=order) as stream,
    ):
        heard.extend(chunk.choices[0].delta.content for chunk in stream)
    assert (heard, raised.value.code) == (["", "This", " is"], "overloaded")


def bare_request(url: str, order: str, body: dict[str, Any]) -> socket.socket:
    """A connection with a request written on it: what comes back is the TCP truth."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\nx-sandbox: {order}\r\n"
    )
    connection = socket.create_connection((host, int(port)), 10)
    connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def received(connection: socket.socket) -> tuple[bytes, str]:
    """All bytes until the connection ends, and how it ended."""
    got = b""
    try:
        while part := connection.recv(65536):
            got += part
    except ConnectionResetError:
        return got, "rst"
    except TimeoutError:
        return got, "open"
    return got, "fin"


@pytest.mark.parametrize("cut", ["rst", "fin"])
@pytest.mark.parametrize("stream", [True, False])
def test_connection_breaks_in_the_ordered_way_when_cut(cut: str, stream: bool, sandbox: SandboxServer) -> None:
    with bare_request(sandbox.url, f"cut-after=3; cut={cut}", {**ASK, "stream": stream}) as connection:
        got, end = received(connection)
    assert end == cut
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    if stream:
        assert (body.count(b'"content":"'), body.endswith(b"0\r\n\r\n")) == (4, False)  # the role's, then three tokens
    else:
        assert 0 < len(body) < int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
    (seen,) = sandbox.finished()
    assert (seen.tokens_sent, seen.client_left, seen.status) == (3 if stream else 0, False, 200)


def test_connection_is_reset_before_any_byte_when_ordered(sandbox: SandboxServer) -> None:
    with bare_request(sandbox.url, "reset", ASK) as connection:
        assert received(connection) == (b"", "rst")
    assert sandbox.finished()[0].status is None


@pytest.mark.parametrize(("after", "stream", "events"), [(1, True, 2), (0, True, 1), (0, False, 0)])
def test_framing_breaks_when_a_malformed_chunk_is_ordered(
    after: int, stream: bool, events: int, sandbox: SandboxServer
) -> None:
    order, body = f"malformed-after={after}; malformed=chunk", {**ASK, "stream": stream}
    with bare_request(sandbox.url, order, body) as connection:
        connection.settimeout(0.2)
        got, end = received(connection)
    assert (end, got.count(b"data: ")) == ("open", events)
    assert got.endswith(b"\r\nthis is not the length of a chunk\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{sandbox.url}/v1/chat/completions", json=body, headers={"x-api-key": KEY, "x-sandbox": order})


@pytest.mark.parametrize(
    ("order", "status", "tokens"), [("silence", None, 0), ("delay=60", None, 0), ("silent-after=2", 200, 2)]
)
def test_client_is_seen_leaving_when_it_does_not_wait(
    order: str, status: int | None, tokens: int, http: httpx.Client, sandbox: SandboxServer
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json={**ASK, "stream": True}, headers={"x-sandbox": order}, timeout=0.1)
    (seen,) = sandbox.finished()
    assert (seen.client_left, seen.status, seen.tokens_sent) == (True, status, tokens)
    assert seen.duration_s is not None
    assert seen.duration_s < 5


def test_stream_stops_when_the_client_leaves(http: httpx.Client, sandbox: SandboxServer) -> None:
    long = {**ASK, "stream": True, "messages": [{"role": "user", "content": "[sandbox: tokens=100000; gap=0.001]"}]}
    with http.stream("POST", "/v1/chat/completions", json=long) as answer:
        next(answer.iter_lines())
    (seen,) = sandbox.finished()
    assert seen.client_left
    assert 0 <= seen.tokens_sent < 10_000


def test_silence_ends_when_its_limit_is_reached() -> None:
    with SandboxServer(hold_s=0.05) as short, bare_request(short.url, "silence", ASK) as connection:
        assert received(connection) == (b"", "fin")
        assert not short.finished()[0].client_left


# ---- the truth


def test_journal_tells_what_arrived_when_asked(http: httpx.Client, sandbox: SandboxServer) -> None:
    raw = b'{"model":"m",  "messages":[{"role":"user","content":"\\u00e9"}],"unknown":1.50}'
    http.post("/v1/chat/completions?a=b", content=raw, headers=[("x-twice", "1"), ("x-twice", "2")])
    sandbox.finished()
    (told,) = http.get("/_sandbox/requests").json()
    expected = {"wire": "openai", "path": "/v1/chat/completions", "query": [["a", "b"]], "model": "m", "method": "POST"}
    assert expected.items() <= told.items()
    assert (told["raw"].encode(), told["body"]["unknown"], told["tokens_sent"]) == (raw, 1.5, 11)
    assert ["authorization", "***"] in told["headers"]
    assert [value for name, value in told["headers"] if name == "x-twice"] == ["1", "2"]
    assert http.delete("/_sandbox/requests").status_code == 200
    assert sandbox.requests() == ()


def test_unknown_path_is_recorded_as_it_was_sent(http: httpx.Client, sandbox: SandboxServer) -> None:
    http.get("/v1/models/..%2f..%2fetc?key=secret")
    http.get("/nowhere")
    first, second = sandbox.finished(2)
    assert (first.path, first.query, second.wire) == ("/v1/models/..%2f..%2fetc", (("key", "***"),), "")


def test_waiting_says_what_was_seen_when_it_ends_in_vain(sandbox: SandboxServer) -> None:
    with pytest.raises(TimeoutError, match="the sandbox saw"):
        sandbox.finished(timeout_s=0.01)


def test_script_gives_each_request_its_behaviour(http: httpx.Client, sandbox: SandboxServer) -> None:
    script = {"behaviours": ["status=429; retry-after=2", {"status": 500}, ""]}
    assert http.post("/_sandbox/script", json=script).json() == {"added": 3}
    assert [chat(http, "status=418").status_code for _ in range(4)] == [429, 500, 200, 418]
    assert [seen.behaviour for seen in sandbox.finished(4)][:2] == ["status=429; retry-after=2", "status=500"]


def test_script_is_for_the_matching_requests_when_it_has_a_match(http: httpx.Client, sandbox: SandboxServer) -> None:
    sandbox.script("status=500", match={"model": "other"}, repeat=True)
    sandbox.script("status=503", match={"key": "sk-sandbox-b"})
    statuses = [
        chat(http).status_code,
        chat(http, model="other").status_code,
        chat(http, model="other").status_code,
        http.post("/v1/chat/completions", json=ASK, headers={"authorization": "Bearer sk-sandbox-b"}).status_code,
    ]
    assert statuses == [200, 500, 500, 503]
    http.delete("/_sandbox/script")
    assert chat(http, model="other").status_code == 200


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ({"behaviours": ["statsu=1"]}, "did you mean 'status'?"),
        ({"behaviors": []}, "did you mean 'behaviours'?"),
        ({"behaviours": []}, "at least one"),
        ({"behaviours": "status=500"}, "a script is"),
        ({"behaviours": [""], "match": {"modle": "m"}}, "did you mean 'model'?"),
    ],
)
def test_script_is_refused_when_it_cannot_be_read(script: object, complaint: str, http: httpx.Client) -> None:
    answer = http.post("/_sandbox/script", json=script)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]


def test_two_sandboxes_share_nothing(http: httpx.Client, sandbox: SandboxServer) -> None:
    with SandboxServer() as other:
        other.script("status=500", repeat=True)
        assert chat(http).status_code == 200
        assert (len(sandbox.finished()), other.requests()) == (1, ())


# ---- the server


def test_stop_waits_for_no_one(sandbox: SandboxServer) -> None:
    own = SandboxServer().start()
    with bare_request(own.url, "silence", ASK) as connection:
        own.wait_for(lambda seen: bool(seen))
        began = time.monotonic()
        own.stop()
        assert time.monotonic() - began < 3
        assert received(connection)[0] == b""
    with pytest.raises(httpx.ConnectError):
        httpx.get(own.url)


def test_start_is_refused_when_the_port_is_taken(sandbox: SandboxServer) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(SandboxError, match=f"cannot listen on 127.0.0.1:{port}"):
        SandboxServer(port=port).start()


RUN_SANDBOX = """
from gateway.sandbox.server import run_sandbox
run_sandbox("127.0.0.1", 0, on_ready=lambda url: print(url, flush=True))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_run_sandbox_prints_nothing_and_ends_when_signalled(sent: signal.Signals) -> None:
    command = [sys.executable, "-c", RUN_SANDBOX]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        url = run.stdout.readline().strip()
        assert httpx.get(url).json()["sandbox"] == "wardgate"
        run.send_signal(sent)
        assert run.wait(10) in (0, -sent)
        assert run.stdout.read() + run.stderr.read() == ""


def test_sandbox_imports_nothing_else_of_the_gateway() -> None:
    code = "import sys, gateway.sandbox.server; print(*(m for m in sys.modules if m.split('.')[0] in {ours}))"
    ours = {"gateway", "router", "keystore", "litellm", "openai", "fastapi", "sqlalchemy"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{ours}", repr(ours))], capture_output=True, text=True, check=True
    )
    assert {name for name in done.stdout.split() if not name.startswith("gateway.sandbox")} == {"gateway"}
