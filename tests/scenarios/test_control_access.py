"""Who may do what on the control plane: every route with every kind of caller, on both databases."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.control.actions import ACTIONS
from tests.harness import eventually
from tests.scenarios.control import NOBODY, OPENAI, VALUE, Control, Found, filled

OURS = ("/admin", "/v1/keys", "/keys", "/v1/aliases", "/aliases")
DOCUMENT = "/admin/openapi.json"


def ours(routes: list[Found]) -> list[Found]:
    return [route for route in routes if route.path.startswith(OURS)]


def asked(routes: list[Found]) -> Iterator[tuple[str, str]]:
    """Each method and path of the control plane, without the aliases."""
    for route in ours(routes):
        if route.canonical:
            yield from ((method, route.path) for method in route.methods)


# --- default deny ----------------------------------------------------------------------------------------------------


def test_every_route_of_the_control_plane_has_an_action(routes: list[Found]) -> None:
    without = [route.path for route in ours(routes) if route.door is None or route.door.row.action not in ACTIONS]
    assert without == []
    assert len(list(asked(routes))) >= 30


def test_no_other_route_has_one(routes: list[Found]) -> None:
    assert [route.path for route in routes if route.door is not None and not route.path.startswith(OURS)] == []


def test_every_route_is_served_with_and_without_slash_and_prefix(routes: list[Found]) -> None:
    served = {(method, route.path) for route in routes for method in route.methods}
    for method, path in asked(routes):
        bare = path.removeprefix("/v1")
        assert {(method, path + "/"), (method, bare), (method, bare + "/")} <= served


def test_actions_and_methods_agree(routes: list[Found]) -> None:
    """What changes something is no GET; what only reads is one, but for what notes a clean run or asks others."""
    for route in ours(routes):
        assert route.door is not None
        reads = not route.door.row.rule.writes
        assert reads == (route.methods == ("GET",)) or route.door.row.action in ("sealing.verify", "key.doctor")


def test_every_route_is_in_the_docs(routes: list[Found]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "admin.md").read_text()
    named = {
        (method, path)
        for methods, paths in re.findall(r"`([A-Z, ]+) (/[^`]+)`", text)
        for method in methods.split(", ")
        for path in [paths]
    }
    assert {(method, path) for method, path in asked(routes)} == named


def test_no_authority_is_taken_from_a_url() -> None:
    folder = Path(__file__).parents[2] / "gateway"
    files = [*folder.glob("admin/*.py"), *folder.glob("control/*.py"), folder / "auth.py"]
    assert len(files) > 15
    assert [file.name for file in files if "request.url" in file.read_text() or ".base_url()" in file.read_text()] == []


# --- every route, every caller ---------------------------------------------------------------------------------------

REFUSED = {
    None: (401, "missing_api_key"),
    "garbage": (401, "invalid_api_key"),
    "mistyped": (401, "invalid_api_key"),
    "revoked": (401, "token_revoked"),
    "revoked tenant": (401, "token_revoked"),
    "expired": (401, "token_expired"),
    "elsewhere": (403, "address_not_allowed"),
}
HAS = {
    "inference": set(),
    "reader": {"keys:read"},
    "writer": {"keys:write"},
    "both": {"keys:read", "keys:write"},
    "other": {"keys:read", "keys:write"},
    "admin": {"admin:read", "admin:write"},
    "admin reader": {"admin:read"},
    "admin writer": {"admin:write"},
}


def expected(who: str | None, method: str, path: str) -> tuple[int, str] | None:
    """How the caller is refused, told from the path and the method alone; None when it is admitted."""
    if who in REFUSED:
        return REFUSED[who]
    assert who is not None
    of_admins = who.startswith("admin")
    if path == DOCUMENT:
        allowed = HAS[who] & {"keys:read", "admin:read"}
        return None if allowed else (403, "scope_required")
    if path.startswith("/admin") and not of_admins:
        return 403, "admin_token_required"
    if not path.startswith("/admin") and of_admins:
        return 403, "tenant_token_required"
    reads = method == "GET" or path.endswith(("/verify", "/doctor"))
    needed = ("admin:" if of_admins else "keys:") + ("read" if reads else "write")
    return None if needed in HAS[who] else (403, "scope_required")


def test_every_route_with_every_caller(control: Control, routes: list[Found]) -> None:
    """Admitted callers send nothing that would do something: 400 for want of a body, 404 for a token that is not."""
    before = control.state()
    wrong = []
    for method, path in asked(routes):
        target = filled(path, setting_key="XAI_API_KEY")
        for who in (*REFUSED, *HAS):
            answer = control.ask(who, method, target)
            refusal = (answer.status_code, answer.json().get("error", {}).get("code"))
            want = expected(who, method, path)
            if refusal != want if want else answer.status_code not in (200, 201, 400, 404, 409):
                wrong.append((who, method, path, want, refusal))
    assert wrong == []
    assert control.state() == before


def test_what_was_denied_is_noted(control: Control) -> None:
    control.ask("inference", "PUT", f"/v1/keys/{OPENAI}", {"value": VALUE})
    control.ask("both", "POST", "/admin/tokens", {"kind": "admin"})
    newest = control.admin("GET", "/admin/audit?outcome=denied&limit=2").json()["data"]
    assert [(row["actor_kind"], row["action"], row["phase"]) for row in newest] == [
        ("tenant", "token.create", "whole"),
        ("tenant", "key.set", "whole"),
    ]


# --- T12: malformed hosts --------------------------------------------------------------------------------------------

SHAPES = (
    "{h}/#@x", "{h}/admin", "a/b?x=", "x#", "x#/v1/keys", "{h}?/livez", "{h}/livez", "{h}/livez?", "{h}/livez#",
    "livez", "/livez", "//livez", "/", "?", "#", "@", ":", "{h}@evil.example", "evil.example:80@{h}", "evil.example",
    "[::1]/livez", "[", "]", "[::1", "{h}/..", "{h}/../livez", "{h}%2flivez", "{h}%23", "{h}\\livez", "\\livez",
    "{h};livez", "{h},evil.example", "{h} livez", " {h}", "{h} ", "\t{h}", "*", "null", "undefined", "localhost:99999",
    "localhost:-1", "localhost:0x50", "localhost:4000/#@x", "127.1", "0", "2130706433", "http://{h}", "http://{h}/livez?",
    "https://evil.example/", "{h}/livez?x=/admin", "x" * 300, "a" * 64 + ".example", ".", "..", "-", "{h}.", "%00", "'",
    '"', "${{h}}", "<x>", "{h}/v1/models#",
)  # fmt: skip


def test_malformed_hosts_open_nothing(control: Control, routes: list[Found]) -> None:
    host = urlsplit(control.gateway.url).netloc
    hosts = [shape.replace("{h}", host) for shape in SHAPES]
    assert len(set(hosts)) >= 60
    statuses = {_with_hosts(host, method, filled(path), [bad]) for method, path in asked(routes) for bad in hosts}
    statuses |= {_with_hosts(host, method, filled(path), [host, "evil.example"]) for method, path in asked(routes)}
    assert statuses <= {400, 401}
    assert 401 in statuses


def _with_hosts(host: str, method: str, path: str, hosts: list[str], token: str | None = None) -> int:
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for each in hosts:
            connection.putheader("Host", each)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_malformed_hosts_make_no_admin_of_a_tenant(control: Control) -> None:
    host = urlsplit(control.gateway.url).netloc
    token = control.tokens["inference"]
    for path in ("/admin/tenants", "/v1/keys"):
        statuses = {_with_hosts(host, "GET", path, [shape.replace("{h}", host)], token) for shape in SHAPES}
        assert statuses <= {400, 403}


# --- T15: carriers of the token --------------------------------------------------------------------------------------


def test_three_headers_are_one_way_in(control: Control, routes: list[Found]) -> None:
    """Each header gives what the others give; a query, a cookie, Basic or a form gives nothing."""
    for who in ("admin", "reader", "inference"):
        token = control.tokens[who]
        for path in (path for method, path in asked(routes) if method == "GET"):
            target = filled(path)
            headers = ({"authorization": f"Bearer {token}"}, {"x-api-key": token}, {"api-key": token})
            answers = [control.ask(None, "GET", target, **each) for each in headers]
            # Each request adds a row, or is the last use; and the sources of prices are asked meanwhile.
            moving = "audit" in path or "token" in path or path == "/admin/prices"
            assert len({(one.status_code, b"" if moving else one.content) for one in answers}) == 1
            carriers = [control.ask(None, "GET", target, cookie=f"token={token}; api_key={token}")]
            carriers += [
                control.ask(None, "GET", target, authorization=f"{kind} {token}") for kind in ("Basic", "Token")
            ]
            carriers += [control.ask(None, "GET", f"{target}?{name}={token}") for name in ("api_key", "token", "key")]
            assert {one.status_code for one in carriers} == {401}


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_token_for_keys_alone_infers_nothing(control: Control, header: str) -> None:
    value = control.tokens["reader"]
    sent = {header: f"Bearer {value}" if header == "authorization" else value}
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
    for method, path in (("POST", "/v1/chat/completions"), ("POST", "/v1/route"), ("GET", "/v1/models")):
        answer = control.ask(None, method, path, body if method == "POST" else None, **sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_required")


def test_two_different_tokens_are_refused(control: Control) -> None:
    answer = control.ask("inference", "GET", "/admin/tenants", x_api_key=control.tokens["admin"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("name", ["x-forwarded-for", "x_real_ip", "forwarded", "x_client_ip", "true_client_ip"])
def test_no_header_says_where_a_request_comes_from(control: Control, name: str) -> None:
    claimed = {name: "for=10.9.9.9" if name == "forwarded" else "10.9.9.9"}
    for path in ("/v1/keys", "/v1/models"):
        answer = control.ask("elsewhere", "GET", path, **claimed)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "address_not_allowed")
    assert control.admin("GET", "/admin/plans", **claimed).status_code == 200
    newest = control.admin("GET", "/admin/audit?action=plan.list&limit=1").json()["data"]
    assert [row["origin"] for row in newest] == ["api from 127.0.0.1"]


def test_token_that_is_revoked_while_the_body_comes_does_nothing(control: Control) -> None:
    made = control.admin("POST", "/admin/tokens", {"tenant": "beta", "scopes": ["keys:write"]}).json()
    body = json.dumps({"value": VALUE}).encode()
    connection = http.client.HTTPConnection(urlsplit(control.gateway.url).netloc, timeout=10)
    connection.putrequest("PUT", "/v1/keys/MISTRAL_API_KEY")
    for name, value in (("Authorization", f"Bearer {made['token']}"), ("Content-Type", "application/json")):
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:5])
    known = f"/admin/tokens/{made['id']}"
    eventually(lambda: control.admin("GET", known).json()["last_used_at"] is not None)  # it was admitted
    control.admin("POST", known + "/revoke")
    control.tokens["late"] = made["token"]
    eventually(lambda: control.ask("late", "GET", "/v1/keys").status_code == 401)
    connection.send(body[5:])
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (401, "token_revoked")
    connection.close()
    assert control.admin("GET", "/admin/tenants/beta/keys?provider=mistral").json()["data"] == []


# --- T16: two tenants ------------------------------------------------------------------------------------------------


def test_anothers_id_is_answered_like_one_that_is_not(control: Control, routes: list[Found]) -> None:
    """Byte for byte, for every route that takes an id, by a tenant's token and by one that may only read."""
    theirs = {"tenant": "acme", "setting_key": OPENAI, "token_id": control.tokens["both"].split("_")[2]}
    nobodys = {"tenant": "nobody", "setting_key": "XAI_API_KEY", "token_id": NOBODY}
    compared = 0
    for method, path in asked(routes):
        if "{" not in path or "provider_id" in path:
            continue
        for who in ("other", "inference", "writer", "admin reader"):
            if expected(who, method, path) is None:
                continue  # may do it: compared below
            answers = {
                (answer.status_code, answer.content)
                for ids in (theirs, nobodys)
                for answer in [control.ask(who, method, filled(path, **ids))]
            }
            assert len(answers) == 1, (who, method, path)
            compared += 1
    assert compared > 40


