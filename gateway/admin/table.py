"""Every route of the admin API and of self-service, with the action that it runs; there are no others.

Owns the table. Who may do an action stands in gateway/control/actions.py; the gate asks there.
"""

from types import MappingProxyType
from typing import Final

from gateway.admin import (
    aliases,
    audit,
    budgets,
    bulk,
    doctor,
    imports,
    keys,
    limits,
    moves,
    names,
    plans,
    prices,
    requests,
    sealing,
    tenants,
    tokens,
    usage,
    webhooks,
)
from gateway.admin.door import Audience, Row

TAGS: Final = MappingProxyType(
    {
        "tenants": "Who may use the gateway, and on which plan.",
        "keys": "Tenants' provider keys. Values go in and never come out.",
        "tokens": "What applications authenticate with. A token is shown once, when it is made.",
        "budgets": "What tenants and their tokens may spend, and what is left of it.",
        "webhooks": "Where alerts of budgets and of unusual spending are sent to.",
        "bulk": "Whose bulk requests are paused.",
        "limits": "What tenants and their tokens may ask at a time.",
        "names": "Old names of keys, conflicts, and who breaks when a provider row changes.",
        "prices": "Price releases: what is live, what would change, and what goes live.",
        "sealing": "The root keys that wrap every tenant's data key.",
        "imports": "Adoptions of another application's tenant_settings table.",
        "requests": "Decisions that were made, kept for a while.",
        "usage": "What was used, and what it cost.",
        "audit": "Who did what, hash-chained.",
        "self-service": "A tenant's own keys, with a token that has keys:read or keys:write.",
    }
)
_TENANT: Final = "/admin/tenants/{tenant}"
_KEY: Final = _TENANT + "/keys/{setting_key}"
_BUDGET: Final = _TENANT + "/budgets/{spend}/{period}"
_LIMIT: Final = _TENANT + "/limits/{limit}"
_TOKEN: Final = "/admin/tokens/{token_id}"  # noqa: S105 - a path
_PROVIDER: Final = "/admin/providers/{provider_id}"
_RELEASE: Final = "/admin/prices/releases/{release}"
_OWN: Final = Audience.TENANTS
_SHOWN_ONCE: Final = ("token",)
_WEBHOOK: Final = "/admin/webhooks/{webhook_id}"
_SECRET_ONCE: Final = ("secret",)

