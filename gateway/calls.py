"""The calls to models, on every surface: one request as a straight line of named steps."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from gateway.accounts import charge_of, served_by
from gateway.admission import Bounds
from gateway.asgi import Receive, Scope, Send, send_body, while_connected
from gateway.attempt_costs import at_most, counted, in_sight_or_not, written
from gateway.attempts import Attempts
from gateway.bulk import AGED_S, Place
from gateway.chat_request import ChatRequest
from gateway.cost_telling import telling, told
from gateway.deciding import RuleBook, refused
from gateway.errors import ApiError
from gateway.events import Decided, TokenUsage
from gateway.fronts import COUNT_FRONT, Front, retold
from gateway.idempotency_key import key_of
from gateway.openai_shape import encode
from gateway.paths import wording_of
from gateway.pins import Pin, Pins
from gateway.receiving import (
    Admitted,
    admit_uncalled,
    decided,
    identify,
    keyring_of,
    read_request,
    receive_raw,
    receive_request,
)
from gateway.relay import relay_stream
from gateway.repeats import NOT_KEPT, Replay, Ticket, definite
from gateway.seen import parse
from gateway.services import Services
from gateway.surface import EMBEDDINGS, RESPONSES
from gateway.surfaces.own_fields import own_error
from gateway.tally import KEY, Tally
from gateway.upstream import StreamReply
from gateway.wording import Wording
from keystore.keyring import Keyring
from keystore.money import usd_of
from keystore.tenants import Tenant
from router.decision import Candidate, Decision
from router.plans import Plan


class Calls:
    """A plain ASGI endpoint over the services: one surface, from a body to a provider's answer."""

    def __init__(self, services: Services, front: Front) -> None:
        self._services = services
        self._front = front
        self._pins = Pins()
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
        tally.endpoint = self._front.surface.endpoint
        place = self._services.places.take(scope)
        try:
            await self._placed(place, tally, scope, receive, send)
        finally:
            place.end()

    async def _placed(self, place: Place, tally: Tally, scope: Scope, receive: Receive, send: Send) -> None:
        book = self._services.books.for_request(tally)
        admitted = await identify(scope, self._services, tally)
        place.learn(token=admitted.bulk)
        self._services.accounts.open(tally)
        key = key_of(scope)
        with place.reading(scope):
            raw = await receive_raw(scope, receive, self._services, tally)
        place.size = len(raw)
        request = await read_request(raw, scope, tally, self._front)
        place.learn(tier=(request.asked or request.body).get("service_tier"))
        named = None if key is None else _Named(key, raw, wording_of(scope["path"]))
        del raw
        await self.answer(request, admitted, book, tally, scope, receive, send, place, named)

    async def answer(
        self,
        request: ChatRequest,
        admitted: Admitted,
        book: RuleBook,
        tally: Tally,
        scope: Scope,
        receive: Receive,
        send: Send,
        place: Place | None = None,
        named: "_Named | None" = None,
    ) -> None:
        """Answer a request that was read, while its client is there or the answer is owed to whoever asks again."""
        tally.stream = request.stream
        if named is None:
            work = self._answer(request, admitted, book, tally, send, place)
        else:
            work = self._answer_once(named, request, admitted, book, tally, send, place)
        try:
            await while_connected(scope, receive, work, answered=lambda: tally.ended or tally.owed)
        except ApiError as error:
            own = own_error(error, request.surface.endpoint, request.asked or request.body)
            if own is error:
                raise
            raise own from None

    async def _answer_once(
        self,
        named: "_Named",
        request: ChatRequest,
        admitted: Admitted,
        book: RuleBook,
        tally: Tally,
        send: Send,
        place: Place | None,
    ) -> None:
        """A request with an Idempotency-Key: the first is answered, whoever comes again gets the same. A client that
        gives up waiting will come again, so that a plain answer is made to its end without it."""
        turn = await self._services.repeats.begin(
            admitted.tenant,
            self._front.surface.endpoint,
            named.key,
            named.raw,
            request_id=tally.request_id,
            within_s=self._services.limits.answer_timeout_s,
            stream=request.stream,
            allowed_models=admitted.allowed_models,
            aside=nullcontext if place is None else place.aside,
        )
        if isinstance(turn, Replay):
            await send_body(send, turn.status, turn.body, headers=_told_again(turn, tally))
            return
        async with turn:
            try:
                await self._answer(request, admitted, book, tally, send, place, turn)
            except ApiError as error:
                if definite(error.problem):
                    own = own_error(error, request.surface.endpoint, request.asked or request.body).problem
                    _tell_failed_cost(tally)
                    body = named.wording.body(own, tally.request_id)
                    await turn.done(own.status, own.response_headers() | tally.response_headers(), body)
                raise

    async def _answer(
        self,
        request: ChatRequest,
        admitted: Admitted,
        book: RuleBook,
        tally: Tally,
        send: Send,
        place: Place | None,
        turn: Ticket | None = None,
    ) -> None:
        keyring, request, decision = await self._decided(request, admitted, book, tally)
        await self._admit(admitted, keyring, decision, book, tally, place)
        if (tally.waited_s or 0.0) > AGED_S:  # what was decided then may not hold any more
            admitted = await admitted.again()
            keyring, request, decision = await self._decided(request, admitted, book, tally)
            _bind(admitted.tenant, keyring, book, tally)
        tally.owed = turn is not None and not request.stream  # until here nobody was asked: whoever leaves, leaves
        if request.stream:
            await self._stream(request, decision, keyring, tally, send)
            if turn is not None and tally.outcome is None:
                await turn.streamed()
        else:
            await self._plain(request, decision, keyring, tally, send, turn)

    async def _decided(
        self, request: ChatRequest, admitted: Admitted, book: RuleBook, tally: Tally
    ) -> tuple[Keyring, ChatRequest, Decision]:
        """Who may answer, which is noted and published; ApiError where nobody may."""
        keyring = await keyring_of(admitted.tenant, self._services)
        request = self._pins.applied(tally.tenant_id, request)
        decision = decided(request, admitted, keyring, book, self._services, enough=1)
        self._services.events.publish(Decided(tally.request_id, admitted.tenant.id, decision))
        if tally.account is not None:
            tally.account.decision = decision
        if not decision.ranked:
            raise refused(decision, tally, self._services.events)
        self._pins.check(tally.tenant_id, request, decision, book.registry)
        return keyring, request, decision

    async def _admit(
        self,
        admitted: Admitted,
        keyring: Keyring,
        decision: Decision,
        book: RuleBook,
        tally: Tally,
        place: Place | None,
    ) -> None:
        """Under the limits of the tenant's plan; what the request holds is given back when its account is settled."""
        plan, admission = _bind(admitted.tenant, keyring, book, tally), self._services.admission
        if plan is not None and tally.account is not None:
            again = partial(self._bounds, admitted, book)
            ticket = await admission.admit(plan, keyring.limits, decision, tally, place, again)
            tally.account.leave = partial(admission.limiter.settle, ticket)

    async def _bounds(self, admitted: Admitted, book: RuleBook) -> Bounds | None:
        """The plan and the limits that the tenant has now; None where nobody can say, or it may not ask any more."""
        try:
            tenant = (await admitted.again()).tenant
            keyring = await keyring_of(tenant, self._services)
        except ApiError:
            return None  # whoever looks once more will be told
        plan = book.plans.get(tenant.plan)
        return None if plan is None else (plan, keyring.limits)

    async def _plain(
        self,
        request: ChatRequest,
        decision: Decision,
        keyring: Keyring,
        tally: Tally,
        send: Send,
        turn: Ticket | None,
    ) -> None:
        reply = await self._attempts.plain(request, decision, keyring, tally)
        body = reply.body
        uncounted = reply.usage is None and self._front.surface is not EMBEDDINGS
        account(tally, decision, reply.usage, written(body) if uncounted else 0, self._services)
        self._remember(body, tally)
        if self._front.answer is not None and not self._is_native(tally):
            completion = parse(body)
            assert isinstance(completion, dict)  # noqa: S101 - both lanes look before they hand it on
            name, created = self._minted(tally)
            body = encode(self._front.answer(completion, request.asked, answer_id=name, created=created))
        if request.tells_cost:
            body = told(body, None if tally.account is None else tally.account.charge, tally)
        if turn is not None and not await turn.done(200, tally.response_headers(), body):
            tally.headers |= NOT_KEPT
        await send_body(send, 200, body)

    async def _stream(
        self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally, send: Send
    ) -> None:
        stream = await self._attempts.stream(request, decision, keyring, tally)
        if tally.account is not None:
            tally.account.measure = partial(self._measure, tally, decision, stream.reply)
        try:
            self._remember(stream.first, tally)
            if self._front.events is not None and not self._is_native(tally):
                name, created = self._minted(tally)
                model = tally.model or request.model
                stream = retold(stream, self._front.events(request.asked, answer_id=name, created=created, model=model))
            if request.tells_cost:
                stream = telling(stream, partial(charge_of, tally, decision), tally)
            most_s, keep_alive = self._services.limits.answer_timeout_s, request.surface.keep_alive
            failure = await relay_stream(send, stream, tally, most_s=most_s, keep_alive=keep_alive)
            if failure is not None:
                self._attempts.broke(failure, tally)
        finally:
            await stream.reply.aclose()

    def _measure(self, tally: Tally, decision: Decision, reply: StreamReply) -> None:
        served, produced, usage = served_by(decision, tally), reply.produced, reply.usage
        if served is not None:
            produced = in_sight_or_not(produced, usage, served, decision.query, reasoned=reply.reasoned)
        account(tally, decision, usage, produced, self._services)

    def _remember(self, said: bytes, tally: Tally) -> None:
        """Who made this response, so that a later one can go on from it."""
        if self._front.surface is RESPONSES and self._is_native(tally):
            pin = Pin(tally.provider or "", tally.model or "")
            self._pins.learn(tally.tenant_id, said, pin, stream=tally.stream)

    def _is_native(self, tally: Tally) -> bool:
        """Whether who answered speaks the surface itself."""
        provider = self._services.books.current.registry.get(tally.provider or "")
        return provider is not None and self._front.surface.native(provider)

    def _minted(self, tally: Tally) -> tuple[str, int]:
        """An id and a time of our own, for an answer that no provider gave in this shape."""
        return self._front.prefix + tally.request_id.removeprefix("req_"), int(self._services.now().timestamp())


