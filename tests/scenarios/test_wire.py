"""What SDKs trip over at gateways, on every path and surface, by port. docs/wire.md says which line is held where."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, MutableMapping
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.attempts import OpenStream
from gateway.chat_reader import ChatReader, error_event
from gateway.edge import EXPOSED
from gateway.errors import TYPE_OF_STATUS, Problem
from gateway.relay import relay_stream
from gateway.seen import Seen
from gateway.surface import CHAT, MESSAGES, RESPONSES
from gateway.surfaces.messages_problem import TYPE_OF_STATUS as ANTHROPIC_TYPES
from gateway.tally import Tally
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, EMBEDDING, OPENAI, Stage, chunks, named

HELLO = [{"role": "user", "content": "Hello"}]
CALLS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": OPENAI, "messages": HELLO},
    "/v1/completions": {"model": OPENAI, "prompt": "a"},
    "/v1/embeddings": {"model": EMBEDDING, "input": "a"},
    "/v1/responses": {"model": OPENAI, "input": "a"},
    "/v1/messages": {"model": CLAUDE, "messages": HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": CLAUDE, "messages": HELLO},
    "/v1/route": {"model": OPENAI, "messages": HELLO},
}
ANSWERS = {
    "/v1/chat/completions": ("openai", told.CHAT_PLAIN),
    "/v1/completions": ("openai", told.COMPLETION_PLAIN),
    "/v1/embeddings": ("openai", told.EMBEDDINGS_PLAIN),
    "/v1/responses": ("openai", told.RESPONSE_PLAIN),
    "/v1/messages": ("anthropic", told.MESSAGE_PLAIN),
    "/v1/messages/count_tokens": ("anthropic", b'{"input_tokens": 3}'),
}
STREAMS = {
    "/v1/chat/completions": ("openai", chunks(told.CHUNK, told.CHUNK_END)),
    "/v1/completions": ("openai", chunks(told.TEXT_CHUNK, told.TEXT_END)),
    "/v1/responses": ("openai", named(*told.RESPONSE_BEGUN, told.RESPONSE_DELTA, told.RESPONSE_ENDED)),
    "/v1/messages": ("anthropic", named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA, *told.MESSAGE_ENDED)),
}
TABLES = "[limits]\nmax_body_bytes = 3000000\n"
NOT_SERVED = ("/v1/audio/transcriptions", "/v1/images/edits", "/v1/files", "/v1/batches", "/v1/messages/batches", "/x")


def checked(answer: httpx.Response, status: int, path: str) -> dict[str, Any]:
    """The error object of an answer that is an error in the shape of its path."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] and answer.headers["x-should-retry"] in ("true", "false")
    body = answer.json()
    error: dict[str, Any] = body["error"]
    is_messages = path.strip("/").removeprefix("v1/").split("/")[0] == "messages"
    if is_messages:
        assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
        assert error["type"] in ANTHROPIC_TYPES.values()
        assert body["request_id"] == answer.headers["x-wardgate-request-id"] and answer.headers["request-id"]
    else:
        assert set(body) == {"error"} and error["type"] in {*TYPE_OF_STATUS.values(), "insufficient_quota"}
    assert isinstance(error["message"], str) and len(error["message"]) > 20
    assert isinstance(error["code"], str) and not error["code"].isdigit() and " " not in error["code"]
    assert error["param"] is None or (isinstance(error["param"], str) and error["param"] != "None")
    return error


# --- 5.1 errors -----------------------------------------------------------------------------------------------------

