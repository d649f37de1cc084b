"""Each surface to a provider that speaks it: the bytes that arrive there and the bytes that come back, by port."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import openai
import pytest

from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import CLAUDE, DEEPSEEK, EMBEDDING, OPENAI, Stage, answer_of, chunks, named, sha


@dataclass(frozen=True)
class Case:
    """A surface's path, its model, what it needs besides, and native answers."""

    path: str
    model: str
    needs: bytes  # the surface's own field, as text
    plain: bytes
    events: bytes | None
    upstream_path: str
    endpoint: str
    usage: tuple[int, int]

    @property
    def provider(self) -> str:
        return self.model.split("/")[0]


MESSAGES = b'"messages": [ {"role":"user",  "content":"H\\u00e9 \\ud83d\\ude00 \xc3\xa9", "x_own": 1.50} ]'
CASES = {
    "chat": Case(
        "/v1/chat/completions",
        OPENAI,
        MESSAGES,
        told.CHAT_PLAIN,
        chunks(told.CHUNK, told.CHUNK_END),
        "/v1/chat/completions",
        "chat_completions",
        (11, 7),
    ),
    "responses": Case(
        "/v1/responses",
        OPENAI,
        b'"input": [ {"role":"user",  "content":"H\\u00e9 \\ud83d\\ude00 \xc3\xa9", "x_own": 1.50} ]',
        told.RESPONSE_PLAIN,
        named(*told.RESPONSE_BEGUN, told.RESPONSE_DELTA, told.RESPONSE_ENDED),
        "/v1/responses",
        "responses",
        (11, 7),
    ),
    "messages": Case(
        "/v1/messages",
        CLAUDE,
        MESSAGES + b', "max_tokens": 64',
        told.MESSAGE_PLAIN,
        named(*told.MESSAGE_BEGUN, *told.MESSAGE_DELTA, *told.MESSAGE_ENDED),
        "/v1/messages",
        "messages",
        (11, 7),
    ),
    "completions": Case(
        "/v1/completions",
        OPENAI,
        b'"prompt": [ "Once  \\u00e9", "twice" ]',
        told.COMPLETION_PLAIN,
        chunks(told.TEXT_CHUNK, told.TEXT_END),
        "/v1/completions",
        "completions",
        (11, 7),
    ),
    "embeddings": Case(
        "/v1/embeddings",
        EMBEDDING,
        b'"input": [ [1, 2,  3], [4] ]',
        told.EMBEDDINGS_PLAIN,
        None,
        "/v1/embeddings",
        "embeddings",
        (11, 0),
    ),
}
STREAMED = [name for name, case in CASES.items() if case.events is not None]
# What no surface knows, written so that any second writing shows.
ODD = b'"x_unknown" : {"b":1.50,"a":  18446744073709551615, "\\u0041":"\\u00e9\\/", "e":1E5, "f":-0.0, "t":[ ]}'


def body_of(case: Case, *, stream: bool = False, more: bytes = b"") -> bytes:
    flag = b', "stream" : true' if stream else b""
    tail = b", " + more if more else b""
    return b'{ "model" : "%s" , %s , %s%s%s }' % (case.model.encode(), case.needs, ODD, flag, tail)


def value_of(raw: bytes, name: str) -> bytes:
    """The text of a top-level field's value."""
    start = raw.index(b'"%s"' % name.encode())
    rest = raw[raw.index(b":", start) + 1 :].lstrip()
    _, end = json.JSONDecoder().raw_decode(rest.decode())
    return rest.decode()[:end].encode()


OWN = {
    "cookie": "session=canary",
    "x-forwarded-for": "10.1.2.3",
    "x-forwarded-host": "canary.example",
    "forwarded": "for=canary",
    "openai-organization": "org-canary",
    "openai-project": "proj-canary",
    "openai-beta": "responses=canary",
    "x-stainless-lang": "python",
    "x-stainless-retry-count": "1",
    "x-request-id": "canary-1",
    "user-agent": "canary/1",
    "traceparent": "00-canary",
    "x-wardgate-canary": "1",
}


def canaries() -> dict[str, str]:
    """What a caller says to the gateway and no provider hears, with a key of its own each time."""
    return OWN | {"idempotency-key": f"canary-{uuid.uuid4()}"}


