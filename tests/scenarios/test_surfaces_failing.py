"""What goes wrong on each surface: told in its own shape, answered by the next provider before the first output, and by
nobody after it."""

import json
from collections.abc import Iterator, Mapping

import anthropic
import httpx
import openai
import pytest

from tests.harness import eventually
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import (
    CLAUDE,
    DEEPSEEK,
    GROQ,
    MINIMAX,
    OPENAI,
    Rotation,
    Stage,
    answer_of,
    chunks,
    named,
)

Event = Mapping[str, object]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    stages = Rotation(tmp_path_factory)
    yield stages
    stages.close()


@pytest.fixture
def scene(rotation: Rotation) -> Stage:
    return rotation.next()


def body(path: str, *models: str, stream: bool = False) -> dict[str, object]:
    needs: dict[str, object] = {"messages": HELLO}
    if path == "/v1/responses":
        needs = {"input": "Hello"}
    if path == "/v1/messages":
        needs["max_tokens"] = 64
    if path == "/v1/completions":
        needs = {"prompt": "Hello"}
    return {"model": models[0], "models": list(models), "stream": stream, **needs}


def error_of(answer: httpx.Response) -> dict[str, object]:
    error: dict[str, object] = answer.json()["error"]
    return error


# --- errors of providers, in each surface's shape -------------------------------------------------------------------

OPENAI_ERROR = '{"error": {"message": "no such thing", "type": "t", "param": null, "code": "c"}}'
ANTHROPIC_ERROR = '{"type": "error", "error": {"type": "%s", "message": "no such thing"}, "request_id": "req_theirs"}'
# the provider's status -> what the caller gets, and Anthropic's word for it
FAILURES = {
    "401 Unauthorized": (424, "provider_key_rejected", "api_error", "authentication_error"),
    "404 Not Found": (404, "provider_model_unavailable", "not_found_error", "not_found_error"),
    "429 Too Many Requests": (429, "rate_limit_exceeded", "rate_limit_error", "rate_limit_error"),
    "500 Internal Server Error": (502, "provider_error", "api_error", "api_error"),
    "529 Overloaded": (502, "provider_error", "api_error", "overloaded_error"),
}
SURFACES = {
    "/v1/chat/completions": OPENAI,
    "/v1/completions": OPENAI,
    "/v1/responses": OPENAI,
    "/v1/messages": CLAUDE,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("path", [*SURFACES, "/v1/embeddings"])
def test_error_of_a_provider_is_told_in_the_surfaces_shape(shared: Stage, path: str, status: str, stream: bool) -> None:
    expected, code, kind, theirs = FAILURES[status]
    model = SURFACES.get(path, told.EMBEDDING)
    asked = {"model": model, "input": "a"} if path == "/v1/embeddings" else body(path, model, stream=stream)
    own = ANTHROPIC_ERROR % theirs if path == "/v1/messages" else OPENAI_ERROR
    shared.at[model.split("/")[0]].plain(own, status, headers="retry-after: 7\r\n")
    answer = shared.post(path, shared.token(), asked, {"x-request-id": "mine-1"})
    assert answer.status_code == expected and answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["x-request-id"] == "mine-1" and answer.headers["x-should-retry"] in ("true", "false")
    error = error_of(answer)
    assert error["code"] == code and "no such thing" in str(error["message"]) + str(error["attempts"])
    if path == "/v1/messages":
        assert answer.json()["type"] == "error" and error["type"] == kind
        assert answer.headers["request-id"] == "mine-1"
        assert answer.json()["request_id"] == answer.headers["request-id"]
    else:
        assert set(answer.json()) == {"error"} and "request-id" not in answer.headers


def claude(scene: Stage) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=scene.gateway.url, auth_token=scene.token(), api_key=None, max_retries=0)


def test_anthropic_sdk_raises_its_own_classes(shared: Stage) -> None:
    shared.at["anthropic"].plain(ANTHROPIC_ERROR % "rate_limit_error", "429 Too Many Requests")
    with claude(shared) as client, pytest.raises(anthropic.RateLimitError) as raised:
        client.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO)  # type: ignore[arg-type]
    assert raised.value.request_id == raised.value.response.headers["x-request-id"]


# --- failover -------------------------------------------------------------------------------------------------------

