"""From a connection to a checked request of a known tenant: who calls, what was asked, and what may be asked with it.

Each is a step that raises ApiError. Must not know who answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from gateway.asgi import Receive, Scope, read_body
from gateway.auth import KEYSTORE_AWAY, authenticate
from gateway.chat_request import ON_LOOP_BYTES, ChatRequest
from gateway.deciding import RuleBook, decide
from gateway.errors import ApiError
from gateway.fronts import Front
from gateway.services import Services
from gateway.tally import Tally
from keystore.errors import DatabaseUnavailable
from keystore.keyring import Keyring
from keystore.rights import Right
from keystore.tenants import Tenant
from router.decision import Decision


@dataclass(frozen=True, slots=True)
class Admitted:
    """The tenant that calls, the models that its token is for (empty: all), and whether all it asks is bulk. `again`
    looks anew who calls."""

    tenant: Tenant
    allowed_models: tuple[str, ...]
    bulk: bool
    again: Callable[[], Awaitable["Admitted"]]


async def identify(scope: Scope, services: Services, tally: Tally) -> Admitted:
    """Who calls, noted in the tally; raises ApiError."""
    caller, tenant = await authenticate(scope, services.keystore, services.now())
    tally.tenant, tally.tenant_id, tally.token_id = tenant.slug, tenant.id, caller.token_id
    again = partial(identify, scope, services, tally)
    return Admitted(tenant, caller.allowed_models, Right.BULK.value in caller.scopes, again)


async def receive_request(
    scope: Scope, receive: Receive, services: Services, tally: Tally, front: Front
) -> ChatRequest:
    """The checked request of a body, its model noted in the tally; raises ApiError."""
    return await read_request(await receive_raw(scope, receive, services, tally), scope, tally, front)


async def receive_raw(scope: Scope, receive: Receive, services: Services, tally: Tally) -> bytes:
    """The body, within the limits; raises ApiError."""
    limits = services.limits
    share = services.bodies.share()
    tally.give_back = share.give_back
    most, within_s = limits.max_body_bytes, limits.body_timeout_s
    return await read_body(scope, receive, limit=most, timeout_s=within_s, take=share.take)


async def read_request(raw: bytes, scope: Scope, tally: Tally, front: Front) -> ChatRequest:
    """The checked request of a body, its model noted in the tally; raises ApiError. A large body is read in a thread,
    so that the event loop goes on."""
    if len(raw) <= ON_LOOP_BYTES:
        request = front.read(raw, scope)
    else:
        request = await asyncio.to_thread(front.read, raw, scope)
    tally.requested_model = request.model
    return request


def decided(
    request: ChatRequest,
    admitted: Admitted,
    keyring: Keyring,
    book: RuleBook,
    services: Services,
    *,
    enough: int | None = None,
) -> Decision:
    """The decision for a request of this tenant now; `enough` as in `decide`."""
    return decide(
        request,
        admitted.tenant,
        keyring,
        book,
        services.now().date(),
        allowed_models=admitted.allowed_models,
        enough=enough,
        habits=services.habits.of(admitted.tenant.id),
        paces=services.paces.paces,
        health=services.health.view(),
    )


async def keyring_of(tenant: Tenant, services: Services) -> Keyring:
    """Which providers the tenant can use, with the operator's keys that its plan lends it; raises ApiError 503 while
    the database is away."""
    plan = services.books.current.plans.get(tenant.plan)
    try:
        return await services.lending.keyring(tenant, plan)
    except DatabaseUnavailable as error:
        raise ApiError(KEYSTORE_AWAY) from error


async def admit_uncalled(tenant: Tenant, keyring: Keyring, book: RuleBook, services: Services, tally: Tally) -> None:
    """Under the limits of requests a minute, for what no model is called for; raises ApiError 429."""
    plan = book.plans.get(tenant.plan)
    if plan is not None:
        await services.admission.admit_uncalled(plan, keyring.limits, tally)
