"""No secret leaves by an error, a log line or a printed object: canaries through every way in (RELIABILITY T20)."""

import base64
import logging
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Limits
from gateway.control.actions import OPERATOR_RIGHTS
from gateway.control.gate import Control, Operation
from gateway.rules import Rules
from keystore.audit import Actor
from keystore.errors import DatabaseUnavailable, KeystoreError
from keystore.keystore import Keystore, SealingSource
from keystore.secret import Secret
from keystore.tables import metadata
from keystore.tenants import Tenant
from router.plans import load_plans
from tests.keystore.conftest import START, World

OPERATOR = Actor("operator", "root", "test", OPERATOR_RIGHTS)
CANARY = "canary0sk0123456789abcdefghijkl"


def trace_of(error: BaseException) -> str:
    """All that an error tracker would see: the chain with its messages, arguments and notes."""
    texts = traceback.format_exception(error, chain=True)
    seen: BaseException | None = error
    while seen is not None:
        texts += [repr(seen), repr(seen.args), str(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "".join(texts)


def assert_silent(text: str) -> None:
    for shape in (CANARY, CANARY[:12], base64.b64encode(CANARY.encode()).decode()[:16], CANARY.encode().hex()):
        assert shape not in text


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


SetKey = Callable[[Keystore, Tenant], Awaitable[Any]]
WRONG_WAYS: dict[str, SetKey] = {
    "unknown name": lambda store, tenant: store.credentials.set(tenant, "NO_SUCH_KEY", CANARY),
    "masked": lambda store, tenant: store.credentials.set(tenant, "MINIMAX_API_KEY", f"{CANARY}***"),
    "placeholder": lambda store, tenant: store.credentials.set(tenant, "MINIMAX_API_KEY", f"<{CANARY}>"),
    "control characters": lambda store, tenant: store.credentials.set(
        tenant, "MINIMAX_API_KEY", f"{CANARY}\x00{CANARY}"
    ),
    "surrogates": lambda store, tenant: store.credentials.set(tenant, "MINIMAX_API_KEY", f"{CANARY}\udc80"),
    "oversized": lambda store, tenant: store.credentials.set(tenant, "MINIMAX_API_KEY", CANARY * 1000),
    "tenant is gone": lambda store, tenant: store.credentials.set(
        Tenant("gone", "gone", "", "team", None, START), "MINIMAX_API_KEY", CANARY
    ),
    "token that is none": lambda store, tenant: store.tokens.authenticate(CANARY, START),
    "token with a wrong checksum": lambda store, tenant: store.tokens.authenticate(
        f"wg_live_{CANARY[:12]}_{CANARY}{'0' * 18}", START
    ),
}


@pytest.mark.parametrize("wrong", WRONG_WAYS.values(), ids=list(WRONG_WAYS))
async def test_error_is_silent_about_the_secret(
    keystore: Keystore, tenant: Tenant, wrong: SetKey, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(KeystoreError) as refused:
        await wrong(keystore, tenant)
    assert_silent(str(refused.value) + repr(refused.value))
    assert_silent(caplog.text)


SPOILED = ["DROP TABLE wardgate_credentials", "ALTER TABLE wardgate_credentials RENAME COLUMN envelope TO gone"]


@pytest.mark.parametrize("statement", SPOILED)
async def test_database_failure_is_silent_about_the_secret(
    world: World, keystore: Keystore, tenant: Tenant, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    await world.sql(statement)
    with caplog.at_level(logging.DEBUG), pytest.raises(KeystoreError) as failed:
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", CANARY)
    assert_silent(trace_of(failed.value))
    assert_silent(caplog.text)


async def test_whole_life_of_a_key_is_silent(
    world: World, keystore: Keystore, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        shown = [repr(await keystore.credentials.set(tenant, "MINIMAX_API_KEY", CANARY))]
        ring = await keystore.keyring(tenant)
        credential = keystore.unseal(ring, "minimax")
        listed = await keystore.credentials.list(tenant)
        shown += [repr(each) for each in (ring, credential, listed, keystore, ring.holdings, ring.resolutions)]
        await keystore.credentials.remove(tenant, "MINIMAX_API_KEY")
    assert_silent("".join(shown))
    assert_silent(caplog.text)
    for table in (
        "wardgate_credentials",
        "wardgate_tenant_keys",
        "wardgate_root_keys",
        "wardgate_tenants",
        "wardgate_tokens",
    ):
        assert_silent(repr(await world.sql(f"SELECT * FROM {table}")))


async def test_legacy_key_is_silent(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    await world.sql("INSERT INTO tenant_settings VALUES ('acme', 'MINIMAX_API_KEY', :value)", value=CANARY)
    caplog.clear()
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="sqlalchemy"):
        keystore = await world.open()
        tenant = await keystore.tenants.add("acme", "team")
        ring = await keystore.keyring(tenant)
        shown = repr(ring) + repr(ring.holdings) + repr(await keystore.credentials.list(tenant))
        assert keystore.unseal(ring, "minimax").secret == Secret(CANARY)
        await keystore.close()
    assert_silent(shown)
    assert "sqlalchemy.pool" in caplog.text
    assert_silent(caplog.text)


@pytest.mark.parametrize("text", ["k202611a:{}", "k202611a:{}=", "{}", "k202611a:{0}\nk202611a:{0}", "k202611a {}"])
async def test_damaged_ring_is_silent(world: World, tmp_path: Path, text: str) -> None:
    for source in (SealingSource(Secret(text.format(CANARY)), tmp_path / "ring"), _file(tmp_path, text.format(CANARY))):
        with pytest.raises(KeystoreError) as refused:
            await world.open(sealing=source)
        assert_silent(trace_of(refused.value))


def _file(tmp_path: Path, text: str) -> SealingSource:
    path = tmp_path / "ring"
    path.write_text(text)
    path.chmod(0o600)
    return SealingSource(None, path)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{CANARY}@127.0.0.1:1/d",
        f"postgresql://u@127.0.0.1:1/d?password={CANARY}",
        f"postgres://u:{CANARY}@[::1/d",
        f"redis://:{CANARY}@host",
        f"sqlite+aiosqlite:///{{tmp}}/no/x.db?key={CANARY}",
    ],
)
async def test_database_url_is_silent(world: World, tmp_path: Path, url: str) -> None:
    with pytest.raises(KeystoreError) as refused:
        await world.open(database_url=url.format(tmp=tmp_path))
    assert_silent(str(refused.value) + repr(refused.value))


@pytest.mark.parametrize(
    "fail", [lambda: (CANARY.encode() + b"\xff").decode(), lambda: f"{CANARY}\udc80".encode(), lambda: int(CANARY)]
)
async def test_value_that_cannot_be_read_is_not_quoted(keystore: Keystore, fail: Callable[[], object]) -> None:
    """A decoder's error holds all that it was to decode."""
    with pytest.raises(DatabaseUnavailable, match="cannot be read") as failed:
        async with keystore._database.read():
            fail()
    cause = failed.value.__cause__
    assert_silent("".join(repr(each) for each in (cause, vars(failed.value), getattr(cause, "object", ""))))
    assert_silent(str(failed.value))


async def test_no_sink_holds_a_value_after_all_that_can_be_done_with_it(
    world: World, keystore: Keystore, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    """G14 for the keystore's sinks: every table, the file itself, the log, and every error on the way."""
    control = Control(keystore, Rules(world.registry, load_plans({}), Limits()))
    shown: list[str] = []

    async def attempt(action: str, work: Callable[[Operation], Awaitable[Any]], target: str = "") -> None:
        try:
            shown.append(repr(await control.run(OPERATOR, action, work, tenant="acme", target=target)))
        except KeystoreError as error:
            shown.append(trace_of(error))

    with caplog.at_level(logging.DEBUG):
        for name in ("MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY", "OPENAI_API_KEY", "NO_SUCH_KEY"):
            for value in (f"{CANARY}-1", f"{CANARY}-2", f"<{CANARY}>", f"os.environ/{CANARY}", f"{CANARY}\x00"):
                await attempt("key.set", partial(_set, name=name, value=value), name)
        await attempt("key.remove", lambda at: at.keystore.credentials.remove(at.tenant, "OPENAI_API_KEY"))
        await attempt("sealing.add", lambda at: at.keystore.sealing.add())
        await attempt("sealing.activate", lambda at: at.keystore.sealing.activate("k202611b"))
        await attempt("sealing.rewrap", lambda at: at.keystore.sealing.rewrap())
        await attempt("sealing.rotate_tenant", lambda at: at.keystore.sealing.rotate_tenant(at.tenant))
        await world.sql("UPDATE wardgate_credentials SET envelope = envelope || 'AAAA' WHERE version = 1")
        await attempt("sealing.verify", lambda at: at.keystore.sealing.verify())
        await attempt("audit.list", lambda at: at.keystore.audit.list(limit=1000))
    assert len(shown) == 27
    assert_silent("".join(shown))
    assert_silent(caplog.text)
    for table in metadata.tables:
        assert_silent(repr(await world.sql(f"SELECT * FROM {table}")))
    if world.is_sqlite:
        folder = world.ring.parent
        assert_silent("".join(path.read_bytes().decode("latin-1") for path in folder.glob("wardgate.db*")))
    assert len(await keystore.audit.list(limit=1000)) > 40


async def _set(at: Operation, name: str, value: str) -> object:
    return await at.keystore.credentials.set(at.tenant, name, value)
