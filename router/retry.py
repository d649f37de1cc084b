"""Again, or stop: the one predicate of failover, and which of several failures the caller is told.

Owns both rules; tests/vectors/retry.toml are their rows. Must not know clocks: the time that is left is handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from router.failure import Failure, FailureKind

MAX_ATTEMPTS: Final = 3  # upstream calls for one request


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a request has come."""

    attempts: int  # made so far, the failed one included
    first_byte_sent: bool  # to the client: after it no other model may speak
    deadline_left_s: float
    remaining_candidates: int


def again(failure: Failure, progress: Progress, *, max_attempts: int = MAX_ATTEMPTS) -> bool:
    """Whether the next candidate is to be asked after this failure."""
    if progress.first_byte_sent:
        return False
    if not failure.consequence.try_next:
        return False
    if progress.attempts >= max_attempts:
        return False
    if progress.deadline_left_s <= 0:
        return False
    return progress.remaining_candidates > 0


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


def order_after(failure: Failure, provider_ids: Sequence[str]) -> list[int]:
    """Which of the remaining candidates, given by their providers, to ask next and in which order: those that share
    the failure's fate are left out, and those of a provider in trouble come after the others."""
    left = [place for place, provider_id in enumerate(provider_ids) if not shares_fate(failure, provider_id)]
    if failure.kind not in _PROVIDER_IN_TROUBLE:
        return left
    return sorted(left, key=lambda place: provider_ids[place] == failure.provider_id)


def most_useful(failures: Sequence[Failure]) -> Failure:
    """The failure to tell the caller. Of equals the first, which is that of the better candidate. Raises ValueError
    when there is none."""
    if not failures:
        raise ValueError("there is no failure to choose from")
    return min(failures, key=lambda failure: _USEFULNESS[failure.kind])
