"""The first run of `wardgate demo`: a sandbox provider, a demo tenant with one old key, and a token that works at once.

The demo tells the founding story: the tenant is on the plan team and its only key is stored as MINIMAX_2_7_API_KEY.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from gateway.services import utc_now
from keystore.errors import TenantUnknown, TokenRefused
from keystore.keystore import Keystore
from keystore.providers import Registry
from keystore.tenants import Tenant

DEMO_SLUG = "demo"
DEMO_PLAN = "team"
DEMO_PROVIDER = "minimax"
DEMO_SETTING = "MINIMAX_2_7_API_KEY"
DEMO_KEY = "sk-sandbox-demo-0123456789"  # opens nothing but the sandbox
TOKEN_FILE = Path("var/demo-token")
ADMIN_NAME = "first run"
CONFIG = """\
# Written by the first `make run`. It points MiniMax at the built-in sandbox, so that the demo works without an account.
# Delete this table to use the real MiniMax; keys that were stored for the sandbox stay bound to it.

[providers.minimax]
base_url = "http://127.0.0.1:{port}/v1"
hosts = ["127.0.0.1:{port}"]
"""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What the first run made. Tokens are None where they exist already and are not known any more."""

    tenant: Tenant
    names: tuple[str, ...]  # under which its keys are stored
    token: str
    admin_token: str | None


def write_config(path: Path, sandbox_port: int) -> bool:
    """Write the demo's `wardgate.toml` unless there is one; True when it was written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(CONFIG.format(port=sandbox_port))
    except FileExistsError:
        return False
    return True


def points_at_sandbox(registry: Registry, sandbox_port: int) -> bool:
    """Whether the demo's provider is the sandbox under the rows in force."""
    provider = registry.get(DEMO_PROVIDER)
    return provider is not None and f"127.0.0.1:{sandbox_port}" in provider.hosts


async def bootstrap(keystore: Keystore, token_file: Path = TOKEN_FILE) -> Bootstrap:
    """Make the demo tenant, its key and its tokens where they are missing; idempotent."""
    try:
        tenant = await keystore.tenants.get(DEMO_SLUG)
    except TenantUnknown:
        tenant = await keystore.tenants.add(DEMO_SLUG, DEMO_PLAN, name="Demo tenant")
    if not await keystore.credentials.list(tenant):
        await keystore.credentials.set(tenant, DEMO_SETTING, DEMO_KEY)
    token = await _known_token(keystore, token_file)
    if token is None:
        token = (await keystore.tokens.create(tenant, kind="live", name="demo")).token
        _write_private(token_file, token)
    admin = None
    if not any(info.kind == "admin" for info in await keystore.tokens.list(None)):
        admin = (await keystore.tokens.create(None, kind="admin", name=ADMIN_NAME)).token
    names = tuple(info.setting_key for info in await keystore.credentials.list(tenant))
    return Bootstrap(tenant, names, token, admin)


async def _known_token(keystore: Keystore, token_file: Path) -> str | None:
    """The demo token of an earlier run, if the file is there and the token still works."""
    try:
        token = token_file.read_text(encoding="utf-8").strip()  # noqa: ASYNC240 - a start-up step
        await keystore.tokens.authenticate(token, utc_now())
    except (OSError, TokenRefused):
        return None
    return token


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
