"""What the control plane does when it may: writes, protected columns, idempotency, pages and filters."""

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.admin.door import Audience
from gateway.admin.table import ROWS
from keystore.tables import credentials, idempotency, tenants, tokens
from tests.harness import eventually
from tests.scenarios.control import OPENAI, VALUE, Control

OTHER_VALUE = VALUE[:-4] + "9999"
_numbers = itertools.count()


@pytest.fixture
def slug(control: Control) -> str:
    """A tenant of the test's own."""
    made = f"tenant-{next(_numbers)}"
    assert control.admin("POST", "/admin/tenants", {"slug": made, "plan": "team"}).status_code == 201
    return made


def code(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("error", {}).get("code")


def of(body: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(body[name] for name in names)


# --- tenants ---------------------------------------------------------------------------------------------------------


def test_what_an_operator_should_know_is_said_in_words(control: Control, slug: str) -> None:
    path = f"/admin/tenants/{slug}/plan"
    assert control.admin("PUT", path, {"plan": "solo"}).json()["note"] is None
    note = control.admin("PUT", path, {"plan": "free"}).json()["note"]
    assert note.startswith("Plan free takes no keys of tenants") and note.endswith("cannot be served on it.")
    refused = control.admin("POST", "/admin/tenants", {"slug": "No slug", "plan": "team"}).json()["error"]
    assert refused["message"] == "slug: it must be 1 to 63 of a-z, 0-9 and '-', and begin with a letter or digit"
    for where, kind in (("/admin/tenants", "wg_admin_"), ("/v1/keys", "wg_live_")):
        answer = control.ask(None, "GET", where)
        assert answer.status_code == 401 and f"Bearer {kind}..." in answer.json()["error"]["message"]
    unknown = control.admin("GET", "/admin/keys/report?provider=nope")
    assert code(unknown) == (404, "provider_unknown")


def test_tenant_is_added_shown_and_moved(control: Control, slug: str) -> None:
    shown = control.admin("GET", f"/admin/tenants/{slug}").json()
    assert of(shown, "object", "slug", "plan", "keys", "tokens") == ("tenant", slug, "team", [], [])
    assert control.admin("PUT", f"/admin/tenants/{slug}/plan", {"plan": "solo"}).json()["plan"] == "solo"
    by_id = control.admin("GET", f"/admin/tenants/{shown['id']}").json()
    assert of(by_id, "slug", "plan") == (slug, "solo")


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"slug": "acme", "plan": "team"}, (409, "tenant_exists")),
        ({"slug": "new", "plan": "nothing"}, (400, "plan_unknown")),
        ({"slug": "No Slug", "plan": "team"}, (400, "invalid_request")),
        ({"plan": "team"}, (400, "invalid_request")),
        ({"slug": "new", "plan": "team", "name": "a\u0000b"}, (400, "invalid_request")),
        ([], (400, "invalid_json")),
        (b'{"slug": "new", "slug": "acme", "plan": "team"}', (400, "invalid_json")),
        (b'{"slug": "new", "plan": "team", "name": "\\ud800"}', (400, "invalid_json")),
        (b"{", (400, "invalid_json")),
        (b"{" + b" " * 70_000 + b"}", (413, "request_too_large")),
    ],
)
def test_tenant_is_refused(control: Control, body: Any, want: tuple[int, str]) -> None:
    assert code(control.admin("POST", "/admin/tenants", body)) == want


def test_body_is_json_and_says_so(control: Control) -> None:
    body = b'{"slug": "new", "plan": "team"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json+x"):
        assert code(control.admin("POST", "/admin/tenants", body, content_type=kind)) == (415, "unsupported_media_type")
    assert code(control.admin("GET", "/admin/tenants", b"{}")) == (400, "invalid_request")


def test_tenants_of_one_plan(control: Control, slug: str) -> None:
    control.admin("PUT", f"/admin/tenants/{slug}/plan", {"plan": "solo"})
    assert slug in {tenant["slug"] for tenant in control.everything("/admin/tenants?plan=solo")}
    assert slug not in {tenant["slug"] for tenant in control.everything("/admin/tenants?plan=team")}


# --- keys ------------------------------------------------------------------------------------------------------------


def paths(slug: str) -> Iterator[tuple[str, str]]:
    """The same keys, for an operator and for the tenant itself."""
    yield "admin", f"/admin/tenants/{slug}/keys"
    yield "own", "/v1/keys"
    yield "own", "/keys"


def own_token(control: Control, slug: str) -> None:
    made = control.admin("POST", "/admin/tokens", {"tenant": slug, "scopes": ["keys:read", "keys:write"]})
    control.tokens["own"] = made.json()["token"]


