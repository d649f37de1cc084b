"""How marks come and go: each function takes a view and what happened, and gives the next view.

Owns the rules of the three ills: when failures become a mark, how long it lasts, who probes, what ends it. Pure: times
and randomness are handed in; what began before a mark's last failure never changes the mark. Must not know clocks,
networks, or how a view is asked.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeVar

from router.failure import Failure, FailureKind
from router.health import (
    ALL_MODELS,
    EVERYBODY,
    Counts,
    HealthView,
    Ill,
    Mark,
    Marks,
    Phase,
    Slot,
    Subject,
    erring_subjects,
    key_subjects,
)

WINDOW_SLOTS: Final = 6
SLOT_S: Final = 5.0  # six slots: failures of the last 25 to 30 s count
FAILURES: Final = 5  # so many of them, and at least half of what ended since the first, are too many
OPEN_S: Final = 5.0  # the first time; it doubles with each failed probe, and half of it is jitter
OPEN_MOST_S: Final = 120.0
KEY_S: Final = 300.0  # then a rejected key is tried once, and doubled each time: providers err about keys too
KEY_MOST_S: Final = 3_600.0
LIMIT_S: Final = 20.0  # of a rate limit that says nothing of its end
LIMIT_MOST_S: Final = 600.0
PROBE_S: Final = 120.0  # a probe of which nothing is heard for so long is taken for lost
FORGET_S: Final = 3_600.0  # a mark that nobody probes any more
MARKS: Final = 4_096  # of marks and of counts; beyond that, those that changed longest ago are forgotten

Value = TypeVar("Value")

_LIMITS: Final = frozenset({FailureKind.RATE_LIMITED, FailureKind.QUOTA_EXHAUSTED})
_ERRS: Final = frozenset(
    {FailureKind.CONNECT, FailureKind.TIMEOUT, FailureKind.SERVER_ERROR, FailureKind.MALFORMED, FailureKind.TRUNCATED}
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that began: who was asked, for whom, with which key."""

    provider_id: str
    model: str
    tenant_id: str
    key_id: str  # changes when the key changes; never the value
    began: float
    own_endpoint: bool = False  # the key brought its own base URL: what happens there is this tenant's alone


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended. Neither answered nor failed: it was broken off, or its failure counts for nobody."""

    attempt: Attempt
    at: float
    answered: bool = False
    failure: Failure | None = None
    jitter: float = 0.0  # in [0, 1)


def ill_of(failure: Failure) -> Ill | None:
    """Which ill a failure is a sign of. A provider's 4xx says something of one request and never of the provider."""
    if failure.kind is FailureKind.KEY_REJECTED:
        return Ill.KEY_REJECTED if failure.of_the_key else None
    if failure.kind in _LIMITS:
        return Ill.RATE_LIMITED
    of_the_request = failure.status is not None and 400 <= failure.status < 500
    return Ill.ERRING if failure.kind in _ERRS and not of_the_request else None


def advanced(view: HealthView, now: float) -> HealthView:
    """The view at `now`: what has ended by time alone is over."""
    if now < view.changes_at:
        return view
    over = {subject: _later(subject, mark, now) for subject, mark in view.marks.items() if mark.until <= now}
    after = _changed(view, over)
    return replace(after, changes_at=min((mark.until for mark in after.marks.values()), default=math.inf))


def begun(view: HealthView, attempt: Attempt) -> HealthView:
    """An attempt begins: where a mark is half open, this is its probe, and the others wait for it."""
    view = advanced(view, attempt.began)
    waiting = {
        subject: replace(mark, phase=Phase.PROBING, until=attempt.began + PROBE_S)
        for subject, mark in _touched(view, attempt)
        if mark.phase is Phase.HALF_OPEN
    }
    return _changed(view, waiting)


def ended(view: HealthView, end: End) -> HealthView:
    """An attempt ended."""
    view = advanced(view, end.at)
    changes: dict[Subject, Mark | None] = {}
    for subject, mark in _touched(view, end.attempt):
        changes |= _told(subject, mark, end)
    changes |= _new_key_mark(view, end)
    counts = _counted(view, end, changes)
    return _changed(view, changes, counts)


def heard(view: HealthView, subject: Subject, mark: Mark | None, now: float) -> HealthView:
    """Another process tells of a mark, or that it ended (None). The longer mark stays."""
    view = advanced(view, now)
    mine = view.marks.get(subject)
    if mark is None:
        return _changed(view, {subject: None}) if mine else view
    if mark.until <= now or (mine is not None and mine.phase is Phase.OPEN and mine.until >= mark.until):
        return view
    return _changed(view, {subject: mark})


# --- one mark -------------------------------------------------------------------------------------------------------


