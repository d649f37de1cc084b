"""Which of a tenant's keys may be stored again under their canonical names, and what must stay as it is.

Owns the decision: the keyring as it is against the keyring as it would be, for every live provider. The provider that a
key is moved for must be answered with the very same keys; for everybody else nothing may change. Pure. Must not know
databases, ciphers or how a move is written down.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from keystore.holdings import Holding
from keystore.keyring import Keyring, build_keyring, unusable_for
from keystore.providers import Registry, setting_key_of
from keystore.resolve import UNUSABLE_BECAUSE, Found, NameTable, Store, Unusable, Via

LEGACY: Final = "legacy, import it first"
UNUSABLE_CANONICAL: Final = "canonical name holds an unusable value; remove it first"
GRACE_ENDS: Final = "a former version in its grace stays behind, and answers no more"
_NO_VALUE: Final = frozenset({Unusable.EMPTY, Unusable.PLACEHOLDER})


class Outcome(StrEnum):
    """What becomes of one stored key."""

    MOVED = "moved"  # stored again; the old row is superseded
    COPIED = "copied"  # stored again; the old row stays, because somebody needs it
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Line:
    """One stored key, and what is to become of it. `reason` says why it is left or copied, or is ""."""

    holding: Holding
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is to be done for one provider, whose keys are found under `from_name`."""

    provider_id: str
    from_name: str
    to_name: str
    lines: tuple[Line, ...]

    @property
    def taken(self) -> tuple[Line, ...]:
        """The keys that are stored again."""
        return tuple(line for line in self.lines if line.outcome is not Outcome.LEFT)

    def left(self, reason: str) -> "Proposal":
        """The same with nothing done."""
        lines = tuple(replace(line, outcome=Outcome.LEFT, reason=reason) for line in self.lines)
        return replace(self, lines=lines)


@dataclass(frozen=True, slots=True)
class Proposer:
    """Judges by these provider rows; `table` is the registry's."""

    registry: Registry
    table: NameTable

    def keyring(self, holdings: Sequence[Holding]) -> Keyring:
        return build_keyring("", holdings, self.registry, self.table)

    def propose(self, holdings: Sequence[Holding], only: str | None = None) -> tuple[list[Proposal], list[Holding]]:
        """What is to be done for each provider, or one, that is not found under its canonical name, one after another;
        and what the tenant would hold then. What one has to leave may be possible when another was done, so it goes on
        until nothing more is."""
        proposals, held, goes_on = dict[str, Proposal](), list(holdings), True
        keyring = self.keyring(held)
        while goes_on:
            goes_on = False
            for provider_id in self.table.names:
                found = keyring.resolutions[provider_id]
                if only not in (None, provider_id) or not isinstance(found, Found) or found.via is Via.CANONICAL:
                    continue
                proposal = proposals[provider_id] = self._for_one(found, held, keyring)
                if proposal.taken:
                    held, goes_on = applied(held, proposal), True
                    keyring = self.keyring(held)
        return list(proposals.values()), held

    def _for_one(self, found: Found, held: Sequence[Holding], before: Keyring) -> Proposal:
        """Move, else copy, else leave."""
        provider_id = found.provider_id
        to_name = setting_key_of(provider_id)
        named = before.holdings[found.setting_key]
        rows = [one for one in named if one.grace_until is None]
        lines = tuple(self._line(one, provider_id, grace=len(rows) < len(named)) for one in rows)
        proposal = Proposal(provider_id, found.setting_key, to_name, lines)
        if reason := _why_not(found, before, to_name):
            return proposal.left(reason)
        needing = self._needing(found)
        if not needing:
            needing = changed_for(before, self.keyring(applied(held, proposal)), provider_id)
        if not needing:
            return proposal
        copied = _copied(proposal, f"{found.setting_key} is still needed by {', '.join(needing)}")
        hurt = changed_for(before, self.keyring(applied(held, copied)), provider_id)
        return proposal.left(f"{to_name} would change what answers for {', '.join(hurt)}") if hurt else copied

    def _line(self, holding: Holding, provider_id: str, *, grace: bool) -> Line:
        provider = self.registry.get(provider_id)
        why = unusable_for(provider, holding) if provider else None
        if why is not None:
            return Line(holding, Outcome.LEFT, f"not used: {UNUSABLE_BECAUSE[why]}")
        return Line(holding, Outcome.MOVED, GRACE_ENDS if grace else "")

    def _needing(self, found: Found) -> list[str]:
        """Another live provider whose canonical name this is: its own name is never taken from it."""
        others = (one for one in self.table.names if one != found.provider_id)
        return [one for one in others if setting_key_of(one) == found.setting_key]


