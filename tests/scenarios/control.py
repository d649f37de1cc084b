"""The control plane for tests: a gateway with two tenants and a token of every kind, and the routes that it has."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import structlog
from starlette.routing import Route as PathRoute

from gateway.admin.app import control_app
from gateway.admin.door import Door
from gateway.app import places
from gateway.closing import close_services
from gateway.guard import Guard
from gateway.opening import open_services
from gateway.settings import Settings
from keystore.keystore import Keystore, NewToken
from tests.harness import RunningGateway, eventually

OPENAI = "OPENAI_API_KEY"
VALUE = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
NOBODY = "AAAAAAAAAAAA"  # the id of no token
NO_REQUEST = "req_" + 32 * "0"  # the id of no request
NO_WEBHOOK = "wh_" + 12 * "0"  # the id of no webhook
SCOPES = ("inference", "keys:read", "keys:write")


@dataclass
class Control:
    """A running gateway, its tenants `acme` and `beta`, and tokens by what they are."""

    gateway: RunningGateway
    tokens: dict[str, str] = field(default_factory=dict)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def ask(self, who: str | None, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request as one of `tokens`; `body` is JSON, or bytes that are sent as JSON."""
        if who is not None:
            headers = {"authorization": f"Bearer {self.tokens[who]}"} | headers
        content = body if isinstance(body, bytes | None) else httpx.Request("POST", "http://x", json=body).content
        if content is not None:
            headers = {"content-type": "application/json"} | headers
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, self.gateway.url + path, content=content, headers=names)

    def admin(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.ask("admin", method, path, body, **headers)

    def everything(self, path: str, limit: int = 50) -> list[dict[str, Any]]:
        """Every item of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.admin("GET", f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}").json()
            items += page["data"]
            if not page["has_more"]:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def state(self) -> list[object]:
        """All that a write of the control plane could change, but for when tokens were last used."""
        tenants = self.everything("/admin/tenants", 200)
        keys = [self.everything(f"/admin/tenants/{tenant['slug']}/keys", 200) for tenant in tenants]
        budgets = [self.everything(f"/admin/tenants/{tenant['slug']}/budgets", 200) for tenant in tenants]
        limits = [self.everything(f"/admin/tenants/{tenant['slug']}/limits", 200) for tenant in tenants]
        tokens = [token | {"last_used_at": None} for token in self.everything("/admin/tokens", 200)]
        return [tenants, keys, budgets, limits, tokens, self.everything("/admin/webhooks", 200)]


def prepared(gateway: RunningGateway) -> Control:
    """`gateway` with its tenants and tokens."""
    control = Control(gateway)
    soon = datetime.now(UTC)

    async def expiring(keystore: Keystore) -> NewToken:
        nonlocal soon
        soon = datetime.now(UTC) + timedelta(seconds=1)
        return await keystore.tokens.create(None, kind="admin", expires_at=soon)

    async def work(keystore: Keystore) -> dict[str, NewToken]:
        acme = await keystore.tenants.add("acme", "team")
        beta = await keystore.tenants.add("beta", "team")
        create = keystore.tokens.create
        made = {
            "inference": await create(acme),
            "reader": await create(acme, scopes=["keys:read"]),
            "writer": await create(acme, scopes=["keys:write"]),
            "both": await create(acme, scopes=SCOPES),
            "other": await create(beta, scopes=SCOPES),
            "elsewhere": await create(acme, scopes=SCOPES, allowed_addresses=["10.9.9.9"]),
            "admin": await create(None, kind="admin"),
            "admin reader": await create(None, kind="admin", scopes=["admin:read"]),
            "admin writer": await create(None, kind="admin", scopes=["admin:write"]),
            "revoked": await create(None, kind="admin"),
            "revoked tenant": await create(acme, scopes=SCOPES),
            "expired": await expiring(keystore),
        }
        for name in ("revoked", "revoked tenant"):
            await keystore.tokens.revoke(made[name].id)
        await keystore.credentials.set(acme, OPENAI, VALUE)
        return made

    made = gateway.operate(work)
    control.tokens = {name: token.token for name, token in made.items()}
    control.tokens |= {"garbage": "wg_admin_nothing", "mistyped": made["admin"].token[:-1] + "~"}
    eventually(lambda: datetime.now(UTC) > soon)
    return control


# --- the routes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A route as it stands in the application."""

    path: str
    methods: tuple[str, ...]
    door: Door | None

    @property
    def canonical(self) -> bool:
        return self.door is not None and self.path == self.door.row.path


def routes_of(settings: Settings) -> list[Found]:
    """Every route of the application that serves, as it is really built."""

    async def run() -> list[Found]:
        log = structlog.get_logger()
        services = await open_services(settings, lambda *_: None, log)
        try:
            plain = [Found(place.path, place.methods, None) for place in places(services)]
            routes: Iterable[Any] = control_app(services).router.routes  # type: ignore[attr-defined]
            return plain + [_found(route) for route in routes if isinstance(route, PathRoute)]
        finally:
            await close_services(services, log)

    return asyncio.run(run())


def _found(route: PathRoute) -> Found:
    app: object = route.app
    inner = app._endpoint if isinstance(app, Guard) else None
    door = inner if isinstance(inner, Door) else None
    return Found(route.path, tuple(sorted(route.methods or ())), door)


def filled(path: str, **parts: str) -> str:
    """A path with its parts; those that are not given name things that are there, or a token that is not."""
    known = {
        "tenant": "acme",
        "setting_key": OPENAI,
        "token_id": NOBODY,
        "provider_id": "minimax",
        "name": "fast",
        "request_id": NO_REQUEST,
        "release": "999999999",
        "spend": "managed",
        "limit": "concurrency",
        "period": "day",
        "webhook_id": NO_WEBHOOK,
    } | parts
    return re.sub(r"\{(\w+)\}", lambda part: known[part[1]], path)
