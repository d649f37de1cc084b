"""The shipper: each line once, in order, whatever fails in between; rows that are refused; journals of the dead."""

import asyncio
import json
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.errors import DatabaseUnavailable, JournalUnwritable, RowsRefused
from keystore.journal import KEPT_LINES, Journal
from keystore.journal_files import Header, framed, header_line, segment_path, segments_of
from keystore.ledger_row import State
from keystore.shipment import Told
from keystore.shipping import Pace, Shipper
from tests.keystore.journals import DATABASE, NOW, Bench, Memory, begun, died, ended, full_disk, request_id, row


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "journal")


@asynccontextmanager
async def running(shipper: Shipper) -> AsyncIterator[None]:
    task = asyncio.create_task(shipper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: "object", seconds: float = 10.0) -> None:
    """As `tests.harness.eventually`, in the loop."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


class Once:
    """Raises the first times that it is called."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        self.error, self.left = error, times

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise self.error


# --- the way -------------------------------------------------------------------------------------------------------


async def test_rows_that_ended_are_shipped_and_those_that_began_are_not(bench: Bench) -> None:
    journal = bench.journal(sync=True)
    shipper = bench.shipper(journal)
    for line in (begun(1), begun(2), ended(2), ended(1), begun(3)):
        journal.append(line)
    assert (shipper.pending, shipper.pending_bytes) == (5, journal.size)
    await shipper.flush()
    assert bench.store.rows == [row(2), row(1)]
    assert (shipper.pending, shipper.pending_bytes, shipper.counts.shipped, shipper.oldest_age_s) == (0, 0, 2, 0.0)
    assert await shipper.close(1) is False, "one that began has not ended"
    await journal.close()
    await bench.take_over()
    assert bench.store.rows[2:] == [row(3, State.ESTIMATED, outcome="lost")]
    assert bench.files() == [] and bench.what() == ["taken_over"]