def test_self_service_sees_its_own_tenant_alone(control: Control, routes: list[Found]) -> None:
    """`other` asks for a name before and after acme holds it: nothing differs, and acme's key stays as it is."""
    name = "DEEPSEEK_API_KEY"
    bodies = {"PATCH": {"weight": 2}, "POST": {"version": 1}}
    asking = [(m, filled(p, setting_key=name)) for m, p in asked(routes) if p.startswith("/v1/keys") and m != "PUT"]

    def answers() -> list[tuple[int, bytes]]:
        found = [control.ask("other", method, path, bodies.get(method)) for method, path in asking]
        return [(answer.status_code, answer.content) for answer in found]

    before = answers()
    stored = control.ask("both", "PUT", f"/v1/keys/{name}", {"value": "sk-" + "0" * 32})
    assert stored.status_code == 200
    assert answers() == before
    assert control.ask("other", "PUT", f"/v1/keys/{name}", {"value": "sk-" + "1" * 32}).status_code == 200
    mine = control.ask("both", "GET", f"/v1/keys/{name}").json()["data"]
    assert [(one["state"], one["hint"]) for one in mine if one["state"] == "active"] == [("active", "0000")]
    assert control.ask("other", "DELETE", f"/v1/keys/{name}").status_code == 200
    assert control.ask("both", "DELETE", f"/v1/keys/{name}").status_code == 200


@pytest.mark.parametrize("body", [{"tenant": "beta"}, {"tenant_id": "beta"}])
def test_self_service_takes_no_tenant_from_the_body(control: Control, body: dict[str, str]) -> None:
    answer = control.ask("both", "PUT", f"/v1/keys/{OPENAI}", {"value": VALUE} | body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    answer = control.ask("both", "GET", "/v1/keys?tenant=beta")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
