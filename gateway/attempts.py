"""Walks the ranked candidates until one answers, before the first byte goes to the client.

The predicate that says again or stop is the router's and pure; this module only waits, measures and tells.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway.carrying import Carried, carried
from gateway.chat_request import ChatRequest
from gateway.config import Limits
from gateway.deciding import key_resolved
from gateway.errors import ApiError
from gateway.events import AttemptEnded, Events, FellBack, Outcome
from gateway.failures import problem_of, timed_out
from gateway.keys_in_turn import KeysInTurn
from gateway.tally import Tally
from gateway.upstream import Lane, PlainReply, StreamReply, UpstreamCall, UpstreamFailed
from keystore.clock import utc_now
from keystore.errors import CredentialUnusable
from keystore.holdings import Holding
from keystore.keyring import Credential, Keyring
from keystore.keystore import Keystore
from keystore.providers import Provider, Registry
from keystore.use import UsedKey
from router.decision import Candidate, Decision
from router.failure import Failure, FailureKind
from router.retry import Progress, again, most_useful, order_after

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream that has begun: its first chunk was read, so its provider did answer."""

    first: bytes
    rest: AsyncIterator[bytes]
    reply: StreamReply


@dataclass(frozen=True, slots=True)
class Attempts:
    """Serves one request from its decision. Times in seconds on the monotonic clock."""

    lane: Lane
    keystore: Keystore
    registry: Registry
    events: Events
    limits: Limits

    async def plain(self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally) -> PlainReply:
        """The first complete answer; raises ApiError with the most useful failure when there is none."""
        return await self._walk(request, decision, keyring, tally, self._complete)

    async def stream(self, request: ChatRequest, decision: Decision, keyring: Keyring, tally: Tally) -> OpenStream:
        """The first stream that begins; raises ApiError as `plain` does. The caller closes `reply`."""
        return await self._walk(request, decision, keyring, tally, self._begin)

    async def _walk(
        self,
        request: ChatRequest,
        decision: Decision,
        keyring: Keyring,
        tally: Tally,
        send: Callable[[UpstreamCall, float], Awaitable[Reply]],
    ) -> Reply:
        failures: list[Failure] = []
        queue = list(decision.ranked)
        keys, same = KeysInTurn(self.keystore, keyring), False
        while queue:
            candidate = queue.pop(0)
            sent = self._carried(candidate, request, decision)
            if sent is None:
                continue  # no attempt: nothing would be sent
            key = keys.next(candidate.offer.provider_id)
            self._tell_fallback(failures, candidate, tally, key if same else None)
            self._note(candidate, keyring, key, tally, len(failures) + 1)
            tally.dropped = sent.dropped
            try:
                return await self._once(candidate, sent.request, keys, tally, send)
            except UpstreamFailed as failed:
                failures.append(failed.failure)
                same = keys.turn(failed.failure)
                if same:
                    queue.insert(0, candidate)
                else:
                    order = order_after(failed.failure, [item.offer.provider_id for item in queue])
                    queue = [queue[place] for place in order]
                if not self._again(failed.failure, failures, queue, tally):
                    break
        tally.outcome = Outcome.FAILED
        raise ApiError(problem_of(most_useful(failures), failures))

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

    def _again(self, failure: Failure, failures: list[Failure], queue: list[Candidate], tally: Tally) -> bool:
        progress = Progress(
            attempts=len(failures),
            first_byte_sent=False,
            deadline_left_s=self._left(tally),
            remaining_candidates=len(queue),
        )
        return again(failure, progress, max_attempts=self.limits.max_attempts)

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
        try:
            credential = _unseal(keys, provider, candidate.offer.model)
            call = UpstreamCall(credential.provider, candidate.offer.model, credential, request)
            reply = await send(call, self._left(tally))
            outcome, status = "ok", 200
            return reply
        except UpstreamFailed as failed:
            outcome, status = failed.failure.kind.value, failed.failure.status
            raise
        finally:
            took = time.monotonic() - started
            tally.upstream_s += took
            tally.answering_s, tally.upstream_then_s = took, tally.upstream_s
            if credential is not None:
                self._note_use(keys.tenant_id, credential, outcome, status)
            key = (tally.key_label or None, tally.key_former)
            self.events.publish(
                AttemptEnded(tally.request_id, provider.id, candidate.offer.model, outcome, took, status, *key)
            )

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


def _unseal(keys: KeysInTurn, provider: Provider, model: str) -> Credential:
    try:
        return keys.unseal(provider.id)
    except CredentialUnusable as error:
        failure = Failure(FailureKind.KEY_UNUSABLE, provider.id, model, message=str(error))
        raise UpstreamFailed(failure) from None


def _name_of(key: Holding) -> str:
    return (key.label or "(no label)") if key.grace_until is None else f"version {key.version}"
