"""The room of a tenant's kept answers: how far many processes that fill it can go, and how often they look."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from keystore.answer_room import LOOKED, Rooms
from tests.keystore.conftest import START

MOST, LARGEST = 6_400, 100


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 7), st.integers(1, LARGEST)), max_size=600))
def test_each_process_goes_beyond_a_room_by_an_eighth_at_most(count: int, asked: list[tuple[int, int]]) -> None:
    processes, kept = [Rooms(MOST) for _ in range(count)], 0
    for who, size in asked:
        rooms = processes[who % count]
        if rooms.must_look("t", START):
            rooms.looked("t", kept)
        kept += size if rooms.take("t", size) else 0
        assert kept <= MOST + (count - 1) * (MOST // 8 + LARGEST)


def test_room_is_filled_with_few_looks_and_looked_at_again_after_a_while() -> None:
    rooms, looks, kept = Rooms(MOST), 0, 0

    def keep(seconds: float = 0) -> None:
        nonlocal looks, kept
        if rooms.must_look("t", START + timedelta(seconds=seconds)):
            looks += 1
            rooms.looked("t", kept)
        kept += rooms.take("t", 1)

    for _ in range(2 * MOST):
        keep()
    assert (kept, looks < 40) == (MOST, True)
    before, kept = looks, 0  # they are old and gone
    keep(LOOKED.total_seconds() - 1)
    assert (kept, looks) == (0, before)
    keep(LOOKED.total_seconds())
    assert (kept, looks) == (1, before + 1)


def test_nothing_is_kept_by_who_could_not_look_and_others_are_not_touched() -> None:
    rooms = Rooms(MOST)
    assert rooms.must_look("t", START) and rooms.must_look("u", START)
    assert not rooms.must_look("t", START)
    rooms.failed("t")
    assert not rooms.take("t", 1) and rooms.take("u", MOST) and not rooms.take("u", 1)
    rooms.tidy(START + LOOKED)
    assert rooms.must_look("t", START) and rooms.must_look("u", START)
