"""What does not fit the models of the admin API, as the door answers it.

Owns the words for a broken rule. What was sent is in none of them, nor a name that the caller made up.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.problems import ProviderUnknown, invalid
from gateway.admin.shapes import FORMS
from gateway.errors import ApiError
from keystore.errors import (
    AliasRefused,
    BudgetUnknown,
    CredentialUnknown,
    DecisionUnknown,
    KeystoreError,
    LimitUnknown,
    PriceReleaseUnknown,
    TenantUnknown,
    TokenUnknown,
    WebhookUnknown,
)

WHOLE: Final = MappingProxyType({"missing": "it is missing", "model_attributes_type": "it must be an object"})
# Of JSON that is of another kind than the field takes: an amount of dollars is text, other numbers are numbers.
KINDS: Final = MappingProxyType(
    {
        "string_type": "it must be text in quotes",
        "int_type": "it must be a whole number without quotes",
        "float_type": "it must be a number without quotes",
        "bool_type": "it must be true or false, without quotes",
    }
)
EXAMPLES: Final = MappingProxyType({"amount_usd": '"49.90"', "amount": "600"})
# What a part of the path names that cannot be such a name at all: answered as one that is not there.
IN_PATH: Final[Mapping[str, type[KeystoreError]]] = MappingProxyType(
    {
        "tenant": TenantUnknown,
        "setting_key": CredentialUnknown,
        "token_id": TokenUnknown,
        "request_id": DecisionUnknown,
        "provider_id": ProviderUnknown,
        "release": PriceReleaseUnknown,
        "spend": BudgetUnknown,
        "period": BudgetUnknown,
        "limit": LimitUnknown,
        "webhook_id": WebhookUnknown,
        "name": AliasRefused,
    }
)


async def refuse_invalid(request: Request, error: Exception) -> Response:
    """FastAPI's validation error, as ours: raises what the door answers. Never the input, nor a name that was sent."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    found = error.errors()
    for each in found:
        if each["loc"][:1] == ("path",):
            raise IN_PATH[str(each["loc"][1])] from None
    known = request.scope["wardgate.fields"]
    raise ApiError(invalid([_told(each, known) for each in found])) from None


def _told(error: Mapping[str, Any], known: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Which field broke which rule. A name that no model has was sent by the caller, so it is not repeated."""
    place, *path = error["loc"]
    names = sorted(known.get(place, ()))
    rule = FORMS.get(error.get("ctx", {}).get("pattern", ""), error["msg"])
    if not path:
        return {"field": str(place), "rule": WHOLE.get(error["type"], rule)}
    if path[0] not in names:
        return {"field": str(place), "rule": f"there is a field that is not known; known are {', '.join(names)}"}
    if (kind := KINDS.get(error["type"])) is not None:
        rule = f"{kind}, such as {EXAMPLES[path[0]]}" if path[0] in EXAMPLES else kind
    inner = [f"[{part}]" for part in path[1:] if isinstance(part, int)]
    return {"field": path[0] + "".join(inner), "rule": rule}
