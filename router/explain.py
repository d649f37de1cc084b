"""Telling a decision: as JSON for machines, as sentences for people, and as a refusal when nothing is left.

Owns the shape of what POST /v1/route answers, which reason speaks for an empty ranking, and the status that follows
from it. Money is text with all its digits. Must not know how a decision was made.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from router.decision import Candidate, Decision, Rejection
from router.errors import quoted
from router.filters import describe_unusable, left_out
from router.fixes import fix_for
from router.needs import Needs
from router.prices import MTOK, Prices, usd
from router.quality import Quality
from router.query import Habits, Holding, KeySource, Preferences
from router.reasons import REASONS, Fault, Reason

# --- refusals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """How an empty ranking is answered when this reason speaks for it."""

    status: int
    code: str
    param: str | None = None


# The most useful reason first: what would work in a while, then what the caller can change in the request, then plan
# and key, then what can only be asked for under another name. WIRE.md 5.1: 401 is for the gateway's own token alone,
# and statuses that SDKs have no class for are not used (424 is for keys that a provider rejected).
_ANSWERS: Final[Mapping[Reason, _Answer]] = MappingProxyType(
    {
        Reason.COOLING_DOWN: _Answer(503, "provider_cooling_down"),
        Reason.BUDGET_EXHAUSTED: _Answer(429, "insufficient_quota"),
        Reason.EXCLUDED_BY_REQUEST: _Answer(400, "excluded_by_request", "provider"),
        Reason.OVER_MAX_PRICE: _Answer(400, "over_max_price", "provider"),
        Reason.LACKS_PARAMETER: _Answer(400, "unsupported_parameter"),
        Reason.LACKS_JSON_SCHEMA: _Answer(400, "unsupported_parameter", "response_format"),
        Reason.LACKS_AUDIO: _Answer(400, "unsupported_parameter", "messages"),
        Reason.LACKS_VISION: _Answer(400, "unsupported_parameter", "messages"),
        Reason.LACKS_TOOLS: _Answer(400, "unsupported_parameter", "tools"),
        Reason.OUTPUT_TOO_SMALL: _Answer(400, "max_tokens_too_large", "max_tokens"),
        Reason.CONTEXT_TOO_SMALL: _Answer(400, "context_length_exceeded", "messages"),
        Reason.BELOW_MIN_QUALITY: _Answer(403, "below_min_quality", "model"),
        Reason.MODEL_NOT_IN_TOKEN: _Answer(403, "token_model_not_allowed", "model"),
        Reason.KEY_REJECTED: _Answer(424, "provider_key_rejected"),
        Reason.NO_OPERATOR_KEY: _Answer(403, "operator_key_missing", "model"),
        Reason.BYOK_NOT_IN_PLAN: _Answer(403, "plan_byok_not_allowed", "model"),
        Reason.MODEL_NOT_IN_PLAN: _Answer(403, "plan_model_not_allowed", "model"),
        Reason.KEY_UNUSABLE: _Answer(403, "provider_key_unusable"),
        Reason.NO_CREDENTIAL: _Answer(403, "provider_key_missing"),
        Reason.UNPRICED: _Answer(400, "model_unpriced", "model"),
        Reason.MODEL_DEPRECATED: _Answer(404, "model_deprecated", "model"),
        Reason.MODEL_DISABLED: _Answer(404, "model_disabled", "model"),
        Reason.PROVIDER_RETIRED: _Answer(404, "provider_retired", "model"),
        Reason.MODEL_UNKNOWN: _Answer(404, "model_not_found", "model"),
    }
)
_OTHERS: Final = 3  # names that a sentence lists before it counts the rest
_USEFULNESS: Final[Mapping[Reason, int]] = MappingProxyType({reason: place for place, reason in enumerate(_ANSWERS)})


@dataclass(frozen=True, slots=True)
class ReasonAnswer:
    """What is answered when a reason speaks for an empty ranking; `place` is its usefulness, the most useful first."""

    place: int
    status: int
    code: str
    param: str | None


def answer_of(reason: Reason) -> ReasonAnswer:
    """The answer of one reason, for documentation."""
    answer = _ANSWERS[reason]
    return ReasonAnswer(_USEFULNESS[reason], answer.status, answer.code, answer.param)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a query that nothing is left for."""

    status: int
    code: str
    fault: Fault
    message: str
    param: str | None
    counts: dict[str, int]  # reason -> offers
    nearest_miss: str  # a sentence without a full stop


