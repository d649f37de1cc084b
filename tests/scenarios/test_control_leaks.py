"""What the control plane tells: never what was sent, never a value; and the document that describes it."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.harness import RunningGateway
from tests.scenarios.control import NOBODY, OPENAI, VALUE, Control, Found, filled, prepared

CANARY = "sk-canary-{number:04d}-Zq7wXv3RtYpL9mNb"
# What may be told again, because it is a name that was stored: fields of answers that succeeded.
TOLD_WHEN_STORED = {"name", "default_model", "allowed_models", "models"}
BODIES: dict[str, dict[str, Any]] = {
    "POST /admin/tenants": {"slug": "leaks", "plan": "team", "name": "n", "id": "leaks-1", "default_model": "auto"},
    "PUT /admin/tenants/{tenant}/plan": {"plan": "team"},
    "PUT /admin/tenants/{tenant}/keys/{setting_key}": {
        **{"value": VALUE, "label": "leak", "weight": 1, "position": 0, "activate": True, "grace_hours": 0.0},
        **{"fields": {}, "expected_version": 0},
    },
    "POST /admin/tenants/{tenant}/keys/{setting_key}/activate": {"version": 1, "label": "", "grace_hours": 0.0},
    "PATCH /admin/tenants/{tenant}/keys/{setting_key}": {"label": "", "weight": 1, "position": 0},
    "PUT /admin/tenants/{tenant}/aliases/{name}": {
        **{"models": ["auto"], "objective": None, "min_quality": 1, "unknown_quality": True},
    },
    "PUT /admin/tenants/{tenant}/budgets/{spend}/{period}": {"amount_usd": "5", "hard": True},
    "PUT /admin/tenants/{tenant}/limits/{limit}": {"amount": 5},
    "POST /admin/tokens": {
        **{"tenant": "acme", "kind": "live", "name": "n", "expires_at": "2100-01-01T00:00:00Z"},
        **{"scopes": ["inference"], "allowed_models": ["m"], "allowed_addresses": ["127.0.0.1"]},
    },
    "POST /admin/tokens/{token_id}/rotate": {"overlap_hours": 1.0},
    "POST /admin/webhooks": {"url": "https://hooks.example/x", "name": "n"},
    "POST /admin/webhooks/{webhook_id}/rotate": {"overlap_hours": 1.0},
    "POST /admin/keys/canonicalise": {"tenant": "acme", "provider": "openai"},
    "POST /admin/prices/refresh": {"sources": "all"},
    "POST /admin/prices/rollback": {"to": "999999999"},
    "POST /admin/prices/releases/{release}/approve": {"rows": ["m"]},
    "POST /admin/keys/undo": {"batch": "00000000-0000-4000-8000-000000000000"},
}
BODIES |= {
    name.replace("/admin/tenants/{tenant}", "/v1"): body
    for name, body in BODIES.items()
    if "/{tenant}/keys/" in name or "/aliases/" in name
}


def spoiled(value: Any, canary: str) -> list[Any]:
    """A canary in the place of a value, as text, inside a list, as the name in an object, and as its value."""
    return [canary, [canary], {canary: "x"}, {"base_url": canary}, canary + "\u0000", canary + "\n" + str(value)]


def bodies_with_canaries(body: dict[str, Any], first: int) -> list[tuple[str, str, Any]]:
    """Each field in turn with each spoiled value, then unknown names, then no object at all."""
    made: list[tuple[str, str, Any]] = []

    def canary() -> str:
        return CANARY.format(number=first + len(made))

    for name in body:
        for kind in range(6):
            mark = canary()
            made.append((name, mark, {**body, name: spoiled(body[name], mark)[kind]}))
    for make in (
        lambda c: {**body, c: 1},
        lambda c: {**body, "x": c},
        lambda c: [c],
        lambda c: c,
        lambda c: {c: {c: c}},
    ):
        mark = canary()
        made.append(("", mark, make(mark)))
    for raw in ('{{"{0}": 1, "{0}": 2}}', '{{"value": "{0}"', '{{"value": 123456789012345678901234, "x": "{0}"}}'):
        mark = canary()
        made.append(("", mark, raw.format(mark).encode()))
    return made


def test_table_of_bodies_is_whole(routes: list[Found]) -> None:
    wanted = {f"{m} {r.path}" for r in routes if r.canonical and r.door and r.door.takes_body for m in r.methods}
    assert set(BODIES) == wanted


def test_nothing_that_was_sent_is_told(control: Control) -> None:
    first, marks = 0, []
    for name, body in BODIES.items():
        method, _, path = name.partition(" ")
        who = "both" if path.startswith("/v1") else "admin"
        for field, mark, spoilt in bodies_with_canaries(body, first):
            answer = control.ask(who, method, filled(path, setting_key="GROQ_API_KEY"), spoilt)
            told = answer.text + str(answer.headers)
            stored = answer.status_code < 300 and field in TOLD_WHEN_STORED
            assert stored or mark[:14] not in told, (name, field, answer.text)
            assert answer.status_code < 500, (name, spoilt, answer.text)
            marks.append((mark, stored))
            first += 1
    assert first > 200
    assert [mark for mark, _ in marks if mark in control.gateway.logs.getvalue()] == []
    noted = json.dumps(control.everything("/admin/audit", 200))
    assert [mark for mark, stored in marks if mark in noted and not stored] == []


def test_nothing_of_a_query_path_or_header_is_told(control: Control, routes: list[Found]) -> None:
    mark = CANARY.format(number=9999)
    for route in (route for route in routes if route.canonical):
        for method in route.methods:
            who = "both" if route.path.startswith("/v1") else "admin"
            parts = {
                name: mark
                for name in ("setting_key", "token_id", "provider_id", "request_id")
                if f"{{{name}}}" in route.path
            }
            asked = [control.ask(who, method, filled(route.path) + f"?{mark}={mark}")]
            asked += [control.ask(who, method, filled(route.path), idempotency_key=mark + " x")]
            asked += [control.ask(who, method, filled(route.path, **parts))] if parts else []
            fields = route.door.fields["query"] if route.door else ()
            asked += [control.ask(who, method, filled(route.path) + f"?{name}={mark}") for name in fields]
            for answer in asked:
                assert mark not in answer.text + str(answer.headers), (method, route.path, answer.text)
                assert answer.status_code < 500, (method, route.path, answer.text)
    assert mark not in json.dumps(control.everything("/admin/audit", 200))


@pytest.mark.parametrize(
    "start", ["/v1/keys", "/keys", "/admin/tenants/acme/keys", "//v1/keys", "/V1/Keys", "/v2/keys"]
)
def test_path_that_leads_nowhere_is_not_told(control: Control, start: str) -> None:
    """A value at the end of a path instead of in the body."""
    mark = CANARY.format(number=8888)
    for method, path in (
        ("PUT", f"{start}/{OPENAI}/{mark}"),
        ("POST", f"{start}/{mark}"),
        ("GET", f"{start}/x/y/{mark}"),
    ):
        answer = control.ask("both", method, path)
        assert (answer.status_code in (404, 405), mark in answer.text + str(answer.headers)) == (True, False)
    assert mark not in control.gateway.logs.getvalue()


def test_stored_value_is_never_told(control: Control, routes: list[Found]) -> None:
    mark = "sk-proj-" + CANARY.format(number=7777)
    for who, path in (("admin", "/admin/tenants/beta/keys/"), ("other", "/v1/keys/")):
        assert control.ask(who, "PUT", path + OPENAI, {"value": mark, "label": "told"}).status_code == 200
    told = []
    for route in (route for route in routes if route.canonical and route.methods == ("GET",)):
        who = "other" if route.path.startswith("/v1") else "admin"
        told.append(control.ask(who, "GET", filled(route.path, tenant="beta")).text)
    told += [control.ask("other", "DELETE", f"/v1/keys/{OPENAI}").text, control.gateway.logs.getvalue()]
    assert [text for text in told if mark[:20] in text] == []


def test_answers_are_not_kept_by_caches(control: Control) -> None:
    for who, path in (("admin", "/admin/tenants"), ("both", "/v1/keys")):
        assert control.ask(who, "GET", path).headers["cache-control"] == "no-store"


def test_requests_are_counted_under_their_own_names(control: Control) -> None:
    for endpoint, who, path in (("admin", "admin", "/admin/tenants"), ("keys", "both", "/v1/keys")):
        before = control.gateway.settled("wardgate_requests_total", endpoint=endpoint)
        control.ask(who, "GET", path)
        assert control.gateway.settled("wardgate_requests_total", endpoint=endpoint) == before + 1


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.fixture
def document(control: Control) -> dict[str, Any]:
    answer = control.ask("reader", "GET", "/admin/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), path, one) for path, each in document["paths"].items() for m, one in each.items()]


def test_document_has_every_route(document: dict[str, Any], routes: list[Found]) -> None:
    served = {(method, route.path) for route in routes if route.canonical for method in route.methods}
    assert {(method, path) for method, path, _ in operations(document)} == served


def test_document_says_of_each_operation_what_a_caller_needs(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    tags = {tag["name"] for tag in document["tags"]}
    ids = [one["operationId"] for _, _, one in operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, one in operations(document):
        assert one["summary"] and set(one["tags"]) <= tags, path
        assert "Needs the scope `" in one["description"] and "Action `" in one["description"], path
        assert {name for each in one["security"] for name in each} == set(schemes), path
        assert "422" not in one["responses"], path
        for status, response in one["responses"].items():
            schema = response["content"]["application/json"]["schema"]
            is_error = schema.get("$ref") == "#/components/schemas/ErrorBody"
            assert is_error == (status[0] in "45"), (path, status)
            assert is_error or path == "/admin/openapi.json" or "$ref" in schema
        headers = {each["name"] for each in one.get("parameters", ()) if each["in"] == "header"}
        assert headers == (set() if method == "GET" or path.endswith(("/verify", "/doctor")) else {"Idempotency-Key"})


def test_document_is_valid(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    sent = [schemas[name] for name in ("TenantNew", "KeyValue", "TokenNew", "PlanChange", "KeyActivation", "KeyTurn")]
    assert all(schema["additionalProperties"] is False for schema in sent)
    assert schemas["KeyValue"]["properties"]["value"]["writeOnly"] is True


def test_document_holds_for_answers(control: Control, document: dict[str, Any]) -> None:
    """Answers and refusals are of the shapes that the document gives."""
    asked = [
        ("admin", "GET", "/admin/tenants", "/admin/tenants"),
        ("admin", "GET", "/admin/tenants/acme", "/admin/tenants/{tenant}"),
        ("admin", "GET", "/admin/tenants/nobody", "/admin/tenants/{tenant}"),
        ("admin", "GET", "/admin/tokens", "/admin/tokens"),
        ("admin", "GET", f"/admin/tokens/{NOBODY}", "/admin/tokens/{token_id}"),
        ("admin", "GET", "/admin/audit", "/admin/audit"),
        ("admin", "GET", "/admin/keys/report", "/admin/keys/report"),
        ("admin", "GET", "/admin/providers", "/admin/providers"),
        ("admin", "GET", "/admin/usage", "/admin/usage"),
        ("admin", "GET", "/admin/usage/reprice?release=bundled", "/admin/usage/reprice"),
        ("admin", "GET", "/admin/tenants/acme/budgets", "/admin/tenants/{tenant}/budgets"),
        ("admin", "GET", "/admin/tenants/acme/limits", "/admin/tenants/{tenant}/limits"),
        ("both", "GET", "/v1/keys", "/v1/keys"),
        ("inference", "GET", "/v1/keys", "/v1/keys"),
        (None, "GET", "/v1/keys", "/v1/keys"),
    ]
    for who, method, path, named in asked:
        answer = control.ask(who, method, path)
        response = document["paths"][named][method.lower()]["responses"][str(answer.status_code)]
        schema = response["content"]["application/json"]["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(answer.json())


def test_there_are_no_pages_with_scripts(control: Control) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/admin/docs", "/admin/redoc", "/admin"):
        assert control.admin("GET", path).status_code == 404
    assert control.ask(None, "GET", "/admin/openapi.json").status_code == 401


# --- the database away -----------------------------------------------------------------------------------------------


def test_outage_is_told_to_the_caller_and_its_cause_to_the_log(gateway: RunningGateway) -> None:
    """While the audit cannot be written nothing is done, and the operator can see why."""
    control = prepared(gateway)
    before = control.state()
    renamed(gateway, "wardgate_audit", "gone")
    for who, method, path, body in (
        ("admin", "GET", "/admin/tenants", None),
        ("admin", "POST", "/admin/tokens", {"tenant": "acme"}),
        ("both", "PUT", f"/v1/keys/{OPENAI}", {"value": VALUE + "0"}),
        ("both", "GET", "/admin/tenants", None),
    ):
        answer = control.ask(who, method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keystore_unavailable")
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("2", "true")
    renamed(gateway, "gone", "wardgate_audit")
    assert control.state() == before
    control.client.close()
    line = gateway.logs.records("request.not_served")[0]
    assert line["code"] == "keystore_unavailable" and "SQLite database" in str(line["why"])
    assert str(line["cause"]).startswith("DatabaseUnavailable <- OperationalError")


def renamed(gateway: RunningGateway, table: str, name: str) -> None:
    with closing(sqlite3.connect(gateway.folder / "wardgate.db")) as file:
        file.execute(f"ALTER TABLE {table} RENAME TO {name}")