def test_key_is_stored_replaced_activated_and_removed(control: Control, slug: str) -> None:
    own_token(control, slug)
    for who, path in paths(slug):
        name = f"{path}/{OPENAI}"
        first = control.ask(who, "PUT", name, {"value": VALUE, "expected_version": 0})
        facts = ("setting_key", "provider", "version", "state", "hint", "label", "store")
        assert of(first.json(), *facts) == (OPENAI, "openai", 1, "active", "6789", "", "credentials")
        assert control.ask(who, "PUT", name, {"value": VALUE}).json()["version"] == 1
        waiting = control.ask(who, "PUT", name, {"value": OTHER_VALUE, "activate": False}).json()
        assert of(waiting, "version", "state") == (2, "pending")
        assert code(control.ask(who, "PUT", name, {"value": VALUE, "expected_version": 1})) == (409, "key_conflict")
        active = control.ask(who, "POST", f"{name}/activate", {"version": 2, "grace_hours": 1}).json()
        assert of(active, "version", "state") == (2, "active")
        turned = control.ask(who, "PATCH", name, {"weight": 3, "position": 1}).json()
        assert of(turned, "weight", "position") == (3, 1)
        ever = control.ask(who, "GET", name).json()["data"]
        assert [of(one, "version", "state") for one in ever] == [(1, "superseded"), (2, "active")]
        assert [of(one, "version") for one in control.ask(who, "GET", path).json()["data"]] == [(2,)]
        gone = control.ask(who, "DELETE", name).json()
        assert of(gone, "removed", "provider", "answers_now") == (True, "openai", None)
        assert code(control.ask(who, "DELETE", name)) == (404, "key_unknown")
        control.gateway.operate(lambda keystore: forget(keystore, slug))


async def forget(keystore: Any, slug: str) -> None:
    """Take the removed versions away, so that the next round counts from one."""
    tenant = await keystore.tenants.get(slug)
    async with keystore._database.write() as connection:
        await connection.execute(credentials.delete().where(credentials.c.tenant_id == tenant.id))


def test_removed_key_names_the_one_that_answers_now(control: Control, slug: str) -> None:
    keys = f"/admin/tenants/{slug}/keys"
    for name in ("MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY"):
        assert control.admin("PUT", f"{keys}/{name}", {"value": f"sk-{name}-0123456789"}).status_code == 200
    gone = control.admin("DELETE", f"{keys}/MINIMAX_API_KEY").json()
    assert of(gone, "provider", "answers_now", "store") == ("minimax", "MINIMAX_2_7_API_KEY", "credentials")
    report = control.admin("GET", "/admin/keys/report?provider=minimax").json()
    assert (slug, "MINIMAX_2_7_API_KEY", "former") in {of(u, "tenant", "setting_key", "via") for u in report["uses"]}
    retiring = control.admin("GET", "/admin/providers/minimax/impact/retire").json()
    assert retiring["breaks"]
    assert (slug, "lost") in {of(change, "tenant", "effect") for change in retiring["changes"]}


def test_keys_are_canonicalised_and_put_back(control: Control, slug: str) -> None:
    former, canonical = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
    control.admin("PUT", f"/admin/tenants/{slug}/keys/{former}", {"value": "sk-former-0123456789"})
    planned = control.admin("GET", f"/admin/keys/canonicalise?tenant={slug}&provider=minimax").json()
    assert planned["batch"] is None
    assert [of(step, "from_name", "to_name", "outcome") for step in planned["steps"]] == [(former, canonical, "moved")]
    done = control.admin("POST", "/admin/keys/canonicalise", {"tenant": slug}).json()
    assert (done["steps"], done["counts"]["moved"]) == (planned["steps"], 1)
    held = control.admin("GET", f"/admin/tenants/{slug}").json()["keys"]
    assert [of(key, "setting_key", "via") for key in held if key["provider"] == "minimax"] == [(canonical, "canonical")]
    assert done["batch"] in {one["batch"] for one in control.everything("/admin/keys/moves", 1)}
    back = control.admin("POST", "/admin/keys/undo", {"batch": done["batch"]}).json()
    assert of(back["counts"], "undone", "left") == (1, 0)
    held = control.admin("GET", f"/admin/tenants/{slug}").json()["keys"]
    assert [of(key, "setting_key", "via") for key in held if key["provider"] == "minimax"] == [(former, "former")]
    newest = control.admin("GET", "/admin/audit?limit=20").json()["data"]
    assert {"key.canonicalise", "key.undo"} <= {row["action"] for row in newest}