EXPECTED = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_callers_fields_arrive_byte_for_byte_and_the_answer_comes_back_so(
    scene: Stage, token: str, name: str, streamed: bool
) -> None:
    case = CASES[name]
    upstream = scene.at[case.provider]
    if streamed:
        if case.events is None:
            pytest.skip("this surface has no streams")
        told.stream(upstream, case.events)
    else:
        upstream.plain(case.plain)
    before = scene.gateway.metric("wardgate_tokens_total")
    ours = b'"models": ["%s"], "provider": {"sort": "price"}, "wardgate": {}' % case.model.encode()
    body = body_of(case, stream=streamed, more=ours)
    answer = scene.post(case.path, token, body, canaries())
    assert answer.status_code == 200, answer.text
    assert sha(answer.content) == sha(answer_of(upstream))
    sent = scene.sent(case.provider)
    assert sent.line == f"POST {case.upstream_path} HTTP/1.1"
    assert sent.json()["model"] == case.model.split("/")[1]
    own = [*json.loads(b"{" + case.needs + b"}"), "x_unknown", *(["stream"] if streamed else [])]
    assert {field: value_of(sent.body, field) for field in own} == {field: value_of(body, field) for field in own}
    added = {"stream_options"} if streamed and name in ("chat", "completions") else set()
    assert set(sent.json()) == {"model", *own} | added
    key = "x-api-key" if name == "messages" else "authorization"
    version = {"anthropic-version"} if name == "messages" else set()
    assert sent.names <= EXPECTED | {key} | version and len(sent.names) == len(sent.headers)
    assert "canary" not in repr(sent.headers) and token not in repr(sent.headers)
    total = sum(case.usage) if not streamed or name in ("messages", "responses") else 0
    assert scene.gateway.settled("wardgate_tokens_total") - before == total


@pytest.mark.parametrize("name", CASES)
def test_cost_is_that_of_the_usage_which_the_wire_counted(scene: Stage, token: str, name: str) -> None:
    case = CASES[name]
    scene.at[case.provider].plain(case.plain)
    answer = scene.post(case.path, token, body_of(case))
    cached = {"messages": 4, "responses": 4}.get(name, 0)
    rates = {OPENAI: ("2.5E-7", "2.5E-8", "2E-6"), CLAUDE: ("1E-6", "1E-7", "5E-6"), EMBEDDING: ("2E-8", "0", "0")}
    fresh, again, written = map(Decimal, rates[case.model])
    asked, got = case.usage
    cost = fresh * (asked - cached) + again * cached + written * got
    assert Decimal(answer.headers["x-wardgate-cost-usd"]) == cost
    labels = {"endpoint": case.endpoint, "outcome": "ok"}
    assert scene.gateway.settled("wardgate_requests_total", **labels) > 0


@pytest.mark.parametrize("name", ["chat", "completions"])
@pytest.mark.parametrize("wanted", [None, False, True])
def test_usage_is_asked_for_always_and_told_where_it_was_asked_for(
    scene: Stage, token: str, name: str, wanted: bool | None
) -> None:
    case = CASES[name]
    pieces = (
        [told.CHUNK, told.CHUNK_END, told.CHUNK_USAGE]
        if name == "chat"
        else [told.TEXT_CHUNK, told.TEXT_END, told.TEXT_USAGE]
    )
    told.stream(scene.at["openai"], chunks(*pieces))
    options: dict[str, object] = {"include_obfuscation": False, "x_own": [1.5]}
    if wanted is not None:
        options["include_usage"] = wanted
    more = b'"stream_options": ' + json.dumps(options).encode()
    before = scene.gateway.metric("wardgate_tokens_total")
    answer = scene.post(case.path, token, body_of(case, stream=True, more=more))
    assert answer.content == chunks(*(pieces if wanted else pieces[:-1]))
    assert scene.sent("openai").json()["stream_options"] == options | {"include_usage": True}
    assert scene.gateway.settled("wardgate_tokens_total") - before == 18


@pytest.mark.parametrize("name", ["chat", "completions"])
def test_stream_options_of_a_plain_request_are_the_providers_affair_or_refused(
    scene: Stage, token: str, name: str
) -> None:
    case = CASES[name]
    scene.at["openai"].plain(case.plain)
    answer = scene.post(case.path, token, body_of(case, more=b'"stream_options": {"include_usage": true}'))
    if name == "chat":
        assert answer.json()["error"]["param"] == "stream_options" and not scene.asked()
    else:
        assert scene.sent("openai").json()["stream_options"] == {"include_usage": True}


