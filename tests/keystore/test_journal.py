"""The journal on its disk: what is read again after any end, group commit, full disks, segments and their locks."""

import asyncio
import errno
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore import journal as journals
from keystore.errors import JournalUnwritable
from keystore.journal import Journal
from keystore.journal_files import (
    Owned,
    Reader,
    Record,
    framed,
    journals_in,
    parsed,
    read_header,
    remove,
    segments_of,
)
from tests.keystore.journals import DATABASE, begun, died, ended, full_disk

PAYLOADS = st.lists(st.binary(max_size=300).filter(lambda each: b"\n" not in each), min_size=1, max_size=30)


def written(folder: Path, payloads: list[bytes], *, segment_bytes: int = 1_000_000) -> str:
    """A journal with these lines, left by a process that died; its id."""
    journal = Journal(folder, database=DATABASE, sync=False, segment_bytes=segment_bytes)
    for payload in payloads:
        journal.append(payload)
    died(journal)
    return journal.journal_id


def read(folder: Path, journal_id: str, *, most: int = 1_000) -> tuple[list[Record], Reader]:
    reader = Reader(folder, journal_id)
    found: list[Record] = []
    while some := reader.read(most=most):
        found += some
    reader.close()
    return found, reader


# --- lines -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**63), st.binary(max_size=200).filter(lambda each: b"\n" not in each))
def test_line_is_read_as_it_was_written_and_no_changed_byte_is(position: int, payload: bytes) -> None:
    line = framed(position, payload)
    assert line.endswith(b"\n") and parsed(line[:-1]) == Record(position, payload, len(line))
    for at in range(len(line) - 1):
        assert parsed(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 : -1]) is None
        assert parsed(line[:at]) is None


@settings(max_examples=40, deadline=None)
@given(PAYLOADS, st.integers(100, 2_000), st.integers(10, 2_000))
def test_everything_appended_is_read_in_order(payloads: list[bytes], segment_bytes: int, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal_id = written(Path(folder), payloads, segment_bytes=segment_bytes)
        found, reader = read(Path(folder), journal_id, most=most)
    assert [(one.position, one.payload) for one in found] == list(enumerate(payloads))
    assert reader.damage == [] and reader.position == len(payloads)


@settings(max_examples=40, deadline=None)
@given(PAYLOADS, st.integers(100, 2_000), st.data())
def test_living_journal_is_read_while_it_is_written(
    payloads: list[bytes], segment_bytes: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), database=DATABASE, sync=False, segment_bytes=segment_bytes)
        reader, found = Reader(Path(folder), journal.journal_id), []
        for payload in payloads:
            journal.append(payload)
            if data.draw(st.booleans()):
                before = data.draw(st.integers(0, journal.position))
                found += reader.read(before=before)
                assert len(found) <= max(before, reader.position)
        while some := reader.read(before=journal.position):
            found += some
        reader.close()
        died(journal)
    assert [one.payload for one in found] == payloads and reader.damage == []


def test_torn_tail_is_left_out_at_each_byte_of_the_last_line(tmp_path: Path) -> None:
    journal_id = written(tmp_path, [begun(1), ended(1), ended(2)])
    (segment,) = segments_of(tmp_path, journal_id)
    whole = segment.path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        segment.path.write_bytes(whole[:end])
        found, reader = read(tmp_path, journal_id)
        assert [one.payload for one in found] == [begun(1), ended(1)]
        assert [(one.content, one.torn) for one in reader.damage] == ([(whole[last:end], True)] if end > last else [])