BEGUN: dict[str, tuple[Event, ...]] = {"/v1/responses": told.RESPONSE_BEGUN, "/v1/messages": told.MESSAGE_BEGUN}
DELTA: dict[str, tuple[Event, ...]] = {"/v1/responses": (told.RESPONSE_DELTA,), "/v1/messages": told.MESSAGE_DELTA}
ENDED: dict[str, tuple[Event, ...]] = {"/v1/responses": (told.RESPONSE_ENDED,), "/v1/messages": told.MESSAGE_ENDED}
ERROR: dict[str, Event] = {
    "/v1/responses": {"type": "error", "code": "server_error", "message": "broke", "sequence_number": 3},
    "/v1/messages": {"type": "error", "error": {"type": "overloaded_error", "message": "broke"}},
}
FAILED: Event = {
    "type": "response.failed",
    "sequence_number": 2,
    "response": {"id": "resp_9", "object": "response", "status": "failed", "error": {"code": "c", "message": "broke"}},
}
EARLY = {
    "/v1/responses an error": ("/v1/responses", named(*told.RESPONSE_BEGUN, ERROR["/v1/responses"])),
    "/v1/responses response.failed": ("/v1/responses", named(*told.RESPONSE_BEGUN, FAILED)),
    "/v1/responses cut": ("/v1/responses", named(*told.RESPONSE_BEGUN)),
    "/v1/responses nothing": ("/v1/responses", b""),
    "/v1/messages an error": ("/v1/messages", named(*told.MESSAGE_BEGUN, ERROR["/v1/messages"])),
    "/v1/messages cut": ("/v1/messages", named(*told.MESSAGE_BEGUN)),
    "/v1/messages nothing": ("/v1/messages", b""),
    "/v1/messages no JSON": ("/v1/messages", named(*told.MESSAGE_BEGUN) + b"event: x\ndata: {oops\n\n"),
}


@pytest.mark.parametrize("name", EARLY)
def test_stream_that_breaks_before_its_first_output_is_answered_by_the_next_provider(scene: Stage, name: str) -> None:
    path, begun = EARLY[name]
    first, second = ("openai", GROQ) if path == "/v1/responses" else ("anthropic", DEEPSEEK)
    told.stream(scene.at[first], begun)
    whole = named(*BEGUN[path], *DELTA[path], *ENDED[path])
    if path == "/v1/responses":
        told.stream(scene.at["groq"], whole)
    else:
        told.stream(scene.at["deepseek"], chunks(told.CHUNK, told.CHUNK_END, told.CHUNK_USAGE))
    model = OPENAI if path == "/v1/responses" else CLAUDE
    answer = scene.post(path, scene.token(), body(path, model, second, stream=True))
    assert answer.status_code == 200 and scene.asked() == sorted(
        [first, second.split("/")[0]], key=list(scene.at).index
    )
    assert (answer.headers["x-wardgate-provider"], answer.headers["x-wardgate-attempts"]) == (second.split("/")[0], "2")
    assert "broke" not in answer.text
    if path == "/v1/responses":
        assert answer.content == whole
    else:
        assert kinds(answer)[0] == "message_start" and kinds(answer)[-1] == "message_stop"
        assert kinds(answer).count("message_start") == 1


def kinds(answer: httpx.Response) -> list[str]:
    return [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]


