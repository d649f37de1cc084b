"""The life of root keys, on both databases: no step loses a key, and none is taken too early."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keystore.errors import (
    CredentialUnusable,
    EnvelopeDamaged,
    RingDamaged,
    RingMismatch,
    RingMissing,
    SealingError,
    SealingRefused,
)
from keystore.keyservice import CommandKeyService
from keystore.keystore import Keystore, SealingSource
from keystore.rings import LiveRing
from keystore.rootkeys import KeyState, load_ring, render_ring
from keystore.secret import Secret
from keystore.tenants import Tenant
from tests.harness import eventually
from tests.keystore.conftest import FakeClock, World

FIRST, SECOND = "k202611a", "k202611b"
VALUE = "sk-of-the-tenant-0123456789"


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    added = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(added, "MINIMAX_API_KEY", VALUE)
    await keystore.credentials.set(added, "MINIMAX_API_KEY", VALUE + "2")
    return added


@pytest.fixture
async def replica(world: World, keystore: Keystore) -> AsyncIterator[Keystore]:
    """Another process on the same database, which serves."""
    opened = await world.open()
    await opened.beat()
    yield opened
    await opened.close()


async def tended(keystore: Keystore) -> dict[str, Exception]:
    """As a process that serves does it."""
    failed = await keystore.tend()
    await keystore.beat()
    return failed


async def key_of(keystore: Keystore, tenant: Tenant) -> str:
    return keystore.unseal(await keystore.keyring(tenant), "minimax").secret.reveal()


async def states(keystore: Keystore) -> dict[str, str]:
    return {one.kek_id: one.state.value for one in await keystore.sealing.status()}


async def test_whole_life(world: World, keystore: Keystore, tenant: Tenant, replica: Keystore) -> None:
    ops = keystore.sealing
    assert await states(keystore) == {FIRST: "active"}
    assert await ops.add() == SECOND
    assert world.ring.stat().st_mode & 0o777 == 0o600
    assert await tended(replica) == {}
    await ops.activate(SECOND)
    await keystore.credentials.set(await keystore.tenants.add("later", "team"), "OPENAI_API_KEY", VALUE)
    tally = await ops.rewrap()
    assert (tally.succeeded, tally.failed) == (1 + 3, 0)  # one tenant of before, and the keystore's own three
    assert (await ops.verify()).failed == 0
    await ops.retire(FIRST)
    assert await states(keystore) == {FIRST: "retired", SECOND: "active"}
    for each in (keystore, replica):
        assert await key_of(each, tenant) == VALUE + "2"
    left = load_ring(SealingSource(None, world.ring))
    assert left is not None
    world.ring.write_text("".join(line for line in render_ring(left).splitlines(True) if not line.startswith(FIRST)))
    again = await world.open()
    assert await key_of(again, tenant) == VALUE + "2"
    await again.close()


async def test_each_step_can_be_run_again(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.sealing.add()
    for _ in range(2):
        await keystore.sealing.activate(SECOND)
    assert (await keystore.sealing.rewrap()).processed == 4
    assert (await keystore.sealing.rewrap()).processed == 0
    await keystore.sealing.verify()
    for _ in range(2):
        await keystore.sealing.retire(FIRST)


async def test_ring_keeps_its_comments_and_lines(world: World, keystore: Keystore) -> None:
    world.ring.write_text(world.ring.read_text() + "# mine")
    before = world.ring.read_text()
    await keystore.sealing.add()
    assert world.ring.read_text().startswith(before + "\n" + SECOND + ":")


async def test_activation_waits_for_every_replica(keystore: Keystore, tenant: Tenant, replica: Keystore) -> None:
    await keystore.sealing.add()
    with pytest.raises(SealingRefused, match=f"not every live replica has the root key '{SECOND}'"):
        await keystore.sealing.activate(SECOND)
    (lacking,) = [one.lacking for one in await keystore.sealing.status() if one.kek_id == SECOND]
    assert len(lacking) == 1
    assert await tended(replica) == {}
    await keystore.sealing.activate(SECOND)


async def test_replica_that_is_gone_is_not_waited_for(
    keystore: Keystore, tenant: Tenant, replica: Keystore, clock: FakeClock
) -> None:
    await keystore.sealing.add()
    clock.advance(seconds=31)
    await keystore.sealing.activate(SECOND)


async def test_replica_one_step_behind_serves(keystore: Keystore, tenant: Tenant, replica: Keystore) -> None:
    """Rewrapped under its feet, and with a key that it never read: it looks again."""
    await keystore.sealing.add()
    await keystore.sealing.activate(SECOND, force=True)
    await keystore.sealing.rewrap()
    assert await key_of(replica, tenant) == VALUE + "2"
    await replica.credentials.set(tenant, "OPENAI_API_KEY", VALUE)
    assert (await keystore.sealing.verify()).failed == 0


async def test_replica_starts_while_a_key_is_pending_that_it_lacks(
    world: World, keystore: Keystore, tenant: Tenant, tmp_path: Path
) -> None:
    old = tmp_path / "old-ring"
    old.write_text(world.ring.read_text())
    old.chmod(0o600)
    await keystore.sealing.add()
    behind = await world.open(sealing=SealingSource(None, old))
    assert await key_of(behind, tenant) == VALUE + "2"
    await behind.close()
    await keystore.sealing.activate(SECOND)
    with pytest.raises(RingMissing, match=SECOND):
        await world.open(sealing=SealingSource(None, old))


async def test_retiring_is_refused_until_it_is_time(keystore: Keystore, tenant: Tenant, clock: FakeClock) -> None:
    ops = keystore.sealing
    with pytest.raises(SealingRefused, match="is the active one"):
        await ops.retire(FIRST)
    await ops.add()
    await ops.activate(SECOND)
    with pytest.raises(SealingRefused, match="need the root key"):
        await ops.retire(FIRST)
    await ops.rewrap()
    with pytest.raises(SealingRefused, match="no clean verification"):
        await ops.retire(FIRST)
    await ops.verify()
    clock.advance(hours=2)
    with pytest.raises(SealingRefused, match="no clean verification"):
        await ops.retire(FIRST)
    with pytest.raises(SealingRefused, match="there is no root key 'nobody'"):
        await ops.retire("nobody")
    await ops.verify()
    assert [await ops.retire(FIRST) for _ in "12"] == [True, False]
    with pytest.raises(SealingRefused, match="is retired"):
        await ops.activate(FIRST)


async def test_one_key_is_pending_at_a_time(keystore: Keystore) -> None:
    await keystore.sealing.add()
    with pytest.raises(SealingRefused, match="is pending already"):
        await keystore.sealing.add()


@pytest.mark.parametrize("how", ["first key", "rotation"])
async def test_process_that_has_not_heard_yet_never_wraps_with_a_retired_key(
    world: World, keystore: Keystore, tenant: Tenant, how: str
) -> None:
    """An import that began before, or a process that could not read the ring: what it makes must not need the old key,
    whose line the operator takes out."""
    behind = await world.open()
    later = await keystore.tenants.add("later", "team")
    ops = keystore.sealing
    await ops.activate(await ops.add())
    await ops.rewrap()
    assert (await ops.verify()).failed == 0
    await ops.retire(FIRST)
    if how == "rotation":
        await behind.sealing.rotate_tenant(tenant)
    else:
        await behind.credentials.set(later, "MINIMAX_API_KEY", VALUE)
    assert await world.sql("SELECT DISTINCT kek_id FROM wardgate_tenant_keys") == [(SECOND,)]
    await behind.close()


async def test_ring_given_as_text_is_added_to_by_the_operator(world: World, keystore: Keystore) -> None:
    text = world.ring.read_text()
    given = await world.open(sealing=SealingSource(Secret(text), world.ring))
    with pytest.raises(SealingRefused, match="openssl rand") as refused:
        await given.sealing.add()
    assert text.split(":")[1].strip() not in str(refused.value)
    await given.close()
    more = await world.open(sealing=SealingSource(Secret(text + "mine:" + "QUJD" * 10 + "QUI=\n"), world.ring))
    assert await more.sealing.add() == "mine"
    await more.sealing.activate("mine")
    await more.close()


class Shelf:
    """A key service that can be away."""

    origin = "the shelf"

    def __init__(self, text: str) -> None:
        self.text: str | None = text
        self.asked = 0

    def fetch(self) -> str:
        self.asked += 1
        if self.text is None:
            raise RingMissing("the shelf is away")
        return self.text


async def test_ring_of_a_key_service_is_asked_for_at_start_and_once_a_minute(world: World, keystore: Keystore) -> None:
    tenant = await keystore.tenants.add("other", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789")
    shelf = Shelf(world.ring.read_text())
    served = await world.open(sealing=SealingSource(None, Path("/no/such/ring"), shelf))
    assert await key_of(served, tenant) == "mm-0123456789"
    for _ in range(5):
        await served.tend()
    assert shelf.asked == 1
    with pytest.raises(SealingRefused, match="key service") as refused:
        await served.sealing.add()
    assert shelf.text is not None and shelf.text.split(":")[1].strip() not in str(refused.value)
    shelf.text += "mine:" + "QUJD" * 10 + "QUI=\n"
    assert await served.sealing.add() == "mine"
    await served.sealing.activate("mine", force=True)
    assert (await served.sealing.rewrap()).failed == 0
    assert await key_of(served, tenant) == "mm-0123456789"
    shelf.text = None
    await served.tend()  # not asked again yet
    await served.close()


async def test_key_service_that_fails_is_asked_once_a_minute_too(world: World, keystore: Keystore) -> None:
    shelf, minutes = Shelf(world.ring.read_text()), 0.0
    served = await world.open(sealing=SealingSource(None, Path("/no/such/ring"), shelf))
    ring = LiveRing(served._database, served._ring.source, served._ring.current, lambda: minutes * 60)
    shelf.text, minutes = None, 1.5
    with pytest.raises(RingMissing):
        await ring.refresh()
    asked = shelf.asked
    await ring.refresh()
    assert shelf.asked == asked
    await served.close()


async def test_key_service_that_is_away_stops_the_start(world: World, keystore: Keystore) -> None:
    shelf = Shelf(world.ring.read_text())
    shelf.text = None
    with pytest.raises(RingMissing, match="the shelf is away"):
        await world.open(sealing=SealingSource(None, world.ring, shelf))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/no/such/command",), "cannot be run"),
        ((sys.executable, "-c", "import sys; print('k1:canary'); sys.exit(3)"), "exit code 3"),
        ((sys.executable, "-c", "import time; print('k1:canary', flush=True); time.sleep(60)"), "did not end within"),
        ((sys.executable, "-c", "print('k1:canary')"), "key 1"),
        ((sys.executable, "-c", "print('caf\u00e9')"), "no ring"),
        ((sys.executable, "-c", "print('k' * 70000)"), "no ring"),
        ((sys.executable, "-c", ""), "holds no sealing key"),
    ],
)
def test_key_command_that_fails_is_told_without_what_it_printed(command: tuple[str, ...], why: str) -> None:
    source = SealingSource(None, Path("/no/such/ring"), CommandKeyService(command, timeout_s=1.0))
    with pytest.raises(SealingError, match=why) as refused:
        load_ring(source)
    assert "canary" not in str(refused.value)


def test_key_command_that_prints_without_end_is_not_read_without_end() -> None:
    """It would fill the memory for as long as it may run."""
    service = CommandKeyService(("yes", "canary" * 100), timeout_s=30.0)
    began = time.monotonic()
    with pytest.raises(RingDamaged, match="no ring"):
        service.fetch()
    assert time.monotonic() - began < 10


def test_what_a_key_command_started_ends_with_it(tmp_path: Path) -> None:
    """Else each minute in which the service hangs leaves a process behind."""
    noted = tmp_path / "pid"
    command = ("sh", "-c", f"sleep 600 & echo $! > {noted}; wait")
    with pytest.raises(RingMissing, match="did not end"):
        CommandKeyService(command, timeout_s=1.0).fetch()
    eventually(lambda: not _is_running(int(noted.read_text())), 5.0)


def _is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


async def test_ring_comes_from_a_command(world: World, keystore: Keystore) -> None:
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-0123456789")
    service = CommandKeyService(("cat", str(world.ring)))
    served = await world.open(sealing=SealingSource(None, Path("/no/such/ring"), service))
    assert await key_of(served, tenant) == "mm-0123456789"
    await served.close()


DAMAGE = {
    "tenant key": "UPDATE wardgate_tenant_keys SET wrapped = :blob",
    "tenant of the key": "UPDATE wardgate_tenant_keys SET tenant_id = 'other'",
    "its root key": "UPDATE wardgate_tenant_keys SET kek_id = 'nobody'",
    "service key": "UPDATE wardgate_service_keys SET wrapped = :blob WHERE purpose = 'token'",
    "purposes": "UPDATE wardgate_service_keys SET purpose = CASE purpose WHEN 'token' THEN 'x' ELSE purpose END",
    "envelope": "UPDATE wardgate_credentials SET envelope = 'wg1.x.AAAA' WHERE version = 1",
    "name of an older version": "UPDATE wardgate_credentials SET setting_key = 'OPENAI_API_KEY' WHERE version = 1",
    "no tenant key": "DELETE FROM wardgate_tenant_keys",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=list(DAMAGE))
async def test_verification_names_what_does_not_open(
    world: World, keystore: Keystore, tenant: Tenant, statement: str
) -> None:
    await world.sql(statement, **({"blob": os.urandom(60)} if ":blob" in statement else {}))
    tally = await keystore.sealing.verify()
    assert tally.faults and tally.processed == tally.succeeded + tally.skipped + tally.failed
    await keystore.sealing.add()
    await keystore.sealing.activate(SECOND)
    await keystore.sealing.rewrap()
    with pytest.raises(SealingRefused):
        await keystore.sealing.retire(FIRST)


async def test_service_key_that_was_changed_stops_the_start(world: World, keystore: Keystore) -> None:
    await world.sql("UPDATE wardgate_service_keys SET wrapped = :blob WHERE purpose = 'audit'", blob=os.urandom(60))
    with pytest.raises(RingMismatch, match="audit key does not open"):
        await world.open()


async def test_service_keys_are_not_made_anew_when_something_was_sealed_with_them(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await keystore.tokens.create(tenant)
    await world.sql("DELETE FROM wardgate_service_keys")
    with pytest.raises(RingMismatch, match="has lost the keys"):
        await world.open()


async def test_root_key_edited_by_sql_stops_the_start(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await world.sql("UPDATE wardgate_root_keys SET kcv = :blob", blob=b"12345678")
    with pytest.raises(RingMismatch):
        await world.open()


async def test_rotated_tenant_has_another_key_and_the_same_values(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    before = await world.sql("SELECT dek_id FROM wardgate_tenant_keys")
    assert await keystore.sealing.rotate_tenant(tenant) == 2
    after = await world.sql("SELECT dek_id, state FROM wardgate_tenant_keys")
    assert len(after) == 1 and after[0][0] != before[0][0] and after[0][1] == "active"
    assert await key_of(keystore, tenant) == VALUE + "2"
    assert (await keystore.sealing.verify()).failed == 0


async def test_rotation_of_a_tenant_with_a_spoiled_value_changes_nothing(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await world.sql("UPDATE wardgate_credentials SET hint = '', envelope = envelope || 'AAAA' WHERE version = 1")
    before = await world.sql("SELECT dek_id FROM wardgate_tenant_keys")
    with pytest.raises(EnvelopeDamaged):
        await keystore.sealing.rotate_tenant(tenant)
    assert await world.sql("SELECT dek_id FROM wardgate_tenant_keys") == before
    assert await key_of(keystore, tenant) == VALUE + "2"


async def test_shredded_tenant_has_nothing_and_may_begin_again(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    assert await keystore.sealing.shred(tenant) == 2
    assert await world.sql("SELECT count(*) FROM wardgate_tenant_keys") == [(0,)]
    assert {row[0] for row in await world.sql("SELECT envelope FROM wardgate_credentials")} == {None}
    with pytest.raises(CredentialUnusable):
        await key_of(keystore, tenant)
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", VALUE)
    assert await key_of(keystore, tenant) == VALUE


REWRAP = """
import asyncio, os, signal, sys
from pathlib import Path
from keystore.keyservice import CommandKeyService
from keystore.keystore import Keystore, SealingSource
from keystore.providers import load_registry

