"""The checks of a stored key: whether it opens, for whom it answers or why not, and what to do next.

Owns the checks as rows, their words and their levels. A problem is what costs the tenant a provider, or what nobody but
a person can decide; a note is what is odd. Pure. Must not know databases, seals or secrets.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from keystore.cases import Case, case_of, is_live, may_ask, misfit
from keystore.health import (
    Check,
    Finding,
    KeyHealth,
    Level,
    Reading,
    State,
    StoredKey,
    Yardstick,
)
from keystore.providers import Provider, filled, host_of, setting_key_of
from keystore.resolve import UNUSABLE_BECAUSE, Found, Store, Unusable, Via, names_for


def examine(reading: Reading, by: Yardstick) -> list[KeyHealth]:
    """The health of every stored key, in the order in which they were read."""
    return [_health(case_of(key, reading, by)) for key in reading.stored]


def _health(case: Case) -> KeyHealth:
    findings = tuple(finding for check in _CHECKS for finding in check(case))
    return KeyHealth(
        tenant=case.reading.tenant,
        key=case.key,
        provider_id=case.owner.id if case.owner else None,
        answers=case.answers,
        may_ask=may_ask(case),
        shadowed_by=case.shadow.setting_key if case.shadow else None,
        conflicts=case.found.conflicts if case.found and case.answers else (),
        last_success_at=case.use.success_at,
        last_rejected_at=case.use.rejected_at,
        last_rejected_status=case.use.status,
        findings=findings,
        store_again=case.store_again,
    )


# --- the checks ------------------------------------------------------------------------------------------------------


def _opens(case: Case) -> Iterator[Finding]:
    sealed = case.key.store is Store.CREDENTIALS
    if case.key.unusable is not Unusable.DAMAGED:
        yield Finding(Check.OPENS, Level.OK, "its seal opens" if sealed else "it is text, in a table without seals")
    elif sealed:
        step = f"{case.store_again[:-1]}, and {case.by.ways.verify_seals()}."
        yield Finding(Check.OPENS, Level.PROBLEM, UNUSABLE_BECAUSE[Unusable.DAMAGED], step)
    else:
        yield Finding(Check.OPENS, case.gravity, "its bytes are no text", case.store_again)


def _value(case: Case) -> Iterator[Finding]:
    why = case.key.unusable
    if why is not None and why is not Unusable.DAMAGED:
        yield Finding(Check.VALUE, case.gravity, f"it is not used: {UNUSABLE_BECAUSE[why]}", case.store_again)


_QUARANTINED_BECAUSE: Final[Mapping[str, str]] = MappingProxyType(
    {why.value: because for why, because in UNUSABLE_BECAUSE.items()}
    | {
        "unknown_name": "no provider has a key of this name",
        "other_spelling": "the tenant's other rows have its id, and this one its slug",
    }
)


def _quarantined(case: Case) -> Iterator[Finding]:
    """What an import kept without using it. A secret that is no provider's costs nobody a provider."""
    if case.key.state is not State.QUARANTINED:
        return
    why = _QUARANTINED_BECAUSE.get(case.key.quarantine or "", case.key.quarantine)
    text = f"the import kept it without using it: {why}"
    if case.owner is None:
        yield Finding(Check.QUARANTINED, Level.NOTE, text)
    else:
        yield Finding(Check.QUARANTINED, case.gravity, text, case.store_again)


def _retired(case: Case) -> Iterator[Finding]:
    tombstone = next((row for row in case.by.registry.providers if _is_tombstone_of(case.key, row)), None)
    if case.owner is not None and is_live(case.owner):
        if tombstone is not None:
            text = f"{tombstone.id} is retired; {case.owner.id} took over and looks for this name too"
            yield Finding(Check.RETIRED, Level.NOTE, text)
    elif case.owner is not None:
        yield _of_retired_owner(case, case.owner)


def _is_tombstone_of(key: StoredKey, row: Provider) -> bool:
    return row.retired and setting_key_of(row.id) == key.setting_key


def _of_retired_owner(case: Case, owner: Provider) -> Finding:
    heir = case.by.registry.successor(owner.id)
    if heir is None or heir.retired:
        text = f"{owner.id} is retired and takes no traffic, and no provider took over"
        return Finding(Check.RETIRED, Level.PROBLEM, text, _removal(case))
    text = f"{owner.id} is retired; {heir.id} took over and does not look for {case.key.setting_key}"
    resolution = case.reading.resolutions.get(heir.id)
    if isinstance(resolution, Found):
        return Finding(Check.RETIRED, Level.NOTE, f"{text}; {resolution.setting_key} answers for it", _removal(case))
    step = f"Store the key under the name of {heir.id}: {case.store(setting_key_of(heir.id))}."
    return Finding(Check.RETIRED, Level.PROBLEM, text, step)