@pytest.mark.parametrize(
    ("path", "body", "want"),
    [
        ("canonicalise", {}, (400, "invalid_request")),  # all tenants are asked for with null, not with nothing
        ("canonicalise", {"tenant": "nobody"}, (404, "tenant_unknown")),
        ("canonicalise", {"tenant": None, "provider": "minimaxx"}, (404, "provider_unknown")),
        ("undo", {"batch": "1"}, (400, "invalid_request")),
        ("undo", {"batch": "00000000-0000-4000-8000-000000000000"}, (404, "batch_unknown")),
    ],
)
def test_moves_are_refused(control: Control, path: str, body: dict[str, Any], want: tuple[int, str]) -> None:
    assert code(control.admin("POST", f"/admin/keys/{path}", body)) == want


def test_two_values_behind_one_provider_are_listed(control: Control, slug: str) -> None:
    keys = f"/admin/tenants/{slug}/keys"
    for name in ("MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY"):
        control.admin("PUT", f"{keys}/{name}", {"value": f"sk-{name}-0123456789"})
    mine = [one for one in control.everything("/admin/keys/conflicts", 1) if one["tenant"] == slug]
    assert [of(one, "winner", "others") for one in mine] == [("MINIMAX_API_KEY", ["MINIMAX_2_7_API_KEY"])]


@pytest.mark.parametrize(
    ("name", "body", "want"),
    [
        (OPENAI, {"value": "os.environ/KEK"}, (400, "key_refused")),
        (OPENAI, {"value": "${KEK}"}, (400, "key_refused")),
        (OPENAI, {"value": ""}, (400, "key_refused")),
        (OPENAI, {"value": "x" * 20_000}, (400, "key_refused")),
        (OPENAI, {"value": "sk-\u0000-0123456789abcdef"}, (400, "key_refused")),
        (OPENAI, {"value": 5}, (400, "invalid_request")),
        (OPENAI, {"value": VALUE, "label": "No Label"}, (400, "key_refused")),
        (OPENAI, {"value": VALUE, "weight": 0}, (400, "invalid_request")),
        (OPENAI, {"value": VALUE, "grace_hours": 1e9}, (400, "invalid_request")),
        (OPENAI, {"value": VALUE, "fields": {"base_url": "https://evil.example"}}, (400, "key_refused")),
        ("NOBODYS_API_KEY", {"value": VALUE}, (400, "setting_unknown")),
        ("%00", {"value": VALUE}, (400, "setting_unknown")),
    ],
)
def test_key_is_refused(control: Control, name: str, body: Any, want: tuple[int, str]) -> None:
    before = control.everything("/admin/tenants/acme/keys")
    assert code(control.admin("PUT", f"/admin/tenants/acme/keys/{name}", body)) == want
    assert code(control.ask("both", "PUT", f"/v1/keys/{name}", body)) == want
    assert control.everything("/admin/tenants/acme/keys") == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("os.environ/KEK", "refers to a key kept elsewhere"),
        ("", "is empty"),
        ("your-api-key-here", "is a placeholder"),
    ],
)
def test_refused_value_is_told_why(control: Control, value: str, said: str) -> None:
    for who, path in (("admin", "/admin/tenants/acme/keys/"), ("both", "/v1/keys/")):
        message = control.ask(who, "PUT", path + OPENAI, {"value": value}).json()["error"]["message"]
        assert said in message
        assert not value or value not in message


def test_several_keys_of_one_name(control: Control, slug: str) -> None:
    keys = f"/admin/tenants/{slug}/keys"
    for label in ("", "spare", "eu"):
        control.admin("PUT", f"{keys}/{OPENAI}", {"value": VALUE + label, "label": label})
    assert [one["label"] for one in control.everything(keys, 1)] == ["", "eu", "spare"]
    assert control.admin("DELETE", f"{keys}/{OPENAI}?label=eu").status_code == 200
    assert [one["label"] for one in control.everything(keys)] == ["", "spare"]
    assert control.everything(f"{keys}?provider=minimax") == control.everything(f"{keys}?state=pending") == []
    assert len(control.everything(f"{keys}?provider=openai&state=active")) == 2
    assert control.admin("DELETE", f"{keys}/{OPENAI}").status_code == 200
    assert control.everything(keys) == []


