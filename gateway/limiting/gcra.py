"""The generic cell rate algorithm in whole numbers: what a minute's limit admits, and how long to wait.

A limit of L a minute holds a burst of L and is refilled evenly. GCRA's state is one theoretical arrival time (ITU-T
I.371, annex A); here it is written as a whole millisecond `at` and the `level` above it, in units of 1/60,000 of what
is counted: the arrival time is at + level / L milliseconds. Nothing is divided before the answer is told, so nothing
drifts, and a limit that changes keeps what was used. `parts` divides a limit between processes: a share is L / parts,
exactly, and its level is in units that are as many times smaller.
Owns the arithmetic. Must not know clocks, keys or who asks.
"""

from typing import Final

PERIOD_MS: Final = 60_000
SLACK_MS: Final = 60_000  # a level that means nothing any more is forgotten so much later, at most
LEASE_MS: Final = 60_000  # a lease that is not kept is free again after so long: a dead process holds none for longer
AT_ONCE_AGAIN_MS: Final = 1_000  # nobody knows when a request ends: what is told to who was refused for concurrency
DEEPEST: Final = 10  # minutes: no debt is longer, whatever a request turned out to have used


def leaked(at: int, level: int, limit: int, now: int) -> int:
    """What of a level at `at` is left at `now`. A clock that went back leaks nothing and takes nothing back."""
    if now <= at:
        return level
    left = level - limit * (now - at)
    return left if left > 0 else 0


def carried(at: int, level: int, was: int, limit: int, now: int, parts: int = 1) -> int:
    """What is left of a level after its limit was lowered from `was`: what was used stays used; at most the whole
    minute's, or the minutes that it was in debt. Else a wait would be told that nobody has: the level is forgotten
    before."""
    left, full = leaked(at, level, limit, now), burst(limit, parts)
    owes_ms = reset_ms(level, was) - (now - at)
    if left <= full or left <= limit * (owes_ms + SLACK_MS):
        return left
    return max(full, limit * owes_ms) if owes_ms + SLACK_MS > 0 else 0


def burst(limit: int, parts: int = 1) -> int:
    """The level that is full: the whole minute's amount; where a share is less than one, one for each part."""
    return PERIOD_MS * (limit if limit >= parts or limit == 0 else parts)


def wait_ms(level: int, limit: int, amount: int, parts: int = 1) -> int | None:
    """Until `amount` more is admitted: 0 is now, None is never."""
    full = burst(limit, parts)
    cost = PERIOD_MS * amount * parts
    if cost > full or not limit:
        return None
    over = level + cost - full
    return 0 if over <= 0 else -(-over // limit)


def forced(level: int, limit: int, amount: int, parts: int = 1) -> int:
    """The level after `amount` (negative: a credit) was counted without being asked; a debt has an end."""
    return min(max(0, level + PERIOD_MS * amount * parts), DEEPEST * parts * burst(limit, parts))


def remaining(level: int, limit: int, parts: int = 1) -> int:
    """What would be admitted now, in whole requests or tokens."""
    return max(0, burst(limit, parts) - level) // (PERIOD_MS * parts)


def reset_ms(level: int, limit: int) -> int:
    """Until nothing is used any more."""
    return -(-level // limit) if level and limit else 0


def used(level: int, parts: int = 1) -> int:
    """What the level holds, in requests or tokens, rounded up."""
    return -(-level // (PERIOD_MS * parts))


def leases_of(limit: int, parts: int = 1) -> int:
    """A share of a concurrency: at least one where any is allowed."""
    return limit if limit == 0 else max(1, limit // parts)