async def main(url, ring, stop_after):
    def progress(done, total):
        if done >= stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
    keystore = await Keystore.open(database_url=url, sealing=SealingSource(None, Path(ring)), registry=load_registry(),
                                   known_plans=["team"], create=False)
    await keystore.sealing.rewrap(progress)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_killed_rewrap_is_finished_by_the_next(world: World, keystore: Keystore) -> None:
    tenants = [await keystore.tenants.add(f"t{number}", "team") for number in range(5)]
    for tenant in tenants:
        await keystore.credentials.set(tenant, "MINIMAX_API_KEY", VALUE)
    extra = "INSERT INTO wardgate_tenant_keys SELECT {}, tenant_id, kek_id, wrapped, seals, 'decrypt', created_at"
    await world.sql(extra.format("'spoiled'") + " FROM wardgate_tenant_keys LIMIT 1")
    await keystore.sealing.add()
    await keystore.sealing.activate(SECOND)
    for stop_after in (1, 3, 5):
        run = subprocess.run(
            [sys.executable, "-c", REWRAP, world.url, str(world.ring), str(stop_after)], check=False, timeout=60
        )
        assert run.returncode in (0, -signal.SIGKILL)
    tally = await keystore.sealing.rewrap()
    assert tally.processed == tally.succeeded + tally.skipped + tally.failed
    assert tally.faults == [f"the data key spoiled of tenant {await spoiled_tenant(world)} does not open"]
    (first, second) = await keystore.sealing.status()
    assert (first.tenant_keys, second.tenant_keys) == (1, 5)
    for tenant in tenants:
        assert await key_of(keystore, tenant) == VALUE