def _why_not(found: Found, before: Keyring, to_name: str) -> str | None:
    if found.store is Store.LEGACY:
        return LEGACY
    if any(_is_value(one) for one in before.holdings.get(to_name, ())):
        return UNUSABLE_CANONICAL
    return None


def _is_value(holding: Holding) -> bool:
    """Whether something may stand here. A legacy row that was never filled in, or was blanked, holds nothing."""
    return holding.store is not Store.LEGACY or holding.unusable not in _NO_VALUE


def _copied(proposal: Proposal, reason: str) -> Proposal:
    lines = tuple(
        replace(line, outcome=Outcome.COPIED, reason=reason) if line.outcome is Outcome.MOVED else line
        for line in proposal.lines
    )
    return replace(proposal, lines=lines)


def applied(held: Sequence[Holding], proposal: Proposal) -> list[Holding]:
    """What the tenant would hold."""
    fresh = [replace(line.holding, setting_key=proposal.to_name) for line in proposal.taken]
    gone = {line.holding.credential_id for line in proposal.taken if line.outcome is Outcome.MOVED}
    return replaced(held, fresh, lambda one: one.credential_id in gone and one.setting_key == proposal.from_name)


def replaced(held: Sequence[Holding], fresh: Collection[Holding], is_gone: Callable[[Holding], bool]) -> list[Holding]:
    """What is held without some and with others, in the order in which a tenant's keys are read."""
    kept = [one for one in held if not is_gone(one)]
    return sorted((*fresh, *kept), key=lambda one: one.store is Store.LEGACY)


# --- what answers --------------------------------------------------------------------------------------------------


def changed_for(before: Keyring, after: Keyring, moved: str) -> list[str]:
    """The providers for whom the second keyring is not as good as the first: `moved` may be answered under another
    name, with the same keys; all others must be answered as they were, or not at all as they were not."""
    return [
        provider_id
        for provider_id in before.resolutions
        if (
            _contents(before, provider_id) != _contents(after, provider_id)
            if provider_id == moved
            else _answer(before, provider_id) != _answer(after, provider_id)
        )
    ]


def same_answers(one: Keyring, other: Keyring) -> bool:
    """Whether every provider is answered under the same name with the same keys, whichever rows they are in."""
    return all(
        _found_as(one, provider_id) == _found_as(other, provider_id)
        and _contents(one, provider_id) == _contents(other, provider_id)
        for provider_id in one.resolutions
    )


Content = tuple[str, str, int, int, list[str], list[tuple[str, str]]]


def _contents(keyring: Keyring, provider_id: str) -> list[Content]:
    """The keys that answer, former versions aside."""
    active = (one for one in keyring.choices.get(provider_id, ()) if one.grace_until is None)
    return sorted(map(_content, active))


def _content(one: Holding) -> Content:
    return one.label, one.fingerprint.hex(), one.weight, one.position, sorted(one.hosts), sorted(one.fields.items())


def _answer(keyring: Keyring, provider_id: str) -> tuple[object, ...]:
    """Under which name a provider is answered, and out of which rows."""
    rows = ((one.credential_id, one.fingerprint) for one in keyring.choices.get(provider_id, ()))
    return (_found_as(keyring, provider_id), *rows)


def _found_as(keyring: Keyring, provider_id: str) -> tuple[str, Via, Store] | None:
    found = keyring.resolutions.get(provider_id)
    return (found.setting_key, found.via, found.store) if isinstance(found, Found) else None
