"""Keys stored again under their canonical names, and back: nobody is answered otherwise, whatever happens meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from keystore.canonical import LEGACY, UNUSABLE_CANONICAL, Outcome
from keystore.errors import EnvelopeDamaged, MoveUnknown, RegistryError
from keystore.keyring import Keyring
from keystore.keystore import Keystore
from keystore.move_journal import moved_from
from keystore.move_undo import CHANGED, FORMER_GONE, FORMER_TAKEN, UndoOutcome
from keystore.moves import MoveReport, UndoReport
from keystore.providers import Registry, provider_from_row
from keystore.resolve import Found, Missing, Store, Via, known_names
from keystore.tenants import Tenant
from tests.forks import program
from tests.keystore.conftest import World

OLD, NEW = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
ONE, TWO = "  sk-one-0123456789abcdef\n", "sk-two-0123456789abcdef"
LEGACY_TABLE = "CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)"
TENANTS, KILLS = 100, 4  # on each database


async def holder(keystore: Keystore, slug: str = "acme", **keys: str) -> Tenant:
    tenant = await keystore.tenants.add(slug, "team", id=f"id-{slug}")
    for name, value in keys.items():
        await keystore.credentials.set(tenant, name, value)
    return tenant


@dataclass(frozen=True)
class Answer:
    """What one provider is answered with."""

    name: str
    rows: tuple[tuple[str | None, str, bytes, int, int], ...]

    @property
    def values(self) -> list[tuple[str, bytes, int, int]]:
        return sorted(row[1:] for row in self.rows)


def answers(keyring: Keyring) -> dict[str, Answer]:
    return {
        provider_id: Answer(
            found.setting_key,
            tuple((one.credential_id, one.label, one.fingerprint, one.weight, one.position) for one in chosen),
        )
        for provider_id, chosen in keyring.choices.items()
        if isinstance(found := keyring.resolutions[provider_id], Found)
    }


def via(keyring: Keyring, provider_id: str = "minimax") -> Via | None:
    found = keyring.resolutions[provider_id]
    return found.via if isinstance(found, Found) else None


def told(report: MoveReport | UndoReport) -> list[tuple[str, str]]:
    return [(step.outcome.value, step.reason) for step in report.steps]


async def moved(keystore: Keystore, tenant: Tenant | None = None) -> str:
    report = await keystore.moves.canonicalise(tenant)
    assert report.batch is not None
    return report.batch


# --- one key ---------------------------------------------------------------------------------------------------------


async def test_key_is_stored_again_byte_for_byte_and_put_back(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore)
    await keystore.credentials.set(acme, OLD, ONE, label="b", weight=3, position=2)
    (old,) = await world.sql("SELECT * FROM wardgate_credentials")
    world.clock.advance(days=1)
    before = await keystore.keyring(acme)
    report = await keystore.moves.canonicalise(acme)
    (step,) = report.steps
    assert (step.tenant, step.provider_id, step.from_name, step.to_name, step.label) == (
        "acme",
        "minimax",
        OLD,
        NEW,
        "b",
    )
    assert (step.outcome, step.reason) == (Outcome.MOVED, "")
    after = await keystore.keyring(acme)
    assert (via(after), answers(after)["minimax"].values) == (Via.CANONICAL, answers(before)["minimax"].values)
    assert keystore.unseal(after, "minimax").secret.reveal() == ONE.strip()
    (now,) = after.choices["minimax"]
    assert (now.source, now.created_at, now.hint) == ("moved", world.clock.now - timedelta(days=1), "cdef")
    assert now.hosts == before.choices["minimax"][0].hosts
    kept = await world.sql(
        "SELECT state, grace_until, envelope IS NULL FROM wardgate_credentials WHERE version = 1"
        f" AND setting_key = '{OLD}'"
    )
    assert kept == [("superseded", None, False)]

    assert report.batch is not None
    undone = await keystore.moves.undo(report.batch)
    assert told(undone) == [("undone", "")]
    assert answers(await keystore.keyring(acme)) == answers(before)
    left = await world.sql(f"SELECT state, envelope, hint FROM wardgate_credentials WHERE setting_key = '{NEW}'")
    assert left == [("removed", None, "")]
    assert old[0] == before.choices["minimax"][0].credential_id
    assert told(await keystore.moves.undo(report.batch)) == [("already undone", "")]


async def test_white_space_and_hosts_are_sealed_as_they_were(world: World, keystore: Keystore) -> None:
    """The provider has one more host today; the key stays bound to those it was sealed for."""
    acme = await holder(keystore, **{OLD: ONE})
    rows = [replace(row, hosts=(*row.hosts, "more.example")) for row in keystore.registry.providers]
    wider = await world.open(registry=Registry(rows))
    assert told(await wider.moves.canonicalise()) == [("moved", "")]
    (holding,) = (await wider.keyring(acme)).choices["minimax"]
    assert holding.hosts == {"api.minimax.io"}
    assert wider.moves._open(holding).secret == ONE.encode()
    await wider.close()


async def test_plan_says_the_same_and_changes_nothing(world: World, keystore: Keystore) -> None:
    await holder(keystore, "acme", **{OLD: ONE, "DASHSCOPE_API_KEY": TWO})
    await holder(keystore, "modern", **{NEW: ONE})
    seen: list[tuple[int, int]] = []
    before = await world.sql("SELECT * FROM wardgate_credentials ORDER BY 1")
    planned = await keystore.moves.plan(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert await world.sql("SELECT * FROM wardgate_credentials ORDER BY 1") == before
    assert await keystore.moves.batches() == []
    assert await keystore.moves.plan(provider_id="qwen") == [one for one in planned if one.provider_id == "qwen"]
    done = await keystore.moves.canonicalise()
    assert list(done.steps) == planned and done.counts == {"moved": 2, "copied": 0, "left": 0}
    again = await keystore.moves.canonicalise()
    assert (again.batch, again.steps) == (None, ())


async def test_only_one_provider_is_moved_when_it_is_named(keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE, "DASHSCOPE_API_KEY": TWO})
    await keystore.moves.canonicalise(acme, "qwen")
    keyring = await keystore.keyring(acme)
    assert (via(keyring, "qwen"), via(keyring)) == (Via.CANONICAL, Via.FORMER)
    with pytest.raises(RegistryError, match='did you mean "minimax"'):
        await keystore.moves.canonicalise(acme, "minimaxx")


async def test_unusable_canonical_key_is_never_overwritten(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE, NEW: TWO})
    await world.sql(f"UPDATE wardgate_credentials SET envelope = 'wg1.x.AAAA' WHERE setting_key = '{NEW}'")
    before = await world.sql("SELECT * FROM wardgate_credentials ORDER BY 1")
    assert told(await keystore.moves.canonicalise()) == [("left", UNUSABLE_CANONICAL)]
    assert await world.sql("SELECT * FROM wardgate_credentials ORDER BY 1") == before
    await keystore.credentials.remove(acme, NEW)
    assert told(await keystore.moves.canonicalise()) == [("moved", "")]


async def test_legacy_rows_are_never_changed(world: World) -> None:
    await world.sql(LEGACY_TABLE)
    rows = [("id-acme", OLD, ONE), ("id-beta", NEW, "<your key>"), ("id-beta", OLD, ONE)]
    for tenant_id, name, value in rows:
        await world.sql("INSERT INTO tenant_settings VALUES (:t, :n, :v)", t=tenant_id, n=name, v=value)
    keystore = await world.open()
    await holder(keystore)
    beta = await holder(keystore, "beta", **{OLD: ONE})
    report = await keystore.moves.canonicalise()
    assert told(report) == [("left", LEGACY), ("moved", "")]
    found = (await keystore.keyring(beta)).resolutions["minimax"]
    assert isinstance(found, Found) and (found.via, found.store) == (Via.CANONICAL, Store.CREDENTIALS)
    assert await world.sql("SELECT * FROM tenant_settings ORDER BY 1, 2") == sorted(rows)
    await keystore.close()


async def test_grace_versions_stay_under_the_old_name(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: TWO})
    await keystore.credentials.set(acme, OLD, ONE, grace=timedelta(hours=1))
    ((outcome, reason),) = told(await keystore.moves.canonicalise())
    assert outcome == "moved" and "grace" in reason
    keyring = await keystore.keyring(acme)
    assert len(keyring.choices["minimax"]) == 1 and len(keyring.holdings[OLD]) == 1
    world.clock.advance(hours=2)
    assert await keystore.credentials.destroy_expired() == 1
    assert told(await keystore.moves.undo((await keystore.moves.batches())[0].batch)) == [("undone", "")]


async def test_former_version_left_behind_never_answers_alone(world: World, keystore: Keystore) -> None:
    """It stood in for a key that was moved: when that is removed, it goes too, and nobody is answered with it."""
    acme = await holder(keystore, **{OLD: TWO})
    await keystore.credentials.set(acme, OLD, ONE, grace=timedelta(hours=1))
    await moved(keystore)
    await keystore.credentials.remove(acme, NEW)
    assert isinstance((await keystore.keyring(acme)).resolutions["minimax"], Missing)
    assert await world.sql("SELECT 1 FROM wardgate_credentials WHERE envelope IS NOT NULL") == []


@pytest.mark.parametrize("how", ["removed", "replaced", "replaced with grace"])
async def test_what_is_destroyed_is_destroyed_under_its_old_name_too(
    world: World, keystore: Keystore, how: str
) -> None:
    """Nothing of a removed key stays behind as what a move could be undone with."""
    acme = await holder(keystore, **{OLD: ONE})
    beta = await holder(keystore, "beta", **{OLD: TWO})
    batch = await moved(keystore)
    if how == "removed":
        await keystore.credentials.remove(acme, NEW)
    else:
        grace = timedelta(hours=how.endswith("grace"))
        await keystore.credentials.set(acme, NEW, TWO, grace=grace)
        if grace:
            assert await keystore.credentials.destroy_expired() == 0
        world.clock.advance(hours=2)
        assert await keystore.credentials.destroy_expired() == 2
    held = "SELECT setting_key, state FROM wardgate_credentials WHERE envelope IS NOT NULL AND tenant_id = 'id-acme'"
    assert await world.sql(held) == ([] if how == "removed" else [(NEW, "active")])
    assert sorted(outcome for outcome, _ in told(await keystore.moves.undo(batch))) == ["left", "undone"]
    assert via(await keystore.keyring(beta)) is Via.FORMER


async def test_other_processes_are_told(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE})
    count = "SELECT count(*) FROM wardgate_changes WHERE subject = 'id-acme'"
    (before,) = await world.sql(count)
    batch = await moved(keystore)
    assert await world.sql(count) == [(before[0] + 1,)]
    await keystore.moves.undo(batch)
    assert await world.sql(count) == [(before[0] + 2,)]
    assert acme.id == "id-acme"


async def test_tenant_whose_data_key_is_damaged_is_left_and_the_others_are_done(
    world: World, keystore: Keystore
) -> None:
    """What is there opens with the former data key, and nothing can be sealed with the new one."""
    await holder(keystore, "acme", **{OLD: ONE})
    await holder(keystore, "beta", **{OLD: ONE})
    await world.sql(
        "UPDATE wardgate_tenant_keys SET state = 'decrypt' WHERE tenant_id = 'id-acme'",
        "INSERT INTO wardgate_tenant_keys (dek_id, tenant_id, kek_id, wrapped, seals, state, created_at)"
        " SELECT 'broken', tenant_id, kek_id, wrapped, 1, 'active', created_at FROM wardgate_tenant_keys"
        " WHERE tenant_id = 'id-acme'",
    )
    assert told(await keystore.moves.canonicalise()) == [("left", str(EnvelopeDamaged())), ("moved", "")]


# --- undo ------------------------------------------------------------------------------------------------------------


async def test_what_was_changed_since_is_left(world: World, keystore: Keystore) -> None:
    one = await holder(keystore, "one", **{OLD: ONE})
    two = await holder(keystore, "two", **{OLD: ONE})
    three = await holder(keystore, "three", **{OLD: ONE})
    four = await holder(keystore, "four", **{OLD: ONE})
    five = await holder(keystore, "five", **{OLD: ONE})
    batch = await moved(keystore)
    world.clock.advance(minutes=1)
    await keystore.credentials.set(one, NEW, TWO)
    await keystore.credentials.change(two, NEW, weight=5)
    await keystore.credentials.set(three, OLD, TWO)
    await keystore.credentials.remove(four, OLD)
    report = await keystore.moves.undo(batch)
    found = {step.tenant: (step.outcome, step.reason) for step in report.steps}
    left = UndoOutcome.LEFT
    assert found == {
        "one": (left, CHANGED),
        "two": (left, CHANGED),
        "three": (left, FORMER_TAKEN),
        "four": (left, FORMER_GONE),
        "five": (UndoOutcome.UNDONE, ""),
    }
    for tenant in (one, two, three, four):
        assert via(await keystore.keyring(tenant)) is Via.CANONICAL
    assert via(await keystore.keyring(five)) is Via.FORMER
    (batches,) = await keystore.moves.batches()
    assert (batches.batch, batches.tenants, batches.moves, batches.undone) == (batch, 5, 5, 1)


async def test_labels_are_put_back_together_or_not_at_all(keystore: Keystore, world: World) -> None:
    acme = await holder(keystore, **{OLD: ONE})
    await keystore.credentials.set(acme, OLD, TWO, label="b")
    batch = await moved(keystore)
    world.clock.advance(minutes=1)
    await keystore.credentials.set(acme, NEW, "sk-three-0123456789abcdef")
    before = answers(await keystore.keyring(acme))
    assert told(await keystore.moves.undo(batch)) == [
        ("left", CHANGED),
        ("left", "what answers for minimax would change"),
    ]
    assert answers(await keystore.keyring(acme)) == before


async def test_old_name_that_nobody_asks_for_any_more_is_not_put_back(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE})
    batch = await moved(keystore)
    rows = [replace(row, former_ids=()) for row in keystore.registry.providers]
    later = await world.open(registry=Registry(rows))
    assert told(await later.moves.undo(batch)) == [("left", "what answers for minimax would change")]
    assert via(await later.keyring(acme)) is Via.CANONICAL
    await later.close()


async def test_tenants_new_data_key_does_not_hinder(keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE})
    batch = await moved(keystore)
    await keystore.sealing.rotate_tenant(acme)
    assert told(await keystore.moves.undo(batch)) == [("undone", "")]
    assert via(await keystore.keyring(acme)) is Via.FORMER


@pytest.mark.parametrize("batch", ["", "nothing", "\0"])
async def test_unknown_batch_is_said(keystore: Keystore, batch: str) -> None:
    with pytest.raises(MoveUnknown, match="lists the batches"):
        await keystore.moves.undo(batch)


async def test_rows_that_are_kept_for_an_undo_go_with_the_key(world: World, keystore: Keystore) -> None:
    acme = await holder(keystore, **{OLD: ONE})
    first = (await keystore.credentials.list(acme))[0].credential_id
    batch = await moved(keystore)
    second = (await keystore.credentials.list(acme))[0].credential_id
    async with keystore._database.read() as connection:
        assert await moved_from(connection, acme.id, [str(second)]) == [first]
        assert await moved_from(connection, acme.id, [str(first)]) == []
    await keystore.moves.undo(batch)
    async with keystore._database.read() as connection:
        assert await moved_from(connection, acme.id, [str(second)]) == []


# --- many names, many providers --------------------------------------------------------------------------------------

HERE = {"wire": "openai", "base_url": "https://one.example/v1", "hosts": ["one.example"]}
THERE = {"wire": "openai", "base_url": "https://two.example/v1", "hosts": ["two.example"]}
RESOURCE = {"base_url": "https://{resource}.six.example/v1", "hosts": ["{resource}.six.example"]}
ROWS: dict[str, dict[str, Any]] = {
    "alpha": HERE | {"former_ids": ["old", "older"]},
    "beta": HERE | {"api_key_env_var": "FAM_KEY"},
    "gamma": HERE | {"api_key_env_var": "FAM_KEY", "former_ids": ["old_gamma"]},
    "delta": THERE | {"api_key_env_var": "FAM_KEY"},  # the same family at another host
    "epsilon": HERE | {"api_key_env_var": "ALPHA_API_KEY", "former_ids": ["beta_2"]},
    "zeta": HERE | {"api_key_env_var": "FAM_KEY", "retired": True},
    "eta": HERE | {"former_ids": ["delta"]},  # another's canonical name
    "theta": HERE | RESOURCE | {"fields": {"resource": "the resource"}, "former_ids": ["old_theta"]},
}
NASTY = Registry(provider_from_row(provider_id, row) for provider_id, row in ROWS.items())
ELSEWHERE = Registry(
    provider_from_row(provider_id, row | {"base_url": "https://else.example", "hosts": ["else.example"], "fields": {}})
    for provider_id, row in ROWS.items()
)


@pytest.fixture
async def nasty(world: World) -> AsyncIterator[Keystore]:
    await world.sql(LEGACY_TABLE)
    opened = await world.open(registry=NASTY)
    yield opened
    await opened.close()


async def fill(world: World, keystore: Keystore, rng: random.Random, slug: str) -> Tenant:
    """Any of the names with values that are right, of other hosts, damaged, or in the legacy table."""
    tenant, away = await holder(keystore, slug), await world.open(registry=ELSEWHERE)
    for name in sorted(known_names(NASTY)):
        if rng.random() > 0.4:
            continue
        kind, value = rng.choice(["right", "right", "right", "away", "damaged", "legacy"]), rng.choice([ONE, TWO])
        if kind == "legacy":
            value = rng.choice([value, "", "<your key>"])
            await world.sql("INSERT INTO tenant_settings VALUES (:t, :n, :v)", t=tenant.id, n=name, v=value)
            continue
        fields = {"resource": "acme"} if "THETA" in name and kind != "away" else {}
        at = away if kind == "away" else keystore
        for label in rng.choice([("",), ("",), ("", "b")]):
            await at.credentials.set(tenant, name, value, label=label, fields=fields, weight=rng.randrange(1, 4))
        if kind == "damaged":
            spoil = "UPDATE wardgate_credentials SET envelope = 'wg1.x.AAAA' WHERE tenant_id = :t AND setting_key = :n"
            await world.sql(spoil, t=tenant.id, n=name)
    await away.close()
    return tenant


async def test_any_names_are_answered_as_before_and_undone_wholly(world: World, nasty: Keystore) -> None:
    rng = random.Random(3)
    tenants = [await fill(world, nasty, rng, f"t{number}") for number in range(25)]
    before = [answers(await nasty.keyring(tenant)) for tenant in tenants]
    legacy = await world.sql("SELECT * FROM tenant_settings")
    planned = await nasty.moves.plan()
    report = await nasty.moves.canonicalise()
    assert list(report.steps) == planned and all(report.counts.values())
    after = [answers(await nasty.keyring(tenant)) for tenant in tenants]
    for was, now in zip(before, after, strict=True):
        assert {one: found.values for one, found in was.items()} == {one: found.values for one, found in now.items()}
    assert after != before
    done = [step for step in report.steps if step.outcome is not Outcome.LEFT]
    assert {(step.tenant, step.provider_id) for step in done} == {
        (tenant.slug, provider_id)
        for tenant, was, now in zip(tenants, before, after, strict=True)
        for provider_id in now
        if now[provider_id].name != was[provider_id].name
    }
    assert report.batch is not None
    undone = await nasty.moves.undo(report.batch)
    assert undone.counts == {"undone": len(done), "already undone": 0, "left": 0}
    assert [answers(await nasty.keyring(tenant)) for tenant in tenants] == before
    assert await world.sql("SELECT * FROM tenant_settings") == legacy


# --- at once, and killed ---------------------------------------------------------------------------------------------


async def test_two_operators_move_each_key_once(world: World, keystore: Keystore) -> None:
    for number in range(12):
        await holder(keystore, f"t{number}", **{OLD: ONE})
    other = await world.open()
    reports = await asyncio.gather(keystore.moves.canonicalise(), other.moves.canonicalise())
    assert sum(report.counts["moved"] for report in reports) == 12
    assert await world.sql("SELECT count(*), count(DISTINCT from_id) FROM wardgate_moves") == [(12, 12)]
    batch = next(report.batch for report in reports if report.batch)
    both = await asyncio.gather(keystore.moves.undo(batch), other.moves.undo(batch))
    assert sum(report.counts["undone"] for report in both) == len(both[0].steps)
    await other.close()


async def test_key_answers_at_all_times(world: World, keystore: Keystore) -> None:
    """Another process asks without a pause while the key is moved and put back."""
    acme = await holder(keystore, **{OLD: ONE})
    asking, stopped, seen = await world.open(), asyncio.Event(), set[str]()

    async def ask() -> None:
        while not stopped.is_set():
            found = (await asking.keyring(acme)).resolutions["minimax"]
            assert isinstance(found, Found)
            seen.add(found.setting_key)

    task = asyncio.create_task(ask())
    for _ in range(5):
        await keystore.moves.undo(await moved(keystore))
    stopped.set()
    await task
    assert seen
    await asking.close()


MOVE = """
import asyncio, sys
from pathlib import Path
from keystore.keystore import Keystore, SealingSource
from keystore.providers import load_registry

