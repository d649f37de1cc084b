"""Pages of origins that the operator lists may call from a browser; nobody else's may, and none the control plane."""

import httpx
import pytest

from gateway.config import ConfigError, parse_config
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import Stage, stage
from tests.scenarios.test_wire import ANSWERS, CALLS, STREAMS

APP, OTHER = "https://app.example", "https://other.example"
TABLES = f'[browsers]\norigins = ["{APP}", "http://localhost:3000"]\n'
ASKS = "authorization, content-type, x-stainless-lang"
CORS = [
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
]


def preflight(scene: Stage, path: str, origin: str, asks: str = ASKS) -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": asks}
    return scene.client.options(scene.gateway.url + path, headers=headers)


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
@pytest.mark.parametrize("path", [*CALLS, "/v1/models", "/chat/completions/"])
def test_preflight_of_a_listed_origin_is_answered(scene: Stage, path: str, origin: str) -> None:
    reply = preflight(scene, path, origin)
    assert reply.status_code == 204 and not reply.content and reply.headers["x-request-id"]
    assert [reply.headers.get(name) for name in CORS] == [origin, "GET, HEAD, POST", ASKS, "600"]
    assert "origin" in reply.headers["vary"] and "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("path", ANSWERS)
def test_answers_errors_and_streams_name_the_origin(scene: Stage, path: str) -> None:
    provider, content = ANSWERS[path]
    scene.at[provider].plain(content)
    token, own = scene.token(), {"origin": APP}
    replies = [scene.post(path, token, CALLS[path], own), scene.post(path, "wrong", CALLS[path], own)]
    replies.append(scene.post(path, token, b"{", own))
    if path in STREAMS:
        told.stream(scene.at[provider], STREAMS[path][1])
        replies.append(scene.post(path, token, {**CALLS[path], "stream": True}, own))
    assert [reply.status_code for reply in replies] == [200, 401, 400, 200][: len(replies)]
    assert {reply.headers["access-control-allow-origin"] for reply in replies} == {APP}
    assert {reply.headers["vary"] for reply in replies} == {"origin"}
    assert all("x-request-id" in reply.headers["access-control-expose-headers"] for reply in replies)


@pytest.mark.parametrize("origin", [OTHER, "https://app.example.evil", "http://app.example", "null", APP + ":444", "*"])
def test_any_other_origin_is_told_nothing(scene: Stage, origin: str) -> None:
    assert preflight(scene, "/v1/chat/completions", origin).status_code == 405
    reply = scene.post("/v1/chat/completions", "wrong", CALLS["/v1/chat/completions"], {"origin": origin})
    assert reply.status_code == 401 and "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "path", ["/admin/tenants", "/v1/keys", "/keys", "/v1/aliases", "/aliases/x", "/ADMIN/tenants", "/admin/"]
)
def test_the_control_plane_is_open_to_no_page(scene: Stage, path: str) -> None:
    assert preflight(scene, path, APP).status_code in (404, 405)
    reply = scene.client.get(scene.gateway.url + path, headers={"origin": APP})
    assert reply.status_code >= 400 and "access-control-allow-origin" not in reply.headers


def test_headers_that_are_none_are_not_repeated(scene: Stage) -> None:
    for asks in ("a b", "x" * 65, "a\tb", ", ".join(["x"] * 65)):
        assert "access-control-allow-headers" not in preflight(scene, "/v1/models", APP, asks).headers


def test_options_that_is_no_preflight_is_405(scene: Stage) -> None:
    reply = scene.client.options(scene.gateway.url + "/v1/chat/completions", headers={"origin": APP})
    assert reply.status_code == 405 and reply.headers["access-control-allow-origin"] == APP


def test_any_origin_may_be_allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with stage(tmp_path_factory.mktemp("gw"), tables='[browsers]\norigins = ["*"]\n') as scene:
        assert preflight(scene, "/v1/responses", OTHER).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "table",
    [
        {"origin": [APP]},
        {"origins": APP},
        {"origins": [1]},
        {"origins": ["app.example"]},
        {"origins": [APP + "/"]},
        {"origins": ["https://*.example"]},
        {"origins": ["https://App.example"]},
    ],
)
def test_what_is_no_origin_stops_the_start(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"\[browsers\]"):
        parse_config({"browsers": table})
