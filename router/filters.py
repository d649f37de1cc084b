"""The filters: small questions to an offer, each answered with None (it passes) or a denial that says why.

Owns the rules and their order: what is wrong with the offer itself, then with key and plan, then with the fit. A filter
is a function of an offer and the circumstances of the request for its provider. Must not know ranking, other offers, or
how an answer is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from keystore.providers import Provider
from router.catalogue import Capability, Offer
from router.entitlement import Entitlements
from router.needs import Needs
from router.prices import MTOK, Prices, ServiceTier, prices_at, usd
from router.query import Holding, KeySource, Lacking, Preferences, Query
from router.reasons import Denial, Reason


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a filter may know besides the offer: one record for each provider and each wish of a decision."""

    query: Query
    named: bool  # the caller named the model; False: Wardgate chooses
    provider: Provider
    key: Holding | Lacking
    entitlements: Entitlements
    min_quality: int = 0  # of a model that Wardgate chooses
    unknown_quality: bool = False  # it may also choose one whose quality is not known


Filter = Callable[[Offer, Circumstances], Denial | None]
KeyFilter = Callable[[Offer, Circumstances, Holding], Denial | None]


_ANSWERS: Final[Mapping[str, str]] = MappingProxyType(
    {"chat": "chat completions", "embedding": "embeddings", "completion": "text completions"}
)

# --- the offer itself -----------------------------------------------------------------------------------------------


def is_of_mode(offer: Offer, at: Circumstances) -> Denial | None:
    """An embedding or image model does not answer chat."""
    if offer.mode in at.query.modes:
        return None
    text = f"{offer.id} does not answer {_ANSWERS.get(at.query.modes[0], 'this')}: its mode is {offer.mode!r}"
    return Denial(Reason.MODEL_UNKNOWN, text)


def is_enabled(offer: Offer, _: Circumstances) -> Denial | None:
    """A model that the operator switched off in wardgate.toml is not asked for."""
    return Denial(Reason.MODEL_DISABLED, f"{offer.id} is switched off by the operator") if offer.disabled else None


def is_served(_: Offer, at: Circumstances) -> Denial | None:
    """A retired provider gets no traffic, though its names still resolve keys."""
    if not at.provider.retired:
        return None
    return Denial(Reason.PROVIDER_RETIRED, f"{at.provider.id} is retired and no longer served")


def is_current(offer: Offer, at: Circumstances) -> Denial | None:
    """A model past its provider's date is not asked for."""
    if offer.deprecated_on is None or at.query.today < offer.deprecated_on:
        return None
    return Denial(Reason.MODEL_DEPRECATED, f"{offer.id} was withdrawn by its provider on {offer.deprecated_on}")


# --- key and plan ---------------------------------------------------------------------------------------------------

_HOLDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "empty": "is empty",
        "placeholder": "holds a placeholder",
        "masked": "holds a masked key",
        "reference": "holds a reference to a key kept elsewhere, which is never followed",
        "control_characters": "holds characters that no header can carry",
        "oversized": "holds more than a key can be",
        "encrypted": "holds a value encrypted by another system",
        "damaged": "holds a sealed key that does not open",
        "wrong_host": "holds a key sealed for other hosts (set it again)",
    }
)


def describe_unusable(setting_key: str, why: str) -> str:
    """A stored name and what is wrong with its value: "MINIMAX_API_KEY holds a placeholder"."""
    return f"{setting_key} {_HOLDS.get(why, f'holds no usable key ({why})')}"


def lacks_key(offer: Offer, at: Circumstances, key: Lacking) -> Denial:
    """Without a usable key nothing is sent; another party's key is never taken instead."""
    if _is_the_operators(offer, at, holds_something=bool(key.unusable)):
        return _not_lent(offer, at)
    detail = f"{key.provider_id} needs a key: looked for {', '.join(key.tried) or 'none'}"
    detail += "".join(f"; {describe_unusable(setting_key, why)}" for setting_key, why in key.unusable)
    if not at.query.plan.byok:
        detail += f"; {_takes_no_keys(offer, at)}"
    return Denial(Reason.KEY_UNUSABLE if key.unusable else Reason.NO_CREDENTIAL, detail)