def _removal(case: Case) -> str:
    if case.key.store is Store.LEGACY and case.shadow is not None and case.shadow.source == "import":
        how = "wardgate import verify, then wardgate import scrub --yes"
        return case.by.ways.operators("take the plain text away once it is verified", how)
    if case.key.store is Store.LEGACY:
        return "Remove it with the application that wrote it: Wardgate only reads that table."
    return f"Remove it: {case.remove(case.key.setting_key)}."


def _hosts(case: Case) -> Iterator[Finding]:
    if case.owner is None or case.owner.retired or case.key.unusable is not None:
        return
    why = misfit(case.owner, case.key) if case.key.state is not State.QUARANTINED else None
    if why is Unusable.LACKS_FIELDS:
        needs = f", which needs {', '.join(case.owner.fields)}" if case.owner.fields else ""
        text = f"the fields that came with it do not fit {case.owner.id}{needs}"
        yield Finding(Check.HOSTS, case.gravity, text, case.store_again)
    elif why is not None:
        there = host_of(filled(case.owner, case.key.fields).base_url)
        bound = ", ".join(sorted(case.key.hosts)) or "no host"
        text = f"it was sealed for {bound}, and {case.owner.id} is at {there}: it does not travel there"
        step = case.store_again
        if not case.approves_base_url:
            text = f"its base URL is none that the operator approves for {case.owner.id} now: it does not travel there"
            row = f"hosts and tenant_base_url of [providers.{case.owner.id}] in wardgate.toml"
            again = case.by.ways.operators("approve its base URL again", row)
            step = f"{again} Or without one: {case.store_again[:1].lower()}{case.store_again[1:]}"
        yield Finding(Check.HOSTS, case.gravity, text, step)


def _shape(case: Case) -> Iterator[Finding]:
    if case.owner is None or case.key.unusable is not None or case.key.state is State.QUARANTINED:
        return
    if case.key.fits is None:
        yield Finding(Check.SHAPE, Level.OK, f"the row of {case.owner.id} gives its keys no shape")
    elif case.key.fits:
        yield Finding(Check.SHAPE, Level.OK, f"it looks like a key of {case.owner.name}")
    else:
        text = f"it does not look like a key of {case.owner.name}"
        yield Finding(Check.SHAPE, case.gravity, text, case.store_again)


def _plan(case: Case) -> Iterator[Finding]:
    if case.owner is None or case.owner.retired or case.key.state is State.QUARANTINED:
        return
    asked = [answer.provider_id for answer in case.answers] or [case.owner.id]
    allowed = [provider_id for provider_id in asked if case.by.plan_allows(provider_id)]
    plan = f"plan {case.reading.plan!r}"
    if allowed:
        yield Finding(Check.PLAN, Level.OK, f"{plan} lets models of {allowed[0]} through with a tenant's own key")
        return
    instead = case.by.plan_instead(asked[0])
    ways = case.by.ways
    step = ways.operators("add models of this provider to byok_models of the plan in wardgate.toml, with byok = true")
    if instead:
        step = ways.operators(f"move the tenant to plan {instead!r}", ways.set_plan(case.reading.tenant, instead))
    text = f"{plan} lets no model of {asked[0]} through with a tenant's own key"
    yield Finding(Check.PLAN, Level.PROBLEM if case.answers else Level.NOTE, text, step)


def _used(case: Case) -> Iterator[Finding]:
    """What was noted before this value was stored was said of the value before it."""
    if not case.answers:
        return
    since, use = case.key.stored_at, case.use
    success = _after(use.success_at, since)
    rejected = _after(use.rejected_at, since)
    if rejected is not None and (success is None or rejected >= success or case.has_stand_in):
        since_then = "a former version stands in" if case.has_stand_in else "nothing was served since"
        text = f"{use.rejected_by} rejected it with status {use.status} at {_time(rejected)}; {since_then}"
        yield Finding(Check.USE, Level.PROBLEM, text, case.store_again)
    elif success is not None:
        yield Finding(Check.USE, Level.OK, f"it served last at {_time(success)}")
    else:
        provider_id = case.answers[0].provider_id
        step = f"Try it with a request for a model of {provider_id}: its keys cannot be checked without one."
        if case.by.can_look(provider_id):
            step = f"Try it with one call: {case.by.ways.look(case.reading.tenant, provider_id)}."
        yield Finding(Check.USE, Level.NOTE, "no call was made with this value yet", step)


