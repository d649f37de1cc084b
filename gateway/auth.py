"""Who is calling: the tenant's token, in any of the headers in which the SDKs send one."""

from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.asgi import Scope
from gateway.errors import ApiError, Problem
from keystore.errors import DatabaseUnavailable, TokenRefused
from keystore.keystore import Keystore
from keystore.rights import Right
from keystore.tenants import Tenant
from keystore.tokens import Caller
from router.reasons import Fault

HOW = "send it as `Authorization: Bearer {kind}...` (`x-api-key` and `api-key` are accepted too)"
UNKNOWN = "invalid_api_key"
KEY_HEADERS = (b"x-api-key", b"api-key")
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
    distinct: set[str] = set()
    for name, raw in scope["headers"]:
        if name in KEY_HEADERS:
            distinct.add(bytes(raw).decode("latin-1").strip())
        elif name == b"authorization":
            kind, _, token = bytes(raw).decode("latin-1").strip().partition(" ")
            if kind.lower() != "bearer":
                raise _refused(UNKNOWN, f"The Authorization header must be a Bearer token: {_how(scope)}.")
            distinct.add(token.strip())
    distinct.discard("")
    if len(distinct) > 1:
        raise _refused(UNKNOWN, "The request carries two different tokens; send one.")
    if not distinct:
        raise _refused("missing_api_key", f"No token was sent: {_how(scope)}.")
    return distinct.pop()


async def authenticate(scope: Scope, keystore: Keystore, now: datetime) -> tuple[Caller, Tenant]:
    """The caller of the data plane and its tenant; raises ApiError 401, 403 for a token that may not do this or not
    from here, or 503 while the database is away."""
    caller = await identify_caller(scope, keystore, now)
    if caller.tenant is None:
        message = "An admin token belongs to no tenant; use a tenant's token here (`wardgate token create SLUG`)."
        raise ApiError(Problem(403, "tenant_token_required", message, Fault.CALLER))
    require(caller, Right.INFERENCE)
    return caller, caller.tenant


async def identify_caller(scope: Scope, keystore: Keystore, now: datetime) -> Caller:
    """Whose token the request carries, whatever it may do; raises ApiError 401, 403 for one that is not for the
    address it comes from, or 503."""
    try:
        caller = await keystore.authenticate(presented_token(scope), now)
    except TokenRefused as refusal:
        code, message = SENTENCES.get(
            refusal.why.value, (UNKNOWN, f"This token is not known here. Check that it is complete, and {_how(scope)}.")
        )
        raise _refused(code, message) from None
    except DatabaseUnavailable as error:
        raise ApiError(KEYSTORE_AWAY) from error
    if not _comes_from(scope, caller.allowed_addresses):
        message = "This token may not be used from the address that the request comes from."
        raise ApiError(Problem(403, "address_not_allowed", message, Fault.CALLER))
    return caller


def require(caller: Caller, right: Right) -> None:
    """Raises ApiError 403 when the token lacks a right."""
    if right.value not in caller.scopes:
        message = f"This token lacks the scope {right.value!r}; ask the operator for one that has it."
        raise ApiError(Problem(403, "scope_required", message, Fault.CALLER))


def _how(scope: Scope) -> str:
    """How a token is sent, and of which kind."""
    return HOW.format(kind="wg_admin_" if scope["path"].startswith("/admin") else "wg_live_")


def _comes_from(scope: Scope, networks: tuple[str, ...]) -> bool:
    """Whether the peer of the connection is in one of the networks; without any, every peer is."""
    if not networks:
        return True
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and any(address in ip_network(network) for network in networks)


def _refused(code: str, message: str) -> ApiError:
    return ApiError(Problem(401, code, message, Fault.CALLER, headers={"www-authenticate": "Bearer"}))