def may_be_managed(_: Offer, at: Circumstances, key: Holding) -> Denial | None:
    """The operator's key is used where the operator opened it to the tenant, and nowhere else."""
    if key.source is KeySource.BYOK or at.query.managed:
        return None
    detail = f"{key.provider_id} needs the tenant's own key: the operator's keys are not open to this tenant"
    return Denial(Reason.NO_CREDENTIAL, detail)


def _is_the_operators(offer: Offer, at: Circumstances, *, holds_something: bool) -> bool:
    """Whether the operator's key alone would do, and there is none. Where the plan takes keys of tenants, nothing is
    lent in the place of what the tenant holds, so that nothing is known of the operator's."""
    allows, plan = at.entitlements.allows, at.query.plan
    if plan.byok and holds_something:
        return False
    return allows(plan, offer, KeySource.MANAGED) and not allows(plan, offer, KeySource.BYOK)


def _not_lent(offer: Offer, at: Circumstances) -> Denial:
    own = _not_in_plan(offer, at, KeySource.BYOK) if at.query.plan.byok else _takes_no_keys(offer, at)
    return Denial(Reason.NO_OPERATOR_KEY, f"the operator has no usable key for {offer.provider_id}; {own}")


def _takes_no_keys(offer: Offer, at: Circumstances) -> str:
    text = f"plan {at.query.plan.name!r} takes no keys of tenants"
    other = at.entitlements.unlocking(at.query.plan, offer, KeySource.BYOK)
    return f"{text}, the nearest plan that does is {other.name!r}" if other else text


def token_allows(offer: Offer, at: Circumstances, _: Holding) -> Denial | None:
    """A token that lists models is for these alone, whatever the plan has."""
    allowed = at.query.allowed_models
    if not allowed or at.entitlements.holds(allowed, offer):
        return None
    return Denial(Reason.MODEL_NOT_IN_TOKEN, f"this token is for {', '.join(allowed)}, and not for {offer.id}")


def plan_allows(offer: Offer, at: Circumstances, key: Holding) -> Denial | None:
    """The plan's list binds the operator's keys, its byok switch and list the tenant's own."""
    plan = at.query.plan
    if at.entitlements.allows(plan, offer, key.source):
        return None
    if key.source is KeySource.BYOK and _is_the_operators(offer, at, holds_something=True):
        return _not_lent(offer, at)
    if key.source is KeySource.BYOK and not plan.byok:
        detail = f"{key.setting_key} is the tenant's own key, and {_takes_no_keys(offer, at)}"
        return Denial(Reason.BYOK_NOT_IN_PLAN, detail)
    return Denial(Reason.MODEL_NOT_IN_PLAN, _not_in_plan(offer, at, key.source))


def _not_in_plan(offer: Offer, at: Circumstances, source: KeySource) -> str:
    plan, whose = at.query.plan, "the tenant's own key" if source is KeySource.BYOK else "the operator's key"
    other = at.entitlements.unlocking(plan, offer, source)
    text = f"plan {plan.name!r} does not include {offer.id} with {whose}"
    return f"{text}; the nearest plan that does is {other.name!r}" if other else text


# --- price and size -------------------------------------------------------------------------------------------------

# A model that reads less than this is a classifier or a relic, whatever the price map calls it (a prompt guard reads
# 512 tokens, an image model's entry 4096); `auto` is for work.
AUTO_LEAST_WINDOW: Final = 8_192


_FEE: Final = "{} searches unasked, for a fee that is not known"


def is_priced(offer: Offer, at: Circumstances) -> Denial | None:
    """An unpriced model is never free, and never below a limit; nor is one whose price is not known for so long an
    input, or at the service tier that is asked for."""
    needs, wishes = at.query.needs, at.query.preferences
    if _prices_for(offer, needs).known:
        return Denial(Reason.UNPRICED, _FEE.format(offer.id), certain=False) if offer.fee_unknown else None
    limited = wishes.max_input_price is not None or wishes.max_output_price is not None
    where = (
        "" if not offer.prices.known else f" for {needs.input_tokens} tokens at service tier {needs.service.value!r}"
    )
    tail = ", so it cannot be held to `provider.max_price`" if limited else ""
    return Denial(Reason.UNPRICED, f"the price of {offer.id} is not known{where}{tail}", certain=limited)


def _prices_for(offer: Offer, needs: Needs) -> Prices:
    prices = offer.prices
    return prices_at(prices if needs.service is ServiceTier.STANDARD else prices.of(needs.service), needs.input_tokens)