ROWS: Final = (
    Row("GET", "/admin/tenants", "tenant.list", tenants.list_tenants, "List tenants", "tenants"),
    Row("POST", "/admin/tenants", "tenant.add", tenants.add_tenant, "Add a tenant", "tenants", status=201),
    Row("GET", _TENANT, "tenant.show", tenants.show_tenant, "Show a tenant", "tenants"),
    Row("PUT", _TENANT + "/plan", "tenant.set_plan", tenants.set_plan, "Set a tenant's plan", "tenants"),
    Row(
        *("GET", _TENANT + "/plan/simulate", "plan.simulate", plans.simulate),
        *("What another plan would change", "tenants"),
    ),
    Row("GET", _TENANT + "/keys", "key.list", keys.list_keys, "List a tenant's keys", "keys"),
    Row("GET", _TENANT + "/doctor", "key.doctor", doctor.look, "Examine a tenant's keys", "keys"),
    Row("POST", _TENANT + "/doctor", "key.doctor", doctor.ask, "Examine keys, and ask their providers", "keys"),
    Row("GET", _KEY, "key.list", keys.show_key, "Show the versions of a key", "keys"),
    Row("PUT", _KEY, "key.set", keys.set_key, "Store a key", "keys"),
    Row("POST", _KEY + "/activate", "key.activate", keys.activate_key, "Activate a version of a key", "keys"),
    Row("PATCH", _KEY, "key.change", keys.change_key, "Set weight or position of a key", "keys"),
    Row("DELETE", _KEY, "key.remove", keys.remove_key, "Remove a key", "keys"),
    Row("GET", _TENANT + "/aliases", "alias.list", aliases.list_aliases, "List a tenant's aliases", "tenants"),
    Row("PUT", _TENANT + "/aliases/{name}", "alias.set", aliases.set_alias, "Set an alias", "tenants"),
    Row("DELETE", _TENANT + "/aliases/{name}", "alias.remove", aliases.remove_alias, "Remove an alias", "tenants"),
    Row("GET", _TENANT + "/budgets", "budget.list", budgets.list_budgets, "List a tenant's budgets", "budgets"),
    Row("PUT", _BUDGET, "budget.set", budgets.set_budget, "Set a budget", "budgets"),
    Row("DELETE", _BUDGET, "budget.remove", budgets.remove_budget, "Remove a budget", "budgets"),
    Row("GET", "/admin/webhooks", "webhook.list", webhooks.list_webhooks, "List webhooks", "webhooks"),
    Row(
        *("POST", "/admin/webhooks", "webhook.add", webhooks.add_webhook, "Add a webhook", "webhooks"),
        status=201,
        once=_SECRET_ONCE,
    ),
    Row(
        *("POST", _WEBHOOK + "/rotate", "webhook.rotate", webhooks.rotate_webhook, "Rotate a secret", "webhooks"),
        status=201,
        once=_SECRET_ONCE,
    ),
    Row("POST", _WEBHOOK + "/test", "webhook.test", webhooks.test_webhook, "Send a webhook a test", "webhooks"),
    Row("DELETE", _WEBHOOK, "webhook.remove", webhooks.remove_webhook, "Remove a webhook", "webhooks"),
    Row("GET", "/admin/bulk", "bulk.list", bulk.list_paused, "List whose bulk is paused", "bulk"),
    Row("POST", _TENANT + "/bulk/pause", "bulk.pause", bulk.pause, "Pause a tenant's bulk", "bulk"),
    Row("POST", _TENANT + "/bulk/resume", "bulk.resume", bulk.resume, "Let a tenant's bulk go on", "bulk"),
    Row("GET", _TENANT + "/limits", "limit.list", limits.list_limits, "List a tenant's limits", "limits"),
    Row("PUT", _LIMIT, "limit.set", limits.set_limit, "Set a limit", "limits"),
    Row("DELETE", _LIMIT, "limit.remove", limits.remove_limit, "Remove a limit", "limits"),
    Row("GET", "/admin/plans", "plan.list", plans.list_plans, "List plans", "tenants"),
    Row("GET", "/admin/tokens", "token.list", tokens.list_tokens, "List tokens", "tokens"),
    Row(
        "POST",
        "/admin/tokens",
        "token.create",
        tokens.create_token,
        "Make a token",
        "tokens",
        status=201,
        once=_SHOWN_ONCE,
    ),
    Row("GET", _TOKEN, "token.list", tokens.show_token, "Show a token", "tokens"),
    Row(
        *("POST", _TOKEN + "/rotate", "token.rotate", tokens.rotate_token, "Rotate a token", "tokens"),
        status=201,
        once=_SHOWN_ONCE,
    ),
    Row("POST", _TOKEN + "/revoke", "token.revoke", tokens.revoke_token, "Revoke a token", "tokens"),
    Row("GET", "/admin/keys/report", "key.report", names.report, "Report old names", "names"),
    Row("GET", "/admin/keys/conflicts", "key.conflicts", names.conflicts, "List conflicts", "names"),
    Row("GET", "/admin/keys/canonicalise", "key.report", moves.plan_moves, "What canonicalising would do", "names"),
    Row("POST", "/admin/keys/canonicalise", "key.canonicalise", moves.canonicalise, "Canonicalise keys", "names"),
    Row("GET", "/admin/keys/moves", "key.report", moves.list_batches, "List what was canonicalised", "names"),
    Row("POST", "/admin/keys/undo", "key.undo", moves.undo, "Put a batch back", "names"),
    Row("GET", "/admin/providers", "provider.list", names.list_providers, "List provider rows", "names"),
    Row(
        *("GET", _PROVIDER + "/impact/retire", "provider.impact", names.impact_of_retiring),
        *("Who breaks if a provider is retired", "names"),
    ),
    Row(
        *("GET", _PROVIDER + "/impact/rename", "provider.impact", names.impact_of_renaming),
        *("Who breaks if a provider is renamed", "names"),
    ),
    Row("GET", "/admin/prices", "price.show", prices.status, "Show which prices are live", "prices"),
    Row("GET", "/admin/prices/as-of", "price.show", prices.as_of, "Which prices were live at a time", "prices"),
    Row("POST", "/admin/prices/refresh", "price.refresh", prices.refresh, "Ask for new price lists", "prices"),
    Row("POST", "/admin/prices/rollback", "price.roll_back", prices.roll_back, "Go back to former prices", "prices"),
    Row("GET", "/admin/prices/releases", "price.show", prices.list_releases, "List price releases", "prices"),
    Row("GET", _RELEASE, "price.show", prices.show_release, "Show a price release", "prices"),
    Row("GET", _RELEASE + "/rows", "price.show", prices.list_rows, "List quarantined rows", "prices"),
    Row("GET", _RELEASE + "/diff", "price.show", prices.show_diff, "What a price release changes", "prices"),
    Row("POST", _RELEASE + "/approve", "price.approve", prices.approve, "Make a price release live", "prices"),
    Row("POST", _RELEASE + "/reject", "price.reject", prices.reject, "Turn a price release down", "prices"),
    Row("GET", "/admin/sealing", "sealing.status", sealing.status, "List root keys", "sealing"),
    Row("POST", "/admin/sealing/verify", "sealing.verify", sealing.verify, "Check that everything opens", "sealing"),
    Row("GET", "/admin/imports", "import.list", imports.list_imports, "List imports", "imports"),
    Row(
        *("GET", "/admin/requests/{request_id}", "request.show", requests.show_request),
        *("What was decided for a request", "requests"),
    ),
    Row(
        *("GET", "/admin/usage/reprice", "usage.reprice", usage.show_repriced),
        *("What was used, at other prices", "usage"),
    ),
    Row("GET", "/admin/usage", "usage.show", usage.show_usage, "What was used, and what it cost", "usage"),
    Row("GET", "/admin/audit", "audit.list", audit.list_rows, "List what was done", "audit"),
    Row("GET", "/admin/audit/verify", "audit.verify", audit.verify, "Check that the audit is whole", "audit"),
    Row("GET", "/v1/keys", "key.list", keys.list_own, "List your keys", "self-service", _OWN),
    Row("GET", "/v1/keys/doctor", "key.doctor", doctor.look_own, "Examine your keys", "self-service", _OWN),
    Row(
        *("POST", "/v1/keys/doctor", "key.doctor", doctor.ask_own),
        *("Examine your keys, and ask their providers", "self-service", _OWN),
    ),
    Row("GET", "/v1/keys/{setting_key}", "key.list", keys.show_own, "Show the versions of a key", "self-service", _OWN),
    Row("PUT", "/v1/keys/{setting_key}", "key.set", keys.set_own, "Store a key", "self-service", _OWN),
    Row(
        *("POST", "/v1/keys/{setting_key}/activate", "key.activate", keys.activate_own),
        *("Activate a version of a key", "self-service", _OWN),
    ),
    Row(
        *("PATCH", "/v1/keys/{setting_key}", "key.change", keys.change_own),
        *("Set weight or position of a key", "self-service", _OWN),
    ),
    Row("GET", "/v1/aliases", "alias.list", aliases.list_own, "List your aliases", "self-service", _OWN),
    Row("PUT", "/v1/aliases/{name}", "alias.set", aliases.set_own, "Set an alias", "self-service", _OWN),
    Row("DELETE", "/v1/aliases/{name}", "alias.remove", aliases.remove_own, "Remove an alias", "self-service", _OWN),
    Row("DELETE", "/v1/keys/{setting_key}", "key.remove", keys.remove_own, "Remove a key", "self-service", _OWN),
)
