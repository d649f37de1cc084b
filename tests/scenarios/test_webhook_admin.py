"""Webhooks over HTTP: the secret comes once, the URL never again, and nobody but the operator adds one."""

from tests.scenarios.control import NO_WEBHOOK, Control

URL = "https://hooks.example/services/path-secret?key=query-secret"


def test_operator_adds_lists_rotates_and_removes(control: Control) -> None:
    made = control.admin("POST", "/admin/webhooks", {"url": URL, "name": "pager"}, idempotency_key="hook-1")
    first = made.json()
    assert (made.status_code, first["host"], first["name"]) == (201, "hooks.example", "pager")
    assert first["secret"].startswith("whsec_")
    again = control.admin("POST", "/admin/webhooks", {"url": URL, "name": "pager"}, idempotency_key="hook-1").json()
    assert (again["id"], again["secret"], again["replayed"]) == (first["id"], None, True)
    path = f"/admin/webhooks/{first['id']}"
    second = control.admin("POST", f"{path}/rotate", {"overlap_hours": 1.0}).json()
    assert second["secret"] not in (None, first["secret"])
    (listed,) = [one for one in control.everything("/admin/webhooks", 1) if one["id"] == first["id"]]
    assert set(listed) == {"object", "id", "name", "host", "created_at", "secret_since"}
    assert control.admin("DELETE", path).json()["removed"] is True
    gone = control.admin("POST", f"{path}/test")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "webhook_unknown")
    noted = control.everything("/admin/audit?action=webhook.rotate", 50)
    assert {row["target"] for row in noted} >= {first["id"]}
    told = control.gateway.logs.getvalue() + repr(control.everything("/admin/audit", 200))
    for secret in (first["secret"], second["secret"], "path-secret", "query-secret"):
        assert secret not in told


def test_url_that_leads_inside_is_refused_without_being_quoted(control: Control) -> None:
    for url in (
        "https://169.254.169.254/path-secret",
        "http://hooks.example/path-secret",
        "https://u:p@hooks.example/",
    ):
        refused = control.admin("POST", "/admin/webhooks", {"url": url})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "webhook_refused")
        assert url not in refused.text and "path-secret" not in refused.text


def test_tenant_and_reader_add_none(control: Control) -> None:
    for who in ("both", "admin reader", "inference"):
        assert control.ask(who, "POST", "/admin/webhooks", {"url": URL}).status_code == 403, who
    assert control.ask("admin reader", "POST", f"/admin/webhooks/{NO_WEBHOOK}/test").status_code == 403


def test_malformed_id_is_a_webhook_that_is_not_there(control: Control) -> None:
    asked = [("DELETE", ""), ("POST", "/test"), ("POST", "/rotate")]
    for name in ("wh_0", "nope", "wh_5F0C2A9BE413"):
        for method, more in asked:
            answer = control.admin(method, f"/admin/webhooks/{name}{more}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webhook_unknown"), (method, name)
