"""The headers that tell a caller how its limits stand, as OpenAI's clients read them.

Of several limits on the same thing the tightest is told: the one with the least left. Concurrency has no header.
Source of names and durations: platform.openai.com/docs/guides/rate-limits, "Rate limits in headers". Owns the wording.
Must not know how anything is counted.
"""

from collections.abc import Sequence
from typing import Final

from gateway.limiting.asks import Kind, Standing, Verdict

_TOLD: Final = (Kind.REQUESTS, Kind.TOKENS)


def limit_headers(verdict: Verdict) -> dict[str, str]:
    """`x-ratelimit-*` of what was asked; with a refusal `retry-after` and `retry-after-ms`, where waiting helps."""
    headers: dict[str, str] = {}
    for kind in _TOLD:
        tightest = _tightest(verdict.standings, kind)
        if tightest is not None:
            headers[f"x-ratelimit-limit-{kind}"] = str(tightest.ask.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(tightest.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = duration(tightest.reset_ms)
    if not verdict.admitted and verdict.retry_ms is not None:
        headers["retry-after"] = str(-(-verdict.retry_ms // 1000))
        headers["retry-after-ms"] = str(verdict.retry_ms)
    return headers


def _tightest(standings: Sequence[Standing], kind: Kind) -> Standing | None:
    ours = [each for each in standings if each.ask.kind is kind]
    return min(ours, key=lambda each: (each.remaining, each.ask.limit), default=None)


def duration(ms: int) -> str:
    """A duration in OpenAI's format: `20ms`, `1s`, `1.5s`, `6m0s`, `1h0m0s`."""
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