def test_doctor_says_what_is_wrong_and_what_providers_say(control: Control, slug: str) -> None:
    own_token(control, slug)
    keys = f"/admin/tenants/{slug}/keys"
    control.admin("PUT", f"{keys}/MINIMAX_2_7_API_KEY", {"value": "sk-sandbox-doctor-0123456789"})
    control.admin("PUT", f"{keys}/OPENAI_API_KEY", {"value": VALUE})
    for who, path in (("admin", f"/admin/tenants/{slug}/doctor"), ("own", "/v1/keys/doctor")):
        base = {"admin": keys, "own": "/v1/keys"}[who]
        seen = control.ask(who, "GET", path).json()
        assert {of(key, "setting_key", "state", "live") for key in seen["keys"]} == {
            *(("MINIMAX_2_7_API_KEY", "active", None), ("OPENAI_API_KEY", "active", None)),
        }
        old = next(key for key in seen["keys"] if key["provider"] == "minimax")
        assert of(old, "answers", "level") == ([{"provider": "minimax", "via": "former"}], "note")
        assert old["next_step"] == f"Try it with one call: POST {path}?provider=minimax."
        assert any("MINIMAX_API_KEY" in finding["text"] for finding in old["findings"] if finding["check"] == "name")
        asked = control.ask(who, "POST", path).json()
        said = {key["provider"]: key["live"]["outcome"] for key in asked["keys"]}
        assert (said, asked["problems"]) == ({"minimax": "listed", "openai": "rejected"}, 1)
        steps = {key["provider"]: key["next_step"] for key in asked["keys"]}
        assert steps["openai"] == f'Store a valid key: PUT {base}/OPENAI_API_KEY with {{"value": "VALUE"}}.'
        assert (
            steps["minimax"]
            == {
                "admin": f'Give it its canonical name: POST /admin/keys/canonicalise with {{"tenant": "{slug}"}}.',
                "own": "Ask the operator to give it its canonical name.",
            }[who]
        )
        assert "wardgate " not in json.dumps([seen, asked])
        one = control.ask(who, "GET", path + "?provider=openai").json()
        assert [key["setting_key"] for key in one["keys"]] == ["OPENAI_API_KEY"]
        assert code(control.ask(who, "GET", path + "?provider=nobody")) == (404, "provider_unknown")


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_token_is_made_used_rotated_and_revoked(control: Control, slug: str) -> None:
    rights = {"scopes": ["keys:read"], "allowed_addresses": ["127.0.0.1"], "allowed_models": ["minimax/*"]}
    made = control.admin("POST", "/admin/tokens", {"tenant": slug, "name": "app", **rights})
    assert (made.status_code, made.json()["tenant"], made.json()["replayed"]) == (201, slug, False)
    shown = control.admin("GET", f"/admin/tokens/{made.json()['id']}").json()
    assert of(shown, "scopes", "allowed_addresses", "allowed_models", "sealed") == (
        *(["keys:read"], ["127.0.0.1/32"], ["minimax/*"], True),
    )
    control.tokens["made"] = made.json()["token"]
    assert control.ask("made", "GET", "/v1/keys").status_code == 200
    rotated = control.admin("POST", f"/admin/tokens/{shown['id']}/rotate", {"overlap_hours": 1})
    control.tokens["rotated"] = rotated.json()["token"]
    assert rotated.status_code == 201
    assert [control.ask(who, "GET", "/v1/keys").status_code for who in ("made", "rotated")] == [200, 200]
    again = control.admin("POST", f"/admin/tokens/{shown['id']}/rotate")
    assert code(again) == (400, "token_refused")
    for token_id in (shown["id"], rotated.json()["id"]):
        assert control.admin("POST", f"/admin/tokens/{token_id}/revoke").json()["revoked"] is True
    eventually(lambda: control.ask("made", "GET", "/v1/keys").status_code == 401)
    eventually(lambda: control.ask("rotated", "GET", "/v1/keys").status_code == 401)
    states = [(s, len(control.everything(f"/admin/tokens?tenant={slug}&state={s}"))) for s in ("active", "revoked")]
    assert states == [("active", 0), ("revoked", 2)]


@pytest.mark.parametrize(
    ("who", "body", "want"),
    [
        ("admin", {}, (400, "token_refused")),
        ("admin", {"kind": "admin", "tenant": "acme"}, (400, "token_refused")),
        ("admin", {"tenant": "nobody"}, (404, "tenant_unknown")),
        ("admin", {"tenant": "acme", "scopes": ["admin:read"]}, (400, "token_refused")),
        ("admin", {"tenant": "acme", "scopes": ["all"]}, (400, "invalid_request")),
        ("admin", {"tenant": "acme", "expires_at": "2020-01-01T00:00:00Z"}, (400, "token_refused")),
        ("admin", {"tenant": "acme", "expires_at": "2120-01-01T00:00:00"}, (400, "invalid_request")),
        ("admin", {"tenant": "acme", "allowed_addresses": ["10.0.0.1/8"]}, (400, "invalid_request")),
        ("admin", {"tenant": "acme", "allowed_models": ["a b"]}, (400, "invalid_request")),
        ("admin writer", {"kind": "admin"}, (403, "not_allowed")),
        ("admin writer", {"kind": "admin", "scopes": ["admin:read"]}, (403, "not_allowed")),
    ],
)
def test_token_is_refused(control: Control, who: str, body: dict[str, Any], want: tuple[int, str]) -> None:
    before = len(control.everything("/admin/tokens"))
    assert code(control.ask(who, "POST", "/admin/tokens", body)) == want
    assert len(control.everything("/admin/tokens")) == before