def test_quirk_of_a_row_renames_a_field_and_keeps_its_text(scene: Stage, token: str) -> None:
    scene.at["deepseek"].plain(told.CHAT_PLAIN)
    body = b'{"model": "%s", %s, "max_completion_tokens":  32}' % (DEEPSEEK.encode(), MESSAGES)
    assert scene.post("/v1/chat/completions", token, body).status_code == 200
    sent = scene.sent("deepseek")
    assert sent.json()["max_tokens"] == 32 and "max_completion_tokens" not in sent.json()


TRAVELLING = {
    "none": ({}, [("anthropic-version", "2023-06-01")]),
    "both": (
        {"anthropic-version": "2024-10-22", "anthropic-beta": "a-2025-01-01, b;q=1"},
        [("anthropic-version", "2024-10-22"), ("anthropic-beta", "a-2025-01-01, b;q=1")],
    ),
}


@pytest.mark.parametrize("query", ["", "?beta=true", "?key=canary", "?beta=true&x=canary"])
@pytest.mark.parametrize("name", TRAVELLING)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropics_headers_and_its_beta_query_travel_and_nothing_else(
    scene: Stage, token: str, path: str, name: str, query: str
) -> None:
    given, expected = TRAVELLING[name]
    scene.at["anthropic"].plain(told.MESSAGE_PLAIN if path == "/v1/messages" else b'{ "input_tokens":  14 }')
    answer = scene.post(path, token, {"model": CLAUDE, "max_tokens": 9, **ASKED}, given | canaries(), query)
    assert answer.status_code == 200 and answer.content == answer_of(scene.at["anthropic"]), answer.text
    assert "x-wardgate-estimated" not in answer.headers
    sent = scene.sent("anthropic")
    assert [pair for pair in sent.headers if pair[0].startswith("anthropic-")] == expected
    assert sent.line == f"POST {path}{query if query == '?beta=true' else ''} HTTP/1.1"


ASKED: Mapping[str, object] = {"messages": [{"role": "user", "content": "Hello"}]}


def test_prompt_that_is_null_travels_and_one_that_is_missing_does_not(scene: Stage, token: str) -> None:
    """OpenAI's reference: required, and null stands for the beginning of a document."""
    scene.at["openai"].plain(told.COMPLETION_PLAIN)
    assert scene.post("/v1/completions", token, {"model": OPENAI, "prompt": None}).status_code == 200
    assert scene.sent("openai").json()["prompt"] is None
    assert scene.post("/v1/completions", token, {"model": OPENAI}).json()["error"]["param"] == "prompt"
    assert scene.post("/v1/embeddings", token, {"model": EMBEDDING, "input": None}).json()["error"]["param"] == "input"


@pytest.mark.parametrize("prompt", ["Once", ["Once", "twice"], [1, 2, 3], [[1, 2], [3]]])
def test_prompts_and_inputs_of_every_shape_travel(scene: Stage, token: str, prompt: object) -> None:
    scene.at["openai"].plain(told.COMPLETION_PLAIN)
    assert scene.post("/v1/completions", token, {"model": OPENAI, "prompt": prompt}).status_code == 200
    assert scene.sent("openai").json()["prompt"] == prompt
    scene.clear()
    scene.at["openai"].plain(told.EMBEDDINGS_PLAIN)
    body = {"model": EMBEDDING, "input": prompt, "encoding_format": "base64", "dimensions": 2}
    answer = scene.post("/v1/embeddings", token, body)
    assert answer.content == told.EMBEDDINGS_PLAIN
    assert scene.sent("openai").json() == body | {"model": "text-embedding-3-small"}


@pytest.mark.parametrize(
    ("asked", "whole"), [({"prompt": "a"}, True), ({"prompt": ["a", "b"]}, False), ({"n": 2}, False)]
)
def test_every_text_to_be_completed_needs_its_end(
    scene: Stage, token: str, asked: dict[str, object], whole: bool
) -> None:
    told.stream(scene.at["openai"], chunks(told.TEXT_CHUNK, told.TEXT_END, done=False))
    body = {"model": OPENAI, "prompt": "a", "stream": True, **asked}
    assert ("provider_stream_truncated" not in scene.post("/v1/completions", token, body).text) is whole


def test_embeddings_are_not_streamed(scene: Stage, token: str) -> None:
    error = scene.post("/v1/embeddings", token, {"model": EMBEDDING, "input": "a", "stream": True}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "stream") and not scene.asked()