@dataclass(frozen=True, slots=True)
class _Named:
    """A request that named itself: its Idempotency-Key, its body as it came, and how its errors are worded."""

    key: str
    raw: bytes
    wording: Wording


def _bind(tenant: Tenant, keyring: Keyring, book: RuleBook, tally: Tally) -> Plan | None:
    """Have the request's account bound by the budgets that the tenant has now; the tenant's plan."""
    plan = book.plans.get(tenant.plan)
    if plan is not None and tally.account is not None:
        tally.account.plan, tally.account.own = plan, keyring.budgets
    return plan


def _tell_failed_cost(tally: Tally) -> None:
    """Have an error's headers say what its attempts cost, as they will when its account is settled."""
    account = tally.account
    if account is not None and account.failed and account.total is not None:
        tally.cost_usd = usd_of(account.total)


def _told_again(replay: Replay, tally: Tally) -> dict[str, str]:
    """The headers of an answer that was given before: ours of the first go in the place of this request's."""
    ours = {name: value for name, value in replay.headers.items() if name.startswith("x-wardgate-")}
    tally.headers |= ours
    return {name: value for name, value in replay.headers.items() if name not in ours and name != "content-type"}


NOT_THERE: Final = "provider_model_unavailable"  # what a provider's 404 is told as


class CountTokens:
    """`POST /v1/messages/count_tokens`: counted by the provider that would answer, where it counts; else estimated, and
    the header `x-wardgate-estimated` says so. Nothing is spent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._counted = Calls(services, COUNT_FRONT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = COUNT_FRONT.surface.endpoint
        place = self._services.places.take(scope, waits=False)
        try:
            await self._placed(place, tally, scope, receive, send)
        finally:
            place.end()

    async def _placed(self, place: Place, tally: Tally, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        book = services.books.for_request(tally)
        admitted = await identify(scope, services, tally)
        with place.reading(scope):
            request = await receive_request(scope, receive, services, tally, COUNT_FRONT)
        keyring = await keyring_of(admitted.tenant, services)
        await admit_uncalled(admitted.tenant, keyring, book, services, tally)
        decision = decided(request, admitted, keyring, book, services, enough=1)
        if not decision.ranked:
            error = refused(decision, tally, services.events)
            raise own_error(error, request.surface.endpoint, request.asked)
        first = book.registry.get(decision.ranked[0].offer.provider_id)
        if first is not None and request.surface.native(first):
            try:
                await self._counted.answer(request, admitted, book, tally, scope, receive, send)
                return
            except ApiError as error:
                if error.problem.code != NOT_THERE:
                    raise
            tally.outcome = None  # this provider does not count
        tally.headers["x-wardgate-estimated"] = "input_tokens"
        await send_body(send, 200, encode({"input_tokens": decision.query.needs.input_tokens}))


def account(tally: Tally, decision: Decision, usage: TokenUsage | None, produced: int, services: Services) -> None:
    """Note usage and its cost at the price of the model that served; no cost where the price is unknown, as that of
    searches, which nobody counts. What nobody counted to its end is estimated from what was `produced`, in tokens. What
    was really used is what the tenant's next request is reckoned with."""
    tally.usage = usage
    if tally.account is None:
        return  # nothing is spent
    served, whole = served_by(decision, tally), tally.outcome is None
    produced = produced if served is None else at_most(produced, served, decision.query)
    found, estimated = counted(usage, produced, decision.query.needs, whole=whole)
    tally.account.note(found, served, estimated=estimated)
    if not estimated and served is not None:
        _learn(tally, served, decision, found, services)


def _learn(tally: Tally, served: Candidate, decision: Decision, usage: TokenUsage, services: Services) -> None:
    offer, needs = served.offer, decision.query.needs
    estimated = needs.uncorrected_tokens
    one = usage if needs.answers == 1 else replace(usage, output_tokens=usage.output_tokens // needs.answers)
    services.habits.note(tally.tenant_id, offer.provider_id, offer.id, estimated, one)
    if tally.asked is not None and tally.asked.own_endpoint:
        return  # its pace is this tenant's alone, and what it says of itself is nobody else's measure
    rest_s = tally.upstream_s - tally.upstream_then_s
    if tally.stream:
        services.paces.note(offer.id, tally.answering_s, rest_s, usage.output_tokens)
    else:
        services.paces.note(offer.id, None, tally.answering_s, usage.output_tokens)
