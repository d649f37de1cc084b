"""What would make an offer a candidate after all: for each reason one plain sentence, filled in for the case.

Owns the sentences, without a full stop; {tenant}, {provider}, {setting_key} and {model} stand for the case's own. Must
not know how a reason is found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from keystore.providers import setting_key_of
from router.reasons import Reason

_STORE: Final = "`printf %s VALUE | wardgate key set {tenant} {setting_key}`, or PUT /v1/keys/{setting_key}"
FIXES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.NO_CREDENTIAL: f"store a key for {{provider}}: {_STORE}",
        Reason.KEY_UNUSABLE: f"store a real key in the place of what is there: {_STORE}",
        Reason.KEY_REJECTED: "look at the key with `wardgate key doctor {tenant} --live`, or store a new one:"
        f" {_STORE}",
        Reason.NO_OPERATOR_KEY: "tell the operator, who stores one for the tenant of `[managed]`: `printf %s VALUE |"
        " wardgate key set OPERATOR {setting_key}`; or ask for a model that GET /v1/models lists",
        Reason.BYOK_NOT_IN_PLAN: "move the tenant to a plan that takes own keys: `wardgate tenant set-plan {tenant}"
        " PLAN`; `wardgate plan simulate {tenant} --plan PLAN` says what else would change",
        Reason.MODEL_NOT_IN_PLAN: "ask for a model of the plan (GET /v1/models), or move the tenant to a plan that"
        " includes this one: `wardgate tenant set-plan {tenant} PLAN`; `wardgate plan simulate {tenant} --plan PLAN`"
        " says what else would change",
        Reason.MODEL_NOT_IN_TOKEN: "ask for a model that the token is for, or make a token that is for {model}:"
        " `wardgate token create {tenant} --allow-model {model}`",
        Reason.PROVIDER_RETIRED: "ask for a model of a provider in service: `wardgate provider list`",
        Reason.MODEL_DISABLED: "ask for another model; the operator switches this one on in `[models]`",
        Reason.MODEL_DEPRECATED: "ask for its successor; GET /v1/models lists what can be used",
        Reason.MODEL_UNKNOWN: "ask for a model by one of the names that GET /v1/models lists",
        Reason.UNPRICED: "name {model} in the request: an unknown price is a doubt there, and a no only where Wardgate"
        " chooses",
        Reason.OVER_MAX_PRICE: "raise the request's `max_price`, or leave it out",
        Reason.CONTEXT_TOO_SMALL: "send less, or ask for a model with a larger window",
        Reason.OUTPUT_TOO_SMALL: "ask for fewer output tokens (`max_completion_tokens`), or for a model that can write"
        " more",
        Reason.LACKS_TOOLS: "leave `tools` and `tool_choice` out, or ask for a model that calls tools",
        Reason.LACKS_VISION: "leave images, videos and files out, or ask for a model that sees them",
        Reason.LACKS_JSON_SCHEMA: "ask for `response_format` `json_object`, or for a model that holds to a schema",
        Reason.LACKS_AUDIO: "leave audio out, or ask for a model that hears and speaks",
        Reason.LACKS_PARAMETER: "leave the parameter out, allow it to be dropped"
        " (`provider.require_parameters: false`), or ask for a model that takes it",
        Reason.BELOW_MIN_QUALITY: "name the model instead of leaving the choice to Wardgate, or lower the floor"
        " (`min_quality` of the plan or the request, `wardgate.unknown_quality`)",
        Reason.EXCLUDED_BY_REQUEST: "change the request's own preferences (`provider`)",
        Reason.COOLING_DOWN: "wait for the time that the refusal names, or ask for a model of another provider",
        Reason.BUDGET_EXHAUSTED: "wait for the budget's next period, raise it in the plan, or use the tenant's own key",
    }
)
LENT_FIX: Final = "tell the operator, whose key it is: `wardgate key doctor OPERATOR --live` looks at it"
_ABOUT_KEYS: Final = frozenset({Reason.NO_CREDENTIAL, Reason.KEY_UNUSABLE, Reason.KEY_REJECTED})
_PLACEHOLDERS: Final = MappingProxyType(
    {"tenant": "TENANT", "provider": "the provider", "setting_key": "SETTING_KEY", "model": "MODEL"}
)


def fix_in_general(reason: Reason) -> str:
    """The sentence with placeholders in capitals, for documentation."""
    return FIXES[reason].format_map(_PLACEHOLDERS)


def fix_for(
    reason: Reason, *, tenant: str, provider_id: str, model: str, takes_keys: bool = True, lent: bool = False
) -> str:
    """The sentence for one rejected offer. `provider_id` is empty where no provider is concerned; `takes_keys` says
    whether the tenant's plan takes own keys: else storing one is the second step. `lent`: it is about the
    operator's key."""
    if lent:
        return LENT_FIX
    known = {"tenant": tenant, "model": model or "MODEL"}
    if provider_id:
        known |= {"provider": provider_id, "setting_key": setting_key_of(provider_id)}
    steps = [reason] if takes_keys or reason not in _ABOUT_KEYS else [Reason.BYOK_NOT_IN_PLAN, reason]
    return "; then ".join(FIXES[step].format_map({**_PLACEHOLDERS, **known}) for step in steps)
