"""The whole table, judged: each row's kind, owner and outcome, without its value.

Owns the marks (HMACs) of rows and the rule of the winner: among a tenant's rows of one name the newest is in force
(updated_at, then created_at, then its place), as keystore.legacy reads them; the others are older versions. Must not
know the journal.
"""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keystore.importing.classify import MAX_NAME, OTHER_SPELLING, UNKNOWN_NAME, Kind, Outcome, classify, quarantine
from keystore.importing.owners import Owners
from keystore.importing.source import Source, SourceRow
from keystore.tenants import Tenant

Progress = Callable[[int, int], None]
"""Told how much of how much is done."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One row as it was read, without its value. `why` says why a quarantined one is; `fingerprint` is b"" unless the
    value may be used as a key."""

    key: Any
    place: str
    stored_id: str | None
    name: str
    kind: Kind
    tenant: Tenant | None
    by_slug: bool
    outcome: Outcome
    why: str | None
    row_mac: bytes
    content_mac: bytes
    fingerprint: bytes
    order: tuple[float, float, Any]
    is_blank: bool

    @property
    def group(self) -> tuple[str, str]:
        return (self.tenant.id if self.tenant else "", self.name)


@dataclass(frozen=True, slots=True)
class Marks:
    """Makes the marks of one import's rows."""

    key: bytes = field(repr=False)

    def of_row(self, row: SourceRow) -> bytes:
        """HMAC over place, tenant, name and value, each as it is stored; NULL is not the empty text."""
        return self._mark(b"wg/import/row/1", row.place, row.tenant_id, row.name, row.value)

    def of_content(self, tenant_id: str, name: str, value: bytes) -> bytes:
        """HMAC over what a credential holds, wherever its row stands."""
        return self._mark(b"wg/import/content/1", tenant_id, name, value)

    def _mark(self, *fields: str | bytes | None) -> bytes:
        parts = [one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one for one in fields]
        lengths = (b"-" if one is None else len(one).to_bytes(8, "big") + one for one in parts)
        return hmac.digest(self.key, b"".join(lengths), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Judge:
    """What a row is, from itself alone."""

    marks: Marks
    owners: Owners
    known: Collection[str]
    fingerprint: Callable[[str], bytes] = field(repr=False)

    def __call__(self, row: SourceRow) -> Seen:
        """The row judged; the outcome of one that is kept is settled among its group."""
        name = row.name or ""
        owner = self.owners.of(row.tenant_id)
        kind = classify(name, row.value, self.known)
        outcome, why = _outcome(row, kind, owned=owner is not None), None
        if outcome is Outcome.MIGRATED:
            why = quarantine(name, row.value, self.known)
        content_of = owner.tenant.id if owner else f"?{row.tenant_id}"
        usable = outcome is Outcome.MIGRATED and why in (None, UNKNOWN_NAME)
        return Seen(
            key=row.key,
            place=row.place,
            stored_id=row.tenant_id,
            name=name,
            kind=kind,
            tenant=owner.tenant if owner else None,
            by_slug=owner.by_slug if owner else False,
            outcome=outcome,
            why=why,
            row_mac=self.marks.of_row(row),
            content_mac=self.marks.of_content(content_of, name, row.value or b""),
            fingerprint=self.fingerprint((row.value or b"").decode("utf-8")) if usable else b"",
            order=row.order,
            is_blank=not row.value,
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """Every row of the table. `groups` are the kept rows of one tenant and name, oldest first; `others` are settings
    and rows that are only reported."""

    groups: tuple[tuple[Seen, ...], ...]
    others: tuple[Seen, ...]

    @property
    def rows(self) -> list[Seen]:
        return [seen for group in self.groups for seen in group] + list(self.others)

    def without_tenant(self) -> list[str]:
        """The ids of secrets that have no tenant."""
        return sorted({seen.stored_id for seen in self.others if seen.outcome is Outcome.NO_TENANT and seen.stored_id})


async def survey(source: Source, judge: Judge, progress: Progress) -> Survey:
    """Read and judge the whole table."""
    total, done = await source.count(), 0
    kept: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    others: list[Seen] = []
    by_id: set[str] = set()
    async for rows in source.pages():
        for seen in map(judge, rows):
            if seen.tenant is not None and not seen.by_slug:
                by_id.add(seen.tenant.id)
            (kept[seen.group] if seen.outcome is Outcome.MIGRATED else others).append(seen)
        done += len(rows)
        progress(done, max(total, done))
    groups = tuple(settle(kept[group], by_id) for group in sorted(kept))
    return Survey(groups, tuple(others))


def settle(group: Iterable[Seen], by_id: Collection[str]) -> tuple[Seen, ...]:
    """The rows of one tenant and name with their outcomes, oldest first. Rows under the slug count only for a tenant
    that has none under its id (`by_id`)."""
    ordered = sorted(group, key=lambda seen: (not _displaced(seen, by_id), seen.order))
    newest = ordered[-1]
    settled = []
    for seen in ordered:
        why = seen.why or (OTHER_SPELLING if _displaced(seen, by_id) else None)
        older = Outcome.MIGRATED if seen is newest else Outcome.OLDER
        settled.append(replace(seen, why=why, outcome=Outcome.QUARANTINED if why else older))
    return tuple(settled)


def conflicts(groups: Sequence[Sequence[Seen]]) -> list[dict[str, object]]:
    """Names that a tenant has more than once with different values, and which value is in force."""
    found: list[dict[str, object]] = []
    for group in groups:
        if len({seen.content_mac for seen in group}) > 1:
            newest = group[-1]
            found.append(
                {
                    "tenant": newest.tenant.slug if newest.tenant else None,
                    "setting_key": newest.name,
                    "rows": len(group),
                    "in_force": None if newest.why else newest.place,
                    "why": newest.why,
                }
            )
    return found


def counted(rows: Iterable[Seen]) -> dict[str, dict[str, int]]:
    """Rows by kind, by outcome and by reason of quarantine."""
    every = list(rows)
    return {
        "kinds": dict(sorted(Counter(seen.kind.value for seen in every).items())),
        "outcomes": dict(sorted(Counter(seen.outcome.value for seen in every).items())),
        "quarantine": dict(sorted(Counter(seen.why for seen in every if seen.why).items())),
    }


def _outcome(row: SourceRow, kind: Kind, *, owned: bool) -> Outcome:
    if row.name is None or "\0" in row.name or (kind is not Kind.SETTING and len(row.name) > MAX_NAME):
        return Outcome.NAME_UNUSABLE
    if kind is Kind.SETTING:
        return Outcome.SETTING
    return Outcome.MIGRATED if owned else Outcome.NO_TENANT


def _displaced(seen: Seen, by_id: Collection[str]) -> bool:
    return seen.by_slug and seen.tenant is not None and seen.tenant.id in by_id
