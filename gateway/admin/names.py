"""Names over time, over HTTP: the report, conflicts, provider rows, and who breaks when one is retired or renamed.

Owns the bound: what reads every tenant is for the command line where there are many.
"""

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Query

from gateway.admin.calls import Call, OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.parts import ProviderId
from gateway.admin.problems import ProviderUnknown, TooManyTenants
from gateway.admin.reports import (
    ChangeOut,
    ConflictOut,
    FormerName,
    Impact,
    KeyReport,
    OldNameOut,
    ProviderOut,
    ProviderQuery,
    RenameQuery,
)
from gateway.control.gate import Operation
from keystore.impact import Change, renamed, retired
from keystore.keystore import Keystore
from keystore.names import Conflict, NameVerdict, OldName, Report
from keystore.providers import Provider, Registry
from keystore.resolve import names_for

MOST_TENANTS: Final = 5_000  # read one after another for one answer


async def refuse_many(keystore: Keystore) -> None:
    """TooManyTenants where reading every tenant takes longer than a request should."""
    if await keystore.tenants.count() > MOST_TENANTS:
        raise TooManyTenants


def _same(model: type[OldNameOut | ConflictOut | FormerName | ChangeOut], one: object) -> dict[str, object]:
    return {name: getattr(one, name) for name in model.model_fields}


def _use(one: OldName) -> OldNameOut:
    return OldNameOut.model_validate(_same(OldNameOut, one))


def _verdict(one: NameVerdict) -> FormerName:
    return FormerName.model_validate(_same(FormerName, one))


def _conflict(one: Conflict) -> ConflictOut:
    return ConflictOut.model_validate(_same(ConflictOut, one))


async def report(call: OfCall, query: Annotated[ProviderQuery, Query()]) -> KeyReport:
    """Who is still found under a former, family or sibling name, and which former names nobody needs any more."""

    async def work(at: Operation) -> Report:
        if query.provider and at.rules.registry.successor(query.provider) is None:
            raise ProviderUnknown
        await refuse_many(at.keystore)
        return await at.keystore.names.report(query.provider)

    found = await call.run(work, target=known_provider(call, query.provider))
    return KeyReport(uses=list(map(_use, found.uses)), former_names=list(map(_verdict, found.verdicts)))


def known_provider(call: Call, provider_id: str | None) -> str:
    """The id for the audit, when it is one."""
    return provider_id if provider_id and call.services.book.registry.get(provider_id) else ""


async def conflicts(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[ConflictOut]:
    """Tenants with two different keys behind one provider, and which of them answers."""

    async def work(at: Operation) -> list[Conflict]:
        await refuse_many(at.keystore)
        return await at.keystore.names.conflicts()

    return cut(await call.run(work), query, _conflict, lambda one: (one.tenant, one.provider_id))


# --- providers -------------------------------------------------------------------------------------------------------


async def list_providers(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[ProviderOut]:
    """The provider rows in force, by id, and the names under which a key of each is found."""

    async def work(at: Operation) -> Registry:
        return at.rules.registry

    registry = await call.run(work)
    return cut(registry.providers, query, lambda row: _provider(row, registry), lambda row: (row.id,))


def _provider(row: Provider, registry: Registry) -> ProviderOut:
    return ProviderOut(
        id=row.id,
        name=row.name,
        wire=row.wire.value,
        base_url=row.base_url,
        hosts=list(row.hosts),
        key_names=[name for name, _ in names_for(row, registry)],
        former_ids=list(row.former_ids),
        catalogue_ids=list(row.catalogue_ids),
        retired=row.retired,
    )


async def impact_of_retiring(call: OfCall, provider_id: ProviderId) -> Impact:
    """Who breaks if this row becomes a tombstone. Changes nothing."""
    return await _impact(call, provider_id, lambda registry: retired(registry, provider_id), "retire")


async def impact_of_renaming(call: OfCall, provider_id: ProviderId, query: Annotated[RenameQuery, Query()]) -> Impact:
    """Who breaks if a provider gets another id, or is merged into another row. Changes nothing."""
    return await _impact(call, provider_id, lambda registry: renamed(registry, provider_id, query.to), "rename")


async def _impact(call: Call, provider_id: str, change: Callable[[Registry], Registry], what: str) -> Impact:
    known = known_provider(call, provider_id)

    async def work(at: Operation) -> list[Change]:
        if not known:
            raise ProviderUnknown
        await refuse_many(at.keystore)
        return await at.keystore.names.impact(change(at.rules.registry))

    changes = await call.run(work, target=f"{what} {known}".strip())
    offers = call.services.book.catalogue.offers
    return Impact(
        breaks=any(one.breaks for one in changes),
        changes=[ChangeOut.model_validate(_same(ChangeOut, one)) for one in changes],
        models_gone=sorted(offer.id for offer in offers if offer.provider_id == provider_id),
    )