def refusal(decision: Decision) -> Refusal:
    """Why no one answers, from the most useful reason. Raises ValueError when someone could."""
    miss = nearest_miss(decision)
    if decision.ranked or miss is None:
        raise ValueError("a decision with candidates, or without anything considered, is no refusal")
    answer = _ANSWERS[miss.reason]
    return Refusal(
        status=answer.status,
        code=answer.code,
        fault=Fault.GATEWAY if miss.lent else REASONS[miss.reason].fault,
        message=_refusal_message(decision, miss),
        param=answer.param or miss.param,
        counts=decision.counts,
        nearest_miss=miss.detail,
    )


def nearest_miss(decision: Decision) -> Rejection | None:
    """The rejection that came nearest to a candidate: not of a provider that the request leaves out, unless that alone
    stood against it; of the most useful reason; the one that missed by the least; the default model's before its
    provider's, before all others by id."""
    default = decision.default_id.lower()
    provider_id = default.partition("/")[0]

    def distance(each: Rejection) -> tuple[bool, int, int, bool, bool, str]:
        is_default = each.offer_id.lower() == default
        alone = each.reason is Reason.EXCLUDED_BY_REQUEST or not each.provider_id
        unwanted = not alone and left_out(decision.query.preferences, each.provider_id) is not None
        place = (not is_default, each.provider_id != provider_id, each.offer_id)
        return (unwanted, _USEFULNESS[each.reason], each.margin, *place)

    return min(decision.rejected, key=distance, default=None)


def _refusal_message(decision: Decision, miss: Rejection) -> str:
    sentence = f"No model can answer {quoted(decision.query.model)}: {miss.detail}."
    if miss.reason is Reason.NO_CREDENTIAL and decision.query.plan.byok:
        sentence += _other_keys(decision.rejected, miss)
    if len(decision.rejected) > 1:
        sentence += f" Considered {decision.considered}: {_counted(decision.counts)}."
    return sentence


def _other_keys(rejected: Iterable[Rejection], miss: Rejection) -> str:
    others = sorted({each.provider_id for each in rejected if each.reason is miss.reason} - {miss.provider_id})
    if not others:
        return ""
    more = f" and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
    return f" A key for another provider would do as well: {', '.join(others[:_OTHERS])}{more}."


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {reason}" for reason, count in ordered)


# --- sentences ------------------------------------------------------------------------------------------------------

_VIA: Final[Mapping[str, str]] = MappingProxyType(
    {
        "canonical": "",
        "family": ", the name of the provider's key family",
        "former": ", a name from before the provider was renamed",
        "sibling": ", the name of another provider of the same account",
    }
)


def summary(decision: Decision) -> str:
    """The decision in a sentence or two for people."""
    if not decision.ranked:
        return refusal(decision).message
    first = decision.ranked[0]
    text = f"{first.offer.id} answers first, {_expected(first)}, with {_whose_key(first.holding)}."
    if len(decision.ranked) > 1:
        text += f" Then {', '.join(each.offer.id for each in decision.ranked[1 : 1 + _OTHERS])}"
        text += f" and {len(decision.ranked) - 1 - _OTHERS} more." if len(decision.ranked) > 1 + _OTHERS else "."
    if decision.rejected:
        text += f" Rejected {len(decision.rejected)}: {_counted(decision.counts)}."
    return text


def key_remarks(holding: Holding) -> tuple[str, ...]:
    """What is worth knowing about the key that is used: skipped names and other values, each in a sentence."""
    skipped = (f"{describe_unusable(setting_key, why)} and was not used" for setting_key, why in holding.skipped)
    conflicts = (f"{name} holds another key than {holding.setting_key} and was not used" for name in holding.conflicts)
    told = [label or "the one without a label" for label in holding.labels]
    several = (f"{holding.setting_key} holds {len(told)} keys: {', '.join(told)}",) if len(told) > 1 else ()
    return (*several, *skipped, *conflicts)


def _expected(each: Candidate) -> str:
    if each.expected_cost is None:
        return "at an unknown price"
    return f"for about {usd(each.expected_cost)} USD"


def _whose_key(holding: Holding) -> str:
    whose = "the tenant's key" if holding.source is KeySource.BYOK else "the operator's key"
    return f"{whose} stored as {holding.setting_key}{_VIA.get(holding.via, '')}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def to_json(decision: Decision) -> dict[str, object]:
    """The whole decision, as POST /v1/route and `wardgate explain --json` give it. Holds no float."""
    miss = None if decision.ranked else nearest_miss(decision)
    return {
        "model": decision.query.model,
        "asked": decision.asked,
        "tenant": decision.query.tenant,
        "plan": decision.query.plan.name,
        "catalogue": decision.catalogue_version,
        "aliases": list(decision.aliases),
        "preferences": _preferences(decision.query.preferences),
        "needs": _needs(decision.query.needs, decision.query.habits),
        "ranked": [_ranked(rank, each) for rank, each in enumerate(decision.ranked, start=1)],
        "rejected": [_rejected(each) for each in decision.rejected],
        "counts": decision.counts,
        "summary": summary(decision),
        "nearest_miss": miss.detail if miss else None,
        "fix": fix_of(decision, miss) if miss else None,
    }