@pytest.mark.parametrize("tail", [b"\0" * 5_000, b"\n\n\n", b"x\n" * 200, b"00000000 0 {}\n"])
def test_tail_of_anything_else_is_torn_too(tail: bytes, tmp_path: Path) -> None:
    journal_id = written(tmp_path, [ended(1)])
    (segment,) = segments_of(tmp_path, journal_id)
    segment.path.write_bytes(segment.path.read_bytes() + tail)
    found, reader = read(tmp_path, journal_id)
    assert [one.payload for one in found] == [ended(1)]
    assert [one.torn for one in reader.damage] == [True]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changed_byte_costs_its_own_line_alone(data: st.DataObject) -> None:
    payloads = [ended(number) for number in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        journal_id = written(Path(folder), payloads)
        (segment,) = segments_of(Path(folder), journal_id)
        content = bytearray(segment.path.read_bytes())
        ends = [at for at, byte in enumerate(content) if byte == 10]
        at = data.draw(st.integers(ends[0] + 1, ends[-2] - 1).filter(lambda each: each not in ends))
        content[at] ^= 1 if content[at] ^ 1 != 10 else 2
        segment.path.write_bytes(content)
        found, reader = read(Path(folder), journal_id)
    hit = next(number for number, end in enumerate(ends[1:]) if at < end)
    assert [one.position for one in found] == [each for each in range(5) if each != hit]
    assert [one.torn for one in reader.damage] == [False]


def test_line_that_would_be_two_is_the_callers_mistake(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE, sync=False)
    with pytest.raises(ValueError, match="line end"):
        journal.append(b"a\nb")
    died(journal)


# --- files -----------------------------------------------------------------------------------------------------------


def test_folder_and_files_are_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "journal"
    folder.mkdir(parents=True, mode=0o755)
    written(folder, [ended(1)])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_each_segment_says_whose_it_is(tmp_path: Path) -> None:
    journal_id = written(tmp_path, [ended(number) for number in range(20)], segment_bytes=2_000)
    segments = segments_of(tmp_path, journal_id)
    assert len(segments) > 3 and journals_in(tmp_path) == [journal_id]
    for segment in segments:
        header = read_header([segment])
        assert header and (header.journal_id, header.database, header.format) == (journal_id, DATABASE, 1)
        assert segment.path.stat().st_size < 2_000 + len(ended(1)) + 200


def test_journal_of_a_living_process_is_nobody_elses(tmp_path: Path) -> None:
    journal, other = (Journal(tmp_path, database=DATABASE, sync=False) for _ in range(2))
    assert journals_in(tmp_path) == sorted([journal.journal_id, other.journal_id])
    assert Owned.take(tmp_path, journal.journal_id) is None
    died(journal)
    taken = Owned.take(tmp_path, journal.journal_id)
    assert taken is not None and Owned.take(tmp_path, journal.journal_id) is None
    taken.let_go()
    died(other)


def test_of_many_that_want_a_journal_one_has_it_also_while_it_is_deleted(tmp_path: Path) -> None:
    holders, most = [0], [0]
    journal_id = str(uuid.uuid4())

    def want(_: int) -> None:
        for _ in range(1_500):
            if owned := Owned.take(tmp_path, journal_id):
                holders[0] += 1
                segments_of(tmp_path, journal_id)  # something to do, so that others come meanwhile
                most[0] = max(most[0], holders[0])
                holders[0] -= 1
                remove(tmp_path, journal_id)  # another may begin anew from here on
                owned.let_go()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(want, range(4)))
    assert most == [1]


def test_lock_goes_last_when_a_journal_is_deleted(tmp_path: Path) -> None:
    journal_id = written(tmp_path, [ended(1)])
    (tmp_path / f"{journal_id}.strange").mkdir()
    with pytest.raises(OSError):
        remove(tmp_path, journal_id)
    assert (tmp_path / f"{journal_id}.lock").exists() and segments_of(tmp_path, journal_id) == []


async def test_finished_journal_leaves_nothing_and_a_closed_one_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE)
    journal.append(ended(1))
    await journal.close(finished=True)
    await journal.close(finished=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JournalUnwritable, match="closed"):
        journal.append(ended(2))
    with pytest.raises(JournalUnwritable, match="closed"):
        await journal.durable()
    assert list(tmp_path.iterdir()) == []


async def test_released_segments_go_but_for_the_lines_that_are_needed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE, segment_bytes=1_000)
    for number in range(20):
        journal.append(begun(number))
    found, _ = read(tmp_path, journal.journal_id)
    kept, before = [found[1], found[9]], len(segments_of(tmp_path, journal.journal_id))
    await journal.release(journal.not_needed(15, kept))
    assert journal.not_needed(15, kept) == []
    left, reader = read(tmp_path, journal.journal_id)
    assert [one.position for one in left if one.position < 12] == [1, 9] and reader.damage == []
    assert [one.position for one in left][-5:] == [15, 16, 17, 18, 19]
    assert 3 < len(segments_of(tmp_path, journal.journal_id)) < before
    await journal.release(journal.not_needed(20))
    left, _ = read(tmp_path, journal.journal_id)
    assert left[-1].position == 19 and len(segments_of(tmp_path, journal.journal_id)) == 1
    await journal.close(finished=True)


