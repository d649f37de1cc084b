"""The key doctor over HTTP: what is wrong with a tenant's stored keys, and what to do next.

A GET looks at what is stored; a POST also asks each key's provider, with one call, which models it sees.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import Query

from gateway.admin.calls import Call, OfCall
from gateway.admin.parts import Tenant
from gateway.admin.problems import ProviderUnknown
from gateway.admin.reports import AnswerOut, DoctorReport, FindingOut, KeyHealthOut, LiveOut, ProviderQuery
from gateway.admin.ways import ADMIN, OWN
from gateway.control.gate import Operation
from gateway.doctoring import Examined, Reach, examine
from gateway.live_check import LiveResult
from keystore.health import Level
from keystore.ways import Ways

_LIVE = ("outcome", "status", "models", "more", "names", "proves", "text")
_SEEN = ("shadowed_by", "conflicts", "last_success_at", "last_rejected_at", "last_rejected_status", "next_step")
_KEY = ("setting_key", "label", "store", "version", "hint")


async def _examine(call: Call, tenant: str, provider: str | None, ways: Ways, *, live: bool) -> DoctorReport:
    services = call.services
    known = services.book.registry.successor(provider) if provider else None

    async def work(at: Operation) -> list[Examined]:
        if provider and known is None:
            raise ProviderUnknown
        asking = services.live_check if live else None
        reach = Reach(at.rules, services.book.catalogue)
        return await examine(at, provider=provider, live=asking, reach=reach, ways=ways)

    found = await call.run(work, tenant=tenant, target=known.id if known else "", describe=_counts)
    problems = sum(one.health.level is Level.PROBLEM for one in found)
    return DoctorReport(problems=problems, keys=list(map(_health, found)))


def _counts(found: Sequence[Examined]) -> Mapping[str, object]:
    levels = Counter(one.health.level.value for one in found)
    return {"keys": len(found), **levels, "asked": sum(one.live is not None for one in found)}


def _health(one: Examined) -> KeyHealthOut:
    health, key = one.health, one.health.key
    facts = {name: getattr(key, name) for name in _KEY} | {name: getattr(health, name) for name in _SEEN}
    answers = [AnswerOut(provider=each.provider_id, via=each.via.value) for each in health.answers]
    findings = [
        FindingOut(check=each.check.value, level=each.level.value, text=each.text, step=each.step or None)
        for each in health.findings
    ]
    facts |= {"provider": health.provider_id, "state": health.state, "level": health.level, "answers": answers}
    return KeyHealthOut.model_validate(facts | {"findings": findings, "live": _live(one.live) if one.live else None})


def _live(live: LiveResult) -> LiveOut:
    said = {name: getattr(live, name) for name in _LIVE}
    return LiveOut.model_validate({"provider": live.provider_id} | said)


async def look(call: OfCall, tenant: Tenant, query: Annotated[ProviderQuery, Query()]) -> DoctorReport:
    """Examine every stored key of the tenant and say what to do next."""
    return await _examine(call, tenant, query.provider, ADMIN, live=False)


async def ask(call: OfCall, tenant: Tenant, query: Annotated[ProviderQuery, Query()]) -> DoctorReport:
    """The same, and one call with each key that lists the models which it really sees. Nothing is spent."""
    return await _examine(call, tenant, query.provider, ADMIN, live=True)


async def look_own(call: OfCall, query: Annotated[ProviderQuery, Query()]) -> DoctorReport:
    """Examine every key that you have stored and say what to do next."""
    return await _examine(call, call.own_tenant, query.provider, OWN, live=False)


async def ask_own(call: OfCall, query: Annotated[ProviderQuery, Query()]) -> DoctorReport:
    """The same, and one call with each key that lists the models which it really sees. Nothing is spent."""
    return await _examine(call, call.own_tenant, query.provider, OWN, live=True)
