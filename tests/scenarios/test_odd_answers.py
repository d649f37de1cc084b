"""Answers that real providers send and libraries stumble over: what came is passed on, what did not is not told."""

import json
import uuid
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.harness import SANDBOXED, RunningGateway, eventually, sandbox_config
from tests.raw_upstream import RawUpstream, raw_upstream

ASK = [{"role": "user", "content": "Hello"}]
MODEL = "minimax/MiniMax-M2"
LANES = (MODEL, "deepseek/deepseek-v3.2")  # straight, and by LiteLLM


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[RunningGateway]:
    host = upstream.url.removeprefix("http://")
    forced = f'base_url = "{upstream.url}/v1"\nhosts = ["{host}"]\nforwarding = "litellm"\n'
    providers = {name: path for name, path in SANDBOXED.items() if name != "deepseek"}
    config = sandbox_config(upstream.url, f"[providers.deepseek]\n{forced}", providers)
    with RunningGateway(tmp_path_factory.mktemp("gw"), config) as running:
        yield running


@pytest.fixture(scope="module")
def token(gateway: RunningGateway) -> str:
    keys = {"MINIMAX_API_KEY": "Zq7-plainLookingKey.0123456789", "OPENAI_API_KEY": "another.Key-without-shape-42"}
    keys |= {"ANTHROPIC_API_KEY": "third.Key-without-shape-4711", "DEEPSEEK_API_KEY": "fourth.Key-without-shape-12"}
    return gateway.tenant("acme", "team", keys)


@pytest.fixture
def tokens(gateway: RunningGateway) -> Iterator[str]:
    """Tokens of new tenants with a key each: what is rejected once is not sent again."""
    return (
        gateway.tenant(f"t-{uuid.uuid4().hex[:12]}", "team", {"MINIMAX_API_KEY": f"Key.{n}-0123456789"})
        for n in count()
    )


@pytest.fixture(autouse=True)
def fresh(upstream: RawUpstream) -> None:
    upstream.requests.clear()
    upstream.reset = False


def ask(gateway: RunningGateway, token: str, *, stream: bool, **more: object) -> httpx.Response:
    return gateway.post("/v1/chat/completions", token, {"model": MODEL, "messages": ASK, "stream": stream} | more)


def chunk(content: str | None = None, reason: str | None = None, index: int = 0, **more: object) -> str:
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    head = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 5, "model": "M2-exact"}
    return json.dumps(head | {"choices": [choice]} | more)