async def test_finished_journal_is_deleted(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    async with running(shipper):
        journal.append(begun(1))
        journal.append(ended(1))
        await until(lambda: bench.store.is_exactly([1]))
    await journal.close(finished=await shipper.close(1))
    assert bench.files() == []


async def test_segments_go_when_they_are_shipped_and_what_began_in_them_stays(bench: Bench) -> None:
    journal = bench.journal(segment_bytes=3_000)
    shipper = bench.shipper(journal)
    journal.append(begun(0))
    for number in range(1, 101):
        journal.append(begun(number))
        journal.append(ended(number))
        if number % 10 == 0:
            await shipper.flush()
            assert len(bench.files()) <= 6
    died(journal)
    await bench.take_over()
    assert bench.store.is_exactly(range(101))
    assert bench.store.rows[-1] == row(0, State.ESTIMATED, outcome="lost")


async def test_files_stay_until_the_database_is_sure(bench: Bench) -> None:
    bench.store.sure = False
    dead, journal = bench.journal(), bench.journal(segment_bytes=1_000)
    dead.append(begun(100))
    died(dead)
    shipper = bench.shipper(journal)
    for number in range(20):
        journal.append(ended(number))
    await shipper.flush()
    await shipper.take_over()
    assert len(segments_of(bench.folder, journal.journal_id)) > 5
    assert (shipper.pending, shipper.orphans, shipper.counts.taken_over) == (0, 1, 0)
    bench.store.cut()
    with pytest.raises(RowsRefused, match="went back"):
        journal.append(ended(20))
        await shipper.flush()
    await shipper.flush()
    assert bench.store.is_exactly(range(21))
    assert await shipper.close(1) is False
    await journal.close(finished=False)
    bench.store.sure = True
    await bench.take_over()
    assert bench.store.is_exactly([*range(21), 100]) and bench.files() == []


async def test_what_is_not_on_the_disk_is_not_shipped(bench: Bench) -> None:
    class Failing(Journal):
        def _on_disk(self, work: object) -> None:
            raise OSError(5, "Input/output error")

    journal = Failing(bench.folder, database=DATABASE)
    shipper = bench.shipper(journal)
    journal.append(ended(1))
    with pytest.raises(JournalUnwritable, match="did not reach the disk"):
        await shipper.flush()
    assert bench.store.rows == [] and shipper.pending == 1
    died(journal)


async def test_failure_after_the_commit_brings_nothing_twice(bench: Bench) -> None:
    bench.store.after = Once(DatabaseUnavailable("the answer never came"))
    journal = bench.journal()
    shipper = bench.shipper(journal)
    journal.append(ended(1))
    await shipper.flush()
    journal.append(ended(2))
    await shipper.flush()
    assert bench.store.is_exactly([1, 2]) and shipper.counts.shipped == 2
    died(journal)


async def test_process_that_ends_after_the_commit_brings_nothing_twice(bench: Bench) -> None:
    """The store is away just after it took the rows, so that the first process never learns it."""
    journal = bench.journal()
    shipper = bench.shipper(journal)
    for number in range(5):
        journal.append(begun(number))
        journal.append(ended(number))

    def gone() -> None:
        bench.store.away = True
        raise DatabaseUnavailable("gone")

    bench.store.after = gone
    with pytest.raises(DatabaseUnavailable):
        await shipper.flush()
    died(journal)
    bench.store.after, bench.store.away = (lambda: None), False
    await bench.take_over()
    assert bench.store.is_exactly(range(5))


async def test_journal_that_comes_back_after_it_was_shipped_brings_nothing_twice(bench: Bench, tmp_path: Path) -> None:
    journal = bench.journal()
    for line in (begun(1), ended(1), begun(2), begun(3), ended(3)):
        journal.append(line)
    died(journal)
    shutil.copytree(bench.folder, tmp_path / "copy")
    for new in (3, 1, 1):  # a lost request is brought again, and the store knows it
        shipper = await bench.take_over()
        assert bench.files() == [] and bench.store.is_exactly([1, 2, 3])
        assert shipper.counts.shipped == new
        shutil.copytree(tmp_path / "copy", bench.folder, dirs_exist_ok=True)


async def test_database_that_goes_back_in_time_is_told_what_is_still_there(bench: Bench) -> None:
    """It was restored from a copy: all that the files still hold comes."""
    journal = bench.journal()
    shipper = bench.shipper(journal)
    journal.append(ended(1))
    await shipper.flush()
    bench.store.positions.clear()
    bench.store.rows.clear()
    journal.append(begun(2))
    journal.append(ended(2))
    with pytest.raises(RowsRefused, match="went back"):
        await shipper.flush()
    await shipper.flush()
    assert bench.store.is_exactly([1, 2]) and shipper.pending == 0
    died(journal)


@pytest.mark.parametrize("sync", [True, False])
async def test_flush_that_is_cancelled_anywhere_loses_nothing(sync: bool, bench: Bench) -> None:
    journal = bench.journal(sync=sync, segment_bytes=2_000)
    shipper = bench.shipper(journal, batch_bytes=1_000)
    for number in range(60):
        journal.append(ended(number))
        flushing = asyncio.create_task(shipper.flush())
        for _ in range(number % 20):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait({flushing})
        missing = number + 1 - len(bench.store.rows)
        assert missing <= shipper.pending, "what was read and not shipped waits still"
    assert await shipper.close(5) is True
    await journal.close(finished=True)
    assert bench.store.is_exactly(range(60))


# --- the database is away ------------------------------------------------------------------------------------------


async def test_database_that_is_away_loses_nothing_and_is_told_once(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    bench.store.away = True
    async with running(shipper):
        for number in range(50):
            journal.append(ended(number))
            await asyncio.sleep(0)
        await until(lambda: bench.store.asked > 5)
        bench.now = NOW + timedelta(seconds=60)
        assert shipper.pending == 50 and shipper.oldest_age_s == 59.75
        bench.store.away = False
        await until(lambda: shipper.pending == 0)
    assert bench.store.is_exactly(range(50)) and shipper.oldest_age_s == 0.0
    assert bench.what() == ["waiting"]
    died(journal)


async def test_memory_stays_bounded_while_the_database_is_away(bench: Bench) -> None:
    journal = bench.journal(segment_bytes=1_000_000)
    shipper = bench.shipper(journal, batch_bytes=50_000)
    bench.store.away = True
    line, count = b"%d" % 0 + ended(0, detail=json.dumps(["x" * 2_000])), 4_000
    with pytest.raises(DatabaseUnavailable):
        journal.append(ended(0))
        await shipper.flush()
    tracemalloc.start()
    for number in range(1, count):
        journal.append(ended(number, detail=json.dumps(["x" * 2_000])))
        if number % 500 == 0:
            with pytest.raises(DatabaseUnavailable):
                await shipper.flush()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert journal.size > 4_000 * len(line) * 0.9 > 8_000_000
    assert most < 1_000_000, "what waits is in the files, not in memory"
    bench.store.away = False
    await shipper.flush()
    assert bench.store.is_exactly(range(count))
    died(journal)


async def test_journal_is_not_finished_while_something_is_to_be_set_aside(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    (bench.folder / "rejected.jsonl").mkdir()
    journal.append(b"nonsense")
    assert await shipper.close(5) is False
    await journal.close(finished=False)
    (bench.folder / "rejected.jsonl").rmdir()
    await bench.take_over()
    assert len(bench.rejected()) == 1


async def test_close_gives_up_in_time_and_the_next_process_ships_the_rest(bench: Bench) -> None:
    journal = bench.journal()
    stuck = asyncio.Event()

    class Stuck(Memory):
        async def write_at(self, *_: object) -> None:
            await stuck.wait()

    shipper = bench.shipper(journal, store=Stuck())
    journal.append(ended(1))
    assert await shipper.close(0.01) is False
    await journal.close(finished=False)
    await bench.take_over()
    assert bench.store.is_exactly([1])


# --- the disk takes nothing ----------------------------------------------------------------------------------------


async def test_last_line_that_the_disk_did_not_take_is_shipped_though_no_request_comes(bench: Bench) -> None:
    journal = bench.journal(sync=True)
    shipper = bench.shipper(journal)
    for number in (1, 2):
        journal.append(begun(number))
    async with running(shipper):
        with full_disk():
            journal.append_or_keep(ended(1), reserved=True)
            await until(lambda: "kept" in bench.what() and shipper.pending == 1)
            bench.now = NOW + timedelta(seconds=60)
            assert shipper.oldest_age_s == 60.0 and shipper.pending_bytes == journal.kept_bytes > 0
        await until(lambda: bench.store.is_exactly([1]))
        await until(lambda: shipper.pending == 0 and shipper.oldest_age_s == 0.0)
        with full_disk():
            journal.append_or_keep(ended(2), reserved=True)
            await until(lambda: bench.what() == ["kept", "kept"])
        await until(lambda: bench.store.is_exactly([1, 2]))
    assert bench.store.rows == [row(1), row(2)]
    await journal.close(finished=await shipper.close(1))
    assert bench.files() == []


async def test_what_is_on_the_disk_is_shipped_while_something_is_kept(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    journal.append(ended(1))
    with full_disk():
        journal.append_or_keep(ended(2), reserved=False)
        for _ in range(2):
            with pytest.raises(JournalUnwritable, match="cannot be written"):
                await shipper.flush()
        assert bench.store.is_exactly([1]) and [(one.what, one.number) for one in bench.told] == [(Told.KEPT, 1)]
    await shipper.flush()
    assert bench.store.is_exactly([1, 2])
    died(journal)


async def test_what_the_disk_never_took_is_told_at_the_end(bench: Bench) -> None:
    """Then the request is one that never ended."""
    journal = bench.journal()
    shipper = bench.shipper(journal)
    journal.append(begun(1))
    with full_disk():
        journal.append_or_keep(ended(1), reserved=True)
        assert await shipper.close(5) is False
        await journal.close(finished=False)
    assert [(one.what, one.number) for one in bench.told] == [(Told.KEPT, 1), (Told.DROPPED, 1)]
    await bench.take_over()
    assert bench.store.rows == [row(1, State.ESTIMATED, outcome="lost")]


async def test_lines_beyond_what_is_kept_are_told_with_their_number(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    with full_disk():
        for _ in range(KEPT_LINES):
            journal.append_or_keep(b"x", reserved=True)
        for _ in range(3):
            with pytest.raises(JournalUnwritable, match="is lost"):
                journal.append_or_keep(b"x", reserved=True)
        for _ in range(2):
            with pytest.raises(JournalUnwritable, match="cannot be written"):
                await shipper.flush()
    assert [(one.what, one.number) for one in bench.told] == [(Told.KEPT, KEPT_LINES), (Told.DROPPED, 3)]
    died(journal)


# --- rows that are refused -----------------------------------------------------------------------------------------


async def shipped_with_tries(shipper: Shipper, tries: int = 3) -> None:
    for _ in range(tries):
        try:
            await shipper.flush()
        except RowsRefused:
            continue
        return


@pytest.mark.parametrize("refused", [{0}, {4}, {0, 1}, {3, 7}, {0, 5, 6, 18}, set(range(18)), set(range(1, 19, 2))])
async def test_refused_rows_are_set_aside_and_stop_nothing(refused: set[int], bench: Bench) -> None:
    bench.store.refused = {request_id(number) for number in refused}
    journal = bench.journal()
    shipper = bench.shipper(journal)
    for number in range(20):
        journal.append(begun(number))
        journal.append(ended(number))
    await shipped_with_tries(shipper)
    assert bench.store.is_exactly(set(range(20)) - refused)
    assert [json.loads(one["line"])["request_id"] for one in bench.rejected()] == [
        request_id(number) for number in sorted(refused)
    ]
    assert {one["why"] for one in bench.rejected()} == {"ValueRefused"}
    assert (shipper.counts.rejected, shipper.counts.shipped) == (len(refused), 20 - len(refused))
    assert (bench.folder / "rejected.jsonl").stat().st_mode & 0o777 == 0o600
    died(journal)


@pytest.mark.parametrize("ending", ["dies", "goes on", "is cancelled"])
async def test_row_is_set_aside_also_when_nobody_heard_of_the_commit_without_it(ending: str, bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    bench.store.refused = {request_id(0)}
    for number in range(4):
        journal.append(ended(number))

    def gone() -> None:
        bench.store.away = True
        raise asyncio.CancelledError if ending == "is cancelled" else DatabaseUnavailable("gone")

    bench.store.after = gone
    for _ in range(2):
        with pytest.raises(RowsRefused):
            await shipper.flush()
    with pytest.raises((DatabaseUnavailable, asyncio.CancelledError)):
        await shipper.flush()
    assert bench.rejected() == []
    bench.store.after, bench.store.away = (lambda: None), False
    if ending == "dies":
        died(journal)
        await bench.take_over()
    else:
        await shipper.flush()
        assert (shipper.counts.shipped, shipper.counts.rejected) == (3, 1)
        await journal.close(finished=await shipper.close(1))
    assert bench.store.is_exactly([1, 2, 3]) and [one["position"] for one in bench.rejected()] == [0]
    assert bench.files() == ["rejected.jsonl"]


async def test_database_that_refuses_everything_is_not_the_rows_fault(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    bench.store.refused = {request_id(number) for number in range(30)}
    for number in range(30):
        journal.append(ended(number))
    await shipped_with_tries(shipper, 10)
    assert bench.rejected() == [] and shipper.pending == 30
    bench.store.refused = set()
    await shipper.flush()
    assert bench.store.is_exactly(range(30)) and bench.rejected() == []
    died(journal)


async def test_refused_row_without_another_waits_for_one(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    bench.store.refused = {request_id(1)}
    journal.append(ended(1))
    await shipped_with_tries(shipper, 10)
    assert shipper.pending == 1 and bench.rejected() == []
    journal.append(begun(2))
    await shipped_with_tries(shipper, 10)
    assert bench.rejected() == [], "a line without a row says nothing of the database"
    journal.append(ended(2))
    await shipped_with_tries(shipper)
    assert bench.store.is_exactly([2]) and len(bench.rejected()) == 1 and shipper.pending == 0
    died(journal)


async def test_refused_last_row_of_a_dead_process_waits_for_another_journals(bench: Bench) -> None:
    dead, journal = bench.journal(), bench.journal()
    bench.store.refused = {request_id(1)}
    dead.append(ended(1))
    died(dead)
    shipper = bench.shipper(journal)
    for _ in range(6):
        await shipper.take_over()
    assert shipper.orphans == 1 and bench.rejected() == []
    journal.append(ended(2))
    await shipper.flush()
    await shipper.take_over()
    assert shipper.orphans == 0 and len(bench.rejected()) == 1 and bench.store.is_exactly([2])
    died(journal)


async def test_rows_that_come_behind_refused_ones_beyond_a_batch_are_found(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal, batch_bytes=3_000)
    bench.store.refused = {request_id(number) for number in range(12)}
    for number in range(40):
        journal.append(ended(number))
    await shipped_with_tries(shipper, 12)
    assert bench.store.is_exactly(range(12, 40)) and shipper.counts.rejected == 12
    died(journal)


async def test_rows_that_the_database_does_not_take_now_are_not_set_aside(bench: Bench) -> None:
    """Each write that holds the first fails, as for want of a lock, and each without it would not."""
    journal = bench.journal()
    shipper = bench.shipper(journal)
    for number in range(9):
        journal.append(ended(number))
    bench.store.waits = {request_id(0)}
    await shipped_with_tries(shipper, 10)
    assert bench.rejected() == [] and shipper.pending == 9 and bench.store.rows == []
    bench.store.waits = set()
    await shipper.flush()
    assert bench.store.is_exactly(range(9)) and bench.rejected() == []
    died(journal)


async def test_what_was_to_be_set_aside_and_then_came_in_is_not_told_after_a_kill(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    bench.store.refused = {request_id(0), request_id(1)}
    for number in range(2):
        journal.append(ended(number))
    await shipped_with_tries(shipper, 4)
    assert (bench.folder / f"{journal.journal_id}.aside").exists()
    bench.store.refused = set()
    await shipper.flush()
    died(journal)
    await bench.take_over()
    assert bench.store.is_exactly(range(2)) and bench.rejected() == []


async def test_what_is_no_row_is_set_aside(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    lines = [ended(1), b"nonsense", b'{"request_id": 7}', ended(2), b"[]"]
    for line in lines:
        journal.append(line)
    await shipper.flush()
    assert bench.store.is_exactly([1, 2]) and shipper.pending == 0
    assert [one["line"].encode() for one in bench.rejected()] == [lines[1], lines[2], lines[4]]
    assert [one["position"] for one in bench.rejected()] == [1, 2, 4]
    assert {one["journal"] for one in bench.rejected()} == {journal.journal_id} and "rejected" in bench.what()
    died(journal)


async def test_what_cannot_be_set_aside_is_not_passed_by(bench: Bench) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal)
    (bench.folder / "rejected.jsonl").mkdir()
    journal.append(b"nonsense")
    journal.append(ended(1))
    with pytest.raises(JournalUnwritable, match="set aside"):
        await shipper.flush()
    assert bench.store.rows == []
    (bench.folder / "rejected.jsonl").rmdir()
    await shipper.flush()
    assert bench.store.is_exactly([1]) and len(bench.rejected()) == 1
    died(journal)


async def test_damaged_line_is_set_aside_and_a_torn_one_is_counted(bench: Bench) -> None:
    journal = bench.journal()
    for number in range(3):
        journal.append(ended(number))
    died(journal)
    (segment,) = segments_of(bench.folder, journal.journal_id)
    content = segment.path.read_bytes().replace(request_id(1).encode(), request_id(9).encode())
    segment.path.write_bytes(content[:-7])
    shipper = await bench.take_over()
    assert bench.store.is_exactly([0]) and shipper.counts.rejected == 0, "nothing whole came behind either"
    assert shipper.counts.torn == 1 and bench.what() == ["torn", "taken_over"]


async def test_damaged_line_in_the_middle_is_set_aside(bench: Bench) -> None:
    journal = bench.journal()
    for number in range(3):
        journal.append(ended(number))
    died(journal)
    (segment,) = segments_of(bench.folder, journal.journal_id)
    segment.path.write_bytes(segment.path.read_bytes().replace(request_id(1).encode(), request_id(9).encode()))
    shipper = await bench.take_over()
    assert bench.store.is_exactly([0, 2]) and shipper.counts.torn == 0
    assert [(one["why"], request_id(9) in one["line"]) for one in bench.rejected()] == [("check sum", True)]


# --- journals of the dead ------------------------------------------------------------------------------------------


async def test_lost_request_carries_what_was_reserved_for_it(bench: Bench) -> None:
    journal = bench.journal()
    journal.append(row(1, State.RESERVED, outcome="", cost_nano=77, provider="minimax").line())
    died(journal)
    shipper = await bench.take_over()
    assert bench.store.rows == [row(1, State.ESTIMATED, outcome="lost", cost_nano=77, provider="minimax")]
    assert [(one.what.value, one.number) for one in bench.told] == [("taken_over", 1)]
    assert shipper.counts.taken_over == 1


async def test_journal_of_another_database_or_a_newer_form_is_left_alone(bench: Bench) -> None:
    other = bench.journal(database="db-2")
    other.append(ended(1))
    newer = bench.journal()
    newer.append(ended(2))
    for one in (other, newer):
        died(one)
    path = segment_path(bench.folder, newer.journal_id, 0)
    path.write_bytes(header_line(Header(newer.journal_id, DATABASE, 2), 0) + path.read_bytes().split(b"\n", 1)[1])
    before = bench.files()
    journal = bench.journal()
    shipper = bench.shipper(journal)
    await shipper.take_over()
    await shipper.take_over()
    assert bench.store.rows == [] and bench.what() == ["foreign", "foreign"]
    await journal.close(finished=await shipper.close(1))
    assert bench.files() == before


@pytest.mark.parametrize("content", [b"", b"00000", b"\0" * 4096])
async def test_journal_without_a_whole_line_is_cleared_away(content: bytes, bench: Bench) -> None:
    journal = bench.journal()
    died(journal)
    segment_path(bench.folder, journal.journal_id, 0).write_bytes(content)
    await bench.take_over()
    assert bench.files() == [] and "foreign" not in bench.what()


async def test_living_journals_are_left_to_their_owners(bench: Bench) -> None:
    living = bench.journal()
    living.append(ended(1))
    await bench.take_over()
    assert bench.store.rows == []
    died(living)
    journal = bench.journal()
    shipper = bench.shipper(journal)
    async with running(shipper):
        await until(lambda: bench.store.is_exactly([1]))
        await until(lambda: shipper.counts.taken_over == 1)
    await journal.close(finished=await shipper.close(1))
    assert bench.files() == []


def spoiled_header(bench: Bench, journal_id: str) -> None:
    (segment,) = segments_of(bench.folder, journal_id)
    segment.path.unlink()
    segment.path.mkdir()


def spoiled_file_behind(bench: Bench, journal_id: str) -> None:
    segment_path(bench.folder, journal_id, 9).mkdir()


def spoiled_note(bench: Bench, journal_id: str) -> None:
    (bench.folder / f"{journal_id}.aside").write_text('["no position"]\n')


@pytest.mark.parametrize("spoil", [spoiled_header, spoiled_file_behind, spoiled_note])
async def test_journal_that_cannot_be_finished_keeps_no_other_waiting(
    spoil: Callable[[Bench, str], None], bench: Bench
) -> None:
    dead = sorted((bench.journal() for _ in range(3)), key=lambda each: each.journal_id)
    for number, one in enumerate(dead):
        one.append(ended(number))
        died(one)
    bad = dead[0].journal_id
    spoil(bench, bad)
    journal = bench.journal()
    shipper = bench.shipper(journal)
    for _ in range(3):
        await shipper.take_over()
    assert {request_id(1), request_id(2)} <= set(bench.store.times()) and shipper.counts.taken_over == 2
    (told,) = (one for one in bench.told if one.what is Told.UNFINISHED)
    assert told.journal_id == bad and told.error is not None, "named, and told once"
    for path in bench.folder.glob(f"{bad}.*"):
        path.rmdir() if path.is_dir() else path.unlink() if path.suffix == ".aside" else None
    await shipper.take_over()
    assert bench.store.is_exactly([1, 2] if spoil is spoiled_header else range(3)) and shipper.orphans == 0
    await journal.close(finished=await shipper.close(1))
    assert bench.files() == []


async def test_database_that_is_away_ends_the_round_and_blames_no_journal(bench: Bench) -> None:
    dead, journal = [bench.journal(), bench.journal()], bench.journal()
    for one in dead:
        one.append(ended(1))
        died(one)
    shipper = bench.shipper(journal)
    bench.store.away = True
    with pytest.raises(DatabaseUnavailable):
        await shipper.take_over()
    assert bench.store.asked == 1 and bench.told == []
    died(journal)


async def test_journal_of_which_the_database_knows_nothing_takes_no_memory_for_gone_lines(bench: Bench) -> None:
    """It was restored from an old copy, and the files begin far behind what it says; a file in between is gone too."""
    dead, journal = bench.journal(), bench.journal()
    died(dead)
    (first,) = segments_of(bench.folder, dead.journal_id)
    first.path.unlink()
    for number, at in enumerate((20_000_000, 90_000_000)):
        content = header_line(Header(dead.journal_id, DATABASE), at) + framed(at, ended(number))
        segment_path(bench.folder, dead.journal_id, at).write_bytes(content)
    shipper = bench.shipper(journal)
    tracemalloc.start()
    await shipper.take_over()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bench.store.is_exactly(range(2)) and bench.store.positions[dead.journal_id] == 90_000_001
    assert most < 2_000_000
    died(journal)


async def test_journal_that_was_begun_is_given_back_at_the_end(bench: Bench) -> None:
    dead, journal = bench.journal(), bench.journal()
    dead.append(ended(1))
    died(dead)
    bench.store.refused = {request_id(1)}
    shipper = bench.shipper(journal)
    await shipper.take_over()
    assert shipper.orphans == 1
    await journal.close(finished=await shipper.close(1))
    bench.store.refused = set()
    await bench.take_over()
    assert bench.store.is_exactly([1]) and bench.files() == []


async def test_takeover_goes_on_where_the_database_was_away(bench: Bench) -> None:
    dead, journal = bench.journal(segment_bytes=2_000), bench.journal()
    for number in range(40):
        dead.append(begun(number))
        if number % 4:
            dead.append(ended(number))
    died(dead)
    shipper = bench.shipper(journal, batch_bytes=2_000)
    faults = iter([0, 1, 0, 1, 1, 0, 1] * 20)

    def sometimes() -> None:
        if next(faults):
            bench.store.away = True
            raise DatabaseUnavailable("away")

    bench.store.fault = sometimes
    while shipper.counts.taken_over == 0:
        bench.store.away = False
        try:
            await shipper.take_over()
        except DatabaseUnavailable:
            continue
    assert bench.store.is_exactly(range(40))
    assert {one.request_id for one in bench.store.rows if one.outcome == "lost"} == {
        request_id(number) for number in range(0, 40, 4)
    }
    died(journal)


# --- all of it together --------------------------------------------------------------------------------------------

KINDS = ["begin", "begin", "end", "end", "kept", "flush", "flush"]
KINDS += ["away", "after", "die", "tear", "cut", "sure", "unsure"]
STEPS = st.lists(st.sampled_from(KINDS), max_size=60)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(300, 3_000), st.integers(200, 3_000))
def test_whatever_happens_every_request_has_one_row(steps: list[str], segment_bytes: int, batch_bytes: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(everything(Bench(Path(folder)), steps, segment_bytes, batch_bytes))


async def everything(bench: Bench, steps: list[str], segment_bytes: int, batch_bytes: int) -> None:
    """One process after another: requests begin and end, the database fails before and after a commit."""
    number, running_now, done, lost, kept = 0, list[int](), set[int](), set[int](), set[int]()
    journal = bench.journal(segment_bytes=segment_bytes)
    shipper = bench.shipper(journal, batch_bytes=batch_bytes)
    for step in [*steps, ""]:
        if not journal.kept:
            done, kept = done | kept, set()
        if step == "begin":
            journal.append(begun(number))
            running_now.append(number)
            number += 1
        elif step in ("end", "kept") and running_now:
            this = running_now.pop(len(running_now) // 2)
            with full_disk() if step == "kept" else nullcontext():
                journal.append_or_keep(ended(this), reserved=True)
            kept.add(this)
        elif step == "flush":
            try:
                await shipper.flush()
            except (DatabaseUnavailable, RowsRefused):
                continue
        elif step == "away":
            bench.store.fault = Once(DatabaseUnavailable("away"), 2)
        elif step == "after":
            bench.store.after = Once(DatabaseUnavailable("no answer"))
        elif step in ("sure", "unsure"):
            bench.store.sure = step == "sure"
        elif step in ("die", "tear", "cut"):
            if step == "cut":
                bench.store.cut()
            lost |= set(running_now) | kept
            running_now, kept = [], set()
            died(journal)
            if step == "tear":
                with segments_of(bench.folder, journal.journal_id)[-1].path.open("ab") as file:
                    file.write(b"0a1b2c3d 7 {")
            journal = bench.journal(segment_bytes=segment_bytes)
            shipper = bench.shipper(journal, batch_bytes=batch_bytes)
    lost |= set(running_now) | kept
    died(journal)
    bench.store.fault = bench.store.after = lambda: None
    bench.store.sure = True
    await bench.take_over()
    assert bench.store.is_exactly(done | lost)
    assert {one.request_id for one in bench.store.rows if one.outcome == "lost"} == {request_id(each) for each in lost}
    assert bench.files() == [] and bench.rejected() == []


def test_pace_is_within_what_recovery_may_take() -> None:
    assert Pace().most_s + Pace().gather_s <= 5.0, "S14: recovery within 5 s without a restart"


def test_a_journal_alone_is_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE, sync=False)
    assert journal.folder == tmp_path and journal.position == 0
    died(journal)
