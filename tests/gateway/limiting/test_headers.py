"""What a caller is told: durations and the tightest limit, by table."""

import pytest

from gateway.limiting.asks import Ask, Kind, Standing, Ticket, Verdict, longest
from gateway.limiting.headers import duration, limit_headers

DURATIONS = {
    0: "0s", 1: "1ms", 20: "20ms", 999: "999ms", 1_000: "1s", 1_001: "1.001s", 1_500: "1.5s", 59_999: "59.999s",
    60_000: "1m0s", 90_250: "1m30.25s", 360_000: "6m0s", 3_600_000: "1h0m0s", 3_725_040: "1h2m5.04s",
}  # fmt: skip


def standing(kind: Kind, limit: int, remaining: int, reset_ms: int = 0, retry_ms: int | None = 0) -> Standing:
    return Standing(Ask(kind, "t", f"{kind}:{limit}", limit), remaining, reset_ms, retry_ms)


@pytest.mark.parametrize(("ms", "text"), DURATIONS.items())
def test_duration_is_written_as_openai_does(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_headers_tell_the_tightest_limit_of_each_kind_when_several_are_asked() -> None:
    standings = (
        standing(Kind.REQUESTS, 100, 7, 1_500),
        standing(Kind.REQUESTS, 60, 5, 360_000),
        standing(Kind.TOKENS, 40_000, 39_000, 20),
        standing(Kind.CONCURRENCY, 2, 0),
    )
    assert limit_headers(Verdict(Ticket((), "h", 0), standings)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-tokens": "40000",
        "x-ratelimit-remaining-tokens": "39000",
        "x-ratelimit-reset-tokens": "20ms",
    }


@pytest.mark.parametrize(("wait", "seconds"), [(1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")])
def test_wait_is_told_in_whole_seconds_rounded_up_and_in_milliseconds(wait: int, seconds: str) -> None:
    refused = standing(Kind.REQUESTS, 60, 0, 60_000, wait)
    told = limit_headers(Verdict(None, (refused,), refused, wait))
    assert (told["retry-after"], told["retry-after-ms"]) == (seconds, str(wait))


def test_no_wait_is_told_when_no_wait_would_help() -> None:
    refused = standing(Kind.TOKENS, 60, 60, 0, None)
    told = limit_headers(Verdict(None, (refused,), refused, None))
    assert "retry-after" not in told
    assert "retry-after-ms" not in told


def test_nothing_is_told_when_nothing_is_limited() -> None:
    assert limit_headers(Verdict(Ticket((), "", 0), ())) == {}


def test_longest_wait_is_the_refusal_and_never_is_longer_than_any() -> None:
    short, long, never = (standing(Kind.TOKENS, n, 0, 0, wait) for n, wait in ((1, 5), (2, 900), (3, None)))
    assert longest((standing(Kind.REQUESTS, 9, 9), short, long)) == long
    assert longest((short, never, long)) == never
    assert longest((standing(Kind.REQUESTS, 9, 9),)) is None
