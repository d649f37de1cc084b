"""What the tests of journal and shipper share: rows, stores that count what came twice, and processes to be killed.

Run as a program it is such a process: it reads orders, and forks a child for each, so that a kill costs milliseconds.
"""

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from keystore.errors import DatabaseUnavailable, ValueRefused
from keystore.journal import Journal
from keystore.ledger_row import LedgerRow, State
from keystore.shipment import Notice
from keystore.shipping import Pace, Shipper

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
QUICK = Pace(gather_s=0.0, least_s=0.001, most_s=0.01, look_s=0.01)
DATABASE = "db-1"


def request_id(number: int) -> str:
    return f"req_{number:032x}"


def row(number: int, state: State = State.SETTLED, **facts: Any) -> LedgerRow:
    known: dict[str, Any] = {"cost_nano": 1_000 + number, "outcome": "ok", "duration_ms": 250}
    known |= {"tenant_id": "t1", "began_at": NOW}
    return LedgerRow(
        request_id=request_id(number),
        token_id="tok1",
        endpoint="chat_completions",
        state=state,
        **known | facts,
    )


def begun(number: int) -> bytes:
    return row(number, State.RESERVED, outcome="").line()


def ended(number: int, **facts: Any) -> bytes:
    return row(number, **facts).line()


@dataclass
class Memory:
    """Stands where the ledger does, and shows what came twice. `fault` is asked before each write, `after` when it has
    been committed; `refused` are request ids whose rows it does not take, `waits` those that it does not take now.
    `cut` takes back what is not secured, as a loss of power may; it is secured only when it is `sure`."""

    positions: dict[str, int] = field(default_factory=dict)
    rows: list[LedgerRow] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    waits: set[str] = field(default_factory=set)
    away: bool = False
    fault: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    asked: int = 0
    sure: bool = True
    kept: "tuple[dict[str, int], list[LedgerRow]]" = field(default_factory=lambda: ({}, []))

    async def secured(self) -> bool:
        if self.sure:
            self.kept = dict(self.positions), list(self.rows)
        return self.sure

    def cut(self) -> None:
        self.positions, self.rows = dict(self.kept[0]), list(self.kept[1])

    async def position(self, journal_id: str) -> int:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable("away")
        return self.positions.get(journal_id, 0)

    async def write_at(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow]) -> None:
        await asyncio.sleep(0)
        position = await self.position(journal_id)
        assert lines.start <= position, "a gap"
        assert list(rows) == sorted(rows) and all(at in lines for at in rows)
        self.fault()
        new = [one for at, one in rows.items() if at >= position]
        if any(one.request_id in self.waits for one in new):
            raise DatabaseUnavailable("does not answer (TimeoutError)")
        if any(one.request_id in self.refused for one in new):
            raise ValueRefused("failed (DataError)")
        assert all(one.state is not State.RESERVED for one in new)
        there = {one.request_id for one in self.rows}
        self.rows += [one for one in new if one.state is not State.ESTIMATED or one.request_id not in there]
        self.positions[journal_id] = max(position, lines.stop)
        self.after()

    def times(self) -> Counter[str]:
        """How often each request is there."""
        return Counter(one.request_id for one in self.rows)

    def is_exactly(self, numbers: "Sequence[int] | set[int]") -> bool:
        return self.times() == Counter(request_id(number) for number in numbers)


@dataclass
class Bench:
    """A folder of journals and a store, and what was told."""

    folder: Path
    store: Memory = field(default_factory=Memory)
    told: list[Notice] = field(default_factory=list)
    now: datetime = NOW

    def journal(self, **options: Any) -> Journal:
        return Journal(self.folder, **{"database": DATABASE, "sync": False, **options})

    def shipper(self, journal: Journal, **options: Any) -> Shipper:
        options = {"pace": QUICK, "now": lambda: self.now, **options}
        return Shipper(journal, options.pop("store", self.store), self.told.append, **options)

    async def take_over(self, **options: Any) -> Shipper:
        """Another process comes, and finishes what is there."""
        journal = self.journal()
        shipper = self.shipper(journal, **options)
        try:
            await shipper.take_over()
        finally:
            await shipper.close(1)
            await journal.close(finished=True)
        return shipper

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def rejected(self) -> list[dict[str, Any]]:
        path = self.folder / "rejected.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def what(self) -> list[str]:
        return [notice.what.value for notice in self.told]