def test_refused_token_is_told_why(control: Control) -> None:
    told = control.admin("POST", "/admin/tokens", {"tenant": "acme", "scopes": ["admin:read"]}).json()["error"]
    assert "A token of the kind live has no scope 'admin:read'" in told["message"]
    assert "needs a tenant" in control.admin("POST", "/admin/tokens", {}).json()["error"]["message"]


def test_nobody_takes_more_rights_by_rotating(control: Control) -> None:
    admin_id = control.tokens["admin"].split("_")[2]
    assert code(control.ask("admin writer", "POST", f"/admin/tokens/{admin_id}/rotate")) == (403, "not_allowed")
    assert control.admin("GET", f"/admin/tokens/{admin_id}").json()["replaced_by"] is None
    made = control.ask("admin writer", "POST", "/admin/tokens", {"kind": "admin", "scopes": ["admin:write"]})
    assert made.status_code == 201


def test_admin_token_for_some_addresses_makes_none_for_all(control: Control) -> None:
    bound = control.admin("POST", "/admin/tokens", {"kind": "admin", "allowed_addresses": ["127.0.0.1"]}).json()
    control.tokens["bound"] = bound["token"]
    assert code(control.ask("bound", "POST", "/admin/tokens", {"kind": "admin"})) == (403, "not_allowed")
    assert control.ask("bound", "GET", "/admin/tenants").status_code == 200


def test_admin_token_that_ends_makes_none_that_outlives_it(control: Control) -> None:
    def made(who: str, **body: str) -> Any:
        return control.ask(who, "POST", "/admin/tokens", {"kind": "admin", **body})

    ending = made("admin", expires_at="2100-01-01T00:00:00Z").json()
    control.tokens["ending"] = ending["token"]
    assert code(made("ending")) == code(made("ending", expires_at="2100-01-01T00:00:01Z")) == (403, "not_allowed")
    assert made("ending", expires_at="2100-01-01T00:00:00Z").status_code == 201
    forever = made("admin").json()["id"]
    assert code(control.ask("ending", "POST", f"/admin/tokens/{forever}/rotate")) == (403, "not_allowed")
    rotated = control.ask("ending", "POST", f"/admin/tokens/{ending['id']}/rotate", {"overlap_hours": 1})
    assert of(rotated.json(), "expires_at") == (ending["expires_at"],)
    assert code(made("ending", expires_at="2100-01-01T00:00:00Z")) == (403, "not_allowed")


# --- T14: protected columns ------------------------------------------------------------------------------------------

TENANTS_OWN = {"slug", "plan", "name", "id", "default_model"}
TOKENS_OWN = {"name", "kind", "scopes", "expires_at", "allowed_models", "allowed_addresses"}
WRITES: tuple[tuple[str, str, str, dict[str, Any], set[str]], ...] = (
    ("admin", "POST", "/admin/tenants", {"slug": "protected", "plan": "team"}, TENANTS_OWN),
    ("admin", "PUT", "/admin/tenants/acme/plan", {"plan": "team"}, {"plan"}),
    ("admin", "PUT", f"/admin/tenants/acme/keys/{OPENAI}", {"value": OTHER_VALUE}, {"label", "weight", "position"}),
    ("both", "PUT", f"/v1/keys/{OPENAI}", {"value": OTHER_VALUE}, {"label", "weight", "position"}),
    ("admin", "PATCH", f"/admin/tenants/acme/keys/{OPENAI}", {"weight": 7}, {"label", "weight", "position"}),
    ("both", "PATCH", f"/v1/keys/{OPENAI}", {"weight": 7}, {"label", "weight", "position"}),
    ("both", "POST", f"/v1/keys/{OPENAI}/activate", {"version": 1}, {"label", "version"}),
    ("admin", "POST", "/admin/tokens", {"tenant": "acme"}, TOKENS_OWN),
    ("admin", "POST", "/admin/tokens/AAAAAAAAAAAA/rotate", {}, set()),
)  # fmt: skip
COLUMNS = sorted({column.name for table in (tenants, credentials, tokens) for column in table.columns})


@pytest.mark.parametrize(("who", "method", "path", "body", "takes"), WRITES, ids=[f"{w[1]} {w[2]}" for w in WRITES])
def test_no_write_sets_a_column_that_is_not_its_own(
    control: Control, who: str, method: str, path: str, body: dict[str, Any], takes: set[str]
) -> None:
    before = control.state()
    for column in set(COLUMNS) - takes:
        answer = control.ask(who, method, path, body | {column: "beta"})
        assert code(answer) == (400, "invalid_request"), column
    every = {column: "beta" for column in COLUMNS if column not in takes}
    assert code(control.ask(who, method, path, body | every)) == (400, "invalid_request")
    assert control.state() == before


