"""Processes that are killed at any point, and others that finish what they left: real processes, real files.

WARDGATE_KILLS says how many are killed; 20 in the suite.
"""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.keystore.journals import Bench, Kennel, OnDisk, kennel, request_id

KILLS = int(os.environ.get("WARDGATE_KILLS", "20"))


@pytest.fixture(scope="module")
def children() -> Iterator[Kennel]:
    with kennel() as opened:
        yield opened


def said_in(path: Path) -> dict[str, set[str]]:
    """What a child has acknowledged; a line that it did not finish says nothing."""
    said: dict[str, set[str]] = {"begun": set(), "ended": set()}
    for line in path.read_bytes().split(b"\n")[:-1]:
        what, number = line.decode().split()
        said[what].add(request_id(int(number)))
    return said


async def killed(children: Kennel, folder: Path, acknowledge: str, seed: int) -> tuple[OnDisk, dict[str, set[str]]]:
    """One process, killed at a random moment of its work."""
    said, database = folder / f"said-{seed}", folder / "store.db"
    store = OnDisk(database)
    pid = children.order("requests", said, str(folder / "journal"), str(database), acknowledge)
    eventually(lambda: said.exists() and said.stat().st_size > 200)
    threading.Event().wait(random.Random(seed).uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    assert children.wait() == -signal.SIGKILL
    return store, said_in(said)


@pytest.mark.parametrize("acknowledge", ["append", "durable"])
async def test_what_was_acknowledged_before_a_kill_is_in_the_database_once(
    acknowledge: str, children: Kennel, tmp_path: Path
) -> None:
    acknowledged: set[str] = set()
    begun: set[str] = set()
    bench = Bench(tmp_path / "journal")
    for number in range(max(1, KILLS // 2)):
        store, said = await killed(children, tmp_path, acknowledge, number)
        acknowledged |= said["ended"]
        begun |= said["begun"]
        shipper = await bench.take_over(store=store, batch_bytes=3_000)
        assert shipper.counts.taken_over == 1
    rows = store.found()
    times = Counter(row[0] for row in rows)
    assert set(times.values()) == {1}, "a row is there twice"
    outcomes = {row[0]: row[1] for row in rows}
    assert acknowledged <= {one for one, outcome in outcomes.items() if outcome == "ok"}, "acknowledged, and lost"
    assert begun <= set(outcomes), "begun, and without any row"
    assert {row[2] for row in rows if row[1] == "lost"} <= {"estimated"}
    assert len(set(outcomes) - begun) <= 20 * KILLS, "a row is of a request that was written, and not yet acknowledged"
    assert bench.files() == [] and bench.rejected() == []


async def test_each_of_many_journals_is_taken_over_by_one_of_four_processes(children: Kennel, tmp_path: Path) -> None:
    bench, ended = Bench(tmp_path / "journal"), set()
    for number in range(6):
        store, said = await killed(children, tmp_path, "append", number)
        ended |= said["ended"]
    left = {name[:36] for name in bench.files()}
    assert len(left) == 6
    for one in range(4):
        children.order("take", tmp_path / f"taker-{one}", str(bench.folder), str(tmp_path / "store.db"))
    takers = [tmp_path / f"taker-{one}" for one in range(4)]
    eventually(lambda: all(path.exists() and path.read_bytes() for path in takers))
    (tmp_path / "go").touch()
    assert [children.wait() for _ in takers] == [0, 0, 0, 0]
    assert sum(int(path.read_text().split()[-1]) for path in takers) == 6
    times = Counter(row[0] for row in store.found())
    assert set(times.values()) == {1} and ended <= set(times)
    assert bench.files() == []