def _after(at: datetime | None, since: datetime | None) -> datetime | None:
    return None if at is None or (since is not None and at < since) else at


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _waiting(case: Case) -> Iterator[Finding]:
    key = case.key
    if key.state is State.PENDING and key.unusable is None:
        text = f"version {key.version} is stored and not yet in use"
        how = case.by.ways.activate(case.reading.tenant, key.setting_key, key.version, key.label)
        step = f"Put it in use: {how}."
        yield Finding(Check.PENDING, Level.NOTE, text, step)
    elif key.state is State.GRACE:
        until = f" until {_time(key.grace_until)}" if key.grace_until else ""
        yield Finding(Check.PENDING, Level.NOTE, f"version {key.version} was replaced and stands in{until}")


def _shadowed(case: Case) -> Iterator[Finding]:
    key, before = case.key, case.shadow
    if before is None:
        return
    where = f"{before.setting_key} of {before.store.value}"
    if key.unusable is not None or not before.fingerprint:
        yield Finding(Check.SHADOWED, Level.NOTE, f"{where} is asked before it")
    elif key.fingerprint == before.fingerprint:
        yield Finding(
            Check.SHADOWED, Level.NOTE, f"{where} is asked before it and holds the same value", _removal(case)
        )
    elif key.setting_key == before.setting_key:
        text = f"{where} is asked before it and holds another value"
        yield Finding(Check.SHADOWED, Level.NOTE, text, _removal(case))
    else:
        yield Finding(Check.CONFLICT, Level.PROBLEM, f"{where} answers in its place with another value", _choice(case))


def _choice(case: Case) -> str:
    before = case.shadow
    if case.key.store is Store.LEGACY or before is None or before.store is Store.LEGACY:
        return f"Decide which value is right and store that one: {case.store(case.key.setting_key)}."
    this, other = case.key.setting_key, before.setting_key
    keep = case.remove(other, before.label)
    return f"Decide which value is right and remove the other: {case.remove(this)}, or {keep}."


def _in_conflict(case: Case) -> Iterator[Finding]:
    if case.answers and case.found is not None and case.found.conflicts:
        others = ", ".join(case.found.conflicts)
        yield Finding(Check.CONFLICT, Level.NOTE, f"{others} of the same tenant holds another value and is not used")


_VIA_WORDS: Final[Mapping[Via, str]] = MappingProxyType(
    {Via.FAMILY: "the family name", Via.FORMER: "a former name", Via.SIBLING: "a sibling's name"}
)


def _name(case: Case) -> Iterator[Finding]:
    name, owner = case.key.setting_key, case.owner
    if owner is None:
        level = Level.NOTE if case.key.state is State.QUARANTINED else Level.PROBLEM
        step = case.by.ways.operators("give its provider's row in wardgate.toml this name by a former id")[:-1]
        step = f"{step}, or remove the key: {case.remove(name)}."
        yield Finding(Check.NAME, level, "no provider has a key of this name", step)
        return
    canonical = setting_key_of(owner.id)
    if name == canonical:
        yield Finding(Check.NAME, Level.OK, f"it is the canonical name of a key of {owner.id}")
        return
    via = dict(names_for(owner, case.by.registry)).get(name, Via.FORMER)
    text = f"it is {_VIA_WORDS[via]} of a key of {owner.id}; the canonical name is {canonical}"
    ways = case.by.ways
    step = ways.operators("give it its canonical name", ways.canonicalise(case.reading.tenant))
    if case.key.store is Store.LEGACY:
        step = f"Store it under its canonical name: {case.store(canonical)}."
    yield Finding(Check.NAME, Level.NOTE, text, step if case.answers and is_live(owner) else "")


def _plain(case: Case) -> Iterator[Finding]:
    if case.key.store is Store.LEGACY:
        step = case.by.ways.operators("take it over, sealed", "wardgate import plan, then wardgate import apply")
        yield Finding(Check.STORE, Level.NOTE, "it lies in plain text in tenant_settings", "" if case.shadow else step)


def _answering(case: Case) -> Iterator[Finding]:
    if case.answers:
        shown = ", ".join(f"{answer.provider_id} ({answer.via.value})" for answer in case.answers)
        yield Finding(Check.ANSWERS, Level.OK, f"it answers for {shown}")
    else:
        yield Finding(Check.ANSWERS, Level.NOTE, "it answers for no provider now")


# In the order of what to do first.
_CHECKS: Final[tuple[Callable[[Case], Iterator[Finding]], ...]] = (
    _opens,
    _value,
    _quarantined,
    _retired,
    _hosts,
    _shape,
    _plan,
    _waiting,
    _shadowed,
    _in_conflict,
    _used,
    _name,
    _plain,
    _answering,
)
