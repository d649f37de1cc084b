"""`Idempotency-Key`: a request that is sent twice is asked once, and both get the same answer.

Owns which outcomes are kept, and the waiting: of those in this process on a future, of those in others on a look at the
row (keystore.answers) now and then. Must not know how an answer is stored, nor how one is made.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakValueDictionary

from gateway.errors import ApiError, Problem
from keystore.answers import Answer, AnswerStore, Asked, Claim, Running, Stored, Unreadable
from keystore.errors import DatabaseUnavailable, EnvelopeDamaged, IdempotencyReused, KeystoreError, SealingError
from keystore.tenants import Tenant
from router.failure import CONSEQUENCES
from router.reasons import Fault

Result = TypeVar("Result")
Aside = Callable[[], AbstractContextManager[None]]
REPLAYED: Final = "x-wardgate-replayed"
NOT_KEPT: Final = {"x-wardgate-idempotency": "not-kept"}  # of an answer that a repeat would not get again
WRITERS: Final = 4  # claims of one tenant that are written at the same time: a flood of keys leaves others their turn
_OURS: Final = "x-wardgate-"
_ALSO: Final = frozenset({"content-type", "x-should-retry"})
# What a provider said of the request itself: it would say so again. All else may go better the next time.
_DEFINITE: Final = frozenset(
    kind.value for kind, found in CONSEQUENCES.items() if found.fault is Fault.CALLER and not found.caller_may_retry
)

REUSED: Final = Problem(
    409,
    "idempotency_key_reused",
    "This Idempotency-Key was used for another request within the last 24 hours. Take a new key for each request, and"
    " repeat a request byte for byte.",
    Fault.CALLER,
)
IN_PROGRESS: Final = Problem(
    409,
    "idempotency_in_progress",
    "The first request with this Idempotency-Key has not been answered yet. Send it again in a moment.",
    Fault.CALLER,
    retry_after_s=2,
    caller_may_retry=True,
)
UNAVAILABLE: Final = Problem(
    503,
    "idempotency_unavailable",
    "The database that keeps requests with an Idempotency-Key from being asked twice cannot be reached right now. Try"
    " again shortly.",
    Fault.GATEWAY,
    retry_after_s=2,
    caller_may_retry=True,
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how often this process says that it lives, and the pauses between two looks at a row."""

    beat_s: float = 5.0
    first_s: float = 0.05
    most_s: float = 1.0

    def after(self, pause: float) -> float:
        """The next pause."""
        return min(pause * 1.6, self.most_s)


CALM: Final = Pace()


def definite(problem: Problem) -> bool:
    """Whether a refusal is kept: providers were asked, and each said that this request itself cannot be answered. What
    was refused before anybody was asked costs nothing to refuse again, and may be allowed by then."""
    attempts = problem.extra.get("attempts")
    return isinstance(attempts, list) and bool(attempts) and all(one["error"] in _DEFINITE for one in attempts)


@dataclass(frozen=True, slots=True)
class Replay:
    """What the first request was answered. `request_id` is the first's."""

    request_id: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that this process asks or waits for; the outcome is None when the next must try."""

    asked: Asked
    outcome: "asyncio.Future[Stored | Problem | None]"

    def end(self, outcome: Stored | Problem | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Ticket:
    """The request is ours to ask, once. An `async with` around the call: one that ends without `done` gives the request
    back, also when it is cancelled."""

    __slots__ = ("_call", "_claim", "_repeats", "_settled")

    def __init__(self, repeats: "Repeats", call: _Call, claim: Claim) -> None:
        self._repeats = repeats
        self._call = call
        self._claim = claim
        self._settled = False

    async def done(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Keep the answer, then tell it to all who wait; to be awaited before its last byte is sent. False when it is
        not kept and a repeat is asked again: it is too large, the database is away, or another process has taken over.
        Once begun it is done to its end, whoever leaves."""
        if self._settled:
            return False
        self._settled = True
        kept = {name: value for name, value in headers.items() if name.startswith(_OURS) or name in _ALSO}
        stored = Stored(self._claim.request_id, Answer(status, kept, body))
        return await self._repeats.to_the_end(self._repeats.keep(self._call, self._claim, stored))

    async def streamed(self) -> bool:
        """A stream came to its end. It is not kept, but that it was there is: nobody is charged for it again."""
        return await self.done(200, {}, b"")

    def failed(self) -> None:
        """There is nothing to keep: the next who comes with this key asks again. Harmless after `done`."""
        if not self._settled:
            self._settled = True
            self._repeats.give_up(self._call, self._claim)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed()