def datas(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("how", ["cut", "error", "no JSON"])
@pytest.mark.parametrize("path", BEGUN)
def test_stream_that_breaks_after_its_first_output_says_so_and_nobody_else_speaks(
    scene: Stage, path: str, how: str
) -> None:
    said = named(*BEGUN[path], *DELTA[path])
    broken = {"cut": b"", "error": named(ERROR[path]), "no JSON": b"event: x\ndata: {oops\n\n"}[how]
    model = OPENAI if path == "/v1/responses" else CLAUDE
    told.stream(scene.at[model.split("/")[0]], said + broken)
    answer = scene.post(path, scene.token(), body(path, model, GROQ, DEEPSEEK, stream=True))
    assert answer.status_code == 200 and scene.asked() == [model.split("/")[0]]
    assert answer.content.startswith(said), "what came before the break is the provider's, byte for byte"
    assert kinds(answer)[-1] == "error" and "message_stop" not in kinds(answer) and "[DONE]" not in answer.text
    last = datas(answer)[-1]
    error = last["error"]
    assert last["type"] == "error" and isinstance(error, dict) and str(error["code"]).startswith("provider_")
    if path == "/v1/responses":
        assert last["sequence_number"] == 3 and last["code"] == error["code"] and last["message"] == error["message"]
    labels = {"endpoint": path.rpartition("/")[2], "outcome": "cut"}
    assert scene.gateway.settled("wardgate_requests_total", **labels) > 0


def test_response_that_failed_after_output_ends_in_its_own_event(scene: Stage) -> None:
    said = named(*told.RESPONSE_BEGUN, told.RESPONSE_DELTA, dict(FAILED) | {"sequence_number": 3})
    told.stream(scene.at["openai"], said)
    answer = scene.post("/v1/responses", scene.token(), body("/v1/responses", OPENAI, GROQ, stream=True))
    assert answer.content == said and scene.asked() == ["openai"]


@pytest.mark.parametrize("path", BEGUN)
def test_sdks_raise_when_a_native_stream_breaks(scene: Stage, path: str) -> None:
    model = OPENAI if path == "/v1/responses" else CLAUDE
    told.stream(scene.at[model.split("/")[0]], named(*BEGUN[path], *DELTA[path]))
    if path == "/v1/responses":
        with scene.gateway.client(scene.token()) as client, pytest.raises(openai.APIError):
            list(client.responses.create(model=model, input="Hello", stream=True))
    else:
        with claude(scene) as client, pytest.raises(anthropic.APIError):
            list(client.messages.create(model=model, max_tokens=64, messages=HELLO, stream=True))  # type: ignore[arg-type]


# --- across wires ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "model", "second"), [("/v1/messages", CLAUDE, MINIMAX), ("/v1/responses", OPENAI, MINIMAX)]
)
def test_native_provider_that_fails_is_followed_by_one_on_chats_wire(
    scene: Stage, path: str, model: str, second: str, stream: bool
) -> None:
    scene.at[model.split("/")[0]].plain('{"error": {"message": "down"}}', "503 Service Unavailable")
    if stream:
        told.stream(scene.at["minimax"], chunks(told.CHUNK, told.CHUNK_END, told.CHUNK_USAGE))
    else:
        scene.at["minimax"].plain(told.CHAT_PLAIN)
    before = scene.gateway.metric("wardgate_tokens_total", provider="minimax")
    answer = scene.post(path, scene.token(), body(path, model, second, stream=stream))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wardgate-provider"] == "minimax"
    sent = scene.sent("minimax")
    assert sent.line == "POST /v1/chat/completions HTTP/1.1" and sent.json()["model"] == "MiniMax-M2"
    assert not sent.names & {"anthropic-version", "anthropic-beta"} and "models" not in sent.json()
    if stream:
        assert kinds(answer)[-1] == ("message_stop" if path == "/v1/messages" else "response.completed")
    elif path == "/v1/messages":
        assert answer.json()["type"] == "message" and answer.json()["id"].startswith("msg_")
        assert answer.json()["usage"]["input_tokens"] == 11
    else:
        assert answer.json()["object"] == "response" and answer.json()["id"].startswith("resp_")
        assert answer.json()["usage"]["total_tokens"] == 18
    assert scene.gateway.settled("wardgate_tokens_total", provider="minimax") - before == 18


@pytest.mark.parametrize("prompt", ["Once", ["Once", "twice"], [1, 2]])
def test_text_to_be_completed_goes_to_the_next_provider(scene: Stage, prompt: object) -> None:
    scene.at["openai"].plain('{"error": {"message": "down"}}', "503 Service Unavailable")
    scene.at["groq"].plain(told.COMPLETION_PLAIN)
    answer = scene.post("/v1/completions", scene.token(), {"models": [OPENAI, GROQ], "prompt": prompt})
    assert answer.content == told.COMPLETION_PLAIN and scene.asked() == ["openai", "groq"]