@contextmanager
def full_disk() -> Iterator[None]:
    """The disk takes nothing of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def died(journal: Journal) -> None:
    """Have the journal as a process that was killed leaves it: its files as they are, its lock free."""
    journal._end(finished=False)
    journal._closed = True


class OnDisk:
    """A store in an SQLite file that several processes share; it keeps whatever comes, also twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS at (journal_id TEXT PRIMARY KEY, position INTEGER)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (request_id TEXT, outcome TEXT, state TEXT, pid INTEGER)"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            yield connection

    async def position(self, journal_id: str) -> int:
        with self._open() as connection:
            found = connection.execute("SELECT position FROM at WHERE journal_id = ?", (journal_id,)).fetchone()
        return found[0] if found else 0

    async def write_at(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow]) -> None:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT position FROM at WHERE journal_id = ?", (journal_id,)).fetchone()
            position = found[0] if found else 0
            assert lines.start <= position, "a gap"
            new = [one for at, one in rows.items() if at >= position]
            values = [(one.request_id, one.outcome, one.state.value, os.getpid()) for one in new]
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", values)
            connection.execute("REPLACE INTO at VALUES (?, ?)", (journal_id, max(position, lines.stop)))
            connection.execute("COMMIT")

    async def secured(self) -> bool:
        return True

    def found(self) -> list[tuple[str, str, str, int]]:
        with self._open() as connection:
            return connection.execute("SELECT * FROM rows").fetchall()


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass
class Kennel:
    """A process that forks a child for each order. A child is told its work, and says what it has done on a pipe."""

    process: "subprocess.Popen[bytes]"

    def order(self, work: str, said: Path, *arguments: str) -> int:
        """Begin; the child's process id. What it says goes into the file `said`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(orjson.dumps([work, str(said), *arguments]) + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """Until one of the children has ended; its exit code."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(b"null\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def kennel() -> Iterator[Kennel]:
    command = [sys.executable, "-m", "tests.keystore.journals"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        yield Kennel(process)
        assert process.stdin
        process.stdin.close()


async def work_until_killed(said: int, folder: Path, database: Path, acknowledge: str) -> None:
    """Requests, twenty at a time, with a shipper beside them."""
    journal = Journal(folder, database=DATABASE, segment_bytes=4_000)
    shipper = Shipper(journal, OnDisk(database), lambda _: None, now=lambda: NOW, pace=QUICK, batch_bytes=2_000)
    shipping = asyncio.create_task(shipper.run())

    async def requests(lane: int) -> None:
        for number in range(10_000):
            this = os.getpid() * 10_000_000 + lane * 10_000 + number
            journal.append(begun(this))
            os.write(said, b"begun %d\n" % this)
            await asyncio.sleep(0)
            journal.append(ended(this))
            if acknowledge == "durable":
                await journal.durable()
            os.write(said, b"ended %d\n" % this)

    await asyncio.gather(shipping, *(requests(lane) for lane in range(20)))


async def take_over_all(said: int, folder: Path, database: Path) -> None:
    journal = Journal(folder, database=DATABASE)
    shipper = Shipper(journal, OnDisk(database), lambda _: None, now=lambda: NOW, pace=QUICK, batch_bytes=2_000)
    os.write(said, b"ready\n")
    while not (folder.parent / "go").exists():
        await asyncio.sleep(0.001)
    await shipper.take_over()
    os.write(said, b"taken %d\n" % shipper.counts.taken_over)
    await journal.close(finished=await shipper.close(5))


def _child(work: str, said: str, *arguments: str) -> None:
    out = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    if work == "requests":
        asyncio.run(work_until_killed(out, Path(arguments[0]), Path(arguments[1]), arguments[2]))
    else:
        asyncio.run(take_over_all(out, Path(arguments[0]), Path(arguments[1])))


def _serve() -> None:
    for line in sys.stdin.buffer:
        order = orjson.loads(line)
        if order is None:
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
            continue
        if (pid := os.fork()) == 0:
            code = 1
            try:
                _child(*order)
                code = 0
            finally:
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
