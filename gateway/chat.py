"""`POST /v1/chat/completions`: one request as a straight line of named steps."""

from dataclasses import dataclass, replace

from gateway.asgi import Receive, Scope, Send, read_body, send_body, while_connected
from gateway.attempts import Attempts
from gateway.auth import KEYSTORE_AWAY, authenticate
from gateway.chat_request import ChatRequest, read_chat_request_async
from gateway.deciding import RuleBook, decide, refused
from gateway.errors import ApiError
from gateway.events import Decided, Endpoint, TokenUsage
from gateway.metering import metered
from gateway.relay import relay_stream
from gateway.services import Services
from gateway.tally import KEY, Tally
from keystore.errors import DatabaseUnavailable
from keystore.keyring import Keyring
from keystore.tenants import Tenant
from router.catalogue import Capability
from router.charge import charge
from router.decision import Candidate, Decision
from router.prices import ServiceTier


@dataclass(frozen=True, slots=True)
class Admitted:
    """The tenant that calls, and the models that its token is for (empty: all)."""

    tenant: Tenant
    allowed_models: tuple[str, ...]


class ChatCompletions:
    """A plain ASGI endpoint over the services."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._attempts = Attempts(
            services.lane,
            services.keystore,
            services.books.current.registry,
            services.events,
            services.limits,
            services.health,
            services.retry_budget,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = Endpoint.CHAT_COMPLETIONS
        book = self._services.books.for_request(tally)
        admitted = await identify(scope, self._services, tally)
        request = await receive_request(scope, receive, self._services, tally)
        tally.stream = request.stream
        work = self._answer(request, admitted, book, tally, send)
        await while_connected(scope, receive, work, answered=lambda: tally.ended)

    async def _answer(self, request: ChatRequest, admitted: Admitted, book: RuleBook, tally: Tally, send: Send) -> None:
        tenant = admitted.tenant
        keyring = await keyring_of(tenant, self._services)
        today, allowed = self._services.now().date(), admitted.allowed_models
        decision = decide(
            request,
            tenant,
            keyring,
            book,
            today,
            allowed_models=allowed,
            enough=1,
            habits=self._services.habits.of(tenant.id),
            paces=self._services.paces.paces,
            health=self._services.health.view(),
        )
        self._services.events.publish(Decided(tally.request_id, tenant.id, decision))
        if not decision.ranked:
            raise refused(decision, tally, self._services.events)
        if request.stream:
            await self._stream(request, decision, keyring, tally, send)
        else:
            await self._plain(request, decision, keyring, tally, send)

    async def _plain(
        self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally, send: Send
    ) -> None:
        reply = await self._attempts.plain(request, decision, keyring, tally)
        account(tally, decision, reply.usage, self._services)
        await send_body(send, 200, reply.body)

    async def _stream(
        self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally, send: Send
    ) -> None:
        stream = await self._attempts.stream(request, decision, keyring, tally)
        try:
            most_s = self._services.limits.answer_timeout_s
            failure = await relay_stream(
                send, stream, tally, most_s=most_s, broke=request.surface.broke, keep_alive=request.surface.keep_alive
            )
            if failure is not None:
                self._attempts.broke(failure, tally)
        finally:
            account(tally, decision, stream.reply.usage, self._services)
            await stream.reply.aclose()


async def identify(scope: Scope, services: Services, tally: Tally) -> Admitted:
    """Who calls, noted in the tally; raises ApiError."""
    caller, tenant = await authenticate(scope, services.keystore, services.now())
    tally.tenant, tally.tenant_id, tally.token_id = tenant.slug, tenant.id, caller.token_id
    return Admitted(tenant, caller.allowed_models)


async def receive_request(scope: Scope, receive: Receive, services: Services, tally: Tally) -> ChatRequest:
    """The checked chat request of a body, its model noted in the tally; raises ApiError."""
    limits = services.limits
    raw = await read_body(scope, receive, limit=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    request = await read_chat_request_async(raw)
    tally.requested_model = request.model
    return request


async def keyring_of(tenant: Tenant, services: Services) -> Keyring:
    """Which providers the tenant can use; raises ApiError 503 while the database is away."""
    try:
        return await services.keystore.keyring(tenant)
    except DatabaseUnavailable as error:
        raise ApiError(KEYSTORE_AWAY) from error


def account(tally: Tally, decision: Decision, usage: TokenUsage | None, services: Services) -> None:
    """Note usage and its cost at the price of the model that served; no cost where price or usage is unknown, as
    that of searches, which nobody counts. What was really used is what the tenant's next request is reckoned with."""
    tally.usage = usage
    served = _served(decision, tally)
    if usage is not None and served is not None and tally.outcome is None:
        _learn(tally, served, decision, usage, services)
    if usage is not None and served is not None and Capability.WEB_SEARCH not in decision.query.needs.capabilities:
        asked = ServiceTier.STANDARD if "service_tier" in tally.dropped else decision.query.needs.service
        tally.cost_usd = charge(served.offer.prices, metered(usage, asked)).usd


def _learn(tally: Tally, served: Candidate, decision: Decision, usage: TokenUsage, services: Services) -> None:
    offer, needs = served.offer, decision.query.needs
    estimated = needs.input_tokens if needs.estimated_tokens is None else needs.estimated_tokens
    one = replace(usage, output_tokens=usage.output_tokens // needs.answers)
    services.habits.note(tally.tenant_id, offer.provider_id, offer.id, estimated, one)
    if tally.asked is not None and tally.asked.own_endpoint:
        return  # its pace is this tenant's alone, and what it says of itself is nobody else's measure
    rest_s = tally.upstream_s - tally.upstream_then_s
    if tally.stream:
        services.paces.note(offer.id, tally.answering_s, rest_s, usage.output_tokens)
    else:
        services.paces.note(offer.id, None, tally.answering_s, usage.output_tokens)


def _served(decision: Decision, tally: Tally) -> Candidate | None:
    for candidate in decision.ranked:
        if (candidate.offer.provider_id, candidate.offer.model) == (tally.provider, tally.model):
            return candidate
    return None
