"""The record of the control plane: nothing is done without it, and what was changed in it shows. On both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.config import Limits
from gateway.control.actions import ACTIONS, OPERATOR_RIGHTS
from gateway.control.gate import Control, NotAllowed, Operation
from gateway.rules import Rules
from keystore.audit import GAP, Actor, Entry, Phase
from keystore.errors import AuditBroken, DatabaseUnavailable, TenantUnknown
from keystore.keystore import Keystore
from keystore.tenants import Tenant
from router.plans import load_plans
from tests.keystore.conftest import World

OPERATOR = Actor("operator", "root", "cli on here", OPERATOR_RIGHTS)


def entry(number: int) -> Entry:
    return Entry(f"op-{number}", Phase.WHOLE, OPERATOR, "tenant.list", None, f"target {number}", "done", {"n": number})


async def filled(keystore: Keystore, count: int = 6) -> None:
    for number in range(1, count + 1):
        await keystore.audit.append(entry(number))


async def test_untouched_record_is_whole(keystore: Keystore) -> None:
    assert (await keystore.audit.verify()).whole
    await filled(keystore)
    verdict = await keystore.audit.verify()
    assert (verdict.rows, verdict.whole, verdict.head.partition(":")[0]) == (6, True, "6")
    await filled(keystore)
    assert (await keystore.audit.verify(verdict.head)).whole


TAMPERS = {
    "actor": "UPDATE wardgate_audit SET actor = 'somebody' WHERE seq = 3",
    "target": "UPDATE wardgate_audit SET target = '' WHERE seq = 3",
    "outcome": "UPDATE wardgate_audit SET outcome = 'refused' WHERE seq = 6",
    "detail": "UPDATE wardgate_audit SET detail = '{}' WHERE seq = 1",
    "tenant": "UPDATE wardgate_audit SET tenant_id = 't' WHERE seq = 2",
    "removed": "DELETE FROM wardgate_audit WHERE seq = 3",
    "first removed": "DELETE FROM wardgate_audit WHERE seq = 1",
    "cut off": "DELETE FROM wardgate_audit WHERE seq > 4",
    "all gone": "DELETE FROM wardgate_audit",
    "no note of the end": "DELETE FROM wardgate_facts",
    "another end": "UPDATE wardgate_facts SET value = '4:00'",
    "exchanged": "UPDATE wardgate_audit SET operation = CASE seq WHEN 2 THEN 'op-3' ELSE 'op-2' END"
    " WHERE seq IN (2, 3)",
    "renumbered": "UPDATE wardgate_audit SET seq = 60 WHERE seq = 6",
}


@pytest.mark.parametrize("detail", ["{", "[]", "null", ""])
async def test_row_that_was_spoilt_hides_no_other(world: World, keystore: Keystore, detail: str) -> None:
    await filled(keystore)
    await world.sql(f"UPDATE wardgate_audit SET detail = '{detail}' WHERE seq = 3")
    rows = {row.seq: row.detail for row in await keystore.audit.list()}
    assert rows == {number: {"n": number} for number in range(1, 7)} | {3: {"unreadable": True}}
    assert not (await keystore.audit.verify()).whole


@pytest.mark.parametrize("statement", TAMPERS.values(), ids=list(TAMPERS))
async def test_tampering_shows(world: World, keystore: Keystore, statement: str) -> None:
    await filled(keystore)
    await world.sql(statement)
    verdict = await keystore.audit.verify()
    assert not verdict.whole and verdict.faults


async def test_end_that_was_cut_off_shows_for_ever(world: World, keystore: Keystore) -> None:
    await filled(keystore)
    await world.sql("DELETE FROM wardgate_audit WHERE seq > 3")
    await filled(keystore, 2)
    rows = await keystore.audit.list()
    assert [row.action for row in rows] == [
        "tenant.list",
        "tenant.list",
        GAP,
        "tenant.list",
        "tenant.list",
        "tenant.list",
    ]
    assert (await keystore.audit.verify()).faults == ("row 4 tells that rows before it were cut off",)


async def test_end_set_back_with_its_note_shows_against_a_kept_head(world: World, keystore: Keystore) -> None:
    await filled(keystore, 3)
    earlier = (await keystore.audit.verify()).head
    await filled(keystore, 3)
    kept = (await keystore.audit.verify()).head
    await world.sql("DELETE FROM wardgate_audit WHERE seq > 3")
    await world.sql("UPDATE wardgate_facts SET value = :head", head=earlier)
    assert (await keystore.audit.verify()).whole  # inside the database nothing is left that could tell
    assert (await keystore.audit.verify(kept)).faults == ("rows 4 to 6 are missing",)
    for number in range(100, 104):
        await keystore.audit.append(entry(number))
    assert (await keystore.audit.verify(kept)).faults == ("row 6 is not the one whose seal was kept",)


@pytest.mark.parametrize("head", ["", "6", "x:00", "6:zz"])
async def test_head_that_is_none_is_refused(keystore: Keystore, head: str) -> None:
    with pytest.raises(AuditBroken, match="NUMBER:SEAL"):
        await keystore.audit.verify(head)


async def test_many_at_once_keep_one_chain(world: World, keystore: Keystore) -> None:
    other = await world.open()
    await asyncio.gather(*((keystore, other)[number % 2].audit.append(entry(number)) for number in range(20)))
    verdict = await keystore.audit.verify()
    assert (verdict.rows, verdict.whole) == (20, True)
    await other.close()


async def test_list_is_filtered_and_paged(keystore: Keystore) -> None:
    await filled(keystore)
    page = await keystore.audit.list(limit=2)
    assert [row.seq for row in page] == [6, 5]
    assert [row.seq for row in await keystore.audit.list(limit=2, before=page[-1].seq)] == [4, 3]
    assert page[0].detail == {"n": 6}
    assert await keystore.audit.list(actor="nobody") == []
    assert len(await keystore.audit.list(action="tenant.list", outcome="done")) == 6


async def test_text_that_a_database_cannot_keep_is_kept_as_it_can(keystore: Keystore) -> None:
    strange = Actor("operator", "a\x00b\udc80", "x" * 9999, OPERATOR_RIGHTS)
    await keystore.audit.append(Entry("o", Phase.WHOLE, strange, "tenant.list", None, "\x1b[31m", "done"))
    (row,) = await keystore.audit.list()
    assert (row.actor, len(row.origin), row.target) == ("a?b?", 500, "?[31m")
    assert (await keystore.audit.verify()).whole


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


@pytest.fixture
def control(world: World, keystore: Keystore) -> Control:
    return Control(keystore, Rules(world.registry, load_plans({}), Limits()))


async def nothing(at: Operation) -> str:
    return "result"


async def outcomes(keystore: Keystore) -> list[tuple[str, str, str]]:
    return [(row.action, row.phase.value, row.outcome) for row in reversed(await keystore.audit.list())]


async def test_write_is_noted_before_and_after(keystore: Keystore, tenant: Tenant, control: Control) -> None:
    result = await control.run(
        OPERATOR, "key.set", nothing, tenant="acme", target="OPENAI_API_KEY", describe=lambda one: {"said": len(one)}
    )
    assert result == "result"
    assert await outcomes(keystore) == [("key.set", "begin", "begun"), ("key.set", "end", "done")]
    begun, ended = reversed(await keystore.audit.list())
    assert begun.operation == ended.operation
    assert (ended.tenant_id, ended.target, ended.detail) == (tenant.id, "OPENAI_API_KEY", {"said": 6})


async def test_reading_is_noted_once(keystore: Keystore, control: Control) -> None:
    await control.run(OPERATOR, "tenant.list", nothing)
    assert await outcomes(keystore) == [("tenant.list", "whole", "done")]


FAILURES: list[tuple[type[BaseException], str]] = [
    (TenantUnknown, "refused"),
    (DatabaseUnavailable, "refused"),
    (ZeroDivisionError, "failed"),
    (asyncio.CancelledError, "failed"),
]


@pytest.mark.parametrize(("kind", "outcome"), FAILURES)
async def test_failure_is_noted_without_its_words(
    keystore: Keystore, control: Control, kind: type[BaseException], outcome: str
) -> None:
    async def fail(at: Operation) -> None:
        raise kind("sk-secret-in-a-message")

    with pytest.raises(kind):
        await control.run(OPERATOR, "tenant.add", fail)
    assert [row[2] for row in await outcomes(keystore)] == ["begun", outcome]
    assert "sk-secret" not in repr(await keystore.audit.list())


async def test_unknown_tenant_is_noted(keystore: Keystore, control: Control) -> None:
    with pytest.raises(TenantUnknown):
        await control.run(OPERATOR, "key.set", nothing, tenant="nobody")
    assert await outcomes(keystore) == [("key.set", "whole", "refused")]


async def test_nothing_is_changed_while_it_cannot_be_noted(world: World, keystore: Keystore, control: Control) -> None:
    await world.sql("ALTER TABLE wardgate_audit RENAME TO away")
    done: list[str] = []

    async def work(at: Operation) -> None:
        done.append("done")

    with pytest.raises(DatabaseUnavailable):
        await control.run(OPERATOR, "tenant.add", work)
    assert done == []


def actor(rights: set[str], tenant_id: str | None = None) -> Actor:
    return Actor("tenant" if tenant_id else "admin", "a-token", "127.0.0.1", frozenset(rights), tenant_id)


@pytest.mark.parametrize("action", sorted(ACTIONS))
async def test_right_is_checked_for_every_action(
    keystore: Keystore, tenant: Tenant, control: Control, action: str
) -> None:
    """Each action with every single right, as an admin's and as the tenant's own token: what has no right is denied."""
    row = ACTIONS[action]
    rights = ["admin:read", "admin:write", "keys:read", "keys:write", "inference"]
    for right in rights:
        for own in (False, True):
            needed = row.tenant_right if own else row.right
            who = actor({right}, tenant.id if own else None)
            allowed = needed is not None and needed.value == right
            run: Callable[[], Awaitable[Any]] = lambda who=who: control.run(who, action, nothing, tenant="acme")  # type: ignore[misc]  # noqa: E731
            if allowed:
                assert await run() == "result"
            else:
                with pytest.raises(NotAllowed):
                    await run()
    assert {row.outcome for row in await keystore.audit.list(limit=1000)} <= {"begun", "done", "denied"}


async def test_tenants_token_acts_for_its_own_tenant_alone(
    keystore: Keystore, tenant: Tenant, control: Control
) -> None:
    other = await keystore.tenants.add("other", "team")
    mine = actor({"keys:read", "keys:write"}, tenant.id)
    for named in ("other", other.id, None):
        with pytest.raises(NotAllowed):
            await control.run(mine, "key.list", nothing, tenant=named)
    assert await control.run(mine, "key.list", nothing, tenant=tenant.id) == "result"


async def test_action_without_a_row_cannot_be_run(control: Control) -> None:
    with pytest.raises(KeyError):
        await control.run(OPERATOR, "key.reveal", nothing)
