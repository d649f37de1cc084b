"""Who is calling: the tenant's token, in any of the headers in which the SDKs send one."""

from datetime import datetime

from gateway.asgi import Scope, headers_named
from gateway.errors import ApiError, Problem
from keystore.errors import DatabaseUnavailable, TokenRefused
from keystore.keystore import Keystore
from keystore.tenants import Tenant
from keystore.tokens import Caller
from router.reasons import Fault

HOW = "send it as `Authorization: Bearer wg_live_...` (`x-api-key` and `api-key` are accepted too)"
UNKNOWN = "invalid_api_key"
# Told apart only after the secret matched, so that nobody learns anything about a token that they do not hold.
SENTENCES = {
    "expired": ("token_expired", "This token has expired. Ask the operator for a new one (`wardgate token create`)."),
    "revoked": ("token_revoked", "This token was revoked. Ask the operator for a new one (`wardgate token create`)."),
}
KEYSTORE_AWAY = Problem(
    503,
    "keystore_unavailable",
    "The gateway cannot reach its database right now. Try again shortly.",
    Fault.GATEWAY,
    retry_after_s=2,
    caller_may_retry=True,
)


def presented_token(scope: Scope) -> str:
    """The one token of a request; raises ApiError 401 when there is none, or when two different ones are sent."""
    found = [value.strip() for name in ("x-api-key", "api-key") for value in headers_named(scope, name)]
    for value in headers_named(scope, "authorization"):
        kind, _, token = value.strip().partition(" ")
        if kind.lower() != "bearer":
            raise _refused(UNKNOWN, f"The Authorization header must be a Bearer token: {HOW}.")
        found.append(token.strip())
    distinct = {token for token in found if token}
    if len(distinct) > 1:
        raise _refused(UNKNOWN, "The request carries two different tokens; send one.")
    if not distinct:
        raise _refused("missing_api_key", f"No token was sent: {HOW}.")
    return distinct.pop()


async def authenticate(scope: Scope, keystore: Keystore, now: datetime) -> tuple[Caller, Tenant]:
    """The caller and its tenant; raises ApiError 401, 403 for an admin token, or 503 while the database is away."""
    try:
        caller = await keystore.tokens.authenticate(presented_token(scope), now)
    except TokenRefused as refusal:
        code, message = SENTENCES.get(
            refusal.why.value, (UNKNOWN, f"This token is not known here. Check that it is complete, and {HOW}.")
        )
        raise _refused(code, message) from None
    except DatabaseUnavailable as error:
        raise ApiError(KEYSTORE_AWAY) from error
    if caller.tenant is None:
        message = "An admin token belongs to no tenant; use a tenant's token here (`wardgate token create SLUG`)."
        raise ApiError(Problem(403, "tenant_token_required", message, Fault.CALLER))
    return caller, caller.tenant


def _refused(code: str, message: str) -> ApiError:
    return ApiError(Problem(401, code, message, Fault.CALLER, headers={"www-authenticate": "Bearer"}))
