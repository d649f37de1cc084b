"""What processes tell each other of what they used beyond their shares."""

import json

import pytest

from gateway.limiting.beyond import HEARD, MOST_TOLD, Beyond, most_of
from gateway.limiting.local import LocalLimits
from tests.gateway.limiting.test_limiter import rpm

ASK = rpm(60)


def test_all_that_others_used_beyond_is_left_alone_once_and_leaks_as_a_share_does() -> None:
    told = [json.dumps({ASK.key: 30}), json.dumps({ASK.key: 10, "other": 1})]
    for after_ms, left_alone in ((0, 40), (8_000, 38), (600_000, 0)):
        beyond = Beyond()
        beyond.exchanged({}, told, 1_000, everybody=True)
        assert beyond.take(ASK, 1_000 + after_ms, 4) == (left_alone, 0)
        assert beyond.take(ASK, 1_000 + after_ms, 4) == (0, 0)  # once


def test_what_was_told_before_is_void_when_others_tell_anew() -> None:
    beyond = Beyond()
    beyond.exchanged({}, [json.dumps({ASK.key: 30})], 0, everybody=True)
    beyond.exchanged({}, [], 0, everybody=True)
    assert beyond.take(ASK, 0, 4) == (0, 0)


def test_what_was_told_while_all_were_there_is_heard_after_as_long_as_a_text_is_kept() -> None:
    beyond = Beyond()
    for number in range(HEARD):
        assert beyond.take(ASK, 1_000 * number, 4) == (0, 0)
        beyond.exchanged({ASK.key: 25 + number % 2}, [], 1_000 * number, everybody=True)
    assert beyond.take(ASK, 9_000, 4) == (0, 24)
    assert beyond.take(ASK, 9_000, 4) == (0, 0)  # once
    beyond.exchanged({}, [], 10_000, everybody=True)
    assert beyond.take(ASK, 10_000, 4) == (0, 0)


def test_nothing_is_heard_when_somebody_was_not_there() -> None:
    beyond = Beyond()
    for number in range(2 * HEARD - 1):
        beyond.exchanged({ASK.key: 25}, [], 0, everybody=number != HEARD - 1)
    assert beyond.take(ASK, 0, 4) == (0, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"rpm:tenant:a": "30"}', '{"rpm:tenant:a": -5}', "null"])
def test_text_that_is_none_tells_nothing(text: str) -> None:
    beyond = Beyond()
    beyond.exchanged({}, [text], 0, everybody=True)
    assert beyond.take(ASK, 0, 4) == (0, 0)


def test_most_is_told_first_when_there_is_too_much() -> None:
    told = most_of({f"k{number}": number for number in range(2 * MOST_TOLD)})
    assert min(told.values()) == MOST_TOLD
    assert len(told) == MOST_TOLD


def test_use_beyond_the_share_is_noted_until_it_leaked() -> None:
    local = LocalLimits()
    for number in range(40):
        _, standings = LocalLimits().admit([ASK], "h", 0)
        local.note([standings[0]._replace(reset_ms=1_000 * (number + 1))], "h", 0, 4)
    assert local.beyond(0, 4) == {ASK.key: 25}
    assert local.beyond(60_000, 4) == {ASK.key: 10}
    assert local.beyond(100_000, 4) == {}
    assert local.beyond(0, 4) == {}


def test_what_is_assumed_of_others_is_not_told_as_used_here() -> None:
    local = LocalLimits()
    local.take_over(ASK, 100, 0, 0, 4)
    assert not local.admit([ASK], "h", 0, 4)[0]
    _, standings = LocalLimits().admit([ASK], "h", 0)
    local.note([standings[0]._replace(reset_ms=60_000)], "h", 0, 4)
    assert local.beyond(0, 4) == {}


def test_what_others_leave_alone_is_owed_no_longer() -> None:
    """Of 60 one process used 40, and each of the four has 15: another's 15 wait, and all are refilled at once."""
    one, another = LocalLimits(), LocalLimits()
    for number in range(40):
        _, standings = LocalLimits().admit([ASK], "h", 0)
        one.note([standings[0]._replace(reset_ms=1_000 * (number + 1))], "h", 0, 4)
    told = one.beyond(0, 4)[ASK.key]
    another.take_over(ASK, told, 0, 0, 4)
    one.take_over(ASK, 0, told, 0, 4)
    for local in (one, another):
        assert not local.admit([ASK], "h", 0, 4)[0]
        assert local.admit([ASK], "h", 4_000, 4)[0]  # a quarter of one a second
        assert not local.admit([ASK], "h", 4_000, 4)[0]
    assert one.beyond(4_000, 4) == {ASK.key: 25}  # as it leaks and was asked: what was used stays known