def is_affordable(offer: Offer, at: Circumstances) -> Denial | None:
    """The prices that apply to an input of this size must not be above the request's limits."""
    wishes = at.query.preferences
    if wishes.max_input_price is None and wishes.max_output_price is None:
        return None
    prices = _prices_for(offer, at.query.needs)
    for what, price, most in (
        ("prompt", prices.input, wishes.max_input_price),
        ("completion", prices.output, wishes.max_output_price),
    ):
        if most is not None and price is not None and price > most:
            told = f"{offer.id} takes {usd(price * MTOK)} USD for a million {what} tokens"
            return Denial(Reason.OVER_MAX_PRICE, f"{told}, and `provider.max_price.{what}` is {usd(most * MTOK)}")
    return None


def reads_enough(offer: Offer, at: Circumstances) -> Denial | None:
    """The input must fit; it is an estimate, so only an excess beyond its error is certain."""
    asked, room = at.query.needs.input_tokens, offer.max_input_tokens
    if room is not None and asked > room:
        detail = f"{offer.id} reads at most {room} tokens, and the input has about {asked}"
        # An estimate may be a quarter too high; what is more than that above the limit does not fit.
        return Denial(Reason.CONTEXT_TOO_SMALL, detail, certain=asked * 4 > room * 5)
    return None


def reads_for_auto(offer: Offer, at: Circumstances) -> Denial | None:
    """Where Wardgate chooses, a model must be known to read a useful amount."""
    room = offer.max_input_tokens
    if at.named or (room is not None and room >= AUTO_LEAST_WINDOW):
        return None
    known = "an unknown number of" if room is None else f"at most {room}"
    detail = f"{offer.id} reads {known} tokens; a model chosen by Wardgate reads {AUTO_LEAST_WINDOW} or more"
    return Denial(Reason.CONTEXT_TOO_SMALL, detail)


def writes_enough(offer: Offer, at: Circumstances) -> Denial | None:
    """The answer must fit. Price maps lag behind providers here, so it is never certain."""
    asked, room = at.query.needs.max_output_tokens, offer.max_output_tokens
    if asked is None or room is None or asked <= room:
        return None
    detail = f"{offer.id} is listed to write at most {room} tokens, and {asked} are asked for"
    return Denial(Reason.OUTPUT_TOO_SMALL, detail, certain=False)


# --- quality --------------------------------------------------------------------------------------------------------


def is_good_enough(offer: Offer, at: Circumstances) -> Denial | None:
    """Where Wardgate chooses, a model's quality must be known and not below the floor of plan, request and alias."""
    if at.named or (offer.quality is None and at.unknown_quality):
        return None
    if offer.quality is None:
        told = f"the quality of {offer.id} is not known, and `auto` takes such a model only when it is allowed"
        return Denial(Reason.BELOW_MIN_QUALITY, f"{told} (`wardgate.unknown_quality`)")
    if offer.quality.score >= at.min_quality:
        return None
    told = f"{offer.id} has the quality {offer.quality.score}, and the floor for automatic choice is {at.min_quality}"
    return Denial(Reason.BELOW_MIN_QUALITY, told, margin=at.min_quality - offer.quality.score)


# --- abilities ------------------------------------------------------------------------------------------------------

_ABILITIES: Final[Mapping[Capability, tuple[Reason, str]]] = MappingProxyType(
    {
        Capability.TOOLS: (Reason.LACKS_TOOLS, "call tools"),
        Capability.PARALLEL_TOOLS: (Reason.LACKS_PARAMETER, "call several tools at once (parallel_tool_calls)"),
        Capability.TOOL_CHOICE: (Reason.LACKS_TOOLS, "be told which tool to call (tool_choice)"),
        Capability.VISION: (Reason.LACKS_VISION, "see images"),
        Capability.JSON_SCHEMA: (Reason.LACKS_JSON_SCHEMA, "hold its answer to a JSON schema"),
        Capability.AUDIO_INPUT: (Reason.LACKS_AUDIO, "hear audio"),
        Capability.AUDIO_OUTPUT: (Reason.LACKS_AUDIO, "speak"),
        Capability.PDF_INPUT: (Reason.LACKS_VISION, "read files"),
        Capability.VIDEO_INPUT: (Reason.LACKS_VISION, "see videos"),
        Capability.REASONING: (Reason.LACKS_PARAMETER, "be told how much to reason (reasoning_effort)"),
        Capability.PROMPT_CACHING: (Reason.LACKS_PARAMETER, "cache prompts"),
        Capability.WEB_SEARCH: (Reason.LACKS_PARAMETER, "search the web"),
    }
)