def test_columns_are_those_of_the_tables() -> None:
    assert {"plan", "scopes", "tenant_id", "envelope", "hash", "mac", "state", "revoked_at"} <= set(COLUMNS)


# --- idempotency -----------------------------------------------------------------------------------------------------


def test_repeated_write_is_done_once(control: Control, slug: str) -> None:
    body, key = {"slug": f"{slug}-twice", "plan": "team"}, f"key-{slug}"
    first = control.admin("POST", "/admin/tenants", body, idempotency_key=key)
    again = control.admin("POST", "/admin/tenants", body, idempotency_key=key)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    other = control.admin("POST", "/admin/tenants", {**body, "plan": "solo"}, idempotency_key=key)
    assert code(other) == (409, "idempotency_key_reused")
    assert code(control.admin("POST", "/admin/tenants", body)) == (409, "tenant_exists")


def test_repeated_token_is_not_shown_again(control: Control, slug: str) -> None:
    body, key = {"tenant": slug}, f"token-{slug}"
    first = control.admin("POST", "/admin/tokens", body, idempotency_key=key).json()
    again = control.admin("POST", "/admin/tokens", body, idempotency_key=key)
    assert (again.status_code, again.json()) == (201, {**first, "token": None, "replayed": True})
    assert len(control.everything(f"/admin/tokens?tenant={slug}")) == 1
    rotated = [control.admin("POST", f"/admin/tokens/{first['id']}/rotate", idempotency_key=key) for _ in range(2)]
    assert [one.status_code for one in rotated] == [201, 201]
    assert rotated[1].json()["token"] is None
    kept = control.gateway.operate(kept_results)
    secrets = (first["token"].split("_")[3], rotated[0].json()["token"].split("_")[3])
    assert kept and not any(secret in text for text in kept for secret in secrets)


async def kept_results(keystore: Any) -> list[str]:
    async with keystore._database.read() as connection:
        return [repr(tuple(row)) for row in await connection.execute(idempotency.select())]


def test_key_value_is_neither_kept_nor_told(control: Control, slug: str) -> None:
    path, key = f"/admin/tenants/{slug}/keys/{OPENAI}", f"value-{slug}"
    answers = [control.admin("PUT", path, {"value": VALUE}, idempotency_key=key) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200]
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert not any(VALUE in text for text in control.gateway.operate(kept_results))


def test_what_was_refused_may_be_asked_again(control: Control, slug: str) -> None:
    key = f"again-{slug}"
    path = f"/admin/tenants/{slug}/keys/{OPENAI}"
    assert code(control.admin("PUT", path, {"value": "${X}"}, idempotency_key=key)) == (400, "key_refused")
    assert control.admin("PUT", path, {"value": VALUE}, idempotency_key=key).status_code == 200


def test_key_belongs_to_its_caller_and_action(control: Control, slug: str) -> None:
    key = f"mine-{slug}"
    first = control.admin("POST", "/admin/tokens", {"tenant": slug}, idempotency_key=key)
    other = control.ask("admin writer", "POST", "/admin/tokens", {"tenant": slug}, idempotency_key=key)
    plan = control.admin("PUT", f"/admin/tenants/{slug}/plan", {"plan": "solo"}, idempotency_key=key)
    assert [one.status_code for one in (first, other, plan)] == [201, 201, 200]
    assert other.json()["id"] != first.json()["id"]
    assert not other.headers.get("idempotency-replayed")


def test_replay_needs_the_right_too(control: Control, slug: str) -> None:
    own_token(control, slug)
    path, key = f"/v1/keys/{OPENAI}", f"right-{slug}"
    assert control.ask("own", "PUT", path, {"value": VALUE}, idempotency_key=key).status_code == 200
    control.admin("POST", f"/admin/tokens/{control.tokens['own'].split('_')[2]}/revoke")
    eventually(lambda: control.ask("own", "PUT", path, {"value": VALUE}, idempotency_key=key).status_code == 401)


def test_of_concurrent_ones_one_wins(control: Control, slug: str) -> None:
    key = f"race-{slug}"
    with ThreadPoolExecutor(8) as pool:
        asking = [
            pool.submit(control.admin, "POST", "/admin/tokens", {"tenant": slug}, idempotency_key=key) for _ in range(8)
        ]
        answers = [each.result() for each in asking]
    shown = [one.json()["token"] for one in answers if one.status_code == 201 and one.json()["token"]]
    assert len(shown) == 1
    assert {one.status_code for one in answers} <= {201, 409}
    assert {one.json()["error"]["code"] for one in answers if one.status_code == 409} <= {"idempotency_in_progress"}
    assert len(control.everything(f"/admin/tokens?tenant={slug}")) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_key_of_another_form_is_refused(control: Control, key: str) -> None:
    answer = control.admin("POST", "/admin/tokens", {"tenant": "acme"}, idempotency_key=key)
    assert (code(answer), answer.json()["error"]["param"]) == ((400, "invalid_request"), "idempotency-key")