def datas(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
WHOLE = {
    "own fields": [chunk("a", reasoning_content="r", citations=["c"], native="x"), chunk(reason="stop"), "[DONE]"],
    "unknown reason": [chunk("a"), chunk(reason="insufficient_system_resource"), "[DONE]"],
    "two choices": [chunk("a"), chunk("b", index=1), chunk(reason="stop"), chunk(reason="length", index=1), "[DONE]"],
    "no end mark": [chunk("a"), chunk(reason="stop")],
    "no reason": [chunk("a"), "[DONE]"],
    "half an emoji": ['{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}', chunk(reason="stop"), "[DONE]"],
    "infinity": ['{"choices":[{"index":0,"delta":{},"logprobs":-Infinity}]}', chunk(reason="stop"), "[DONE]"],
    "1000 equal pieces": [*[chunk("----")] * 1000, chunk(reason="stop"), "[DONE]"],
    "refusal in pieces": [chunk("x", refusal="I"), chunk("y", refusal=" am"), chunk(reason="stop"), "[DONE]"],
}


@pytest.mark.parametrize("name", WHOLE)
def test_chunks_of_openais_wire_arrive_as_they_were_sent(
    gateway: RunningGateway, token: str, upstream: RawUpstream, name: str
) -> None:
    upstream.events(*WHOLE[name])
    more = {"n": 2} if name == "two choices" else {}
    assert ask(gateway, token, stream=True, **more).content == upstream.answer.partition(b"\r\n\r\n")[2]


BROKEN = {
    "an end mark that is only text": [chunk("data: [DONE]")],
    "an empty reason": [chunk("a", reason=""), chunk("b", reason="")],
    "one of two choices": [chunk("a"), chunk(reason="stop")],
    "nothing at all": [],
}


@pytest.mark.parametrize("name", BROKEN)
def test_end_that_did_not_come_is_not_told(
    gateway: RunningGateway, token: str, upstream: RawUpstream, name: str
) -> None:
    upstream.events(*BROKEN[name])
    answer = ask(gateway, token, stream=True, **({"n": 2} if "two" in name else {}))
    assert "[DONE]" not in datas(answer)
    last = datas(answer)[-1] if BROKEN[name] else answer.text
    assert json.loads(last)["error"]["code"] == "provider_stream_truncated"


BEGUN = "".join(f"data: {one}\n\n" for one in (chunk("a"), chunk(reason="stop"))).encode()
# What follows a whole answer without an end of its own -> what the caller gets of it.
UNENDED = {
    "half a chunk": (b'data: {"id":"chatcm', False),
    "half a chunk in two lines": (b'data: {"id":\ndata: 5,', False),
    "the end mark": (b"data: [DONE]\n", True),
    "a comment": (b": bye", True),
}


@pytest.mark.parametrize("model", LANES)
@pytest.mark.parametrize("name", UNENDED)
def test_event_that_was_cut_is_not_passed_on_and_not_silent(
    gateway: RunningGateway, token: str, upstream: RawUpstream, name: str, model: str
) -> None:
    upstream.events()
    rest, whole = UNENDED[name]
    upstream.answer += BEGUN + rest
    answer = ask(gateway, token, stream=True, model=model)
    if whole:
        assert answer.content == BEGUN + rest
    else:
        assert answer.content.startswith(BEGUN + b'data: {"error":') and rest not in answer.content


@pytest.mark.parametrize("model", LANES)
def test_usage_without_an_end_is_counted_and_an_error_without_one_is_told(
    gateway: RunningGateway, token: str, upstream: RawUpstream, model: str
) -> None:
    upstream.events()
    head = upstream.answer
    upstream.answer = head + BEGUN + f"data: {USAGE}\n".encode()
    assert ask(gateway, token, stream=True, model=model).content == BEGUN
    eventually(lambda: gateway.logs.records("request.completed")[-1].get("output_tokens") == 2)
    upstream.answer = head + BEGUN + b'data: {"error": {"message": "Overloaded", "type": "overloaded_error"}}'
    assert json.loads(datas(ask(gateway, token, stream=True, model=model))[-1])["error"]["code"] == "provider_error"


@pytest.mark.parametrize("model", LANES)
def test_stream_of_nothing_but_its_end_is_answered_by_nobody(
    gateway: RunningGateway, token: str, upstream: RawUpstream, model: str
) -> None:
    upstream.events("[DONE]")
    answer = ask(gateway, token, stream=True, model=model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_stream_truncated")


def test_reset_after_the_finish_is_still_a_broken_stream(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.events(chunk("a"), chunk(reason="stop"))
    upstream.answer = upstream.answer.replace(b"connection: close\r\n", b"content-length: 100000\r\n")
    answer = ask(gateway, token, stream=True)
    assert json.loads(datas(answer)[-1])["error"]["code"] in ("provider_stream_truncated", "provider_malformed_answer")


ERRORS: dict[str, tuple[dict[str, object], int, str]] = {
    "rate": ({"message": "Rate limit exceeded", "code": 429}, 429, "rate_limit_exceeded"),
    "Google's word": ({"message": "m", "status": "RESOURCE_EXHAUSTED"}, 429, "rate_limit_exceeded"),
    "quota": ({"message": "no", "code": "insufficient_quota"}, 429, "insufficient_quota"),
    "key": ({"message": "bad", "code": 401}, 424, "provider_key_rejected"),
    "overloaded": ({"message": "Overloaded", "type": "overloaded_error"}, 502, "provider_error"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_inside_a_success_keeps_its_kind_and_words(
    gateway: RunningGateway, tokens: Iterator[str], upstream: RawUpstream, name: str
) -> None:
    error, status, code = ERRORS[name]
    upstream.events(json.dumps({"error": error}))
    first = ask(gateway, next(tokens), stream=True)
    assert (first.status_code, first.json()["error"]["code"]) == (status, code)
    assert str(error["message"]) in first.json()["error"]["message"]
    upstream.events(chunk("a"), json.dumps({"error": error}))
    later = ask(
        gateway, next(tokens), stream=True
    )  # with a status of its own when the error was read before the first byte
    told = json.loads(datas(later)[-1]) if later.status_code == 200 else later.json()
    assert told["error"]["code"] == code and "[DONE]" not in later.text
    upstream.plain(json.dumps({"error": error}))
    plain = ask(gateway, next(tokens), stream=False)
    assert (plain.status_code, plain.json()["error"]["code"]) == (status, code)


def test_plain_answer_where_a_stream_was_asked_for_is_no_empty_stream(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.plain('{"choices": [{"index": 0, "message": {"content": "lost?"}, "finish_reason": "stop"}]}')
    answer = ask(gateway, token, stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_malformed_answer")


PLAIN = [
    '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"<think>t</think>a"},"finish_reason":"eos"}],'
    '"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"cost":0.1},"citations":["c"],"created":1}',
    '{"choices":[{"message":{"content":"\\ud83d"},"finish_reason":null}],"created":99999999999999999999,"extra":{"a":[]}}',
    '{"choices":[{"index":0,"message":{"content":[{"type":"thinking","thinking":"t"}]},"finish_reason":"stop"}]}',
]


@pytest.mark.parametrize("body", PLAIN)
def test_plain_answer_of_openais_wire_arrives_byte_for_byte(
    gateway: RunningGateway, token: str, upstream: RawUpstream, body: str
) -> None:
    upstream.plain(body)
    answer = ask(gateway, token, stream=False)
    assert (answer.status_code, answer.content) == (200, body.encode())
    assert len(upstream.requests) == 1


def test_usage_is_passed_on_only_when_asked_for(gateway: RunningGateway, token: str, upstream: RawUpstream) -> None:
    sent = [chunk("a", usage=None), chunk(reason="stop", usage=None), USAGE, "[DONE]"]
    before = gateway.settled("wardgate_tokens_total", provider="minimax")
    upstream.events(*sent)
    asked = datas(ask(gateway, token, stream=True, stream_options={"include_usage": True}))
    assert asked == sent
    assert datas(ask(gateway, token, stream=True)) == [*sent[:2], "[DONE]"]
    assert gateway.settled("wardgate_tokens_total", provider="minimax") == before + 10


def test_field_and_wait_that_the_provider_names_reach_the_caller(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.plain(
        '{"error": {"message": "bad value", "param": "temperature", "code": "unsupported"}}', "400 Bad Request"
    )
    assert ask(gateway, token, stream=False).json()["error"]["param"] == "temperature"
    upstream.plain("{}", "503 Service Unavailable", "retry-after: 2\r\n")
    answer = ask(gateway, token, stream=False)
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-should-retry"]) == (502, "2", "true")


@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Oops", "400 Bad Request"])
def test_key_that_a_provider_echoes_reaches_nobody(gateway: RunningGateway, upstream: RawUpstream, status: str) -> None:
    token = gateway.tenant(f"echo-{status[:3]}", "team", {"MINIMAX_API_KEY": "Zq7-plainLookingKey.0123456789"})
    upstream.plain('{"error": {"message": "you sent Zq7-plainLookingKey.0123456789, really"}}', status)
    answer = ask(gateway, token, stream=False)
    assert "you sent" in answer.text and "plainLooking" not in answer.text
    upstream.plain('{"error": {"message": "no", "param": "Zq7-plainLookingKey.0123456789"}}', status)
    assert ask(gateway, token, stream=False).json()["error"]["param"] is None
    assert "plainLooking" not in gateway.logs.getvalue()


def test_cookies_of_a_provider_are_neither_kept_nor_sent(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    good = '{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    upstream.plain(good, headers="set-cookie: session=tenant-a; path=/\r\n")
    assert "set-cookie" not in ask(gateway, token, stream=False).headers
    upstream.plain(good)
    ask(gateway, token, stream=False)
    assert len(upstream.requests) == 2 and b"cookie" not in upstream.requests[1].lower()


def test_compressed_answer_is_refused_because_it_was_ruled_out(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.plain(b"\x1f\x8b\x08\x00", headers="content-encoding: gzip\r\n")
    answer = ask(gateway, token, stream=False)
    assert (answer.status_code, answer.json()["error"]["fault"]) == (502, "provider")
    assert b"accept-encoding: identity" in upstream.requests[0].lower()


def test_redirect_is_not_followed(gateway: RunningGateway, token: str, upstream: RawUpstream) -> None:
    for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
        upstream.requests.clear()
        upstream.plain("{}", status, f"location: {upstream.url}/elsewhere\r\n")
        answer = ask(gateway, token, stream=False)
        assert (answer.status_code, len(upstream.requests)) == (502, 1)


@pytest.mark.parametrize("stream", [True, False])
def test_error_object_without_an_envelope_is_an_error(
    gateway: RunningGateway, token: str, upstream: RawUpstream, stream: bool
) -> None:
    upstream.events('{"object": "error", "message": "no", "code": 400}', "[DONE]")
    if not stream:
        upstream.plain('{"object": "error", "message": "no", "code": 400}')
    answer = ask(gateway, token, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "provider_rejected_request")


def test_event_named_error_is_an_error(gateway: RunningGateway, token: str, upstream: RawUpstream) -> None:
    upstream.events("[DONE]")
    upstream.answer = upstream.answer.replace(
        b"data: [DONE]", b'event: error\ndata: {"message":"Overloaded","code":529}'
    )
    answer = ask(gateway, token, stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")


@pytest.mark.parametrize("kind", ["Text/Event-Stream; charset=utf-8", "text/plain", "application/octet-stream"])
def test_stream_under_another_name_is_a_stream(
    gateway: RunningGateway, token: str, upstream: RawUpstream, kind: str
) -> None:
    sent = [chunk("a"), chunk(reason="stop"), "[DONE]"]
    upstream.events(*sent, content_type=kind)
    assert datas(ask(gateway, token, stream=True)) == sent


def anthropic_event(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind} | fields, ensure_ascii=True)


def anthropic_answer(*texts: str) -> list[str]:
    start: dict[str, object] = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 1}
    return [
        anthropic_event("message_start", message=start | {"usage": usage, "stop_reason": None}),
        anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *[anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": t}) for t in texts],
        anthropic_event("content_block_stop", index=0),
        anthropic_event("message_delta", delta={"stop_reason": "pause_turn"}, usage={"output_tokens": 2}),
        anthropic_event("message_stop"),
    ]


CLAUDE = {"model": "anthropic/claude-haiku-4-5"}


def test_translated_stream_keeps_odd_text_and_the_providers_reason(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.events(*anthropic_answer("hi ", "\ud83d", "\ude00"))
    lines = datas(ask(gateway, token, stream=True, **CLAUDE))
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text.startswith("hi ") and "\ud83d" in text
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["pause_turn"]


def test_translated_stream_answered_with_plain_json_is_no_empty_stream(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn"}
    content = {"content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
    upstream.plain(json.dumps(body | content))
    answer = ask(gateway, token, stream=True, **CLAUDE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_malformed_answer")
    assert ask(gateway, token, stream=False, **CLAUDE).json()["choices"][0]["message"]["content"] == "hello"


def test_every_choice_of_a_translated_stream_is_told_its_end(
    gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream
) -> None:
    token = gateway.tenant("globex", "team", {"GOOGLE_API_KEY": "fourth.Key-without-shape-9"})

    def candidate(index: int, text: str, reason: str | None = None) -> dict[str, object]:
        ended = {"finishReason": reason} if reason else {}
        return {"index": index, "content": {"parts": [{"text": text}], "role": "model"}} | ended

    usage = {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}}
    first = {"candidates": [candidate(0, "a"), candidate(1, "b")]}
    last = {"candidates": [candidate(0, "c", "STOP"), candidate(1, "d", "MAX_TOKENS")]} | usage
    upstream.events(json.dumps(first), json.dumps(last))
    lines = datas(ask(gateway, token, stream=True, model="google/gemini-2.5-flash", n=2))
    assert lines[-1] == "[DONE]"
    choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
    ends = {choice["index"]: choice["finish_reason"] for choice in choices if choice["finish_reason"]}
    assert ends == {0: "stop", 1: "length"}


def test_failure_that_was_sent_is_told_and_not_that_another_wire_could_not_carry_the_request(
    gateway: RunningGateway, token: str, upstream: RawUpstream
) -> None:
    upstream.plain('{"error": {"message": "down"}}', "500 Oops")
    answer = ask(gateway, token, stream=False, model="auto", logit_bias={"1": 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "provider_error")
    assert {attempt["error"] for attempt in error["attempts"]} == {"server_error"}