WRONG = {
    "no JSON": (b'{"model": ', 400, "invalid_json"),
    "no object": (b"[]", 400, "invalid_json"),
    "empty": (b"", 400, "invalid_json"),
    "no model": (b"{}", 400, "invalid_request"),
    "too large": (b" " * 3_000_001, 413, "request_too_large"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("path", CALLS)
def test_malformed_body_is_told_in_the_shape_of_its_path(scene: Stage, token: str, path: str, name: str) -> None:
    body, status, code = WRONG[name]
    assert checked(scene.post(path, token, body), status, path)["code"] == code
    assert not scene.asked()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", CALLS)
def test_other_method_is_405_in_the_shape_of_its_path(scene: Stage, path: str, method: str) -> None:
    answer = scene.client.request(method, scene.gateway.url + path)
    assert checked(answer, 405, path)["code"] == "method_not_allowed" and answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", NOT_SERVED)
def test_what_is_not_served_is_404_in_the_shape_of_its_path_also_for_multipart(
    scene: Stage, token: str, path: str
) -> None:
    files: Any = {"file": ("a.wav", b"RIFF" * 1000, "audio/wav"), "model": (None, "whisper-1")}
    headers = {"authorization": f"Bearer {token}"}
    answer = scene.client.post(scene.gateway.url + path, files=files, headers=headers)
    assert checked(answer, 404, path)["code"] == "unknown_path"


@pytest.mark.parametrize("path", CALLS)
def test_multipart_body_on_a_served_path_is_no_json(scene: Stage, token: str, path: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    answer = scene.client.post(scene.gateway.url + path, files={"file": b"x"}, headers=headers)
    assert checked(answer, 400, path)["code"] == "invalid_json"


@pytest.mark.parametrize("path", [*CALLS, "/v1/models", "/v1/models/x/y", "/v1/requests/x"])
def test_token_that_is_missing_or_wrong_is_401_in_the_shape_of_its_path(scene: Stage, path: str) -> None:
    method = "POST" if path in CALLS else "GET"
    for headers, code in (({}, "missing_api_key"), ({"x-api-key": "wg_live_nope"}, "invalid_api_key")):
        answer = scene.client.request(method, scene.gateway.url + path, headers=headers, content=b"{}")
        assert checked(answer, 401, path)["code"] == code


@pytest.mark.parametrize("path", CALLS)
def test_unknown_model_is_404_and_names_the_field(scene: Stage, token: str, path: str) -> None:
    error = (
        checked(scene.post(path, token, CALLS[path] | {"model": "no-such"}), 404, path) if path != "/v1/route" else {}
    )
    assert not error or (error["code"], error["param"]) == ("model_not_found", "model")


def test_statuses_are_those_that_the_sdks_have_classes_for() -> None:
    """408, 413, 415 and 431 tell of the connection; 424 is the tenant's key, told by `code` (adr/0003)."""
    classes = {400, 401, 403, 404, 405, 409, 429} | {status for status in TYPE_OF_STATUS if status >= 500}
    assert set(TYPE_OF_STATUS) - classes == {408, 413, 415, 424, 431}
    assert set(TYPE_OF_STATUS) == set(ANTHROPIC_TYPES)


CLASSES = {
    "400 Bad Request": openai.BadRequestError,
    "404 Not Found": openai.NotFoundError,
    "429 Too Many Requests": openai.RateLimitError,
    "500 Internal Server Error": openai.InternalServerError,
}


@pytest.mark.parametrize("status", CLASSES)
def test_sdk_raises_the_class_of_the_status_with_id_code_and_param(scene: Stage, status: str) -> None:
    scene.at["openai"].plain('{"error": {"message": "no", "param": "x", "code": 7}}', status)
    with scene.gateway.client(scene.token("openai")) as client, pytest.raises(CLASSES[status]) as raised:
        client.embeddings.create(model=EMBEDDING, input="a")
    assert raised.value.request_id and isinstance(raised.value.code, str) and not raised.value.code.isdigit()


# --- 5.2 retries and time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wait", "may"), [("5", "true"), ("60", "true"), ("61", "false"), ("130", "false")])
@pytest.mark.parametrize("path", STREAMS)
def test_wait_beyond_a_minute_forbids_the_sdks_own_retry(scene: Stage, path: str, wait: str, may: str) -> None:
    provider = STREAMS[path][0]
    scene.at[provider].plain('{"error": {"message": "slow"}}', "429 Too Many Requests", f"retry-after: {wait}\r\n")
    answer = scene.post(path, scene.token(provider), CALLS[path])
    checked(answer, 429, path)
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == (wait, may)


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("spelling", ["{}", "{}/", "-{}", "-{}/"])
def test_every_spelling_of_a_path_is_served_and_none_redirects(
    scene: Stage, token: str, path: str, spelling: str
) -> None:
    provider, content = ANSWERS[path]
    scene.at[provider].plain(content)
    spelt = spelling.format(path).replace("-/v1", "")
    assert scene.post(spelt, token, CALLS[path]).status_code == 200


# --- 5.3 headers ----------------------------------------------------------------------------------------------------

EVERYWHERE = {
    "a call": ("POST", "/v1/chat/completions"),
    "models": ("GET", "/v1/models"),
    "nothing": ("GET", "/nothing"),
    "a method": ("PUT", "/v1/models"),
    "health": ("GET", "/livez"),
    "readiness": ("GET", "/readyz"),
    "root": ("HEAD", "/"),
    "keys": ("GET", "/v1/keys"),
    "admin": ("GET", "/admin/tenants"),
}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_request_id_is_on_every_answer(scene: Stage, name: str) -> None:
    method, path = EVERYWHERE[name]
    answer = scene.client.request(method, scene.gateway.url + path, headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7" and answer.headers["x-wardgate-request-id"].startswith("req_")
    assert not 300 <= answer.status_code < 400


def test_root_is_a_cheap_200_for_heads(scene: Stage) -> None:
    answer = scene.client.head(scene.gateway.url + "/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", STREAMS)
def test_stream_says_what_it_is_to_proxies_and_clients(scene: Stage, token: str, path: str) -> None:
    provider, content = STREAMS[path]
    told.stream(scene.at[provider], content)
    headers = {"origin": "https://app.example", "accept-encoding": "gzip, br"}
    answer = scene.post(path, token, CALLS[path] | {"stream": True}, headers)
    assert answer.content == content
    kept = ("content-type", "cache-control", "x-accel-buffering", "content-encoding", "access-control-expose-headers")
    assert [answer.headers.get(name) for name in kept] == [
        "text/event-stream; charset=utf-8",
        "no-cache",
        "no",
        None,
        EXPOSED,
    ]
    assert (
        answer.headers["x-request-id"] and answer.headers["x-wardgate-model"] == str(CALLS[path]["model"]).split("/")[1]
    )


def test_every_header_of_ours_is_exposed_to_browsers(scene: Stage, token: str) -> None:
    exposed = set(EXPOSED.split(", "))
    seen: set[str] = set()
    for path, (provider, content) in ANSWERS.items():
        scene.at[provider].plain(content)
        seen |= set(scene.post(path, token, CALLS[path], {"origin": "https://app.example"}).headers)
    seen |= set(scene.post("/v1/messages/count_tokens", scene.token("minimax"), CALLS_MINIMAX).headers)
    ours = {name for name in seen if name.startswith(("x-", "openai-")) or name == "request-id"} - {"x-accel-buffering"}
    assert ours <= exposed, ours - exposed
    assert "access-control-expose-headers" not in scene.client.head(scene.gateway.url + "/").headers


CALLS_MINIMAX = {"model": told.MINIMAX, "messages": HELLO}


@pytest.mark.parametrize("path", ANSWERS)
def test_openais_own_headers_are_there_where_its_sdk_reads_them(scene: Stage, token: str, path: str) -> None:
    provider, content = ANSWERS[path]
    scene.at[provider].plain(content)
    answer = scene.post(path, token, CALLS[path])
    if "messages" in path:
        assert "openai-version" not in answer.headers and answer.headers["request-id"] == answer.headers["x-request-id"]
    else:
        assert answer.headers["openai-version"] == "2020-10-01" and int(answer.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key"])
@pytest.mark.parametrize("path", ANSWERS)
def test_token_is_read_from_every_header_on_every_surface(scene: Stage, token: str, path: str, name: str) -> None:
    provider, content = ANSWERS[path]
    scene.at[provider].plain(content)
    headers = {name: f"Bearer {token}" if name == "authorization" else token}
    answer = scene.client.post(scene.gateway.url + path, json=CALLS[path], headers=headers)
    assert answer.status_code == 200 and token not in scene.at[provider].requests[0].decode("latin-1")


# --- 5.4 streams ----------------------------------------------------------------------------------------------------


@example(texts=[], cuts=[1], windows=True)
@given(st.lists(st.text(max_size=8), max_size=6), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_event_goes_out_whole_however_the_bytes_come(texts: list[str], cuts: list[int], windows: bool) -> None:
    said = [{"object": "c", "choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    end = b"\r\n\r\n" if windows else b"\n\n"
    events = [b"data: " + json.dumps(one, ensure_ascii=False).encode() + end for one in said] + [b"data: [DONE]" + end]
    whole = b"".join(events)
    reader = ChatReader(Seen(), keep_usage=False)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    pieces = [reader.feed(whole[a:b]) for a, b in pairwise(places)]
    assert b"".join(pieces) + reader.rest() == whole
    for piece in pieces:
        piece.decode("utf-8")
        assert piece == b"" or piece.endswith((b"\n\n", b"\r\n\r\n", b"\r\n\r"))


class _Reply:
    usage = None
    produced = 0
    reasoned = False
    request_id = None

    def __init__(self, pieces: list[bytes], silence_s: float = 0.0) -> None:
        self._pieces, self._silence_s = pieces, silence_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(self._silence_s)
            yield piece

    def broke(self, problem: Problem) -> bytes:
        return error_event(problem)

    async def aclose(self) -> None:
        return None


async def relayed(pieces: list[bytes], *, keep_alive: bytes, silence_s: float = 0.0) -> list[MutableMapping[str, Any]]:
    """The ASGI messages of a stream that begins at once and is silent before each later piece."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    reply = _Reply(pieces[1:], silence_s)
    tally = Tally("req_1", "POST", time.monotonic())
    stream = OpenStream(pieces[0], aiter(reply), reply)
    assert await relay_stream(send, stream, tally, most_s=30, keep_alive=keep_alive, keep_alive_s=0.05) is None
    return sent


async def test_each_piece_is_one_write() -> None:
    pieces = [b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n", b"data: [DONE]\n\n"]
    sent = await relayed(pieces, keep_alive=CHAT.keep_alive)
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 4]
    assert [message["body"] for message in sent[1:]] == [*pieces, b""]


async def test_comment_that_waits_for_a_slow_client_is_not_said_after_the_end() -> None:
    """uvicorn raises for it, in a task that nobody awaits."""
    sent: list[bytes] = []
    room, waiting = asyncio.Event(), 0
    strays: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal waiting
        if sent:
            waiting += 1
            if waiting == 2:  # a piece and a comment
                asyncio.get_running_loop().call_soon(room.set)
            await room.wait()
        if b"" in sent:
            raise RuntimeError("sent after the end")
        if "body" in message:
            sent.append(message["body"])

    reply = _Reply([b"data: 2\n\n"])
    stream = OpenStream(b"data: 1\n\n", aiter(reply), reply)
    tally = Tally("req_1", "POST", time.monotonic())
    await relay_stream(send, stream, tally, most_s=30, keep_alive=CHAT.keep_alive, keep_alive_s=0.05)
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert sent == [b"data: 1\n\n", b"data: 2\n\n", b""] and not strays


@pytest.mark.parametrize("surface", [CHAT, RESPONSES, MESSAGES])
async def test_silence_after_the_first_piece_is_filled_with_the_surfaces_empty_word(surface: Any) -> None:
    pieces = [b"data: 1\n\n", b"data: 2\n\n"]
    bodies = [one["body"] for one in (await relayed(pieces, keep_alive=surface.keep_alive, silence_s=0.25))[1:]]
    assert bodies[0] == pieces[0] and surface.keep_alive in bodies[1:-1], "never before the first piece"
    assert [body for body in bodies if body != surface.keep_alive] == [*pieces, b""]


def test_keep_alive_is_a_comment_and_on_anthropics_wire_a_ping_with_data() -> None:
    assert CHAT.keep_alive.startswith(b":") and RESPONSES.keep_alive.startswith(b":")
    assert MESSAGES.keep_alive.startswith(b":") or b'\ndata: {"type":' in MESSAGES.keep_alive.replace(b' "', b'"')


# --- 5.5 bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling", ["groq/openai/gpt-oss-20b", "groq%2Fopenai%2Fgpt-oss-20b", "groq/openai/gpt-oss-20b/"]
)
def test_model_is_found_under_an_id_with_slashes_however_they_are_written(
    scene: Stage, token: str, spelling: str
) -> None:
    answer = scene.client.get(f"{scene.gateway.url}/v1/models/{spelling}", headers={"x-api-key": token})
    body = answer.json()
    assert (body["id"], body["object"], body["owned_by"]) == ("groq/openai/gpt-oss-20b", "model", "groq")
    assert isinstance(body["created"], int)


def test_list_of_models_is_stable_and_holds_what_sdks_need(scene: Stage, token: str) -> None:
    first, second = (scene.client.get(f"{scene.gateway.url}/v1/models", headers={"x-api-key": token}) for _ in "12")
    assert first.content == second.content and first.json()["object"] == "list"
    data = first.json()["data"]
    assert [one["id"] for one in data] == sorted(one["id"] for one in data)
    assert all({"id", "object", "created", "owned_by"} <= set(one) for one in data)
    missing = scene.client.get(f"{scene.gateway.url}/v1/models/no%2Fsuch", headers={"x-api-key": token})
    assert checked(missing, 404, "/v1/models")["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"])
def test_large_body_travels_whole(scene: Stage, token: str, path: str) -> None:
    provider, content = ANSWERS[path]
    scene.at[provider].plain(content)
    field = next(name for name in ("messages", "input", "prompt") if name in CALLS[path])
    text = "é" * 300_000
    body = CALLS[path] | {field: [{"role": "user", "content": text}] if field == "messages" else text}
    answer = scene.post(path, token, json.dumps(body, ensure_ascii=False).encode())
    assert answer.content == content
    assert scene.sent(provider).json()[field] == body[field]
