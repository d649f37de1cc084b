"""Again, or stop: the one predicate of failover, and which of several failures the caller is told.

Owns these rules and the pause between two attempts; tests/vectors/retry.toml are their rows. Must not know clocks: the
time that is left is handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from router.failure import Failure, FailureKind

MAX_ATTEMPTS: Final = 3  # upstream calls for one request
SHORT_WAIT_S: Final = 1.0  # a provider that asks for no more than this is waited for, when nobody else is left
BACKOFF_S: Final = 0.25  # before the same provider is asked again: full jitter up to it, doubled each time
BACKOFF_MOST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request has come."""

    attempts: int  # made so far, the failed one included
    first_byte_sent: bool  # to the client: after it no other model may speak
    deadline_left_s: float  # after the pause before the next attempt
    remaining_candidates: int
    bound: bool = False  # it refers to what only this provider has (router.bound_state)
    budget_left: bool = True  # the gateway may make another extra attempt (router.retry_budget)


class Stop(StrEnum):
    """Why nobody else is asked."""

    FIRST_BYTE = "first_byte"
    FINAL = "final"  # nobody would do better
    BOUND = "provider_state"
    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    NO_CANDIDATE = "no_candidate"
    BUDGET = "retry_budget"


def stop(failure: Failure, progress: Progress, *, max_attempts: int = MAX_ATTEMPTS) -> Stop | None:
    """Why nobody is asked after this failure; None: the next candidate is. The budget stands last, so that it is named
    only where nothing else stood against another attempt."""
    against = (
        (Stop.FIRST_BYTE, progress.first_byte_sent),
        (Stop.FINAL, not failure.consequence.try_next),
        (Stop.BOUND, progress.bound),
        (Stop.ATTEMPTS, progress.attempts >= max_attempts),
        (Stop.DEADLINE, progress.deadline_left_s <= 0),
        (Stop.NO_CANDIDATE, progress.remaining_candidates <= 0),
        (Stop.BUDGET, not progress.budget_left),
    )
    return next((why for why, stands in against if stands), None)


def again(failure: Failure, progress: Progress, *, max_attempts: int = MAX_ATTEMPTS) -> bool:
    """Whether the next candidate is to be asked after this failure."""
    return stop(failure, progress, max_attempts=max_attempts) is None


def asks_to_wait(failure: Failure) -> bool:
    """Whether a provider asked for a wait so short that it is worth it where nobody else is left."""
    wait_s = failure.retry_after_s
    return failure.kind in _ASKED_TO_WAIT and wait_s is not None and wait_s <= SHORT_WAIT_S


def pause_s(failure: Failure, next_provider: str, *, attempts: int, other_key: bool, jitter: float) -> float:
    """How long to wait before the next attempt, in seconds: no time where another provider or another account is
    asked; else full jitter, beyond the wait that a provider asked for. `jitter` is in [0, 1)."""
    if next_provider != failure.provider_id or other_key or failure.kind not in _PROVIDER_IN_TROUBLE:
        return 0.0
    asked_s = failure.retry_after_s if asks_to_wait(failure) else 0.0
    return (asked_s or 0.0) + jitter * min(BACKOFF_S * 2.0 ** (attempts - 1), BACKOFF_MOST_S)


# Of the failures of one request, which says most about what to mend: a key, then the request, then a limit, then the
# provider (WIRE.md 5.1). Kinds on one line are equals.
_MOST_USEFUL_FIRST: Final[tuple[tuple[FailureKind, ...], ...]] = (
    (FailureKind.KEY_REJECTED, FailureKind.KEY_UNUSABLE),
    (FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_FILTER),
    (FailureKind.BAD_REQUEST,),
    (FailureKind.MODEL_UNAVAILABLE,),
    (FailureKind.QUOTA_EXHAUSTED,),
    (FailureKind.RATE_LIMITED,),
    (FailureKind.SERVER_ERROR, FailureKind.TIMEOUT, FailureKind.CONNECT),
    (FailureKind.MALFORMED, FailureKind.TRUNCATED),
    (FailureKind.UNSUPPORTED_PARAMETER,),  # nothing was sent: what happened to what was sent says more
    (FailureKind.GATEWAY,),
)
_USEFULNESS: Final = MappingProxyType({kind: place for place, kinds in enumerate(_MOST_USEFUL_FIRST) for kind in kinds})


# What is wrong with the key or with the way to the provider is wrong for all of its models.
_WHOLE_PROVIDER: Final = frozenset(
    {FailureKind.KEY_REJECTED, FailureKind.KEY_UNUSABLE, FailureKind.QUOTA_EXHAUSTED, FailureKind.CONNECT}
)


def shares_fate(failure: Failure, provider_id: str) -> bool:
    """Whether a candidate of this provider would meet the same failure, and so is not worth an attempt."""
    return failure.kind in _WHOLE_PROVIDER and failure.provider_id == provider_id


# What is wrong with one key need not be wrong with the tenant's next one. A former version of a key stands in only
# where its successor was refused as a key: one account's limits are the same for both.
_OTHER_KEY: Final = MappingProxyType(
    {
        FailureKind.KEY_REJECTED: True,  # whether a former version may stand in too
        FailureKind.KEY_UNUSABLE: True,
        FailureKind.QUOTA_EXHAUSTED: False,
        FailureKind.RATE_LIMITED: False,
    }
)


def wants_another_key(failure: Failure) -> bool:
    """Whether the same provider is worth asking with the tenant's next key."""
    return failure.kind in _OTHER_KEY


def lets_former_stand_in(failure: Failure) -> bool:
    """Whether former versions of the key that failed may be asked in its place."""
    return _OTHER_KEY.get(failure.kind, False)


# What is wrong here is one tenant's own, and is marked as such: asking elsewhere makes no outage worse, so that it
# neither needs the budget that all tenants share nor takes from it.
_TENANTS_OWN: Final = frozenset(
    {
        FailureKind.KEY_REJECTED,
        FailureKind.KEY_UNUSABLE,
        FailureKind.QUOTA_EXHAUSTED,
        FailureKind.MODEL_UNAVAILABLE,
        FailureKind.UNSUPPORTED_PARAMETER,
    }
)


def needs_budget(failure: Failure) -> bool:
    """Whether another attempt after this failure is one of those that a gateway may not make too many of."""
    return failure.kind not in _TENANTS_OWN


# The provider may be in trouble as a whole: another one is worth asking before its other models.
_PROVIDER_IN_TROUBLE: Final = frozenset(
    {
        FailureKind.SERVER_ERROR,
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.MALFORMED,
        FailureKind.TRUNCATED,
    }
)
_ASKED_TO_WAIT: Final = frozenset({FailureKind.SERVER_ERROR, FailureKind.RATE_LIMITED})


def order_after(failure: Failure, provider_ids: Sequence[str], *, in_order: bool = False) -> list[int]:
    """Which of the remaining candidates, given by their providers, to ask next and in which order: those that share
    the failure's fate are left out, and those of a provider in trouble come after the others, unless the request itself
    says in which order."""
    left = [place for place, provider_id in enumerate(provider_ids) if not shares_fate(failure, provider_id)]
    if in_order or failure.kind not in _PROVIDER_IN_TROUBLE:
        return left
    return sorted(left, key=lambda place: provider_ids[place] == failure.provider_id)


def most_useful(failures: Sequence[Failure]) -> Failure:
    """The failure to tell the caller. Of equals the first, which is that of the better candidate. Raises ValueError
    when there is none."""
    if not failures:
        raise ValueError("there is no failure to choose from")
    return min(failures, key=lambda failure: _USEFULNESS[failure.kind])
