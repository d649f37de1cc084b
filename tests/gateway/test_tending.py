"""What fails while the keystore is tended is logged once, until it goes well again."""

import asyncio
import io
import json

from gateway.logs import configure_logs
from gateway.tending import Failures, keep_beating, tend_keystore
from keystore.errors import DatabaseUnavailable, RingMissing
from tests.keystore.conftest import World


class Said:
    """A log."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.log = configure_logs("info", self._text)

    def lines(self) -> list[tuple[str, str, str]]:
        found = [json.loads(line) for line in self._text.getvalue().splitlines()]
        return [(line["event"], line["what"], line["level"]) for line in found]


def test_what_fails_is_told_once_until_it_goes_well_or_fails_otherwise() -> None:
    said = Said()
    failures = Failures(said.log)
    away, odd = {"ledger": DatabaseUnavailable("1")}, {"ledger": DatabaseUnavailable("2"), "use": ValueError("secret")}
    for failed in (away, away, odd, odd, {}, away):
        failures.tell(failed)
    failures.tell({"ledger": RingMissing()})
    ledger = ("keystore.not_tended", "ledger", "warning")
    assert said.lines() == [ledger, ("keystore.not_tended", "use", "error"), ledger, ledger]


async def test_database_that_is_away_is_told_twice_and_no_more(world: World) -> None:
    """Once by the one who tends, once by the one who says that this process lives."""
    keystore, said = await world.open(), Said()
    await keystore.tend()
    await world.sql("ALTER TABLE wardgate_replicas RENAME TO away")
    await world.sql("ALTER TABLE wardgate_root_keys RENAME TO away_too")
    tasks = [asyncio.create_task(each(keystore, said.log, every_s=0.01)) for each in (tend_keystore, keep_beating)]
    async with asyncio.timeout(20):
        while len(said.lines()) < 2:
            await asyncio.sleep(0.01)
    for _ in range(3):
        await keystore.tend()
    assert sorted(said.lines()) == [
        ("keystore.not_tended", "root keys", "warning"),
        ("keystore.not_tended", "this replica", "warning"),
    ]
    await world.sql("ALTER TABLE away RENAME TO wardgate_replicas")
    await world.sql("ALTER TABLE away_too RENAME TO wardgate_root_keys")
    async with asyncio.timeout(20):
        while not await keystore.replicas.live():
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await keystore.close()
