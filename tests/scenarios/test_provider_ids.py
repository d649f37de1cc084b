"""What a provider calls a request reaches the caller and the request's record: on every surface, plain, streamed and as
an error; and nothing else comes that way."""

from collections.abc import Iterator

import pytest

from tests.harness import eventually
from tests.raw_upstream import RawUpstream
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, OPENAI, Stage, named, stage
from tests.scenarios.test_wire import ANSWERS, CALLS, STREAMS

HEADER = "x-wardgate-provider-request-id"
OWN = "x-request-id: req_Own-1.2:3"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("gw")) as running:
        yield running


def plain(upstream: RawUpstream, body: bytes, line: str, status: str = "200 OK") -> None:
    upstream.plain(body, status, f"{line}\r\n" if line else "")


@pytest.mark.parametrize("name", ["x-request-id", "request-id"])
@pytest.mark.parametrize("path", ANSWERS)
def test_plain_answer_tells_it(scene: Stage, path: str, name: str) -> None:
    provider, content = ANSWERS[path]
    plain(scene.at[provider], content, f"{name}: req_Own-1.2:3")
    reply = scene.post(path, scene.token(), CALLS[path], {"origin": "https://app.example"})
    assert reply.status_code == 200 and reply.headers[HEADER] == "req_Own-1.2:3"
    assert reply.headers["x-request-id"] != "req_Own-1.2:3"
    assert HEADER in reply.headers["access-control-expose-headers"].split(", ")


@pytest.mark.parametrize("path", STREAMS)
def test_stream_tells_it(scene: Stage, path: str) -> None:
    provider, content = STREAMS[path]
    told.stream(scene.at[provider], content, f"content-type: text/event-stream\r\n{OWN}")
    reply = scene.post(path, scene.token(), {**CALLS[path], "stream": True})
    assert reply.status_code == 200 and reply.headers[HEADER] == "req_Own-1.2:3"


def test_translated_answers_and_streams_tell_it(scene: Stage) -> None:
    token, body = scene.token("anthropic"), {"model": CLAUDE, "messages": [{"role": "user", "content": "Hello"}]}
    plain(scene.at["anthropic"], told.MESSAGE_PLAIN, "request-id: req_A")
    assert scene.post(CHAT, token, body).headers[HEADER] == "req_A"
    events = named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA, *told.MESSAGE_ENDED)
    told.stream(scene.at["anthropic"], events, "content-type: text/event-stream\r\nrequest-id: req_B")
    for path in (CHAT, "/v1/completions"):
        asked = body if path == CHAT else {"model": CLAUDE, "prompt": "Hello"}
        assert scene.post(path, token, {**asked, "stream": True}).headers[HEADER] == "req_B"


def test_error_and_record_tell_it(scene: Stage) -> None:
    plain(scene.at["openai"], b'{"error": {"message": "no"}}', OWN, "400 Bad Request")
    token = scene.token("openai")
    reply = scene.post(CHAT, token, CALLS[CHAT])
    assert reply.status_code == 400 and reply.headers[HEADER] == "req_Own-1.2:3"
    where = f"/v1/requests/{reply.headers['x-wardgate-request-id']}"
    eventually(lambda: scene.gateway.get(where, token).status_code == 200)
    (attempt,) = scene.gateway.get(where, token).json()["attempts"]
    assert attempt["provider_request_id"] == "req_Own-1.2:3"


def test_it_is_the_last_attempts(scene: Stage) -> None:
    plain(scene.at["openai"], b'{"error": {"message": "down"}}', OWN, "500 Internal Server Error")
    plain(scene.at["groq"], told.CHAT_PLAIN, "")
    reply = scene.post(CHAT, scene.token("openai", "groq"), {**CALLS[CHAT], "models": [told.GROQ]})
    assert (reply.headers["x-wardgate-provider"], reply.headers.get(HEADER)) == ("groq", None)


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "é", "x" * 129, "Key-openai.0123456789", "id-key-OPENAI.0123456789-1", "sk-abcdefghijkl"],
)
def test_what_is_no_id_or_tells_a_key_is_not_passed_on(scene: Stage, value: str) -> None:
    plain(scene.at["openai"], told.CHAT_PLAIN, "")
    head, _, rest = scene.at["openai"].answer.partition(b"\r\n")
    scene.at["openai"].answer = head + b"\r\nx-request-id: " + value.encode("latin-1") + b"\r\n" + rest
    reply = scene.post(CHAT, scene.token("openai"), {**CALLS[CHAT], "model": OPENAI})
    assert reply.status_code == 200 and HEADER not in reply.headers
