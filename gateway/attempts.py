"""Walks the ranked candidates until one answers, before the first byte goes to the client.

The predicate that says again or stop is the router's and pure; this module only waits, measures and tells.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.carrying import Carried, carried
from gateway.chat_request import ChatRequest
from gateway.config import Limits
from gateway.deciding import key_resolved
from gateway.errors import ApiError, Problem
from gateway.events import AttemptEnded, Events, FellBack, Outcome, RetryRefused
from gateway.failures import problem_of, timed_out
from gateway.keys_in_turn import KeysInTurn
from gateway.tally import Tally
from gateway.upstream import Came, Lane, PlainReply, StreamReply, Trail, UpstreamCall, UpstreamFailed
from keystore.clock import utc_now
from keystore.errors import CredentialUnusable
from keystore.holdings import Holding
from keystore.keyring import Credential, Keyring
from keystore.keystore import Keystore
from keystore.providers import Provider, Registry
from keystore.use import UsedKey
from router.bound_state import provider_bound
from router.decision import Candidate, Decision
from router.failure import Failure, FailureKind
from router.health_keeper import HealthKeeper
from router.health_steps import Attempt
from router.query import KeySource
from router.retry import Progress, Stop, asks_to_wait, most_useful, needs_budget, order_after, pause_s, stop
from router.retry_budget import RetryBudget

Reply = TypeVar("Reply", "PlainReply", "OpenStream")


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream that has begun: its first chunk was read, so its provider did answer."""

    first: bytes
    rest: AsyncIterator[bytes]
    reply: StreamReply

    @property
    def request_id(self) -> str | None:
        return self.reply.request_id