async def spoiled_tenant(world: World) -> str:
    rows = await world.sql("SELECT tenant_id FROM wardgate_tenant_keys WHERE dek_id = 'spoiled'")
    return str(rows[0][0])


async def test_states_are_told_as_they_are(keystore: Keystore) -> None:
    (only,) = await keystore.sealing.status()
    assert (only.state, only.present, only.service_keys, only.lacking) == (KeyState.ACTIVE, True, 3, ())


async def test_fault_of_tending_leaves_the_ring_as_it_was(world: World, keystore: Keystore, tenant: Tenant) -> None:
    held = world.ring.read_text()
    world.ring.unlink()
    failed = await tended(keystore)
    assert [(name, type(error)) for name, error in failed.items()] == [("root keys", RingMissing)]
    assert await key_of(keystore, tenant) == VALUE + "2"
    # The process lives, so no root key is activated without it; and what is over is destroyed all the same.
    assert len(await keystore.replicas.live()) == 1
    assert await world.sql("SELECT state FROM wardgate_credentials WHERE version = 1") == [("removed",)]
    world.ring.write_text(held)
    world.ring.chmod(0o600)
    assert await tended(keystore) == {}


async def test_root_key_that_never_was_is_named_as_such_while_a_replica_lives(keystore: Keystore) -> None:
    await keystore.beat()
    with pytest.raises(SealingRefused, match="there is no root key 'nope'"):
        await keystore.sealing.activate("nope")