def _touched(view: HealthView, attempt: Attempt) -> Iterator[tuple[Subject, Mark]]:
    """The marks that are about this attempt."""
    if attempt.provider_id not in view.troubled:
        return
    yield from (
        (subject, view.marks[subject])
        for subjects in (
            key_subjects(attempt.provider_id, attempt.model, attempt.key_id),
            erring_subjects(attempt.provider_id, attempt.model, attempt.tenant_id),
        )
        for subject in subjects
        if subject in view.marks and not (attempt.own_endpoint and subject.whose == EVERYBODY)
    )


def _later(subject: Subject, mark: Mark, now: float) -> Mark | None:
    """What follows on a phase that ended by itself."""
    forgotten_at = mark.until + FORGET_S
    if mark.phase is Phase.HALF_OPEN or subject.ill is Ill.RATE_LIMITED or forgotten_at <= now:
        return None
    return replace(mark, phase=Phase.HALF_OPEN, until=forgotten_at)


def _told(subject: Subject, mark: Mark, end: End) -> dict[Subject, Mark | None]:
    """What an end says to a mark that it touches. A limit lasts until its reset, whatever else is answered."""
    if end.attempt.began < mark.opened or subject.ill is Ill.RATE_LIMITED:
        return {}
    if _is_well(subject, end):
        return {subject: None}
    if mark.phase is Phase.OPEN:
        return {}
    if end.failure is not None and _is_ill(subject, end.attempt, end.failure):
        return {subject: _reopened(subject, mark, end, end.failure)}
    if mark.phase is Phase.HALF_OPEN:
        return {}
    return {subject: replace(mark, phase=Phase.HALF_OPEN, until=end.at + FORGET_S)}  # the probe showed nothing


def _is_well(subject: Subject, end: End) -> bool:
    """An answer; of the way to a provider, also any other sign that somebody is there."""
    there = end.failure is not None and end.failure.status is not None
    return end.answered or (there and subject.ill is Ill.ERRING and subject.model == ALL_MODELS)


def _is_ill(subject: Subject, attempt: Attempt, failure: Failure) -> bool:
    if ill_of(failure) is not subject.ill:
        return False
    return subject.ill is Ill.KEY_REJECTED or subject.model == _scope(attempt, failure)


def _scope(attempt: Attempt, failure: Failure) -> str:
    """Whether a failure is about a model or about the way to the provider."""
    return ALL_MODELS if failure.kind is FailureKind.CONNECT else attempt.model


def _reopened(subject: Subject, mark: Mark, end: End, failure: Failure) -> Mark:
    level = mark.level + 1
    until = end.at + _open_s(subject.ill, level, end.jitter)
    return Mark(Phase.OPEN, mark.since, end.at, until, level, _why(failure))


def _open_s(ill: Ill, level: int, jitter: float) -> float:
    first, most = (KEY_S, KEY_MOST_S) if ill is Ill.KEY_REJECTED else (OPEN_S, OPEN_MOST_S)
    return min(first * 2.0 ** min(level, 16), most) * (0.5 + 0.5 * jitter)


def _why(failure: Failure) -> str:
    return failure.kind.value if failure.status is None else f"{failure.kind.value}, HTTP {failure.status}"


# --- a key's mark ---------------------------------------------------------------------------------------------------


def _new_key_mark(view: HealthView, end: End) -> dict[Subject, Mark | None]:
    if end.failure is None:
        return {}
    ill = ill_of(end.failure)
    if ill is Ill.RATE_LIMITED:
        return _limit(view, end, end.failure)
    if ill is Ill.KEY_REJECTED:
        subject = _rejected_subject(view, end.attempt, end.failure)
        if subject not in view.marks:
            until = end.at + _open_s(ill, 0, end.jitter)
            return {subject: Mark(Phase.OPEN, end.at, end.at, until, 0, _why(end.failure))}
    return {}


def _limit(view: HealthView, end: End, failure: Failure) -> dict[Subject, Mark | None]:
    """Until the provider's reset; a later reset wins."""
    wait_s = LIMIT_S if failure.retry_after_s is None else min(failure.retry_after_s, LIMIT_MOST_S)
    attempt = end.attempt
    subject = Subject(Ill.RATE_LIMITED, attempt.provider_id, attempt.model, attempt.key_id)
    mine, until = view.marks.get(subject), end.at + wait_s
    if until <= end.at or (mine is not None and mine.until >= until):
        return {}
    return {subject: Mark(Phase.OPEN, mine.since if mine else end.at, end.at, until, 0, _why(failure))}


