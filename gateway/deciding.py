"""From a tenant and its keyring to the router's question, and from an empty answer to an error. No I/O."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from weakref import ref

from gateway.aliasing import AliasesOf
from gateway.carrying import Carried, carried
from gateway.chat_request import ChatRequest
from gateway.errors import ApiError, Problem, bad_request
from gateway.events import Events, KeyResolved, RouteRefused
from gateway.keys_in_turn import key_id
from gateway.refusals import Refused
from gateway.tally import Tally
from keystore.budgets import NO_BUDGETS
from keystore.holdings import Holding as HeldKey
from keystore.keyring import Keyring
from keystore.providers import Registry, Wire, setting_key_of
from keystore.resolve import Found, Missing
from keystore.tenants import Tenant
from router.aliases import ALIAS_NAME, AUTO, NO_ALIASES, Aliases
from router.catalogue import Catalogue, Offer
from router.decision import Decision, Rejection, Router, settled
from router.errors import AliasError, PreferenceError
from router.explain import refusal
from router.health import ALL_WELL, HealthView
from router.needs import Needs, read_needs
from router.plans import Plan, Plans
from router.preferences import read_preferences
from router.query import (
    NO_HABITS,
    NO_PACES,
    Habits,
    Holding,
    Holdings,
    KeySource,
    Lacking,
    Paces,
    Preferences,
    Query,
)
from router.ranking import Candidate
from router.reasons import Fault, Reason

NO_PLAN = "tenant_plan_unknown"
SERVED = ("chat", "responses", "embedding", "completion")  # modes of models that some surface serves
NO_KEY = frozenset({Reason.NO_CREDENTIAL, Reason.NO_OPERATOR_KEY})
MAX_SHOWN = 128  # characters of a field's name
KEYRINGS = 10_000  # whose holdings are remembered


def holdings(keyring: Keyring) -> Holdings:
    """What the tenant can use, in the router's words: the names under which its keys are stored, never a value."""
    return Holdings(
        _holding(found, keyring.choices.get(provider_id, ()), keyring.tenant_id, lent=provider_id in keyring.lent)
        for provider_id, found in keyring.resolutions.items()
    )


def _holding(found: Found | Missing, choices: Sequence[HeldKey], tenant_id: str, *, lent: bool) -> Holding | Lacking:
    skipped = tuple((item.setting_key, item.why.value) for item in found.skipped)
    if isinstance(found, Missing):
        return Lacking(found.provider_id, tried=found.tried, unusable=skipped)
    return Holding(
        found.provider_id,
        source=KeySource.MANAGED if lent else KeySource.BYOK,
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


class Held:
    """What was said of the keyrings that were used last: worked out once for each. The keyrings themselves, which may
    hold keys in plain text, are kept by nobody here."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[ref[Keyring], Holdings]] = OrderedDict()

    def of(self, keyring: Keyring) -> Holdings:
        """The holdings of this very keyring."""
        known = self._known.get(id(keyring))
        if known is None or known[0]() is not keyring:
            known = self._known[id(keyring)] = (ref(keyring), holdings(keyring))
            if len(self._known) > KEYRINGS:
                self._known.popitem(last=False)
        return known[1]


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The rows that every decision is a function of, and what was worked out from them."""

    registry: Registry
    plans: Plans
    catalogue: Catalogue
    aliases: Aliases = NO_ALIASES
    aliases_of: AliasesOf = field(init=False, repr=False)
    router: Router = field(init=False, repr=False)
    held: Held = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "aliases_of", AliasesOf(self.aliases))
        object.__setattr__(self, "router", Router(self.catalogue, self.registry, self.plans))
        object.__setattr__(self, "held", Held())


def decide(
    request: ChatRequest,
    tenant: Tenant,
    keyring: Keyring,
    book: RuleBook,
    today: date,
    *,
    allowed_models: tuple[str, ...] = (),
    enough: int | None = None,
    habits: Habits = NO_HABITS,
    paces: Paces = NO_PACES,
    health: HealthView = ALL_WELL,
) -> Decision:
    """Rank what this tenant may use for `request` today; raises ApiError when the tenant's plan has no row.
    `allowed_models` are those that the caller's token is for; empty: all.

    `enough` spares work on a request that is served: behind so many candidates that can take it, the others are not
    looked at for what their wire cannot carry. None looks at all, for an explanation.
    """
    needs, asked = corrected(read_needs(request.body), habits), request.asked or request.body
    if keyring.lent or keyring.budgets is not NO_BUDGETS:
        needs = needs.bounded(request.size, asked)
    else:
        needs = needs.with_fees(asked)
    query = Query(
        model=request.model,
        needs=needs,
        plan=_plan_of(tenant, book),
        default_model=tenant.default_model,
        today=today,
        tenant=tenant.slug,
        allowed_models=allowed_models,
        modes=request.surface.modes,
        models=request.models,
        aliases=_aliases(request, tenant, book),
        preferences=_preferences(request, book.registry),
        habits=habits,
        paces=paces,
        managed=bool(keyring.lent),
    )
    fitting = book.router.fitting(query, book.held.of(keyring))
    if health.troubled or not query.preferences.allow_fallbacks:  # who is left alone must be able to carry the request
        return settled(_without_untranslatable(fitting, request, book.registry, enough, health), health)
    return _without_untranslatable(settled(fitting, health), request, book.registry, enough, health)