@pytest.mark.parametrize("stream", [False, True])
def test_translated_provider_that_fails_is_followed_by_a_native_one(scene: Stage, stream: bool) -> None:
    scene.at["minimax"].plain('{"error": {"message": "down"}}', "503 Service Unavailable")
    whole = named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA, *told.MESSAGE_ENDED)
    if stream:
        told.stream(scene.at["anthropic"], whole)
    else:
        scene.at["anthropic"].plain(told.MESSAGE_PLAIN)
    answer = scene.post("/v1/messages", scene.token(), body("/v1/messages", MINIMAX, CLAUDE, stream=stream))
    assert answer.content == answer_of(scene.at["anthropic"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
def test_tenant_with_keys_of_chats_wire_alone_is_served_on_every_surface(scene: Stage, path: str, stream: bool) -> None:
    if stream:
        told.stream(scene.at["deepseek"], chunks(told.CHUNK, told.CHUNK_END, told.CHUNK_USAGE))
    else:
        scene.at["deepseek"].plain(told.CHAT_PLAIN)
    answer = scene.post(path, scene.token("deepseek"), body(path, "auto", stream=stream))
    assert answer.status_code == 200 and scene.asked() == ["deepseek"], answer.text
    assert scene.sent("deepseek").line == "POST /v1/chat/completions HTTP/1.1"
    assert "Hi" in answer.text


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("how", ["cut", "error"])
def test_translated_stream_that_breaks_says_so_in_the_surfaces_words(scene: Stage, path: str, how: str) -> None:
    broken = b'data: {"error": {"message": "broke", "code": 500}}\n\n' if how == "error" else b""
    told.stream(scene.at["minimax"], chunks(told.CHUNK, done=False) + broken)
    answer = scene.post(path, scene.token(), body(path, MINIMAX, DEEPSEEK, stream=True))
    assert scene.asked() == ["minimax"] and "Hi" in answer.text and "[DONE]" not in answer.text
    assert "error" in kinds(answer) and not {"message_stop", "response.completed"} & set(kinds(answer))


def test_translated_stream_that_contradicts_itself_says_so_in_the_stream(scene: Stage) -> None:
    def call(index: int, arguments: str, **more: object) -> dict[str, object]:
        piece = {"index": index, "function": {"name": f"f{index}", "arguments": arguments}, **more}
        return {**told.CHUNK, "choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]}

    whole = [call(0, "{}", id="c0"), call(1, "{", id="c1")]
    pieces = [chunks(one, done=False) for one in (told.CHUNK, *whole, call(0, "}"))]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    scene.at["minimax"].answer = head + pieces[0]
    scene.at["minimax"].later = pieces[1:]
    answer = scene.post("/v1/messages", scene.token(), body("/v1/messages", MINIMAX, stream=True))
    assert kinds(answer)[-1] == "error" and "message_stop" not in kinds(answer), answer.text
    eventually(lambda: scene.gateway.logs.records("request.completed")[-1]["outcome"] == "cut")


def test_count_tokens_is_estimated_where_nobody_counts_and_the_answer_says_so(scene: Stage) -> None:
    asked = {"model": DEEPSEEK, "messages": HELLO}
    answer = scene.post("/v1/messages/count_tokens", scene.token(), asked)
    assert answer.status_code == 200 and answer.json()["input_tokens"] > 0 and not scene.asked()
    assert answer.headers["x-wardgate-estimated"] == "input_tokens"


def test_count_tokens_is_estimated_where_the_provider_does_not_count_and_its_model_is_not_the_worse_for_it(
    scene: Stage,
) -> None:
    token = scene.token()
    scene.at["anthropic"].plain(b'{"error": {"message": "no such path"}}', "404 Not Found")
    for _ in range(3):
        answer = scene.post("/v1/messages/count_tokens", token, {"model": CLAUDE, "messages": HELLO})
        assert answer.status_code == 200 and answer.json()["input_tokens"] > 0
        assert answer.headers["x-wardgate-estimated"] == "input_tokens"
    scene.at["anthropic"].plain(b'{"input_tokens": 14}')
    asked = scene.post("/v1/messages/count_tokens", token, {"model": CLAUDE, "messages": HELLO})
    assert asked.json() == {"input_tokens": 14}


def test_count_tokens_costs_nothing_and_needs_no_max_tokens(scene: Stage) -> None:
    before = scene.gateway.metric("wardgate_tokens_total")
    scene.at["anthropic"].plain(b'{"input_tokens": 14}')
    answer = scene.post("/v1/messages/count_tokens", scene.token(), {"model": CLAUDE, "messages": HELLO})
    assert answer.json() == {"input_tokens": 14} and "x-wardgate-cost-usd" not in answer.headers
    assert scene.gateway.settled("wardgate_tokens_total") == before