# --- lines that the disk does not take -------------------------------------------------------------------------------


def test_last_line_that_the_disk_does_not_take_comes_before_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE, sync=False)
    journal.append(begun(1))
    journal.append(begun(2))
    journal.some.clear()
    with full_disk():
        journal.append_or_keep(ended(1), reserved=True)
        journal.append_or_keep(ended(2), reserved=True)
        assert (journal.kept, journal.kept_bytes, journal.position) == (2, len(ended(1)) + len(ended(2)), 2)
        assert journal.some.is_set(), "whoever ships tries again"
        with pytest.raises(JournalUnwritable, match="cannot be written"):
            journal.append(begun(3))
        with pytest.raises(JournalUnwritable, match="cannot be written"):
            journal.append_kept()
    journal.append(begun(4))
    journal.append_kept()
    assert (journal.kept, journal.kept_bytes, journal.dropped) == (0, 0, 0)
    journal.append_or_keep(ended(4), reserved=True)
    died(journal)
    found, reader = read(tmp_path, journal.journal_id)
    assert [one.payload for one in found] == [begun(1), begun(2), ended(1), ended(2), begun(4), ended(4)]
    assert reader.damage == []


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_is_kept_is_bounded_and_what_cost_nothing_leaves_room(size: int, tmp_path: Path) -> None:
    journal, line = Journal(tmp_path, database=DATABASE, sync=False), b"x" * size
    most = min(journals.KEPT_LINES, journals.KEPT_BYTES // size)
    with full_disk():
        for _ in range(most // 2):
            journal.append_or_keep(line, reserved=False)
        with pytest.raises(JournalUnwritable, match="is lost"):
            journal.append_or_keep(line, reserved=False)
        for _ in range(most - most // 2):
            journal.append_or_keep(line, reserved=True)
        with pytest.raises(JournalUnwritable, match="is lost"):
            journal.append_or_keep(line, reserved=True)
        assert (journal.kept, journal.kept_bytes, journal.dropped) == (most, most * size, 2)
    journal.append_kept()
    assert journal.position == most
    died(journal)


async def test_journal_is_closed_with_what_was_kept_and_left_to_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database=DATABASE)
    journal.append(begun(1))
    with full_disk():
        journal.append_or_keep(ended(1), reserved=True)
    await journal.close(finished=True)
    found, _ = read(tmp_path, journal.journal_id)
    assert [one.payload for one in found] == [begun(1), ended(1)], "it is in no database yet"
    with pytest.raises(JournalUnwritable, match="closed"):
        journal.append_or_keep(ended(2), reserved=True)
    with pytest.raises(JournalUnwritable, match="closed"):
        journal.append_kept()


# --- to the disk -----------------------------------------------------------------------------------------------------


class Watched(Journal):
    """Counts the rounds, and fails where it is told to."""

    rounds = 0
    failing = False

    def _on_disk(self, work: journals._Unsynced) -> None:
        self.rounds += 1
        if self.failing:
            raise OSError(5, "Input/output error")
        super()._on_disk(work)


async def test_those_who_wait_share_a_round(tmp_path: Path) -> None:
    journal = Watched(tmp_path, database=DATABASE, segment_bytes=20_000)

    async def one(number: int) -> None:
        journal.append(ended(number))
        await journal.durable()

    await asyncio.gather(*(one(number) for number in range(300)))
    assert 1 <= journal.rounds <= 3
    await journal.close(finished=True)


async def test_one_that_gives_up_waiting_takes_nothing_from_the_others(tmp_path: Path) -> None:
    journal = Watched(tmp_path, database=DATABASE)
    journal.append(ended(1))
    waiting = [asyncio.create_task(journal.durable()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(*waiting[1:])
    assert waiting[0].cancelled() or waiting[0].done()
    await journal.close(finished=True)


async def test_disk_that_fails_is_told_to_all_who_wait_and_another_file_is_begun(tmp_path: Path) -> None:
    journal = Watched(tmp_path, database=DATABASE)
    journal.append(ended(1))
    journal.failing = True
    told = await asyncio.gather(*(journal.durable() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in told] == [JournalUnwritable] * 3
    journal.failing = False
    journal.append(ended(2))
    await journal.durable()
    assert len(segments_of(tmp_path, journal.journal_id)) == 2
    await journal.close()
    found, _ = read(tmp_path, journal.journal_id)
    assert [one.payload for one in found] == [ended(1), ended(2)]


async def test_without_sync_nobody_waits(tmp_path: Path) -> None:
    journal = Watched(tmp_path, database=DATABASE, sync=False)
    journal.append(ended(1))
    await journal.durable()
    assert journal.rounds == 0
    await journal.close(finished=True)


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalUnwritable, match="cannot be written"):
        Journal(tmp_path / "file", database=DATABASE)


FULL = """
import resource, sys
from pathlib import Path
from keystore.errors import JournalUnwritable
from keystore.journal import Journal

def room(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

room(int(sys.argv[2]))
journal = Journal(Path(sys.argv[1]), database="db-1", sync=False, segment_bytes=int(sys.argv[3]))
refused = 0
for number in range(60):
    try:
        journal.append(b"%d " % number + b"x" * (37 * number % 151))
        print(number)
    except JournalUnwritable:
        refused += 1
        if refused == 3:
            room(resource.RLIM_INFINITY)
print("refused", refused, file=sys.stderr)
"""


STUCK = """
import resource, subprocess, sys
from pathlib import Path
from keystore.errors import JournalUnwritable
from keystore.journal import Journal

most = resource.RLIM_INFINITY
journal = Journal(Path(sys.argv[1]), database="db-1", sync=False)
journal.append(b"0 first")
(segment,) = Path(sys.argv[1]).glob("*.jsonl")
subprocess.run(["chattr", "+a", segment], check=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + int(sys.argv[2]), most))
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))
for text in (b"half", b"nothing"):
    try:
        journal.append(text * 9)
        print("taken")
    except JournalUnwritable:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
journal.append(b"1 second")
journal.append(b"2 third")
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
subprocess.run(["chattr", "-a", segment], check=True)
"""


@pytest.mark.parametrize("whole", [9, len(framed(1, b"half" * 9)) - 1])
def test_half_a_line_that_cannot_be_taken_back_spoils_none_behind_it(whole: int, tmp_path: Path) -> None:
    """Nor where no other segment can be begun."""
    (tmp_path / "probe").touch()
    if subprocess.run(["chattr", "+a", tmp_path / "probe"], capture_output=True, check=False).returncode:
        pytest.skip("files that only grow are not to be had here")
    subprocess.run(["chattr", "-a", tmp_path / "probe"], check=True)
    folder = tmp_path / "journal"
    command = [sys.executable, "-c", STUCK, str(folder), str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found, reader = read(folder, *journals_in(folder))
    assert [one.payload[:1] for one in found] == [b"0", b"1", b"2"]
    assert [(len(one.content), one.torn) for one in reader.damage] == [(whole + 1, False)], "and it is none itself"


ASIDE = """
import resource, sys
from pathlib import Path
from keystore.journal_files import set_aside

resource.setrlimit(resource.RLIMIT_FSIZE, (90, resource.RLIM_INFINITY))
try:
    set_aside(Path(sys.argv[1]), [{"position": number, "line": "x" * 40} for number in range(3)])
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
set_aside(Path(sys.argv[1]), [{"position": number} for number in range(3)])
"""


def test_full_disk_that_takes_a_part_of_what_is_set_aside_is_told_and_all_of_it_comes_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASIDE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) == errno.EFBIG
    last = (tmp_path / "rejected.jsonl").read_bytes().splitlines()[-3:]
    assert [orjson.loads(line)["position"] for line in last] == [0, 1, 2]


@pytest.mark.parametrize("segment_bytes", [100_000, 1_200])
@pytest.mark.parametrize("room", [1_000, 1_037, 1_111])
def test_full_disk_refuses_lines_and_spoils_none(segment_bytes: int, room: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), str(room), str(segment_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    said = [int(line) for line in done.stdout.split()]
    (journal_id,) = journals_in(tmp_path)
    found, reader = read(tmp_path, journal_id)
    assert [int(one.payload.split()[0]) for one in found] == said
    assert [one.position for one in found] == list(range(len(said)))
    assert reader.damage == [] and "refused 3" in done.stderr and len(said) == 57