def _aliases(request: ChatRequest, tenant: Tenant, book: RuleBook) -> Aliases:
    try:
        return book.aliases_of.of(tenant)
    except AliasError as error:
        if not any(_may_be_alias(name) for name in (request.model, *request.models)):
            return book.aliases  # a name that cannot be an alias means the same under any
        message = f"The tenant's aliases for models cannot be used: {error}."
        raise ApiError(Problem(400, "alias_invalid", message, Fault.CALLER, param="model")) from None


def _may_be_alias(name: str) -> bool:
    """ "auto" and its objectives are none, "default" may stand for one."""
    word = name.lower()
    return word == "default" or (ALIAS_NAME.fullmatch(word) is not None and word != AUTO)


def corrected(needs: Needs, habits: Habits) -> Needs:
    """The needs with an input as long as this tenant's inputs really are, beside their estimate."""
    if habits.input_ratio == 1:
        return needs
    return needs.corrected(int(needs.input_tokens * habits.input_ratio))


def _preferences(request: ChatRequest, registry: Registry) -> Preferences:
    try:
        return read_preferences(request.body, registry)
    except PreferenceError as error:
        raise bad_request(f"{error}.", param=error.param) from None


def _without_untranslatable(
    decision: Decision, request: ChatRequest, registry: Registry, enough: int | None, health: HealthView
) -> Decision:
    """The decision without candidates on a wire into which this request cannot be translated without loss. Behind
    `enough` that can take it and are well, nobody is looked at: each look costs as much as the body is long."""
    ranked: list[Candidate] = []
    good = 0
    rejected: list[Rejection] = []
    whole_wire: dict[tuple[Wire, str], Refused] = {}  # what messages hold is refused for every model of a wire
    may_drop = decision.query.preferences.drop_parameters
    for candidate in decision.ranked:
        offer, provider = candidate.offer, registry.get(candidate.offer.provider_id)
        if provider is None or (enough is not None and good >= enough):
            ranked.append(candidate)
            continue
        wire = (provider.wire, provider.litellm_prefix)
        found = whole_wire.get(wire) or carried(provider, offer, request, may_drop=may_drop)
        if isinstance(found, Carried):
            good += health.denial(offer, candidate.holding) is None
            ranked.append(replace(candidate, dropped=found.dropped) if found.dropped else candidate)
            continue
        if found.param.startswith("messages"):
            whole_wire[wire] = found
        detail = found.sentence.rstrip(".")
        why = Rejection(
            offer.id, offer.provider_id, offer.model, Reason.LACKS_PARAMETER, detail, param=found.param[:MAX_SHOWN]
        )
        rejected.append(why)
    if not rejected and tuple(ranked) == decision.ranked:
        return decision
    return replace(decision, ranked=tuple(ranked), rejected=decision.rejected.and_also(rejected))


def usable_offers(
    tenant: Tenant, keyring: Keyring, book: RuleBook, today: date, *, allowed_models: tuple[str, ...] = ()
) -> list[Offer]:
    """The models that this tenant could name now, ordered by id."""
    needs = Needs(input_tokens=0, max_output_tokens=None, capabilities=frozenset(), stream=False)
    query = Query(
        model="auto",
        needs=needs,
        plan=_plan_of(tenant, book),
        default_model=tenant.default_model,
        today=today,
        tenant=tenant.slug,
        allowed_models=allowed_models,
        modes=SERVED,
        managed=bool(keyring.lent),
    )
    decision = book.router.usable(query, book.held.of(keyring))
    return sorted((candidate.offer for candidate in decision.ranked), key=lambda offer: offer.id)


def _plan_of(tenant: Tenant, book: RuleBook) -> Plan:
    plan = book.plans.get(tenant.plan)
    if plan is None:
        message = f"The tenant {tenant.slug} is on the plan {tenant.plan!r}, which this gateway does not know."
        raise ApiError(Problem(403, NO_PLAN, message, Fault.PLAN))
    return plan


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
    lacking = {item.provider_id for item in decision.rejected if item.reason in NO_KEY}
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
