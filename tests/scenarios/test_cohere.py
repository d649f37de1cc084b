"""Cohere's shipped row over real HTTP and with OpenAI's SDK, before an upstream that says what Cohere documents."""

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.harness import RunningGateway
from tests.raw_upstream import RawUpstream, raw_upstream

MODEL = "cohere/command-r-plus-08-2024"
HELLO = [{"role": "user", "content": "Hello"}]
USAGE = {"billed_units": {"input_tokens": 5, "output_tokens": 4}, "tokens": {"input_tokens": 9, "output_tokens": 4}}
PLAIN = {
    "id": "x",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
    "usage": USAGE,
}
EVENTS = [
    {"id": "x", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    host = upstream.url.removeprefix("http://")
    row = f'[providers.cohere]\nbase_url = "{upstream.url}/v2/chat"\nhosts = ["{host}"]\n'
    with RunningGateway(tmp_path_factory.mktemp("gw"), row) as running:
        yield running


@pytest.fixture(scope="module")
def token(gateway: RunningGateway) -> str:
    return gateway.tenant("acme", "team", {"COHERE_API_KEY": "Key-cohere.0123456789"})


def test_plain_answer_is_openais_and_is_charged(gateway: RunningGateway, token: str, upstream: RawUpstream) -> None:
    upstream.requests.clear()
    upstream.plain(json.dumps(PLAIN))
    with gateway.client(token) as client:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, temperature=0.5)  # type: ignore[arg-type]
    answer = raw.parse()
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hi", "stop")
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 4)
    assert Decimal(raw.headers["x-wardgate-cost-usd"]) == 9 * Decimal("2.5E-6") + 4 * Decimal("1E-5")
    (sent,) = upstream.requests
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/chat HTTP/1.1") and json.loads(body)["model"] == MODEL.split("/")[1]
    assert b"Authorization: Bearer Key-cohere.0123456789".lower() in head.lower()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_stream_is_told_on_every_surface(gateway: RunningGateway, token: str, upstream: RawUpstream, path: str) -> None:
    upstream.events(*(json.dumps(one) for one in EVENTS))
    asked = {"completions": {"prompt": "Hello"}, "responses": {"input": "Hello"}}.get(path.split("/")[2])
    said: dict[str, object] = {"messages": HELLO, "max_tokens": 9} if asked is None else {**asked}
    body = {"model": MODEL, "stream": True, **said}
    reply = gateway.post(path, token, body)
    assert reply.status_code == 200 and '"Hi"' in reply.text and "event: error" not in reply.text, reply.text
    assert reply.text.rstrip().endswith("[DONE]") is ("completions" in path)


def test_stream_without_its_end_is_no_answer(gateway: RunningGateway, token: str, upstream: RawUpstream) -> None:
    upstream.events(*(json.dumps(one) for one in EVENTS[:-1]))
    reply = gateway.post("/v1/chat/completions", token, {"model": MODEL, "stream": True, "messages": HELLO})
    assert "provider_stream_truncated" in reply.text and "[DONE]" not in reply.text


def test_what_its_wire_does_not_carry_is_refused_by_name(gateway: RunningGateway, token: str) -> None:
    body = {"model": MODEL, "messages": HELLO, "seed": 1}
    error = gateway.post("/v1/chat/completions", token, body).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "seed")
