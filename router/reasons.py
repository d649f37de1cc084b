"""Why a model lost: the closed set of reasons, whose fault each is, and one plain sentence each.

Owns the words that appear in error bodies, explanations and metric labels; they are public API and are never renamed.
Must not know offers, plans, keys or how a reason is found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Fault(StrEnum):
    """Whose it is to mend: the same word in body, metric and log."""

    CALLER = "caller"
    TENANT_KEY = "tenant_key"
    PLAN = "plan"
    PROVIDER = "provider"
    GATEWAY = "gateway"


class Reason(StrEnum):
    """Why an offer is not a candidate."""

    NO_CREDENTIAL = "no_credential"
    KEY_UNUSABLE = "key_unusable"
    KEY_REJECTED = "key_rejected"
    NO_OPERATOR_KEY = "no_operator_key"
    BYOK_NOT_IN_PLAN = "byok_not_in_plan"
    MODEL_NOT_IN_PLAN = "model_not_in_plan"
    MODEL_NOT_IN_TOKEN = "model_not_in_token"  # noqa: S105 - a word
    PROVIDER_RETIRED = "provider_retired"
    MODEL_DEPRECATED = "model_deprecated"
    MODEL_DISABLED = "model_disabled"
    MODEL_UNKNOWN = "model_unknown"
    UNPRICED = "unpriced"
    OVER_MAX_PRICE = "over_max_price"
    CONTEXT_TOO_SMALL = "context_too_small"
    OUTPUT_TOO_SMALL = "output_too_small"
    LACKS_TOOLS = "lacks_tools"
    LACKS_VISION = "lacks_vision"
    LACKS_JSON_SCHEMA = "lacks_json_schema"
    LACKS_AUDIO = "lacks_audio"
    LACKS_PARAMETER = "lacks_parameter"
    BELOW_MIN_QUALITY = "below_min_quality"
    EXCLUDED_BY_REQUEST = "excluded_by_request"
    COOLING_DOWN = "cooling_down"
    BUDGET_EXHAUSTED = "budget_exhausted"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason says: whose fault it is and one sentence for people, without a full stop."""

    fault: Fault
    sentence: str


REASONS: Final[Mapping[Reason, Meaning]] = MappingProxyType(
    {
        Reason.NO_CREDENTIAL: Meaning(Fault.TENANT_KEY, "no key for this provider is stored"),
        Reason.KEY_UNUSABLE: Meaning(Fault.TENANT_KEY, "what is stored for this provider is not a usable key"),
        Reason.KEY_REJECTED: Meaning(Fault.TENANT_KEY, "the provider rejected the key and it has not changed since"),
        Reason.NO_OPERATOR_KEY: Meaning(
            Fault.PLAN, "the plan includes this model with the operator's key alone, and the operator has none"
        ),
        Reason.BYOK_NOT_IN_PLAN: Meaning(Fault.PLAN, "the plan does not take tenants' own keys"),
        Reason.MODEL_NOT_IN_PLAN: Meaning(Fault.PLAN, "the plan does not include this model"),
        Reason.MODEL_NOT_IN_TOKEN: Meaning(Fault.CALLER, "the caller's token is not for this model"),
        Reason.PROVIDER_RETIRED: Meaning(Fault.CALLER, "the provider is no longer served"),
        Reason.MODEL_DEPRECATED: Meaning(Fault.CALLER, "the provider has withdrawn this model"),
        Reason.MODEL_DISABLED: Meaning(Fault.CALLER, "the operator has switched this model off"),
        Reason.MODEL_UNKNOWN: Meaning(Fault.CALLER, "no provider serves a model of this name for this kind of request"),
        Reason.UNPRICED: Meaning(Fault.GATEWAY, "the price is not known, and an unknown price is never taken for zero"),
        Reason.OVER_MAX_PRICE: Meaning(Fault.CALLER, "the price is above the request's limit"),
        Reason.CONTEXT_TOO_SMALL: Meaning(Fault.CALLER, "the model cannot read an input of this size"),
        Reason.OUTPUT_TOO_SMALL: Meaning(Fault.CALLER, "the model cannot write an answer of this size"),
        Reason.LACKS_TOOLS: Meaning(Fault.CALLER, "the model cannot call tools as the request asks"),
        Reason.LACKS_VISION: Meaning(Fault.CALLER, "the model cannot see the images, videos or files of the request"),
        Reason.LACKS_JSON_SCHEMA: Meaning(Fault.CALLER, "the model cannot hold its answer to a JSON schema"),
        Reason.LACKS_AUDIO: Meaning(Fault.CALLER, "the model cannot hear or speak as the request asks"),
        Reason.LACKS_PARAMETER: Meaning(Fault.CALLER, "the model does not take a parameter of the request"),
        Reason.BELOW_MIN_QUALITY: Meaning(Fault.PLAN, "the model's quality is below the floor for automatic choice"),
        Reason.EXCLUDED_BY_REQUEST: Meaning(Fault.CALLER, "the request itself leaves this provider or model out"),
        Reason.COOLING_DOWN: Meaning(Fault.PROVIDER, "the provider failed lately and is given time to recover"),
        Reason.BUDGET_EXHAUSTED: Meaning(Fault.PLAN, "the budget for the operator's keys is spent"),
    }
)


@dataclass(frozen=True, slots=True)
class Denial:
    """A filter's no: the word, the case in a sentence without a full stop, and whether it is certain.

    A denial that is not certain (an unknown capability, an unknown price, an estimate near a limit) makes an offer
    lose where Wardgate chooses; where the caller named the model it is noted, and the provider has the last word.
    """

    reason: Reason
    detail: str
    certain: bool = True
    margin: int = 0  # by how much it missed, where that can be told: of two that missed, the nearer is told
    lent: bool = False  # of a key that the operator lends: not the tenant's to mend
