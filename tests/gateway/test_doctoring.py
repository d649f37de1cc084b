"""What the key doctor says whole, over a real keystore and a real upstream; and the command as scripts use it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.control.gate import Operation
from gateway.doctoring import Examined, Reach, examine, examine_all, reach_of
from gateway.live_check import AT_ONCE, LiveCheck, Outcome
from gateway.opening import open_keystore
from gateway.rules import Rules, load_catalogue, load_rules
from gateway.sandbox.server import SandboxServer
from gateway.settings import Settings
from gateway.transport import Transport
from keystore.audit import Actor
from keystore.clock import utc_now
from keystore.errors import RegistryError
from keystore.health import NOTHING_TO_DO, Check, Level
from keystore.keystore import Keystore
from keystore.providers import load_registry
from keystore.use import UsedKey
from router.plans import load_plans
from tests.harness import Loopback, run_cli, sandbox_config
from tests.raw_upstream import RawUpstream, raw_upstream

OLD, NEW, DEEPSEEK = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY", "DEEPSEEK_API_KEY"
CANARY = "sk-canary-Zq7x0123456789abcdef"
LIST = json.dumps({"data": [{"id": "MiniMax-M2"}, {"id": "MiniMax-M2.1"}]})


@dataclass
class Clinic:
    """A keystore whose MiniMax and DeepSeek are one upstream, and the operation that an operator runs on it."""

    at: Operation
    upstream: RawUpstream
    live: LiveCheck

    @property
    def keystore(self) -> Keystore:
        return self.at.keystore

    async def tenant(self, slug: str, plan: str = "team", **keys: str) -> Operation:
        tenant = await self.keystore.tenants.add(slug, plan)
        for name, value in keys.items():
            await self.keystore.credentials.set(tenant, name, value)
        return replace(self.at, found=tenant)

    async def rejected(self, at: Operation, name: str, provider_id: str) -> None:
        key = UsedKey(at.tenant.id, name, "", provider_id)
        self.keystore.use.note(key, utc_now(), ok=False, rejected_status=401)
        await self.keystore.use.flush()


def settings(folder: Path) -> Settings:
    return Settings(
        database_url=f"sqlite+aiosqlite:///{folder}/w.db",
        sealing_keys_file=folder / "keys",
        config=folder / "wardgate.toml",
    )


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        running.plain(LIST)
        yield running


@pytest.fixture
async def clinic(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[Clinic]:
    providers = {"minimax": "/v1", "deepseek": "/v1", "azure": "/{resource}/openai/v1"}
    (tmp_path / "wardgate.toml").write_text(sandbox_config(upstream.url, providers=providers))
    rules = load_rules(settings(tmp_path))
    keystore = await open_keystore(settings(tmp_path), rules, create=True)
    transport = Transport(connect_timeout_s=2, max_connections=AT_ONCE, listed=Loopback())
    at = Operation(keystore, rules, Actor("operator", "test", "here", frozenset()), None)
    yield Clinic(at, upstream, LiveCheck(transport, timeout_s=5))
    await transport.aclose()
    await keystore.close()


@pytest.fixture(scope="module")
def service_account() -> str:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    names = {"type": "service_account", "client_email": "a@b.example", "private_key_id": "k"}
    return json.dumps(names | {"private_key": pem.decode()})


def of(found: list[Examined], name: str) -> Examined:
    (one,) = [each for each in found if each.health.key.setting_key == name]
    assert CANARY not in repr(found)
    return one


# --- the service -----------------------------------------------------------------------------------------------------


async def test_without_live_nobody_is_asked(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    one = of(await examine(at), NEW)
    assert one.live is None and clinic.upstream.requests == []
    assert "--live" in one.health.next_step


async def test_listing_leaves_nothing_to_try(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    told: list[tuple[int, int]] = []
    one = of(await examine(at, live=clinic.live, told=lambda done, total: told.append((done, total))), NEW)
    assert one.live is not None and (one.live.outcome, one.live.models) == (Outcome.LISTED, 2)
    assert one.health.next_step == NOTHING_TO_DO and told == [(1, 1)]
    assert one.health.findings[-1].check is Check.LIVE and one.health.findings[-1].level is Level.OK


async def test_rejected_key_is_to_be_stored_again(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    clinic.upstream.plain(json.dumps({"error": f"no such key: {CANARY}"}), status="401 Unauthorized")
    one = of(await examine(at, live=clinic.live), NEW)
    assert one.health.level is Level.PROBLEM
    assert one.health.next_step == f"Store a valid key: printf %s VALUE | wardgate key set acme {NEW}."


async def test_list_that_only_valid_keys_get_outweighs_an_old_rejection(clinic: Clinic) -> None:
    """DeepSeek lists to valid keys alone; MiniMax is not known to, so there the rejection stands."""
    at = await clinic.tenant("acme", **{NEW: CANARY, DEEPSEEK: CANARY})
    for name, provider_id in ((NEW, "minimax"), (DEEPSEEK, "deepseek")):
        await clinic.rejected(at, name, provider_id)
    found = await examine(at)
    assert {one.health.level for one in found} == {Level.PROBLEM}
    found = await examine(at, live=clinic.live)
    assert of(found, DEEPSEEK).health.level is Level.NOTE and of(found, NEW).health.level is Level.PROBLEM


async def test_empty_list_is_a_note(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    clinic.upstream.plain('{"data": []}')
    one = of(await examine(at, live=clinic.live), NEW)
    assert one.health.next_step == "Ask the provider which models this account may use."


@pytest.mark.parametrize(
    ("status", "step"),
    [
        ("503 Service Unavailable", "Try again when the provider answers."),
        ("404 Not Found", "Try it with a request for a model of minimax."),
    ],
)
async def test_key_that_was_tried_is_not_to_be_tried_again_at_once(clinic: Clinic, status: str, step: str) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    clinic.upstream.plain("{}", status=status)
    one = of(await examine(at, live=clinic.live), NEW)
    assert (one.health.level, one.health.next_step) == (Level.NOTE, step)


async def test_served_key_without_a_list_of_models_leaves_nothing_to_try(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: CANARY})
    clinic.keystore.use.note(UsedKey(at.tenant.id, NEW, "", "minimax"), utc_now(), ok=True)
    await clinic.keystore.use.flush()
    clinic.upstream.plain("{}", status="404 Not Found")
    assert of(await examine(at, live=clinic.live), NEW).health.next_step == NOTHING_TO_DO


async def test_what_cannot_be_looked_at_live_is_not_to_be_looked_at_live(clinic: Clinic, service_account: str) -> None:
    at = await clinic.tenant("acme")
    fields = {"project": "p", "location": "eu"}
    await clinic.keystore.credentials.set(at.tenant, "VERTEX_API_KEY", service_account, fields=fields)
    one = of(await examine(at), "VERTEX_API_KEY")
    assert one.health.key.hint == ""  # the end of any service account's JSON
    assert one.health.next_step == (
        "Try it with a request for a model of vertex: its keys cannot be checked without one."
    )


async def test_both_keys_of_a_conflict_are_asked_for(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{OLD: "sk-old-0123456789abcdefghij", NEW: CANARY})
    found = await examine(at, live=clinic.live)
    assert [one.live.outcome for one in found if one.live] == [Outcome.LISTED] * 2
    sent = b"".join(clinic.upstream.requests)
    assert CANARY.encode() in sent and b"sk-old-0123456789abcdefghij" in sent


async def test_key_for_other_hosts_is_not_sent(clinic: Clinic, tmp_path: Path) -> None:
    """Sealed for the upstream of before; the row points elsewhere now."""
    at = await clinic.tenant("acme", **{NEW: CANARY})
    with raw_upstream() as elsewhere:
        (tmp_path / "wardgate.toml").write_text(sandbox_config(elsewhere.url, providers={"minimax": "/v1"}))
        rules = load_rules(settings(tmp_path))
        keystore = await open_keystore(settings(tmp_path), rules, create=False)
        moved = replace(at, keystore=keystore, rules=rules)
        one = of(await examine(moved, live=clinic.live), NEW)
        await keystore.close()
        assert one.live is not None and one.live.outcome is Outcome.NOT_ASKED
        assert elsewhere.requests == [] == clinic.upstream.requests
    assert one.health.level is Level.PROBLEM


async def test_key_with_fields_is_tried_where_they_say(clinic: Clinic) -> None:
    at = await clinic.tenant("acme")
    for label, resource in (("", "one"), ("eu", "two")):
        fields = {"resource": resource}
        await clinic.keystore.credentials.set(at.tenant, "AZURE_API_KEY", CANARY, label=label, fields=fields)
    found = await examine(at, live=clinic.live)
    assert [(one.health.key.label, one.live and one.live.outcome) for one in found] == [
        ("", Outcome.LISTED),
        ("eu", Outcome.LISTED),
    ]
    asked = {request.split(b" ")[1] for request in clinic.upstream.requests}
    assert asked == {b"/one/openai/v1/models", b"/two/openai/v1/models"}


async def test_pending_version_is_tried_before_it_is_put_in_use(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{NEW: "sk-old-0123456789abcdefghij"})
    await clinic.keystore.credentials.set(at.tenant, NEW, CANARY, activate=False)
    found = await examine(at, live=clinic.live)
    assert [(one.health.state, one.live and one.live.outcome) for one in found] == [
        ("active", Outcome.LISTED),
        ("pending", Outcome.LISTED),
    ]
    assert any(CANARY.encode() in request for request in clinic.upstream.requests)


async def test_one_provider_alone(clinic: Clinic) -> None:
    at = await clinic.tenant("acme", **{OLD: CANARY, DEEPSEEK: CANARY})
    for name in ("minimax", "minimax_2_7"):
        assert [one.health.key.setting_key for one in await examine(at, provider=name)] == [OLD]
    with pytest.raises(RegistryError, match='did you mean "minimax"'):
        await examine(at, provider="minimx")


async def test_every_tenant_in_turn(clinic: Clinic) -> None:
    await clinic.tenant("acme", **{NEW: CANARY})
    await clinic.tenant("beta", plan="free", **{DEEPSEEK: CANARY})
    told: list[tuple[int, int]] = []
    found = await examine_all(clinic.at, told=lambda done, total: told.append((done, total)))
    assert [(one.health.tenant, one.health.level) for one in found] == [("acme", Level.NOTE), ("beta", Level.PROBLEM)]
    assert told == [(1, 2), (2, 2)]


# --- what plans let through ------------------------------------------------------------------------------------------


def reach(plans: dict[str, dict[str, Any]], registry: dict[str, dict[str, Any]] | None = None) -> Reach:
    rows = load_registry(registry or {})
    return Reach(Rules(rows, load_plans(plans), load_rules(Settings(config=None)).limits), load_catalogue(rows))


REACHES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "everything": ({"byok_models": ["*"]}, "minimax", True),
    "own keys switched off": ({"byok": False, "byok_models": ["*"]}, "minimax", False),
    "nothing": ({"byok_models": []}, "minimax", False),
    "a provider": ({"byok_models": ["minimax/*"]}, "minimax", True),
    "another provider": ({"byok_models": ["openai/*"]}, "minimax", False),
    "a family": ({"byok_models": ["deepseek-chat"]}, "deepseek", True),
    "another family": ({"byok_models": ["gpt-4o"]}, "deepseek", False),
    "any model of an open provider": ({"byok_models": ["ollama/my-own-model"]}, "ollama", True),
    "an open provider that is not listed": ({"byok_models": ["openai/gpt-4o"]}, "ollama", False),
    "an open provider without own keys": ({"byok": False, "byok_models": ["ollama/*"]}, "ollama", False),
    "no such provider": ({"byok_models": ["*"]}, "nobody", False),
}


@pytest.mark.parametrize("name", REACHES)
def test_plan_lets_through(name: str) -> None:
    plan, provider_id, expected = REACHES[name]
    assert reach({"team": plan}).allows("team", provider_id) is expected


def test_least_plan_that_lets_through_is_named() -> None:
    found = reach({"solo": {"byok_models": ["openai/*"]}})
    assert (found.instead("minimax"), found.instead("openai"), found.instead("nobody")) == ("pro", "solo", None)
    assert found.allows("no such plan", "openai") is False


async def test_reach_is_of_the_rules_in_force(clinic: Clinic) -> None:
    assert (await reach_of(clinic.at)).allows("team", "minimax")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, sandbox: SandboxServer) -> Callable[..., str]:
    """`wardgate key doctor` and the like in a process of its own, over a tenant with three keys."""
    (tmp_path / "wardgate.toml").write_text(sandbox_config(sandbox.url))

    async def prepare() -> None:
        keystore = await open_keystore(settings(tmp_path), load_rules(settings(tmp_path)), create=True)
        acme = await keystore.tenants.add("acme", "team")
        for name, value in ((DEEPSEEK, "sk-sandbox-good-0123456789"), (OLD, CANARY), ("GROQ_API_KEY", CANARY)):
            await keystore.credentials.set(acme, name, value, label="eu" if name == OLD else "")
        await keystore.close()

    asyncio.run(prepare())

    def run(*arguments: str, code: int) -> str:
        env = {"WARDGATE_SEALING_KEYS_FILE": "keys", "WARDGATE_DATABASE_URL": "sqlite+aiosqlite:///w.db"}
        done = run_cli(*arguments, env=env, cwd=tmp_path)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert CANARY not in done.stdout + done.stderr and "Traceback" not in done.stderr
        return done.stdout if code in (0, 3) else done.stderr

    return run


def test_command_asks_the_provider_and_exits_3_with_a_problem(cli: Callable[..., str]) -> None:
    (good,) = json.loads(cli("key", "doctor", "acme", "--provider", "deepseek", "--live", "--json", code=0))
    assert (good["live"]["outcome"], good["next_step"]) == ("listed", NOTHING_TO_DO)
    assert {"check", "level", "text", "step"} == set(good["findings"][0])
    said = cli("key", "doctor", "--live", code=3)
    assert f"acme {OLD} (eu): minimax rejected this key (status 401)." in said
    assert "acme DEEPSEEK_API_KEY: deepseek lists" in said
    noted = json.loads(cli("audit", "list", "--json", code=0))[0]
    assert (noted["action"], noted["detail"]) == ("key.doctor", {"keys": 3, "note": 1, "problem": 2, "asked": 3})


def test_command_without_live_shows_a_line_for_each_key(cli: Callable[..., str]) -> None:
    said = cli("key", "doctor", "acme", code=0)
    assert [said.count(name) for name in (f" {OLD} ", " GROQ_API_KEY ", " DEEPSEEK_API_KEY ")] == [1, 1, 1]
    assert "minimax (former)" in said and "next step" in said and "--live" in said
    assert "did you mean" in cli("key", "doctor", "acme", "--provider", "minimx", code=1)
