"""What differs between two price releases, and for whom `auto` would choose another model.

Owns the comparison of rows and the grouping of tenants. Must not know which release is live or how a model is chosen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from router.price_bounds import amounts
from router.price_feeds import RESERVED
from router.price_rows import Row


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One price of one model, in dollars; None: there is none. `factor` is after divided by before, where both are."""

    name: str
    field: str
    before: Decimal | None
    after: Decimal | None

    @property
    def factor(self) -> Decimal | None:
        if not self.before or self.after is None:
            return None
        return (self.after / self.before).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class Diff:
    """Two releases, compared. `became_free` and `lost_price` are models of `changed`; `other` changed in no price."""

    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[PriceChange, ...]
    became_free: tuple[str, ...]
    lost_price: tuple[str, ...]
    other: tuple[str, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        return {
            "added": len(self.added),
            "gone": len(self.gone),
            "repriced": len({change.name for change in self.changed}),
            "became_free": len(self.became_free),
            "lost_price": len(self.lost_price),
            "other": len(self.other),
        }


def diff(before: Mapping[str, Row], after: Mapping[str, Row]) -> Diff:
    """What is other in `after`, by name."""
    old, new = set(before) - RESERVED, set(after) - RESERVED
    differing = sorted(name for name in old & new if before[name] != after[name])
    changes = {name: _changes(name, before[name], after[name]) for name in differing}
    changed = tuple(change for name in differing for change in changes[name])
    return Diff(
        added=tuple(sorted(new - old)),
        gone=tuple(sorted(old - new)),
        changed=changed,
        became_free=_names(change for change in changed if change.before and change.after == 0),
        lost_price=_names(change for change in changed if change.before and change.after is None),
        other=tuple(name for name in differing if not changes[name]),
    )


def _changes(name: str, before: Row, after: Row) -> list[PriceChange]:
    old, new = amounts(before), amounts(after)
    fields = sorted(set(old) | set(new))
    return [PriceChange(name, at, old.get(at), new.get(at)) for at in fields if old.get(at) != new.get(at)]


def _names(changes: Iterable[PriceChange]) -> tuple[str, ...]:
    return tuple(sorted({change.name for change in changes}))


# --- re-rank ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """What `auto` gives one tenant before and after; None: nothing."""

    tenant: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Rerank:
    """Tenants for whom `auto` changes in the same way."""

    before: str | None
    after: str | None
    tenants: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """E.g. "for 7 tenants `auto` changes from a/b to c/d"."""
        count = len(self.tenants)
        whom = f"{count} tenant" if count == 1 else f"{count} tenants"
        return f"for {whom} `auto` changes from {self.before or 'no model'} to {self.after or 'no model'}"


def reranked(choices: Iterable[Choice]) -> tuple[Rerank, ...]:
    """The changes among `choices`, those of most tenants first."""
    groups: dict[tuple[str | None, str | None], list[str]] = {}
    for choice in choices:
        if choice.before != choice.after:
            groups.setdefault((choice.before, choice.after), []).append(choice.tenant)
    found = [Rerank(before, after, tuple(sorted(tenants))) for (before, after), tenants in groups.items()]
    return tuple(sorted(found, key=lambda one: (-len(one.tenants), one.before or "", one.after or "")))
