"""Who is ill now, and until when: three ills with three cures, as a view that decisions are a function of.

Owns the marks and what they deny: a key that its provider rejected (until it changes), a key at its limit for a model
(until the provider's reset), and a model, or a provider as a whole, that errs (until a probe shows that it is well
again). A view is immutable, its answers are a function of it alone, and `epoch` differs wherever they do. Must not know
clocks, who shares it, or how marks come and go (router.health_steps). Times are seconds since 1970, handed in.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from router.catalogue import Offer
from router.query import Holding, KeySource
from router.ranking import Candidate
from router.reasons import Denial, Reason

EVERYBODY: Final = ""  # in place of a tenant's id
ALL_MODELS: Final = ""  # in place of a model


class Ill(StrEnum):
    """What a mark says of its subject."""

    KEY_REJECTED = "key_rejected"
    RATE_LIMITED = "rate_limited"
    ERRING = "erring"

    __hash__ = str.__hash__  # an enum's own is slow, and each mark is looked up by it


class Phase(StrEnum):
    """How far the cure is."""

    OPEN = "open"  # nothing is sent
    HALF_OPEN = "half_open"  # the next request is the probe
    PROBING = "probing"  # that request is under way


class Subject(NamedTuple):
    """What is ill: of a provider one model or all, for one key, for one tenant or for everybody."""

    ill: Ill
    provider_id: str
    model: str  # ALL_MODELS: whichever
    whose: str  # a key's id for KEY_REJECTED and RATE_LIMITED; a tenant's id or EVERYBODY for ERRING


@dataclass(frozen=True, slots=True)
class Mark:
    """That a subject is ill. `until` is when the phase ends by itself."""

    phase: Phase
    since: float  # the failure that began it
    opened: float  # the last failure that closed the way; what began before it says nothing new
    until: float
    level: int = 0  # failed probes so far: each doubles the time
    why: str = ""  # a word of FailureKind, with the provider's status where it gave one

    @property
    def denies(self) -> bool:
        """Whether a request has to wait."""
        return self.phase is not Phase.HALF_OPEN


class Slot(NamedTuple):
    """What ended within one step of the window. `tenants` are up to two of those whose requests failed."""

    number: int
    failed: int
    answered: int
    tenants: frozenset[str]


Counts = Mapping[Subject, tuple[Slot, ...]]
Marks = Mapping[Subject, Mark]


def _none() -> Mapping[Subject, Any]:
    return MappingProxyType({})


class Illness(NamedTuple):
    """What stands against an offer with a key, and when that ends by itself."""

    denial: Denial
    until: float


@dataclass(frozen=True, slots=True)
class HealthView:
    """All marks at one time. `troubled` holds at least the providers that some mark is about; `changes_at` is no later
    than the first moment at which time alone changes an answer: then `router.health_steps.advanced` gives the next
    view. `counts` are failures that have not come to a mark yet; no answer depends on them."""

    marks: Marks = field(default_factory=_none)
    counts: Counts = field(default_factory=_none, repr=False)
    epoch: int = 0
    changes_at: float = math.inf
    troubled: frozenset[str] = frozenset()

    def denial(self, offer: Offer, holding: Holding) -> Denial | None:
        """Why this offer is not to be asked with any key of this holding now, since when and until when."""
        illness = self.illness(offer, holding)
        return illness.denial if illness else None

    def illness(self, offer: Offer, holding: Holding) -> Illness | None:
        """`denial`, with when it ends. A key's ill comes first: it can be mended."""
        if offer.provider_id not in self.troubled:
            return None
        return self._of_keys(offer, holding) or self._of_model(offer, holding.tenant_id)

    def key_ill(self, provider_id: str, model: str, key_id: str) -> Ill | None:
        """Why this one key is not to be used for the model now, if it is not."""
        found = self._key_mark(provider_id, model, key_id) if provider_id in self.troubled else None
        return found[0].ill if found else None

    def _of_keys(self, offer: Offer, holding: Holding) -> Illness | None:
        """Only when every key of the holding is ill; the one that is well again first speaks for them. A former version
        stands in for a key that was rejected, and for no other."""
        found = [self._key_mark(offer.provider_id, offer.model, key_id) for key_id in holding.keys]
        ill = [each for each in found if each is not None]
        if not ill or len(ill) < len(found):
            return None
        rejected = any(each[0].ill is Ill.KEY_REJECTED for each in ill)
        if rejected and any(self._key_mark(offer.provider_id, offer.model, key) is None for key in holding.former_keys):
            return None
        subject, mark = min(ill, key=lambda each: (each[0].ill is Ill.KEY_REJECTED, each[1].until))
        which = _which(holding, len(found))
        if subject.ill is Ill.KEY_REJECTED:
            lent = holding.source is KeySource.MANAGED
            return Illness(Denial(Reason.KEY_REJECTED, _rejected(subject, mark, which), lent=lent), mark.until)
        return Illness(Denial(Reason.COOLING_DOWN, _limited(subject, mark, which)), mark.until)

    def _key_mark(self, provider_id: str, model: str, key_id: str) -> tuple[Subject, Mark] | None:
        return self._first(key_subjects(provider_id, model, key_id))

    def _of_model(self, offer: Offer, tenant_id: str) -> Illness | None:
        found = self._first(erring_subjects(offer.provider_id, offer.model, tenant_id))
        if found is None:
            return None
        return Illness(Denial(Reason.COOLING_DOWN, _erring(*found)), found[1].until)

    def _first(self, subjects: Iterator[Subject]) -> tuple[Subject, Mark] | None:
        for subject in subjects:
            mark = self.marks.get(subject)
            if mark is not None and mark.denies:
                return subject, mark
        return None