def fix_of(decision: Decision, miss: Rejection) -> str:
    """What would make a rejected offer a candidate, in a sentence without a full stop."""
    return fix_for(
        miss.reason,
        tenant=decision.query.tenant,
        provider_id=miss.provider_id,
        model=miss.offer_id,
        takes_keys=decision.query.plan.byok,
        lent=miss.lent,
    )


def _preferences(wishes: Preferences) -> dict[str, object]:
    """What the request said; prices for a million tokens."""
    return {
        "order": list(wishes.order),
        "only": list(wishes.only),
        "ignore": list(wishes.ignore),
        "objective": wishes.objective.value if wishes.objective else None,
        "max_input_usd_per_mtok": _per_mtok(wishes.max_input_price),
        "max_output_usd_per_mtok": _per_mtok(wishes.max_output_price),
        "allow_fallbacks": wishes.allow_fallbacks,
        "require_parameters": not wishes.drop_parameters,
        "min_quality": wishes.min_quality,
        "unknown_quality": wishes.unknown_quality,
    }


def _needs(needs: Needs, habits: Habits) -> dict[str, object]:
    return {
        "input_tokens": needs.input_tokens,
        "estimated_input_tokens": needs.uncorrected_tokens,
        "input_ratio": str(habits.input_ratio),
        "input_ratio_from_requests": habits.samples,
        "max_output_tokens": needs.max_output_tokens,
        "capabilities": sorted(capability.value for capability in needs.capabilities),
        "stream": needs.stream,
        "service_tier": needs.service.value,
        "answers": needs.answers,
    }


def _ranked(rank: int, each: Candidate) -> dict[str, object]:
    offer = each.offer
    return {
        "rank": rank,
        "id": offer.id,
        "provider": offer.provider_id,
        "model": offer.model,
        "family": offer.family,
        "expected_cost_usd": None if each.expected_cost is None else usd(each.expected_cost),
        "basis": {
            "input_tokens": each.basis.input_tokens,
            "cached_input_tokens": each.basis.cached_input_tokens,
            "output_tokens": each.basis.output_tokens,
            "output_assumed": each.basis.output_assumed,
            "output_from": each.basis.output_from.value,
        },
        "price": _price(offer.prices),
        "objective": each.objective.value,
        "quality": _quality(offer.quality),
        "expected_seconds": None if each.expected_s is None else str(round(each.expected_s, 3)),
        "dropped": list(each.dropped),
        "capabilities": {capability.value: known for capability, known in sorted(offer.capabilities.items())},
        "key": _key(each.holding),
        "window": {"max_input_tokens": offer.max_input_tokens, "max_output_tokens": offer.max_output_tokens},
        "doubts": [{"reason": doubt.reason.value, "detail": doubt.detail} for doubt in each.doubts],
    }


def _quality(quality: Quality | None) -> dict[str, object] | None:
    if quality is None:
        return None
    return {"score": quality.score, "source": quality.source, "dated": quality.dated.isoformat()}


def _price(prices: Prices) -> dict[str, object]:
    return {
        "input_usd_per_mtok": _per_mtok(prices.input),
        "cached_input_usd_per_mtok": _per_mtok(prices.cached_input),
        "output_usd_per_mtok": _per_mtok(prices.output),
        "tiers": [
            {
                "above_input_tokens": tier.above_input_tokens,
                "input_usd_per_mtok": _per_mtok(tier.input),
                "cached_input_usd_per_mtok": _per_mtok(tier.cached_input),
                "output_usd_per_mtok": _per_mtok(tier.output),
            }
            for tier in prices.tiers
        ],
    }


def _per_mtok(price: Decimal | None) -> str | None:
    return None if price is None else usd(price * MTOK)


def _key(holding: Holding) -> dict[str, object]:
    return {
        "source": holding.source.value,
        "via": holding.via,
        "setting_key": holding.setting_key,
        "store": holding.store,
        "labels": list(holding.labels),
        "skipped": [{"setting_key": setting_key, "why": why} for setting_key, why in holding.skipped],
        "conflicts": list(holding.conflicts),
        "remarks": list(key_remarks(holding)),
    }


def _rejected(each: Rejection) -> dict[str, object]:
    return {
        "id": each.offer_id,
        "provider": each.provider_id,
        "model": each.model,
        "reason": each.reason.value,
        "detail": each.detail,
    }