# --- pages -----------------------------------------------------------------------------------------------------------


def paged(control: Control, path: str, between: Callable[[int], None]) -> list[dict[str, Any]]:
    """Every item by pages of two, with something done between two pages."""
    items: list[dict[str, Any]] = []
    cursor = ""
    for number in itertools.count():
        page = control.admin("GET", f"{path}limit=2{cursor}").json()
        assert of(page, "object", "has_more") == ("list", page["next_cursor"] is not None)
        assert len(page["data"]) == 2 or not page["has_more"]
        items += page["data"]
        if not page["has_more"]:
            return items
        cursor = f"&cursor={page['next_cursor']}"
        between(number)
    raise AssertionError


def test_pages_of_tenants_are_stable_under_inserts(control: Control, slug: str) -> None:
    there = [tenant["slug"] for tenant in control.everything("/admin/tenants", 200)]

    def insert(number: int) -> None:
        if number < 3:
            for first in ("0", "zz"):
                body = {"slug": f"{first}-{slug}-{number}", "plan": "team"}
                assert control.admin("POST", "/admin/tenants", body).status_code == 201

    seen = [tenant["slug"] for tenant in paged(control, "/admin/tenants?", insert)]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in there] == there


def test_pages_of_tokens_and_audit_are_stable_under_inserts(control: Control, slug: str) -> None:
    for _ in range(5):
        control.admin("POST", "/admin/tokens", {"tenant": slug})
    there = [token["id"] for token in control.everything(f"/admin/tokens?tenant={slug}")]

    def insert(number: int) -> None:
        if number < 2:
            control.admin("POST", "/admin/tokens", {"tenant": slug})

    seen = [token["id"] for token in paged(control, f"/admin/tokens?tenant={slug}&", insert)]
    assert (seen[: len(there)], len(seen)) == (there, len(there) + 2)
    made = [row["seq"] for row in control.everything(f"/admin/audit?tenant={slug}&action=token.create", 200)]
    again = [row["seq"] for row in paged(control, f"/admin/audit?tenant={slug}&action=token.create&", insert)]
    assert again == made
    assert made == sorted(made, reverse=True)


STRANGE = ("x", "W10", "WzFd", "WyJhIl0", "eyJhIjoxfQ", "WyJhXHUwMDAwIl0", "!" * 10, "A" * 2000)
TWICE = ("limit=1&limit=2", "cursor=a&cursor=b")


@pytest.mark.parametrize("path", ["tenants", "tokens", "audit", "providers", "tenants/acme/keys", "sealing"])
@pytest.mark.parametrize("cursor", STRANGE)
def test_strange_cursor_is_refused_or_empty(control: Control, path: str, cursor: str) -> None:
    answer = control.admin("GET", f"/admin/{path}?cursor={cursor}")
    assert code(answer) in ((400, "invalid_request"), (200, None))


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
def test_number_that_no_database_holds_is_no_cursor(control: Control, number: int) -> None:
    cursor = base64.urlsafe_b64encode(f"[{number}]".encode()).decode().rstrip("=")
    assert code(control.admin("GET", f"/admin/audit?cursor={cursor}")) == (400, "invalid_request")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_time_that_utc_does_not_have_is_refused(control: Control, time: str) -> None:
    answers = [control.admin("GET", f"/admin/audit?since={time.replace('+', '%2B')}")]
    body, key = {"tenant": "acme", "expires_at": time}, f"time-{next(_numbers)}"
    answers += [control.admin("POST", "/admin/tokens", body, idempotency_key=key) for _ in range(2)]
    assert {code(answer) for answer in answers} == {(400, "invalid_request")}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "nothing=1", *TWICE])
def test_strange_query_is_refused(control: Control, query: str) -> None:
    assert code(control.admin("GET", f"/admin/tenants?{query}")) == (400, "invalid_request")
    assert code(control.ask("both", "GET", f"/v1/keys?{query}")) == (400, "invalid_request")