@dataclass(frozen=True, slots=True)
class Attempts:
    """Serves one request from its decision. Times in seconds on the monotonic clock."""

    lane: Lane
    keystore: Keystore
    registry: Registry
    events: Events
    limits: Limits
    health: HealthKeeper
    budget: RetryBudget

    async def plain(self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally) -> PlainReply:
        """The first complete answer; raises ApiError with the most useful failure when there is none."""
        return await self._walk(request, decision, keyring, tally, self._complete)

    async def stream(self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally) -> OpenStream:
        """The first stream that begins; raises ApiError as `plain` does. The caller closes `reply`."""
        return await self._walk(request, decision, keyring, tally, self._begin)

    def broke(self, failure: Failure, tally: Tally) -> None:
        """A stream that had begun broke: its provider is the worse for it."""
        if tally.asked is not None:
            self.health.end(tally.asked, failure=self._whose(failure, tally))

    async def _walk(
        self,
        request: ChatRequest,
        decision: Decision,
        keyring: Keyring,
        tally: Tally,
        send: Callable[[UpstreamCall, float], Awaitable[Reply]],
    ) -> Reply:
        failures: list[Failure] = []
        refusal: Problem | None = None
        over: list[tuple[Candidate, str]] = []  # whose cost a budget did not allow, and how that is told
        queue = list(decision.ranked)
        keys, same, stopped = KeysInTurn(self.keystore, keyring, self.health.view), False, None
        self.budget.request(time.monotonic())
        while queue:
            candidate = queue.pop(0)
            sent = self._carried(candidate, request, decision)
            if sent is None:
                continue  # no attempt: nothing would be sent
            if failures and queue and self._has_fallen_ill(candidate):
                continue
            refused = await tally.account.reserve(candidate) if tally.account is not None else None
            if refused is not None:
                refusal = refusal or refused  # the best candidate's: one without a price says nothing of the budget
                over.append((candidate, refused.code))
                continue
            key = keys.next(candidate.offer.provider_id, candidate.offer.model)
            self._tell_fallback(failures, candidate, tally, key if same else None)
            if over:
                self._tell_passed_over(over, candidate, tally)
            self._note(candidate, keyring, key, tally, len(failures) + 1)
            tally.dropped = sent.dropped
            try:
                return await self._once(candidate, sent.request, keys, tally, send)
            except UpstreamFailed as failed:
                lent = candidate.holding.source is KeySource.MANAGED
                failures.append(replace(failed.failure, lent=lent))
                same = keys.turn(failed.failure)
                queue = _next_in_line(failed.failure, candidate, queue, other_key=same, in_order=decision.in_order)
                pause = self._pause(failed.failure, queue, len(failures), other_key=same)
                stopped = self._stop(failed.failure, failures, queue, request, tally, pause)
                if stopped is not None:
                    break
                await self._wait(pause, tally)
        if not failures and refusal is not None:
            raise ApiError(refusal)
        tally.outcome = Outcome.FAILED
        raise ApiError(problem_of(most_useful(failures), failures, stopped))

    def _has_fallen_ill(self, candidate: Candidate) -> bool:
        """Since the decision was made."""
        return self.health.view().denial(candidate.offer, candidate.holding) is not None

    def _carried(self, candidate: Candidate, request: ChatRequest, decision: Decision) -> Carried | None:
        """What is sent to this candidate; None when its wire cannot carry the request."""
        provider = self.registry.get(candidate.offer.provider_id)
        assert provider is not None  # noqa: S101 - the router ranks rows of this registry alone
        may_drop = decision.query.preferences.drop_parameters
        found = carried(provider, candidate.offer, request, may_drop=may_drop)
        return found if isinstance(found, Carried) else None

    def _tell_fallback(
        self, failures: list[Failure], candidate: Candidate, tally: Tally, next_key: Holding | None
    ) -> None:
        if failures:
            last, to = failures[-1], candidate.offer.provider_id
            key = None if next_key is None else _name_of(next_key)
            self.events.publish(FellBack(tally.request_id, last.provider_id, to, last.kind.value, to_key=key))

    def _tell_passed_over(self, over: list[tuple[Candidate, str]], candidate: Candidate, tally: Tally) -> None:
        """This one is asked in the place of those, which is told once."""
        first, code = over[0]
        tally.pass_over([f"{each.offer.id} ({why})" for each, why in over])
        provider_id, to = first.offer.provider_id, candidate.offer.provider_id
        self.events.publish(FellBack(tally.request_id, provider_id, to, code))
        over.clear()

    def _pause(self, failure: Failure, queue: list[Candidate], attempts: int, *, other_key: bool) -> float:
        if not queue:
            return 0.0
        provider_id = queue[0].offer.provider_id
        return pause_s(failure, provider_id, attempts=attempts, other_key=other_key, jitter=random.random())  # noqa: S311

    def _stop(
        self,
        failure: Failure,
        failures: list[Failure],
        queue: list[Candidate],
        request: ChatRequest,
        tally: Tally,
        pause: float,
    ) -> Stop | None:
        """Why nobody else is asked; an attempt that is allowed is taken from the budget."""
        now = time.monotonic()
        progress = Progress(
            attempts=len(failures),
            first_byte_sent=False,
            deadline_left_s=self._left(tally) - pause,
            remaining_candidates=len(queue),
            bound=provider_bound(request.asked or request.body) is not None,
            budget_left=self.budget.left(now) or not needs_budget(failure),
        )
        why = stop(failure, progress, max_attempts=self.limits.max_attempts)
        if why is None and needs_budget(failure):
            self.budget.take(now)
        elif why is Stop.BUDGET:
            self.events.publish(RetryRefused(tally.request_id, failure.provider_id, failure.kind.value))
        return why

    async def _wait(self, pause: float, tally: Tally) -> None:
        """Before the same provider is asked again; it is time that the upstream took."""
        if pause > 0:
            await asyncio.sleep(pause)
            tally.upstream_s += pause

    def _left(self, tally: Tally) -> float:
        return self.limits.answer_timeout_s - (time.monotonic() - tally.started)

    def _note(self, candidate: Candidate, keyring: Keyring, key: Holding | None, tally: Tally, attempt: int) -> None:
        tally.provider, tally.model = candidate.offer.provider_id, candidate.offer.model
        tally.key_source, tally.key_via = candidate.holding.source.value, candidate.holding.via
        tally.key_label = key.label if key else ""
        tally.key_former = key.version if key and key.grace_until is not None else None
        tally.attempts = attempt
        self.events.publish(key_resolved(keyring, candidate.offer.provider_id, tally))

    async def _once(
        self,
        candidate: Candidate,
        request: ChatRequest,
        keys: KeysInTurn,
        tally: Tally,
        send: Callable[[UpstreamCall, float], Awaitable[Reply]],
    ) -> Reply:
        provider = self.registry.get(candidate.offer.provider_id)
        assert provider is not None  # noqa: S101 - the router ranks rows of this registry alone
        started, outcome, status = time.monotonic(), "cancelled", None
        credential: Credential | None = None
        tally.asked, tally.provider_request_id, failure, trail = None, None, None, Trail()
        try:
            credential = _unseal(keys, provider, candidate.offer.model)
            tally.asked = self._begun(candidate, keys, own=credential.provider.base_url != provider.base_url)
            tally.setting_key = credential.setting_key
            call = UpstreamCall(credential.provider, candidate.offer.model, credential, request, trail)
            reply = await send(call, self._left(tally))
            outcome, status, tally.provider_request_id = "ok", 200, reply.request_id
            return reply
        except UpstreamFailed as failed:
            failure = failed.failure
            outcome, status, tally.provider_request_id = failure.kind.value, failure.status, failure.request_id
            raise
        finally:
            took = time.monotonic() - started
            tally.upstream_s += took
            tally.answering_s, tally.upstream_then_s = took, tally.upstream_s
            if credential is not None:
                self._note_use(keys.owner(provider.id), credential, outcome, status)
            if tally.asked is not None:
                self.health.end(tally.asked, answered=outcome == "ok", failure=self._whose(failure, tally, request))
            key = (tally.key_label or None, tally.key_former, tally.provider_request_id)
            ended = AttemptEnded(tally.request_id, provider.id, candidate.offer.model, outcome, took, status, *key)
            if tally.account is not None:
                tally.account.ended(ended, trail.look)
            trail.look = Came  # it holds the call, which holds it: a large answer is not to wait for the collector
            self.events.publish(ended)

    def _begun(self, candidate: Candidate, keys: KeysInTurn, *, own: bool) -> Attempt:
        offer = candidate.offer
        key = keys.id_of(offer.provider_id)
        attempt = Attempt(offer.provider_id, offer.model, keys.tenant_id, key, self.health.now(), own)
        self.health.begin(attempt)
        return attempt

    def _whose(self, failure: Failure | None, tally: Tally, request: ChatRequest | None = None) -> Failure | None:
        """A failure that counts for health: that the request's own time ran out says nothing of a provider, nor that it
        does not have a surface which it need not have of its model."""
        if failure is not None and failure.kind is FailureKind.MODEL_UNAVAILABLE:
            return None if request is not None and request.surface.optional else failure
        ran_out = failure is not None and failure.kind is FailureKind.TIMEOUT and self._left(tally) <= 0
        return None if ran_out else failure

    def _note_use(self, tenant_id: str, credential: Credential, outcome: str, status: int | None) -> None:
        rejected = status if outcome == FailureKind.KEY_REJECTED.value else None
        key = UsedKey(tenant_id, credential.setting_key, credential.label, credential.provider_id)
        self.keystore.use.note(key, utc_now(), ok=outcome == "ok", rejected_status=rejected)

    async def _complete(self, call: UpstreamCall, left_s: float) -> PlainReply:
        wait_s = min(left_s, self.limits.attempt_timeout_s)
        try:
            async with asyncio.timeout(wait_s):
                return await self.lane.complete(call)
        except TimeoutError:
            raise UpstreamFailed(timed_out(call.provider.id, call.model, wait_s)) from None

    async def _begin(self, call: UpstreamCall, left_s: float) -> OpenStream:
        wait_s = min(left_s, self.limits.first_event_timeout_s)
        reply: StreamReply | None = None
        try:
            async with asyncio.timeout(wait_s):
                reply = await self.lane.stream(call)
                rest = aiter(reply)
                return OpenStream(await anext(rest), rest, reply)
        except BaseException as error:
            if reply is not None:
                await reply.aclose()
            if isinstance(error, TimeoutError):
                raise UpstreamFailed(timed_out(call.provider.id, call.model, wait_s)) from None
            if isinstance(error, StopAsyncIteration):
                empty = Failure(
                    FailureKind.TRUNCATED, call.provider.id, call.model, 200, message="the stream was empty"
                )
                raise UpstreamFailed(empty) from None
            raise


def _next_in_line(
    failure: Failure, candidate: Candidate, queue: list[Candidate], *, other_key: bool, in_order: bool
) -> list[Candidate]:
    """Who is asked after a failure: the same candidate with another key, the others, or, where nobody else is left and
    the provider asked for a short wait, the same one again."""
    if other_key:
        return [candidate, *queue]
    providers = [item.offer.provider_id for item in queue]
    others = [queue[place] for place in order_after(failure, providers, in_order=in_order)]
    return others or ([candidate] if asks_to_wait(failure) else [])


def _unseal(keys: KeysInTurn, provider: Provider, model: str) -> Credential:
    try:
        return keys.unseal(provider.id)
    except CredentialUnusable as error:
        failure = Failure(FailureKind.KEY_UNUSABLE, provider.id, model, message=str(error))
        raise UpstreamFailed(failure) from None


def _name_of(key: Holding) -> str:
    return (key.label or "(no label)") if key.grace_until is None else f"version {key.version}"