async def main():
    keystore = await Keystore.open(database_url=sys.argv[1], sealing=SealingSource(None, Path(sys.argv[2])),
        registry=load_registry(), known_plans=["team"], create=False)
    def progress(done, total):
        print(done, flush=True)
    if sys.argv[3] == "undo":
        for batch in await keystore.moves.batches():
            await keystore.moves.undo(batch.batch, progress)
    else:
        await keystore.moves.canonicalise(progress=progress)
    await keystore.close()
asyncio.run(main())
"""


async def killed(world: World, verb: str, after: int) -> None:
    """A run in a process of its own, killed when it has told of `after` tenants."""
    process = await program("-c", MOVE, world.url, str(world.ring), verb)
    assert process.stdout is not None
    for _ in range(after):
        assert await process.stdout.readline()
    process.kill()
    await process.wait()


async def states(world: World) -> dict[tuple[str, str], int]:
    found = await world.sql("SELECT setting_key, state, count(*) FROM wardgate_credentials GROUP BY 1, 2")
    return {(row[0], row[1]): row[2] for row in found}


async def test_kills_lose_nothing_and_counts_reconcile(world: World, keystore: Keystore) -> None:
    tenants = [await holder(keystore, f"t{number}", **{OLD: f"sk-of-{number}-0123456789"}) for number in range(TENANTS)]
    rng = random.Random(7)
    for kill in range(KILLS - 2):
        await killed(world, "move", kill * 8 + rng.randrange(1, 8))
        found = await states(world)
        done = found.get((NEW, "active"), 0)
        assert found[OLD, "active"] + done == TENANTS
        assert found.get((OLD, "superseded"), 0) == done
        assert await world.sql("SELECT count(*) FROM wardgate_moves") == [(done,)]
    report = await keystore.moves.canonicalise()
    assert 0 < report.counts["moved"] < TENANTS
    assert await states(world) == {(NEW, "active"): TENANTS, (OLD, "superseded"): TENANTS}
    batches = await keystore.moves.batches()
    assert len(batches) > 1 and sum(each.moves for each in batches) == TENANTS
    for _ in range(2):
        await killed(world, "undo", rng.randrange(1, 20))
    for each in batches:
        assert (await keystore.moves.undo(each.batch)).counts["left"] == 0
    assert await states(world) == {(OLD, "active"): TENANTS, (NEW, "removed"): TENANTS}
    for number, tenant in enumerate(tenants):
        keyring = await keystore.keyring(tenant)
        assert keystore.unseal(keyring, "minimax").secret.reveal() == f"sk-of-{number}-0123456789"