# What these are needed for is left out where the request allows it (gateway.carrying).
MAY_BE_DROPPED: Final = frozenset({Capability.REASONING, Capability.PARALLEL_TOOLS})

# `parallel_tool_calls: true` allows what is the default; a model of which nothing is known may take it.
_HARMLESS_UNKNOWN: Final = frozenset({Capability.PARALLEL_TOOLS})


def _ability(capability: Capability) -> Filter:
    reason, ability = _ABILITIES[capability]

    def is_able(offer: Offer, at: Circumstances) -> Denial | None:
        if at.query.preferences.drop_parameters and capability in MAY_BE_DROPPED:
            return None
        known = offer.capabilities.get(capability)
        if known is False:
            return Denial(reason, f"{offer.id} cannot {ability}")
        if known or capability in _HARMLESS_UNKNOWN:
            return None
        return Denial(reason, f"it is not known whether {offer.id} can {ability}", certain=False)

    return is_able


# --- whom the request wants -----------------------------------------------------------------------------------------


def left_out(wishes: Preferences, provider_id: str) -> str | None:
    """Why the request leaves a provider out with `provider.only`, `provider.ignore`, or `provider.order` without
    fallbacks; None when it does not."""
    if wishes.only and provider_id not in wishes.only:
        return f"`provider.only` is {', '.join(wishes.only)}"
    if provider_id in wishes.ignore:
        return f"`provider.ignore` names {provider_id}"
    if wishes.order and not wishes.allow_fallbacks and provider_id not in wishes.order:
        return f"`provider.order` is {', '.join(wishes.order)}, and `provider.allow_fallbacks` is false"
    return None


def is_wanted(_: Offer, at: Circumstances) -> Denial | None:
    """Asked last: what is left out would have done, so that another request is all it takes."""
    told = left_out(at.query.preferences, at.provider.id)
    return Denial(Reason.EXCLUDED_BY_REQUEST, told) if told else None


# In the order in which they are asked. The first denial that counts is the offer's reason, so a reason further down
# means a nearer miss.
OFFER_FILTERS: Final[tuple[Filter, ...]] = (is_of_mode, is_enabled, is_served, is_current)
KEY_FILTERS: Final[tuple[KeyFilter, ...]] = (may_be_managed, token_allows, plan_allows)
FIT_FILTERS: Final[tuple[Filter, ...]] = (
    is_priced,
    is_affordable,
    reads_enough,
    reads_for_auto,
    writes_enough,
)
ABILITY_FILTERS: Final[Mapping[Capability, Filter]] = MappingProxyType(
    {capability: _ability(capability) for capability in Capability}
)


def fit_filters(needs: Needs) -> tuple[Filter, ...]:
    """What is asked about the fit of an offer to a request with these needs, in order."""
    if not needs.capabilities:
        return (*FIT_FILTERS, is_good_enough, is_wanted)
    able = (ask for capability, ask in ABILITY_FILTERS.items() if capability in needs.capabilities)
    return (*FIT_FILTERS, *able, is_good_enough, is_wanted)


@dataclass(frozen=True, slots=True)
class Passed:
    """Nothing stands against the offer: the key to use, and what is not certain about a model the caller named."""

    key: Holding
    doubts: tuple[Denial, ...]


def judge(offer: Offer, at: Circumstances, fits: Sequence[Filter]) -> Passed | Denial:
    """The first denial that counts; `fits` are the `fit_filters` of the request. Where the caller named the model, a
    denial that is not certain is a doubt only."""
    for ask in OFFER_FILTERS:
        denial = ask(offer, at)
        if denial is not None:
            return denial
    key = at.key
    if isinstance(key, Lacking):
        return lacks_key(offer, at, key)
    for ask_key in KEY_FILTERS:
        denial = ask_key(offer, at, key)
        if denial is not None:
            return denial
    doubts: tuple[Denial, ...] = ()
    for ask in fits:
        denial = ask(offer, at)
        if denial is None:
            continue
        if denial.certain or not at.named:
            return denial
        doubts += (denial,)
    return Passed(key, doubts)