class Repeats:
    """The requests with a key of one process. `counts` says how often each thing happened: first, replayed, reused,
    in_progress, stream_ended, unavailable, not_kept, unreadable (gateway.metric_specs.REPEATED)."""

    def __init__(
        self,
        store: AnswerStore,
        report: Callable[[str, BaseException], None],
        *,
        pace: Pace = CALM,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        """`away` tells whether the database did not answer a moment ago: nobody queues for it then."""
        self._store = store
        self._report = report
        self._away = away
        self._pace = pace
        self._calls: dict[bytes, _Call] = {}
        self._lanes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by tenant, while one waits
        self._tasks: set[asyncio.Task[Any]] = set()
        self._claims = 0
        self._beating: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()

    async def begin(
        self,
        tenant: Tenant,
        endpoint: str,
        key: str,
        body: bytes,
        *,
        request_id: str,
        within_s: float,
        stream: bool = False,
        allowed_models: Collection[str] = (),
        aside: Aside = nullcontext,
    ) -> Ticket | Replay:
        """A ticket for the one who asks, the first's answer for all others; waits at most `within_s` seconds for it.
        Raises ApiError: 409 for another body, for a first that takes longer and for a stream that was answered, 503
        while the database is away. `tenant` is whose token it is, `request_id` our own of this request,
        `allowed_models` those that the token is for: no other token is answered by what was asked with it. Others
        are waited for inside `aside`."""
        try:
            async with asyncio.timeout(within_s):
                asked = await self._store.named(tenant, endpoint, key, body, allowed_models)
                found = await self._turn(asked, request_id, aside)
        except TimeoutError:
            raise self._refusal(IN_PROGRESS) from None
        except SealingError as error:
            raise self._refusal(UNAVAILABLE) from error
        if isinstance(found, Problem):
            raise self._refusal(found)
        if isinstance(found, Ticket):
            self.counts["first"] += 1
            return found
        return self._replay(found, stream=stream)

    def _replay(self, found: Stored, *, stream: bool) -> Replay:
        answer = found.answer
        if stream and answer.status == 200:
            raise self._refusal(_streamed(found.request_id))
        self.counts["replayed"] += 1
        return Replay(found.request_id, answer.status, {**answer.headers, REPLAYED: "true"}, answer.body)

    def _refusal(self, problem: Problem) -> ApiError:
        self.counts[problem.code.removeprefix("idempotency_").removeprefix("key_")] += 1
        return ApiError(problem)

    # --- whose turn it is --------------------------------------------------------------------------------------------

    async def _turn(self, asked: Asked, request_id: str, aside: Aside) -> Ticket | Stored | Problem:
        """One of this process goes to the database, the others wait for it."""
        while True:
            call = self._calls.get(asked.key_hash)
            if call is None:
                return await self._lead(asked, request_id, aside)
            if call.asked.request_mac != asked.request_mac:
                return REUSED
            with aside():
                outcome = await asyncio.shield(call.outcome)
            if outcome is not None:
                return outcome

    async def _lead(self, asked: Asked, request_id: str, aside: Aside) -> Ticket | Stored | Problem:
        call = _Call(asked, asyncio.get_running_loop().create_future())
        self._calls[asked.key_hash] = call
        found: Ticket | Stored | Problem | None = None
        try:
            found = await self._claimed(call, request_id, aside)
            return found
        except IdempotencyReused:
            found = REUSED
            return found
        except DatabaseUnavailable as error:
            found = UNAVAILABLE
            raise self._refusal(found) from error
        finally:
            if not isinstance(found, Ticket):
                self._end(call, found)

    async def _claimed(self, call: _Call, request_id: str, aside: Aside) -> Ticket | Stored:
        """Looks until there is an answer or nobody asks any more; who claims it then is told by the database."""
        pause, lost = self._pace.first_s, ""
        found: Ticket | Stored | Unreadable | Running | None
        while True:
            lane = await self._turn_to_claim(call, aside)
            found = await self.to_the_end(self._begin_to_claim(call, request_id, lost, lane))
            while isinstance(found, Running):
                with aside():
                    await asyncio.sleep(pause)
                pause = self._pace.after(pause)
                found = await self._store.look(call.asked)
            if isinstance(found, Ticket | Stored):
                return found
            if found is not None:
                self._tell_unreadable(request_id)
                lost = found.request_id

    async def _turn_to_claim(self, call: _Call, aside: Aside) -> asyncio.Semaphore:
        """The tenant's lane, in which a place is ours then; who waits for one is not in flight. DatabaseUnavailable at
        once while the database is away: each of those in front would wait for it in vain."""
        lane = self._lane(call)
        self._check_there()
        with aside() if lane.locked() else nullcontext():
            await lane.acquire()
        try:
            self._check_there()
        except DatabaseUnavailable:
            lane.release()
            raise
        return lane

    def _check_there(self) -> None:
        if self._away():
            raise DatabaseUnavailable("the database is away")

    def _lane(self, call: _Call) -> asyncio.Semaphore:
        return self._lanes.setdefault(call.asked.tenant.id, asyncio.Semaphore(WRITERS))

    async def _begin_to_claim(
        self, call: _Call, request_id: str, lost: str, lane: asyncio.Semaphore
    ) -> Ticket | Stored | Unreadable | Running:
        """`lane` is ours, and is left when the database has answered, whoever waits for it."""
        try:
            found = await self._store.claim(call.asked, request_id, instead_of=lost)
        finally:
            lane.release()
        if not isinstance(found, Claim):
            return found
        self._claims += 1
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        return Ticket(self, call, found)

    def _tell_unreadable(self, request_id: str) -> None:
        self.counts["unreadable"] += 1
        words = "the kept answer to an earlier request with this idempotency key does not open; it is asked again"
        self._report(request_id, EnvelopeDamaged(words))

    # --- what comes of it --------------------------------------------------------------------------------------------

    async def keep(self, call: _Call, claim: Claim, stored: Stored) -> bool:
        """Whether the answer was kept; all who wait here have it in any case."""
        kept = False
        try:
            kept = await self._store.finish(claim, stored.answer)
        except Exception as error:  # noqa: BLE001 - the answer is there and paid for: its caller gets it
            self._report(claim.request_id, error)
        finally:
            self._claims -= 1
            self.counts["not_kept"] += not kept
            self._end(call, stored)
        return kept

    def give_up(self, call: _Call, claim: Claim) -> None:
        """The next may try: in this process at once, in others when the row is gone."""
        self._claims -= 1
        self._end(call, None)
        self._spawn(self._forget(claim, self._lane(call)))

    async def _forget(self, claim: Claim, lane: asyncio.Semaphore) -> None:
        try:
            async with lane:
                await self._store.forget(claim)
        except KeystoreError as error:  # the row is left alone, and runs out
            self._report(claim.request_id, error)

    def _end(self, call: _Call, outcome: Stored | Problem | None) -> None:
        if self._calls.get(call.asked.key_hash) is call:
            del self._calls[call.asked.key_hash]
        call.end(outcome)

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def to_the_end(self, work: Coroutine[Any, Any, Result]) -> Result:
        """`work`, which goes on when who waits for it is cancelled; a ticket that nobody takes is given back."""
        task = self._spawn(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_given_back)
            raise

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _beat(self) -> None:
        """Say that this process lives while it asks anything."""
        while self._claims:
            await asyncio.sleep(self._pace.beat_s)
            try:
                await self._store.renew()
            except KeystoreError as error:
                self._report("", error)
        self._beating = None

    async def close(self) -> None:
        """Wait for what is being written."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})


def _given_back(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and task.exception() is None and isinstance(task.result(), Ticket):
        task.result().failed()


def _streamed(request_id: str) -> Problem:
    return Problem(
        409,
        "idempotency_stream_ended",
        f"The stream with this Idempotency-Key was sent to its end (request {request_id}). Streams are not kept, so it"
        " cannot be sent again. Take a new key to ask again.",
        Fault.CALLER,
        extra={"request_id": request_id},
    )