def test_openai_sdk_reads_embeddings_that_it_asked_for_as_base64_and_as_numbers(scene: Stage, token: str) -> None:
    with scene.gateway.client(token) as client:
        _embed(scene, client)


def _embed(scene: Stage, client: openai.OpenAI) -> None:
    scene.at["openai"].plain(told.EMBEDDINGS_PLAIN)
    found = client.embeddings.create(model=EMBEDDING, input=["a"])
    assert found.data[0].embedding == [1.0, 2.0] and found.usage.prompt_tokens == 11
    assert scene.sent("openai").json()["encoding_format"] == "base64"
    scene.at["openai"].plain(told.EMBEDDINGS_PLAIN.replace(b'"AACAPwAAAEA="', b"[1.0, 2.0]"))
    found = client.embeddings.create(model=EMBEDDING, input=[[1, 2]], encoding_format="float")
    assert found.data[0].embedding == [1.0, 2.0]


WRONG_MODE = {
    "a chat model for embeddings": ("/v1/embeddings", {"model": OPENAI, "input": "a"}, "chat"),
    "an embedding model for chat": ("/v1/chat/completions", {"model": EMBEDDING, **ASKED}, "embedding"),
    "an embedding model for messages": ("/v1/messages", {"model": EMBEDDING, "max_tokens": 9, **ASKED}, "embedding"),
    "an embedding model for responses": ("/v1/responses", {"model": EMBEDDING, "input": "a"}, "embedding"),
    "an embedding model for completions": ("/v1/completions", {"model": EMBEDDING, "prompt": "a"}, "embedding"),
}


@pytest.mark.parametrize("name", WRONG_MODE)
def test_model_of_another_kind_is_refused_and_its_kind_is_named(scene: Stage, token: str, name: str) -> None:
    path, body, mode = WRONG_MODE[name]
    answer = scene.post(path, token, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert f"its mode is '{mode}'" in error["message"] and not scene.asked(), error


@pytest.mark.parametrize(("path", "param"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input")])
def test_body_without_its_own_field_is_refused_by_name(scene: Stage, token: str, path: str, param: str) -> None:
    error = scene.post(path, token, {"model": OPENAI}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param) and not scene.asked()


def test_chat_model_is_not_asked_for_embeddings(scene: Stage, token: str) -> None:
    answer = scene.post("/v1/embeddings", token, {"model": CLAUDE, "input": "a"})
    assert answer.status_code == 404 and not scene.asked()
    assert "its mode is 'chat'" in answer.text


@pytest.mark.parametrize("field", ["previous_response_id", "x_unknown"])
def test_responses_body_on_chats_path_loses_nothing_silently(scene: Stage, token: str, field: str) -> None:
    asked = {"model": OPENAI, "input": "Hello", "instructions": "Be brief."}
    error = scene.post("/v1/chat/completions", token, asked | {field: "x"}).json()["error"]
    assert error["code"] == "unsupported_parameter" and f"`{field}`" in error["message"] and not scene.asked()
    scene.at["openai"].plain(told.CHAT_PLAIN)
    assert scene.post("/v1/chat/completions", token, asked).content == told.CHAT_PLAIN
    roles = [("system", "Be brief."), ("user", "Hello")]
    messages = [{"role": role, "content": text} for role, text in roles]
    assert scene.sent("openai").json() == {"model": "gpt-5-mini", "messages": messages}


def test_model_that_answers_responses_alone_is_not_asked_for_a_chat(scene: Stage) -> None:
    """Perplexity's row speaks no responses, and the price map has models of that mode for it."""
    token = scene.gateway.tenant("only-perplexity", "team", {"PERPLEXITYAI_API_KEY": "Key-p.0123456789"})
    body = {"model": "perplexity/anthropic/claude-haiku-4-5", "input": "Hello"}
    answer = scene.post("/v1/responses", token, body)
    assert answer.status_code == 400 and "answers no chat completions" in answer.json()["error"]["message"]


def test_models_lists_embedding_models_too(scene: Stage, token: str) -> None:
    with scene.gateway.client(token) as client:
        ids = {one.id for one in client.models.list()}
    assert {EMBEDDING, OPENAI, CLAUDE} <= ids


def test_route_explains_chat_bodies(scene: Stage, token: str) -> None:
    decision = scene.post("/v1/route", token, {"model": OPENAI, **ASKED}).json()
    assert decision["ranked"][0]["id"] == OPENAI and not scene.asked()
