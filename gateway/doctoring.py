"""What the key doctor says, whole: the keystore's findings, what the plan allows, and what the provider says live.

Owns the joining of these, once for the command line and the API. Must not know how any of it is shown.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from gateway.control.gate import Operation
from gateway.live_check import LiveCheck, LiveResult, Outcome, listing_of
from gateway.rules import Rules, load_catalogue
from keystore.health import Check, Finding, KeyHealth, Level
from keystore.providers import Provider, Registry, no_provider
from keystore.ways import Ways
from router.catalogue import Catalogue
from router.entitlement import Entitlements
from router.model_names import compile_models
from router.plans import Plan
from router.query import KeySource

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Examined:
    """One stored key: what was found, and what its provider said if it was asked. The findings hold that too."""

    health: KeyHealth
    live: LiveResult | None = None


class Reach:
    """Which providers a plan lets through with a tenant's own key: whether any of a provider's models would pass."""

    def __init__(self, rules: Rules, catalogue: Catalogue) -> None:
        self._rules = rules
        self._catalogue = catalogue
        self._entitlements = Entitlements(rules.plans, rules.registry)
        self._known: dict[tuple[str, str], bool] = {}

    def allows(self, plan_name: str, provider_id: str) -> bool:
        """Whether the plan of this name, if there is one, lets any model of the provider through."""
        asked = (plan_name, provider_id)
        if asked not in self._known:
            plan, provider = self._rules.plans.get(plan_name), self._rules.registry.get(provider_id)
            self._known[asked] = plan is not None and provider is not None and self._any(plan, provider)
        return self._known[asked]

    def instead(self, provider_id: str) -> str | None:
        """The least plan that does."""
        return next((name for name in self._rules.plans.names if self.allows(name, provider_id)), None)

    def _any(self, plan: Plan, provider: Provider) -> bool:
        offers = [offer for offer in self._catalogue.of_provider(provider.id) if offer.is_chat]
        if any(self._entitlements.allows(plan, offer, KeySource.BYOK) for offer in offers):
            return True
        if not (provider.open_models and plan.byok):
            return False
        models = compile_models(plan.byok_models, self._rules.registry)  # any model may be named, listed or not
        qualified = any(provider_id == provider.id for provider_id, _ in models.qualified)
        return models.everything or provider.id in models.providers or bool(models.names) or qualified


async def examine(
    at: Operation,
    *,
    provider: str | None = None,
    live: LiveCheck | None = None,
    reach: Reach | None = None,
    ways: Ways | None = None,
    told: Told = lambda done, total: None,
) -> list[Examined]:
    """Every stored key of the operation's tenant, or those of one provider (by its id or a former one). With `live`,
    each provider is asked once for each key; `told` hears of the progress of that. `reach` spares reading the catalogue
    again; the next steps are said in the words of `ways`, commands when it is left out. RegistryError when there is no
    such provider; DatabaseUnavailable."""
    wanted = _row(at.rules.registry, provider).id if provider else None
    reach = reach or await reach_of(at.rules)
    found = await at.keystore.doctor.examine(
        at.tenant,
        lambda one: reach.allows(at.tenant.plan, one),
        reach.instead,
        lambda one: (row := at.rules.registry.get(one)) is not None and listing_of(row) is not None,
        ways,
    )
    chosen = [one for one in found if wanted is None or _is_of(one, wanted, at.rules.registry)]
    if live is None:
        return [Examined(one) for one in chosen]
    results = await _ask(at, chosen, live, told)
    return [Examined(_after(one, result), result) for one, result in zip(chosen, results, strict=True)]


async def examine_all(
    at: Operation, *, provider: str | None = None, live: LiveCheck | None = None, told: Told = lambda done, total: None
) -> list[Examined]:
    """`examine` for every tenant, one after another; `told` hears of the tenants that are done."""
    reach, tenants = await reach_of(at.rules), await at.keystore.tenants.list()
    found: list[Examined] = []
    for done, tenant in enumerate(tenants, start=1):
        found += await examine(replace(at, found=tenant), provider=provider, live=live, reach=reach)
        told(done, len(tenants))
    return found


async def reach_of(rules: Rules) -> Reach:
    """The reach of the plans in force. The catalogue is read aside: it takes a moment."""
    return Reach(rules, await asyncio.to_thread(load_catalogue, rules.registry))


def _row(registry: Registry, provider_id: str) -> Provider:
    row = registry.successor(provider_id)
    if row is None:
        raise no_provider(provider_id, registry)
    return row


def _is_of(health: KeyHealth, provider_id: str, registry: Registry) -> bool:
    """Whether a key is this provider's by its name, by whom it answers for, or by who took over."""
    heir = registry.successor(health.provider_id) if health.provider_id else None
    owners = {health.provider_id, heir.id if heir else None}
    return provider_id in owners | {answer.provider_id for answer in health.answers}


# --- live ------------------------------------------------------------------------------------------------------------


async def _ask(at: Operation, found: Sequence[KeyHealth], live: LiveCheck, told: Told) -> list[LiveResult]:
    """One result for each key, in order; a key that may not travel is not asked about."""
    held = await at.keystore.doctor.credentials(at.tenant, found)
    asked = {place: credential for place, credential in enumerate(held) if credential is not None}
    answers = dict(zip(asked, await live.ask(list(asked.values()), told), strict=True))
    return [answers.get(place) or _not_asked(health) for place, health in enumerate(found)]


def _not_asked(health: KeyHealth) -> LiveResult:
    return LiveResult(health.provider_id, Outcome.NOT_ASKED, "no provider is asked: the key cannot be used as it is")


# What the outcome of a live check means for the key, and what to do; {again} is the command that stores a new value.
_MEANS: Final[Mapping[Outcome, tuple[Level, str]]] = MappingProxyType(
    {
        Outcome.LISTED: (Level.OK, ""),
        Outcome.REJECTED: (Level.PROBLEM, "{again}"),
        Outcome.LIMITED: (Level.NOTE, "Look at the account's credit and limits with the provider."),
        Outcome.TROUBLE: (Level.NOTE, "Try again when the provider answers."),
        Outcome.MALFORMED: (Level.NOTE, "Compare base_url of the provider's row with what the provider documents."),
        Outcome.NO_LISTING: (Level.NOTE, ""),
        Outcome.NOT_ASKED: (Level.NOTE, ""),
    }
)


def _after(health: KeyHealth, result: LiveResult) -> KeyHealth:
    """The health with what the provider said now. A list that only valid keys are given is newer than any rejection
    that was noted; a key that was tried just now is not to be tried again."""
    level, step = _MEANS[result.outcome]
    untried = any(finding.check is Check.USE and finding.level is Level.NOTE for finding in health.findings)
    if result.outcome is not Outcome.NOT_ASKED:
        calm = {Level.NOTE, Level.PROBLEM} if result.proves else {Level.NOTE}
        health = replace(health, findings=tuple(_calmed(finding, calm) for finding in health.findings))
    if result.outcome is Outcome.LISTED and result.models == 0:
        level, step = Level.NOTE, "Ask the provider which models this account may use."
    if result.outcome is Outcome.NO_LISTING and untried:
        step = f"Try it with a request for a model of {result.provider_id}."
    return health.with_finding(Finding(Check.LIVE, level, result.text, step.format(again=health.store_again)))


def _calmed(finding: Finding, calm: Collection[Level]) -> Finding:
    if finding.check is not Check.USE or finding.level not in calm:
        return finding
    return replace(finding, level=Level.NOTE, step="")
