"""Embeddings from Gemini and Cohere, over real HTTP and with OpenAI's SDK: told in OpenAI's shape, charged, refused by
name, failing as every other surface does."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from tests.harness import RunningGateway
from tests.raw_upstream import RawUpstream, raw_upstream

GEMINI, COHERE = "google/gemini-embedding-001", "cohere/embed-v4.0"
KEYS = {"GOOGLE_API_KEY": "Key-google.0123456789", "COHERE_API_KEY": "Key-cohere.0123456789"}
PATHS = {"google": "/v1beta", "cohere": "/v2/chat"}
VECTORS = [[1.0, 2.0], [0.25, -3.0]]
ANSWERS: dict[str, Any] = {
    GEMINI: {"embeddings": [{"values": one} for one in VECTORS], "usageMetadata": {"promptTokenCount": 1000}},
    COHERE: {"id": "x", "embeddings": {"float": VECTORS}, "meta": {"billed_units": {"input_tokens": 1000}}},
}
LINES = {GEMINI: "POST /v1beta/models/gemini-embedding-001:batchEmbedContents HTTP/1.1"}
LINES[COHERE] = "POST /v2/embed HTTP/1.1"
CARRIES = {GEMINI: b"x-goog-api-key: Key-google.0123456789", COHERE: b"authorization: Bearer Key-cohere.0123456789"}
COSTS = {GEMINI: Decimal("1.5E-7"), COHERE: Decimal("1.2E-7")}
PATH = "/v1/embeddings"


class Scene:
    """A gateway over one upstream, which answers for both providers."""

    def __init__(self, gateway: RunningGateway, upstream: RawUpstream) -> None:
        self.gateway, self.upstream, self._tenants = gateway, upstream, 0

    def token(self, *families: str) -> str:
        self._tenants += 1
        keys = {name: KEYS[name] for name in families or KEYS}
        return self.gateway.tenant(f"t-{self._tenants}", "team", keys)

    def answer(self, model: str) -> None:
        self.upstream.requests.clear()
        self.upstream.plain(json.dumps(ANSWERS[model]))

    def sent(self) -> Any:
        (raw,) = self.upstream.requests
        return json.loads(raw.partition(b"\r\n\r\n")[2])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with raw_upstream() as upstream:
        host = upstream.url.removeprefix("http://")
        rows = [
            f'[providers.{name}]\nbase_url = "{upstream.url}{path}"\nhosts = ["{host}"]\n'
            for name, path in PATHS.items()
        ]
        with RunningGateway(tmp_path_factory.mktemp("gw"), "".join(rows)) as gateway:
            yield Scene(gateway, upstream)


@pytest.mark.parametrize("model", ANSWERS)
def test_openai_sdk_gets_vectors_in_either_format(scene: Scene, model: str) -> None:
    with scene.gateway.client(scene.token()) as client:
        forms: list[dict[str, Any]] = [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}]
        for options in forms:
            scene.answer(model)
            found: Any = client.embeddings.create(model=model, input=["a", "é"], **options)
            vectors = [one.embedding for one in found.data]
            shown = ["AACAPwAAAEA=", "AACAPgAAQMA="] if options.get("encoding_format") == "base64" else VECTORS
            assert vectors == shown and [one.index for one in found.data] == [0, 1]
            assert (found.object, found.model, found.usage.prompt_tokens) == ("list", model.split("/")[1], 1000)


@pytest.mark.parametrize("model", ANSWERS)
def test_request_carries_the_key_and_is_charged(scene: Scene, model: str) -> None:
    scene.answer(model)
    token = scene.token()
    before = scene.gateway.metric("wardgate_tokens_total")
    reply = scene.gateway.post(PATH, token, {"model": model, "input": ["a", "b"], "dimensions": 2})
    assert reply.status_code == 200, reply.text
    assert Decimal(reply.headers["x-wardgate-cost-usd"]) == 1000 * COSTS[model]
    assert reply.json()["data"][1]["embedding"] == VECTORS[1]
    (raw,) = scene.upstream.requests
    head = raw.partition(b"\r\n\r\n")[0]
    assert head.split(b"\r\n")[0].decode() == LINES[model]
    assert CARRIES[model] in head.split(b"\r\n") and token.encode() not in raw and b"handle" not in raw
    assert scene.gateway.settled("wardgate_tokens_total") - before == 1000


@pytest.mark.parametrize(
    ("model", "body", "param"),
    [
        (GEMINI, {"input": [1, 2, 3]}, "input"),
        (COHERE, {"input": "a", "user": "u"}, "user"),
        (COHERE, {"input": "a", "api_base": "https://x.example"}, "api_base"),
        (GEMINI, {"input": "a", "x_own": 1}, "x_own"),
    ],
)
def test_what_the_wire_does_not_carry_is_refused_by_name(scene: Scene, model: str, body: Any, param: str) -> None:
    scene.answer(model)
    reply = scene.gateway.post(PATH, scene.token(), {"model": model, **body})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "unsupported_parameter"), error
    assert error["param"] == param and f"`{param}`" in error["message"] and not scene.upstream.requests


def test_a_note_is_left_out_where_that_is_allowed_and_told(scene: Scene) -> None:
    scene.answer(COHERE)
    body = {"model": COHERE, "input": ["a", "b"], "user": "u", "provider": {"require_parameters": False}}
    reply = scene.gateway.post(PATH, scene.token(), body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-wardgate-dropped"] == "user" and "user" not in scene.sent()


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        ("401 Unauthorized", {"message": "invalid api token"}, "provider_key_rejected"),
        ("429 Too Many Requests", {"message": "slow down"}, "rate_limit_exceeded"),
        ("500 Internal Server Error", {"message": "oops"}, "provider_error"),
        ("422 Unprocessable Entity", {"message": "invalid input_type"}, "provider_rejected_request"),
        ("200 OK", {"embeddings": {"float": [VECTORS[0]]}}, "provider_malformed_answer"),
        ("200 OK", {"embeddings": "none"}, "provider_malformed_answer"),
    ],
)
def test_failures_go_by_the_one_table(scene: Scene, status: str, said: object, code: str) -> None:
    scene.upstream.plain(json.dumps(said), status)
    reply = scene.gateway.post(PATH, scene.token(), {"model": COHERE, "input": ["a", "b"]})
    assert reply.json()["error"]["code"] == code, reply.text
    assert reply.headers["x-wardgate-provider"] == "cohere" and "Key-cohere" not in reply.text


def test_answer_without_a_count_has_no_usage_and_a_cost_that_is_said_to_be_estimated(scene: Scene) -> None:
    scene.upstream.plain(json.dumps({"embeddings": ANSWERS[GEMINI]["embeddings"]}))
    reply = scene.gateway.post(PATH, scene.token(), {"model": GEMINI, "input": ["a", "b"]})
    assert "usage" not in reply.json() and reply.headers["x-wardgate-estimated"] == "usage"
    assert float(reply.headers["x-wardgate-cost-usd"]) > 0


def test_large_answer_is_told_whole(scene: Scene) -> None:
    vector = [at / 7 for at in range(20_000)]
    scene.upstream.plain(json.dumps({"embeddings": {"float": [vector] * 3}}))
    reply = scene.gateway.post(PATH, scene.token(), {"model": COHERE, "input": ["a"] * 3})
    assert [one["embedding"] for one in reply.json()["data"]] == [vector] * 3


def test_sdk_raises_its_own_class(scene: Scene) -> None:
    scene.upstream.plain("{}", "400 Bad Request")
    with scene.gateway.client(scene.token()) as client, pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=COHERE, input=["a"])


def test_models_of_both_are_listed(scene: Scene) -> None:
    reply: httpx.Response = scene.gateway.get("/v1/models", scene.token())
    assert {GEMINI, COHERE} <= {one["id"] for one in reply.json()["data"]}