def test_audit_is_filtered_and_whole(control: Control, slug: str) -> None:
    start = control.admin("GET", "/admin/audit?limit=1").json()["data"][0]["at"]
    control.admin("PUT", f"/admin/tenants/{slug}/plan", {"plan": "solo"})
    control.admin("PUT", f"/admin/tenants/{slug}/plan", {"plan": "nothing"})
    rows = control.everything(f"/admin/audit?tenant={slug}&action=tenant.set_plan")
    assert [row["outcome"] for row in rows] == ["refused", "begun", "done", "begun"]
    admin_id = control.tokens["admin"].split("_")[2]
    assert {of(row, "actor_kind", "actor", "origin") for row in rows} == {("admin", admin_id, "api from 127.0.0.1")}
    done = control.everything(f"/admin/audit?tenant={slug}&outcome=done&actor={admin_id}")
    assert {"tenant.set_plan"} <= {row["action"] for row in done}
    late = control.admin("GET", "/admin/audit", None).json()["data"][0]["at"]
    since = control.everything(f"/admin/audit?tenant={slug}&since={start.replace('+', '%2B')}")
    assert start <= late and {row["action"] for row in since} >= {"tenant.set_plan"}
    verdict = control.admin("GET", "/admin/audit/verify").json()
    assert of(verdict, "whole", "faults") == (True, [])
    kept = control.admin("GET", f"/admin/audit/verify?expect={verdict['head']}").json()
    assert kept["whole"]
    assert code(control.admin("GET", "/admin/audit/verify?expect=x")) == (400, "audit_head_refused")


def test_root_keys_providers_and_imports_are_told(control: Control) -> None:
    keys = control.everything("/admin/sealing")
    assert [of(key, "state", "present", "replicas_lacking") for key in keys] == [("active", True, [])]
    assert control.admin("POST", "/admin/sealing/verify").json()["failed"] == 0
    providers = control.everything("/admin/providers", 3)
    ids = [row["id"] for row in providers]
    assert (ids, len(set(ids))) == (sorted(ids), len(ids))
    assert "MINIMAX_2_7_API_KEY" in next(row for row in providers if row["id"] == "minimax")["key_names"]
    assert control.everything("/admin/imports") == []
    assert {"free", "team"} <= {plan["name"] for plan in control.everything("/admin/plans", 1)}
    for nobody in ("nobody", "x" * 65):
        answer = control.admin("GET", f"/admin/providers/{nobody}/impact/retire")
        assert code(answer) == (404, "provider_unknown")
    assert code(control.admin("GET", "/admin/providers/minimax/impact/rename?to=Bad%20Id")) == (400, "invalid_request")
    assert control.admin("GET", "/admin/providers/minimax/impact/rename?to=mini").status_code == 200


def test_new_tenant_is_told_its_first_key_and_a_plan_can_be_tried_before_it_is_set(control: Control) -> None:
    added = control.admin("POST", "/admin/tenants", {"slug": "onboarding", "plan": "team"}).json()
    assert added["first_key"] == {
        "provider": "minimax",
        "setting_key": "MINIMAX_API_KEY",
        "model": "minimax/MiniMax-M2",
    }
    path = "/admin/tenants/onboarding/plan/simulate?plan="
    assert control.admin("GET", path + "enterprise").json()["loses"] is False
    told = control.admin("GET", path + "free").json()
    assert of(told, "object", "before", "after", "loses") == ("plan_simulation", "team", "free", True)
    assert code(control.admin("GET", path + "teem")) == (400, "plan_unknown")
    assert code(control.admin("GET", path[:-6])) == (400, "invalid_request")
    assert code(control.admin("GET", "/admin/tenants/nobody/plan/simulate?plan=team")) == (404, "tenant_unknown")
    assert control.admin("GET", "/admin/tenants/onboarding").json()["plan"] == "team"


def test_part_of_a_path_that_has_not_its_form_is_refused_everywhere(control: Control) -> None:
    """Each part by itself, the others as they should be: a caller's mistake is never an error of the gateway."""
    forms = {"tenant": "acme", "token_id": "A" * 12, "webhook_id": "wh_" + "0" * 12, "request_id": "req_" + "0" * 32}
    forms |= {"setting_key": "MINIMAX_API_KEY", "name": "fast", "provider_id": "minimax", "release": "1"}
    forms |= {"spend": "byok", "period": "day", "limit": "concurrency"}
    wrong, seen = "%25" * 200, set()
    for row in ROWS:
        for part in re.findall(r"{([a-z_]+)}", row.path):
            path = row.path.format_map(forms | {part: wrong})
            who = "both" if row.audience is Audience.TENANTS else "admin"
            answer = control.ask(who, row.method, path)
            assert 400 <= answer.status_code < 500, (row.method, row.path, part, answer.text)
            seen.add(part)
    assert seen <= set(forms)
    told = control.admin("DELETE", f"/admin/tenants/acme/aliases/{'a' * 64}")
    assert code(told) == (400, "alias_refused")
