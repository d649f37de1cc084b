"""From a tenant and its keyring to the router's question, and from an empty answer to an error. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from gateway.chat_request import ChatRequest
from gateway.errors import ApiError, Problem
from gateway.events import Events, KeyResolved, RouteRefused
from gateway.keys_in_turn import key_id
from gateway.tally import Tally
from gateway.translation import Refused, refused_by
from keystore.holdings import Holding as HeldKey
from keystore.keyring import Keyring
from keystore.providers import Registry, Wire, setting_key_of
from keystore.resolve import Found, Missing
from keystore.tenants import Tenant
from router.catalogue import Catalogue, Offer
from router.decision import Decision, Rejection, route, usable
from router.explain import refusal
from router.health import ALL_WELL, HealthView
from router.needs import Needs, read_needs
from router.plans import Plans
from router.query import Holding, KeySource, Lacking, Query
from router.ranking import Candidate
from router.reasons import Fault, Reason

NO_PLAN = "tenant_plan_unknown"


def holdings(keyring: Keyring) -> dict[str, Holding | Lacking]:
    """What the tenant can use, in the router's words: the names under which its keys are stored, never a value."""
    return {
        provider_id: _holding(found, keyring.choices.get(provider_id, ()), keyring.tenant_id)
        for provider_id, found in keyring.resolutions.items()
    }


def _holding(found: Found | Missing, choices: Sequence[HeldKey], tenant_id: str) -> Holding | Lacking:
    skipped = tuple((item.setting_key, item.why.value) for item in found.skipped)
    if isinstance(found, Missing):
        return Lacking(found.provider_id, tried=found.tried, unusable=skipped)
    return Holding(
        found.provider_id,
        source=KeySource.BYOK,
        via=found.via.value,
        setting_key=found.setting_key,
        store=found.store.value,
        conflicts=found.conflicts,
        skipped=skipped,
        labels=_labels(choices),
        tenant_id=tenant_id,
        keys=tuple(key_id(tenant_id, one) for one in choices if one.grace_until is None),
        former_keys=tuple(key_id(tenant_id, one) for one in choices if one.grace_until is not None),
    )


def _labels(choices: Sequence[HeldKey]) -> tuple[str, ...]:
    labels = tuple(one.label for one in choices if one.grace_until is None)
    return () if labels == ("",) else labels


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rows that every decision is a function of."""

    registry: Registry
    plans: Plans
    catalogue: Catalogue


def decide(
    request: ChatRequest,
    tenant: Tenant,
    keyring: Keyring,
    book: RuleBook,
    today: date,
    *,
    allowed_models: tuple[str, ...] = (),
    enough: int | None = None,
    health: HealthView = ALL_WELL,
) -> Decision:
    """Rank what this tenant may use for `request` today; raises ApiError when the tenant's plan has no row.
    `allowed_models` are those that the caller's token is for; empty: all.

    `enough` spares work on a request that is served: behind so many candidates that can take it, the others are not
    looked at for what their wire cannot carry. None looks at all, for an explanation.
    """
    query = _query(request.model, read_needs(request.body), tenant, book, today, allowed_models)
    decision = route(query, book.catalogue, book.registry, book.plans, holdings(keyring), health)
    return _without_untranslatable(decision, request, book.registry, enough)


def _without_untranslatable(
    decision: Decision, request: ChatRequest, registry: Registry, enough: int | None
) -> Decision:
    """The decision without candidates on a wire into which this request cannot be translated without loss."""
    ranked: list[Candidate] = []
    rejected: list[Rejection] = []
    whole_wire: dict[tuple[Wire, str], Refused] = {}  # what messages hold is refused for every model of a wire
    for candidate in decision.ranked:
        offer, provider = candidate.offer, registry.get(candidate.offer.provider_id)
        refused = None
        if provider is not None and (enough is None or len(ranked) < enough):
            refused = whole_wire.get((provider.wire, provider.litellm_prefix)) or refused_by(
                provider, offer.model, request
            )
            if refused is not None and refused.param.startswith("messages"):
                whole_wire[provider.wire, provider.litellm_prefix] = refused
        if refused is None:
            ranked.append(candidate)
        else:
            reason = Reason.LACKS_PARAMETER
            rejected.append(Rejection(offer.id, offer.provider_id, offer.model, reason, refused.sentence))
    return replace(decision, ranked=tuple(ranked), rejected=(*decision.rejected, *rejected))


def usable_offers(
    tenant: Tenant, keyring: Keyring, book: RuleBook, today: date, *, allowed_models: tuple[str, ...] = ()
) -> list[Offer]:
    """The models that this tenant could name now, ordered by id."""
    needs = Needs(input_tokens=0, max_output_tokens=None, capabilities=frozenset(), stream=False)
    query = _query("auto", needs, tenant, book, today, allowed_models)
    decision = usable(query, book.catalogue, book.registry, book.plans, holdings(keyring))
    return sorted((candidate.offer for candidate in decision.ranked), key=lambda offer: offer.id)


def _query(
    model: str, needs: Needs, tenant: Tenant, book: RuleBook, today: date, allowed_models: tuple[str, ...]
) -> Query:
    plan = book.plans.get(tenant.plan)
    if plan is None:
        message = f"The tenant {tenant.slug} is on the plan {tenant.plan!r}, which this gateway does not know."
        raise ApiError(Problem(403, NO_PLAN, message, Fault.PLAN))
    return Query(
        model=model,
        needs=needs,
        plan=plan,
        default_model=tenant.default_model,
        today=today,
        tenant=tenant.slug,
        allowed_models=allowed_models,
    )


def refused(decision: Decision, tally: Tally, events: Events) -> ApiError:
    """The error for a decision with nothing left, after telling the subscribers why."""
    no = refusal(decision)
    events.publish(
        RouteRefused(
            request_id=tally.request_id,
            tenant=decision.query.tenant,
            requested_model=decision.query.model,
            counts=dict(no.counts),
            nearest_miss=no.nearest_miss,
        )
    )
    lacking = {item.provider_id for item in decision.rejected if item.reason is Reason.NO_CREDENTIAL}
    for provider_id in sorted(lacking):
        events.publish(KeyResolved(tally.request_id, decision.query.tenant, provider_id, via="missing"))
    extra: Mapping[str, object] = {"reasons": dict(no.counts), "nearest_miss": no.nearest_miss}
    return ApiError(Problem(no.status, no.code, no.message, no.fault, param=no.param, extra=extra))


def key_resolved(keyring: Keyring, provider_id: str, tally: Tally) -> KeyResolved:
    """The event that says under which stored name the key of an attempt was found."""
    found = keyring.resolutions[provider_id]
    canonical = setting_key_of(provider_id)
    if isinstance(found, Missing):
        return KeyResolved(tally.request_id, tally.tenant or "", provider_id, via="missing", canonical_name=canonical)
    return KeyResolved(
        request_id=tally.request_id,
        tenant=tally.tenant or "",
        provider=provider_id,
        via=found.via.value,
        setting_key=found.setting_key,
        store=found.store.value,
        canonical_name=canonical,
    )