ALL_WELL: Final = HealthView()


def key_subjects(provider_id: str, model: str, key_id: str) -> Iterator[Subject]:
    """What may be marked about a key that is used for a model."""
    yield Subject(Ill.KEY_REJECTED, provider_id, ALL_MODELS, key_id)
    yield Subject(Ill.KEY_REJECTED, provider_id, model, key_id)
    yield Subject(Ill.RATE_LIMITED, provider_id, model, key_id)


def erring_subjects(provider_id: str, model: str, tenant_id: str) -> Iterator[Subject]:
    """What may be marked about a model that a tenant asks for, whatever the key."""
    for whose in (EVERYBODY, tenant_id):
        yield Subject(Ill.ERRING, provider_id, ALL_MODELS, whose)
        yield Subject(Ill.ERRING, provider_id, model, whose)


def fit_to_serve(
    ranked: Sequence[Candidate], health: HealthView
) -> tuple[tuple[Candidate, ...], list[tuple[Candidate, Denial]]]:
    """The candidates that are well, and the others with what stands against each. Where none is well, the one that
    cools down for the shortest time goes through with a doubt that says so: the last candidate is never kept back. A
    rejected key is: asking with it again cannot help."""
    if not health.troubled:
        return tuple(ranked), []
    judged = [(each, health.illness(each.offer, each.holding)) for each in ranked]
    well = [each for each, illness in judged if illness is None]
    ill = [(each, illness) for each, illness in judged if illness is not None]
    if not well:
        cooling = [(illness.until, place) for place, (_, illness) in enumerate(ill) if _cools(illness)]
        if cooling:
            chosen, illness = ill.pop(min(cooling)[1])
            well = [_all_the_same(chosen, illness.denial)]
    return tuple(well), [(each, illness.denial) for each, illness in ill]


def _cools(illness: Illness) -> bool:
    return illness.denial.reason is Reason.COOLING_DOWN


def _all_the_same(chosen: Candidate, denial: Denial) -> Candidate:
    detail = f"{denial.detail}; it is asked all the same, since no candidate that is well is left"
    return replace(chosen, doubts=(*chosen.doubts, Denial(denial.reason, detail, certain=False)))


# --- sentences ------------------------------------------------------------------------------------------------------


def _which(holding: Holding, keys: int) -> str:
    if holding.source is KeySource.MANAGED:
        return "the operator's key" if keys == 1 else f"all {keys} keys of the operator"
    return f"the key stored as {holding.setting_key}" if keys == 1 else f"all {keys} keys of {holding.setting_key}"


def _rejected(subject: Subject, mark: Mark, which: str) -> str:
    where = f" for {subject.model}" if subject.model else ""
    text = f"{subject.provider_id} rejected {which}{where} ({mark.why}) at {_moment(mark.since)}"
    if mark.phase is Phase.PROBING:
        return f"{text}; one request is trying it now"
    return f"{text}; it is not used until it changes, except for one trial at {_moment(mark.until)}"


def _limited(subject: Subject, mark: Mark, which: str) -> str:
    text = f"{subject.provider_id} limits the rate of {which} for {subject.model} ({mark.why})"
    return f"{text} since {_moment(mark.since)}; it is left alone until {_moment(mark.until)}"


def _erring(subject: Subject, mark: Mark) -> str:
    what = f"{subject.provider_id}/{subject.model}" if subject.model else subject.provider_id
    whose = " for this tenant" if subject.whose else ""
    text = f"{what} has been failing{whose} since {_moment(mark.since)} (last: {mark.why})"
    if mark.phase is Phase.PROBING:
        return f"{text}; one request is trying it now"
    return f"{text}; it is left alone until {_moment(mark.until)}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
