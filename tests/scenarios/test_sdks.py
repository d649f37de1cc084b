"""The SDKs of OpenAI and Anthropic on every surface: what people's programs see. More clients: `make clients`."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, eventually, sandbox_config

KEYS = {f"{name}_API_KEY": f"sk-sandbox-{name.lower()}" for name in ("MINIMAX", "ANTHROPIC", "OPENAI")}
OPENAI_WIRE, ANTHROPIC_WIRE = "minimax/MiniMax-M2", "anthropic/claude-haiku-4-5"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MODELS = pytest.mark.parametrize("model", [OPENAI_WIRE, ANTHROPIC_WIRE])


class City(BaseModel):
    city: str


@dataclass(frozen=True)
class Sdks:
    """Both SDKs of one tenant, without retries unless `retries` asks for them; `stack` closes them in the end."""

    url: str
    token: str
    stack: ExitStack

    def openai(self, retries: int = 0, token: str | None = None) -> openai.OpenAI:
        sdk = openai.OpenAI(base_url=f"{self.url}/v1", api_key=token or self.token, max_retries=retries)
        return self.stack.enter_context(sdk)

    def anthropic(self, retries: int = 0, token: str | None = None) -> anthropic.Anthropic:
        sdk = anthropic.Anthropic(base_url=self.url, auth_token=token or self.token, max_retries=retries)
        return self.stack.enter_context(sdk)


@pytest.fixture(scope="module")
def sdks(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[Sdks]:
    config = sandbox_config(running_sandbox.url)
    with RunningGateway(tmp_path_factory.mktemp("sdks"), config) as gateway, ExitStack() as stack:
        yield Sdks(gateway.url, gateway.tenant("sdks", "team", KEYS), stack)


@pytest.fixture(autouse=True)
def fresh(sandbox: SandboxServer) -> None:
    """Nothing recorded and nothing scripted."""


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def chat(sdks: Sdks, model: str, text: str, **more: Any) -> str:
    answer = sdks.openai(**more).chat.completions.create(model=model, messages=user(text))
    return answer.choices[0].message.content or ""


def response(sdks: Sdks, model: str, text: str, **more: Any) -> str:
    return sdks.openai(**more).responses.create(model=model, input=text, store=False).output_text


def message(sdks: Sdks, model: str, text: str, **more: Any) -> str:
    (block,) = sdks.anthropic(**more).messages.create(model=model, max_tokens=300, messages=user(text)).content
    assert block.type == "text"
    return block.text


def chat_pieces(sdks: Sdks, model: str, text: str) -> Iterator[str]:
    with sdks.openai().chat.completions.create(model=model, messages=user(text), stream=True) as chunks:
        for chunk in chunks:
            if piece := chunk.choices[0].delta.content:
                yield piece


def response_pieces(sdks: Sdks, model: str, text: str) -> Iterator[str]:
    with sdks.openai().responses.create(model=model, input=text, store=False, stream=True) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta


def message_pieces(sdks: Sdks, model: str, text: str) -> Iterator[str]:
    with sdks.anthropic().messages.stream(model=model, max_tokens=300, messages=user(text)) as events:
        yield from events.text_stream


Ask = Callable[..., str]
Pieces = Callable[[Sdks, str, str], Iterator[str]]
ASKS: dict[str, Ask] = {"chat": chat, "responses": response, "messages": message}
STREAMS: dict[str, Pieces] = {"chat": chat_pieces, "responses": response_pieces, "messages": message_pieces}
SURFACES = pytest.mark.parametrize("surface", ASKS)


def spoken(model: str, text: str = "Say hello.") -> str:
    wire = "anthropic" if model == ANTHROPIC_WIRE else "openai"
    return f"This is {model.split('/')[1]} on the sandbox's {wire} wire. You said: {text}"


@SURFACES
@MODELS
def test_answer_plain_and_streamed(sdks: Sdks, surface: str, model: str) -> None:
    assert ASKS[surface](sdks, model, "Say hello.") == spoken(model)
    pieces = list(STREAMS[surface](sdks, model, "Say hello."))
    assert "".join(pieces) == spoken(model) and len(pieces) == 12


@SURFACES
def test_stream_works_when_the_first_token_is_slow(sdks: Sdks, surface: str) -> None:
    said = STREAMS[surface](sdks, OPENAI_WIRE, "[sandbox: delay=0.7] Say hello.")
    assert "".join(said) == spoken(OPENAI_WIRE)


@SURFACES
@MODELS
@pytest.mark.parametrize("order", ["cut-after=3; cut=rst", "cut-after=3; cut=fin", "malformed-after=3"])
def test_broken_stream_raises_after_what_was_said(sdks: Sdks, surface: str, model: str, order: str) -> None:
    pieces = []
    with pytest.raises((openai.APIError, anthropic.APIError), match=r"broke off|cannot be used"):
        for piece in STREAMS[surface](sdks, model, f"[sandbox: {order}]"):
            pieces.append(piece)
    assert "".join(pieces) == " ".join(spoken(model).split()[:3])


@SURFACES
@MODELS
def test_provider_is_left_when_the_stream_is_closed(
    sdks: Sdks, sandbox: SandboxServer, surface: str, model: str
) -> None:
    pieces = STREAMS[surface](sdks, model, "[sandbox: gap=0.05; tokens=500]")
    assert [next(pieces), next(pieces)]
    pieces.close()  # type: ignore[attr-defined]
    eventually(lambda: sandbox.requests()[0].client_left, timeout_s=1)


ERRORS = {
    "a wrong token": (OPENAI_WIRE, "Hi", "AuthenticationError", "invalid_api_key"),
    "no key": ("google/gemini-2.5-flash", "Hi", "PermissionDeniedError", "provider_key_missing"),
    "no such model": ("minimax/NoSuchModel", "Hi", "NotFoundError", "model_not_found"),
    "a bad request": (OPENAI_WIRE, "[sandbox: status=400]", "BadRequestError", "provider_rejected_request"),
    "a rate limit": (OPENAI_WIRE, "[sandbox: status=429; retry-after=9]", "RateLimitError", "rate_limit_exceeded"),
    "a failure": (OPENAI_WIRE, "[sandbox: status=500]", "InternalServerError", "provider_error"),
    "an overload": (OPENAI_WIRE, "[sandbox: status=503]", "InternalServerError", "provider_error"),
}


@SURFACES
@pytest.mark.parametrize("case", ERRORS)
def test_error_has_its_class_code_and_request_id(sdks: Sdks, surface: str, case: str) -> None:
    model, text, name, code = ERRORS[case]
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        ASKS[surface](sdks, model, text, token="wg_live_none" if case == "a wrong token" else None)
    error: Any = caught.value
    assert type(error).__name__ == name
    assert error.body.get("error", error.body)["code"] == code
    assert str(error.request_id).startswith("req_")
    assert error.response.headers.get("retry-after") == ("9" if case == "a rate limit" else None)


@SURFACES
@pytest.mark.parametrize(("order", "asked"), [("status=429; retry-after=90", 1), ("status=500", 2)])
def test_sdk_tries_again_only_where_the_gateway_says_that_it_can_help(
    sdks: Sdks, sandbox: SandboxServer, surface: str, order: str, asked: int
) -> None:
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        ASKS[surface](sdks, OPENAI_WIRE, f"[sandbox: {order}]", retries=1)
    assert len(sandbox.requests()) == asked


@MODELS
def test_tool_is_called_and_its_result_read_on_chat(sdks: Sdks, model: str) -> None:
    tool: Any = {"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}
    said = user("Use lookup.")
    first = sdks.openai().chat.completions.create(model=model, messages=said, tools=[tool]).choices[0].message
    assert first.tool_calls is not None
    (call,) = first.tool_calls
    assert call.type == "function" and json.loads(call.function.arguments) == {"city": "text"}
    said += [first, {"role": "tool", "tool_call_id": call.id, "content": "Tromsø"}]
    last = sdks.openai().chat.completions.create(model=model, messages=said, tools=[tool])
    assert last.choices[0].finish_reason == "stop" and last.choices[0].message.content


@MODELS
def test_tool_is_called_and_its_result_read_on_responses(sdks: Sdks, model: str) -> None:
    tool: Any = {"type": "function", "name": "lookup", "parameters": SCHEMA, "strict": False}
    said = user("Use lookup.")
    first = sdks.openai().responses.create(model=model, input=said, tools=[tool], store=False)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "text"}
    said += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Tromsø"}]
    assert sdks.openai().responses.create(model=model, input=said, tools=[tool], store=False).output_text


@MODELS
def test_tool_is_called_and_its_result_read_on_messages(sdks: Sdks, model: str) -> None:
    asked: Any = {"model": model, "max_tokens": 300, "tools": [{"name": "lookup", "input_schema": SCHEMA}]}
    said = user("Use lookup.")
    with sdks.anthropic().messages.stream(**asked, messages=said) as events:
        first = events.get_final_message()
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert (call.name, call.input, first.stop_reason) == ("lookup", {"city": "text"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Tromsø"}
    said += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    assert sdks.anthropic().messages.create(**asked, messages=said).stop_reason == "end_turn"


@MODELS
def test_object_is_parsed(sdks: Sdks, model: str) -> None:
    parsed = sdks.openai().chat.completions.parse(model=model, messages=user("Hi"), response_format=City)
    assert parsed.choices[0].message.parsed == City(city="text")
    said = sdks.openai().responses.parse(model=model, input="Hi", text_format=City, store=False)
    assert said.output_parsed == City(city="text")


@MODELS
def test_usage_is_told_where_it_is_asked_for(sdks: Sdks, model: str) -> None:
    asked: Any = {"model": model, "messages": user("Say hello."), "stream": True}
    chunks = list(sdks.openai().chat.completions.create(**asked, stream_options={"include_usage": True}))
    counted = [chunk.usage for chunk in chunks if chunk.usage]
    assert [(usage.prompt_tokens, usage.completion_tokens) for usage in counted] == [(2, 12)]
    assert not any(chunk.usage for chunk in sdks.openai().chat.completions.create(**asked))
    with sdks.anthropic().messages.stream(model=model, max_tokens=300, messages=user("Say hello.")) as events:
        usage = events.get_final_message().usage
    assert (usage.input_tokens, usage.output_tokens) == (2, 12)


@MODELS
def test_tokens_of_messages_are_counted(sdks: Sdks, model: str) -> None:
    raw = sdks.anthropic().messages.with_raw_response.count_tokens(model=model, messages=user("Say hello."))
    assert raw.parse().input_tokens >= 1
    assert raw.headers.get("x-wardgate-estimated") == ("input_tokens" if model == OPENAI_WIRE else None)


def test_anthropic_sdk_may_send_the_token_in_either_header(sdks: Sdks) -> None:
    with anthropic.Anthropic(base_url=sdks.url, api_key=sdks.token, max_retries=0) as by_key:
        assert OPENAI_WIRE in [model.id for model in by_key.models.list()]
    bare = {"x-api-key": sdks.token, "Authorization": anthropic.Omit()}
    said = sdks.anthropic().messages.create(
        model=OPENAI_WIRE,
        max_tokens=9,
        messages=user("Hi"),
        extra_headers=bare,  # type: ignore[arg-type]
    )
    assert said.role == "assistant"


def test_embeddings_are_the_same_in_both_encodings(sdks: Sdks) -> None:
    asked: Any = {"model": "openai/text-embedding-3-small", "input": ["one", "two words"]}
    packed = sdks.openai().embeddings.create(**asked)
    plain = sdks.openai().embeddings.create(**asked, encoding_format="float")
    assert [one.embedding for one in packed.data] == [one.embedding for one in plain.data]
    assert packed.usage.prompt_tokens == 3
