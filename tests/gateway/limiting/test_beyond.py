"""What processes tell each other of what they used beyond their shares."""

import pytest

from gateway.limiting.beyond import MOST_TOLD, Beyond, written
from gateway.limiting.local import LocalLimits
from tests.gateway.limiting.test_limiter import rpm

ASK = rpm(60)


def test_all_that_others_used_beyond_is_left_alone_once_and_leaks_as_a_share_does() -> None:
    told = [written({ASK.key: 30}), written({ASK.key: 10, "other": 1})]
    for after_ms, left_alone in ((0, 40), (8_000, 38), (600_000, 0)):
        beyond = Beyond()
        beyond.hear(told, 1_000)
        assert beyond.take(ASK, 1_000 + after_ms, 4) == left_alone
        assert beyond.take(ASK, 1_000 + after_ms, 4) == 0  # once


def test_what_was_told_before_is_void_when_others_tell_anew() -> None:
    beyond = Beyond()
    beyond.hear([written({ASK.key: 30})], 0)
    beyond.hear([], 0)
    assert beyond.take(ASK, 0, 4) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"rpm:tenant:a": "30"}', '{"rpm:tenant:a": -5}', "null"])
def test_text_that_is_none_tells_nothing(text: str) -> None:
    beyond = Beyond()
    beyond.hear([text], 0)
    assert beyond.take(ASK, 0, 4) == 0


def test_most_is_told_first_when_there_is_too_much() -> None:
    text = written({f"k{number}": number for number in range(2 * MOST_TOLD)})
    assert f'"k{MOST_TOLD}"' in text
    assert f'"k{MOST_TOLD - 1}"' not in text


def test_use_beyond_the_share_is_noted_until_it_leaked() -> None:
    local = LocalLimits()
    for number in range(40):
        _, standings = LocalLimits().admit([ASK], "h", 0)
        local.note([standings[0]._replace(reset_ms=1_000 * (number + 1))], "h", 0, 4)
    assert local.beyond(0, 4) == {ASK.key: 25}
    assert local.beyond(60_000, 4) == {ASK.key: 10}
    assert local.beyond(100_000, 4) == {}
    assert local.beyond(0, 4) == {}