def _rejected_subject(view: HealthView, attempt: Attempt, failure: Failure) -> Subject:
    """A 401 is about the key. A 403 may be about one model that this account may not use: the key is marked for that
    model, and as a whole when a second model says so too."""
    whole = Subject(Ill.KEY_REJECTED, attempt.provider_id, ALL_MODELS, attempt.key_id)
    if failure.status != 403:
        return whole
    one = whole._replace(model=attempt.model)
    others = (each for each in view.marks if each not in (whole, one) and each._replace(model=ALL_MODELS) == whole)
    return whole if next(others, None) else one


# --- the budget of failures -----------------------------------------------------------------------------------------


def _counted(view: HealthView, end: End, changes: dict[Subject, Mark | None]) -> Counts | None:
    """The counts after an end, or None when they stay as they are; a budget that is spent becomes a mark in `changes`.
    Answers are counted only where a failure was: nothing is kept about what is well."""
    failure = end.failure if end.failure is not None and ill_of(end.failure) is Ill.ERRING else None
    if failure is None and not (end.answered and view.counts):
        return None
    subjects = tuple(_counting(end, failure))
    if failure is None and not any(subject in view.counts for subject in subjects):
        return None
    counts = _copy(view.counts)
    for subject in subjects:
        slots = _within(counts.pop(subject, ()), end, failed=failure is not None)
        if subject in view.marks or not any(slot.failed for slot in slots):
            continue
        if failure is not None and _spent(subject, slots):
            until = end.at + _open_s(Ill.ERRING, 0, end.jitter)
            changes[subject] = Mark(Phase.OPEN, end.at, end.at, until, 0, _why(failure))
        else:
            counts[subject] = slots  # the last to change stands last
    while len(counts) > MARKS:
        del counts[next(iter(counts))]
    return counts


def _counting(end: End, failure: Failure | None) -> Iterator[Subject]:
    """Whose budgets an end counts in: this tenant's, and everybody's unless the endpoint is the tenant's own."""
    attempt = end.attempt
    for subject in erring_subjects(attempt.provider_id, attempt.model, attempt.tenant_id):
        if attempt.own_endpoint and subject.whose == EVERYBODY:
            continue
        if failure is None or subject.model == _scope(attempt, failure):
            yield subject


def _within(slots: tuple[Slot, ...], end: End, *, failed: bool) -> tuple[Slot, ...]:
    """The slots of the window with this end in the last one."""
    number = int(end.at // SLOT_S)
    kept = [slot for slot in slots if number - WINDOW_SLOTS < slot.number]
    last = kept.pop() if kept and kept[-1].number >= number else Slot(number, 0, 0, frozenset())
    if not failed:
        return (*kept, last._replace(answered=last.answered + 1))
    tenants = last.tenants if len(last.tenants) > 1 else last.tenants | {end.attempt.tenant_id}
    return (*kept, last._replace(failed=last.failed + 1, tenants=tenants))


def _spent(subject: Subject, slots: tuple[Slot, ...]) -> bool:
    """Too many failures; for everybody only when they are not one tenant's alone."""
    failed, answered = sum(slot.failed for slot in slots), sum(slot.answered for slot in slots)
    if failed < FAILURES or failed < answered:
        return False
    return subject.whose != EVERYBODY or len(frozenset().union(*(slot.tenants for slot in slots))) > 1


# --- the next view --------------------------------------------------------------------------------------------------


def _changed(view: HealthView, changes: Mapping[Subject, Mark | None], counts: Counts | None = None) -> HealthView:
    """The view with these marks (None: it is gone). A change costs one copy of the marks and no look at each."""
    kept = view.counts if counts is None else MappingProxyType(counts)
    if not changes:
        return view if counts is None else replace(view, counts=kept)
    marks = _copy(view.marks)
    for subject, mark in changes.items():
        marks.pop(subject, None)
        if mark is not None:
            marks[subject] = mark  # the last to change stands last
    while len(marks) > MARKS:
        del marks[next(iter(marks))]
    return HealthView(
        marks=MappingProxyType(marks),
        counts=kept,
        epoch=view.epoch + 1,
        changes_at=min(view.changes_at, *(mark.until for mark in changes.values() if mark), math.inf),
        troubled=_troubled(view, marks, changes),
    )


def _copy(held: Mapping[Subject, Value]) -> dict[Subject, Value]:
    """A copy that hashes nothing anew: the view's own mappings can do that, and `dict` cannot."""
    return held.copy() if isinstance(held, MappingProxyType) else dict(held)


def _troubled(view: HealthView, marks: Marks, changes: Mapping[Subject, Mark | None]) -> frozenset[str]:
    if None in changes.values():
        return frozenset(subject.provider_id for subject in marks)
    return view.troubled | {subject.provider_id for subject in changes}
