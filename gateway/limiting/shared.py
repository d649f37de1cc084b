"""The limits counted in Redis, for all processes together: one script, by Redis's clock, one round trip a request.

Requests that come while others are on their way travel together, so that a few connections carry any number. Owns the
client, the script's arguments and the deadline; whoever failed is told so within it, and nothing is tried twice. All
keys of a tenant are in one slot of a cluster. Must not know what happens without Redis.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeout

from gateway.limiting.asks import CONCURRENCY, Ask, AwayError, Standing
from gateway.limiting.gcra import LEASE_MS
from gateway.limiting.outbox import Change, Changes

TIMEOUT_S: Final = 0.05  # for connecting, asking and being answered together
SLICES: Final = 10  # a wait is counted in so many parts
LATEST: Final = 100  # timeouts; an answer that comes until then is still read, though nobody waits for it any more
WARM_S: Final = 1.0  # for the first connections, before anybody waits
FLIGHTS: Final = 4  # on their way at a time; each may carry many requests
CONNECTIONS: Final = 4 * FLIGHTS  # with those that are late; what is told behind takes one, a trial one
TOGETHER: Final = 128  # requests in one flight, at most
EPOCH: Final = "wardgate:limit:epoch"  # is gone when Redis lost its data
TOLD: Final = "wardgate:limit:{beyond}:by:"  # and the process's name
TELLERS: Final = "wardgate:limit:{beyond}:tellers"
TOLD_MS: Final = 5_000  # a process that tells nothing for so long is gone
REDIS_TIME: Final = "local time = redis.call('TIME') local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
_LEASE: Final = str(LEASE_MS)
_LATE: Final = (TimeoutError, RedisTimeout)

Command = tuple[list[str], str]  # KEYS, and all that the script is told of them
Result = TypeVar("Result")
Answer = tuple[bool, tuple[Standing, ...]]


def script(clock: str = REDIS_TIME) -> str:
    """The script; `clock` is the Lua line that sets `now`, and only tests have another than Redis's own."""
    return clock + files("gateway.limiting").joinpath("admit.lua").read_text(encoding="utf-8")


def redis_key(ask: Ask) -> str:
    """Where a limit is counted: what is in braces decides the slot of a cluster."""
    return f"wardgate:limit:{{{ask.tenant}}}:{ask.key}"


class Fuse:
    """Burns for a time and then calls. It is counted in slices, each of which lasts for a turn of the loop at least:
    what the loop itself is late, and has not read yet, does not count as Redis's delay."""

    __slots__ = ("_call", "_loop", "_slice_s", "_slices", "_timer")

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._slices = SLICES
        self._slice_s = seconds / SLICES
        self._call = call
        self._timer = self._loop.call_later(self._slice_s, self._burn)

    @property
    def burnt(self) -> bool:
        """Whether it has called."""
        return not self._slices

    def _burn(self) -> None:
        self._slices -= 1
        if self._slices:
            self._timer = self._loop.call_later(self._slice_s, self._burn)
        else:
            self._call()

    def cancel(self) -> None:
        """Do not call any more."""
        self._timer.cancel()


class _Waiting:
    """A request that waits for its answer."""

    __slots__ = ("_skipped", "asks", "boarded", "command", "future", "holder")

    def __init__(
        self, asks: Sequence[Ask], holder: str, changes: Sequence[Change], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.asks = asks
        self.holder = holder
        self.boarded = False
        self.command = _asking(asks, holder, changes)
        self._skipped = 1 + 3 * len(changes)
        self.future: asyncio.Future[Answer] = loop.create_future()

    def read(self, words: Any) -> Answer:
        """The script's answer as records; AwayError for one that is not the script's."""
        try:
            return _read(self.asks, words.split(), self._skipped)
        except (AttributeError, TypeError, ValueError):
            raise AwayError("the answer is not the script's") from None

    def answer(self, answer: Answer) -> bool:
        """Tell the answer; False when it was admitted and nobody hears it any more."""
        if not self.future.done():
            self.future.set_result(answer)
            return True
        return not answer[0]

    def fail(self, error: AwayError) -> None:
        if not self.future.done():
            self.future.set_exception(AwayError(str(error), trip=error.trip, late=error.late))


class SharedLimits:
    """One process's way to the counts. `unheard(asks, holder)` hears of a request that was admitted after its
    caller had left."""

    def __init__(
        self,
        url: str,
        unheard: Callable[[Sequence[Ask], str], None],
        *,
        timeout_s: float = TIMEOUT_S,
        script_text: str | None = None,
    ) -> None:
        """Connects when it is first used."""
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=LATEST * timeout_s,
            socket_connect_timeout=LATEST * timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS,
        )
        self._unheard = unheard
        self._timeout_s = timeout_s
        self._script = script_text or script()
        self._sha = sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._epoch: str | None = None  # as last heard
        self._lost = object()  # the trip of all that find the data lost, until the mark is heard anew
        self._waiting: deque[_Waiting] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()  # given up, and not landed yet

    async def admit(self, asks: Sequence[Ask], holder: str, changes: Sequence[Change] = ()) -> Answer:
        """Take all that is asked, or nothing, after `changes` were made to the same tenant's limits; these hear whether
        they left. Raises AwayError within the timeout."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(asks, holder, changes, loop)
        self._waiting.append(waiting)
        if len(self._flights) < FLIGHTS:
            self._flights.add(loop.create_task(self._fly()))
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if not waiting.future.cancelled() and waiting.future.exception() is None and waiting.future.result()[0]:
                self._unheard(asks, holder)  # it left at the moment in which its answer came
            raise
        finally:
            if not waiting.boarded and isinstance(changes, Changes):
                changes.unsent = True

    async def _fly(self) -> None:
        """Carry what waits until nothing does, or a flight fails. Who comes after that needs another flight, so it has
        landed in that same moment."""
        try:
            while (aboard := self._board()) and await self._carry(aboard):
                pass
        finally:
            flight = cast("asyncio.Task[None]", asyncio.current_task())
            self._flights.discard(flight)
            self._late.discard(flight)

    async def _carry(self, aboard: list[_Waiting]) -> bool:
        """One flight. Who is aboard waits for the timeout and no longer; the flight itself goes on for a while, since
        what Redis admits too late is to be given back. False when it failed."""
        flight = asyncio.current_task()
        fuse = Fuse(
            self._timeout_s, lambda: self._fail(aboard, AwayError("TimeoutError", trip=object(), late=True), flight)
        )
        try:
            found = await self._run([each.command for each in aboard])
            answers = [each.read(words) for each, words in zip(aboard, found, strict=True)]
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody aboard may wait for ever
            if not fuse.burnt:  # else they were told; who waits now waits for other flights
                self._fail(aboard, _away(error, object()), flight)
            return False
        finally:
            fuse.cancel()
        for each, answer in zip(aboard, answers, strict=True):
            if not each.answer(answer):
                self._unheard(each.asks, each.holder)
        return not fuse.burnt

    def _fail(self, aboard: list[_Waiting], error: AwayError, flight: "asyncio.Task[None] | None") -> None:
        """Where one flight fails, those that wait for the next one fail with it: they would wait longer than they may.
        The flight makes room for another."""
        for each in [*aboard, *self._waiting]:
            each.fail(error)
        self._waiting.clear()
        if flight in self._flights:
            self._flights.discard(flight)
            self._late.add(flight)

    def _board(self) -> list[_Waiting]:
        aboard: list[_Waiting] = []
        while self._waiting and len(aboard) < TOGETHER:
            first = self._waiting.popleft()
            if not first.future.done():
                first.boarded = True
                aboard.append(first)
        return aboard

    async def warm(self) -> None:
        """Connect, and make the script known, before anybody waits for it. Raises AwayError."""
        try:
            async with asyncio.timeout(WARM_S):
                await asyncio.gather(*(self._redis.script_load(self._script) for _ in range(FLIGHTS)))
        except Exception as error:  # noqa: BLE001 - as in `_carry`
            raise _away(error) from None

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make changes that cannot be refused, in one round trip. Raises AwayError within the timeout."""
        by_tenant: dict[str, list[Change]] = {}
        for change in changes:
            by_tenant.setdefault(change.ask.tenant, []).append(change)
        await self._in_time(self._run([_changing(group) for group in by_tenant.values()]))

    async def epoch(self, fresh: str) -> str:
        """The mark that Redis has kept since it last lost its data; `fresh` where it holds none. Raises AwayError."""
        kept = await self._in_time(self._redis.set(EPOCH, fresh, nx=True, get=True))
        self._epoch, self._lost = fresh if kept is None else str(kept, "ascii", "replace"), object()
        return self._epoch

    async def exchange(self, name: str, text: str) -> list[str]:
        """Tell the other processes a text for the next seconds; theirs. Raises AwayError within the timeout."""
        return await self._in_time(self._exchange(name, text))

    async def _exchange(self, name: str, text: str) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(TOLD + name, text, px=TOLD_MS)
            pipe.sadd(TELLERS, name)
            pipe.smembers(TELLERS)
            tellers = {str(each, "ascii", "replace") for each in (await pipe.execute())[-1]} - {name}
        if not tellers:
            return []
        told = dict(zip(tellers, await self._redis.mget([TOLD + each for each in tellers]), strict=True))
        silent = [each for each, text_of in told.items() if text_of is None]
        if silent:
            await self._redis.srem(TELLERS, *silent)
        return [str(each, "utf-8", "replace") for each in told.values() if each is not None]

    async def _in_time(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(None) as limit:
                fuse = Fuse(self._timeout_s, lambda: limit.reschedule(0))
                try:
                    return await work
                finally:
                    fuse.cancel()
        except Exception as error:  # noqa: BLE001 - as in `_carry`
            raise _away(error) from None

    async def close(self) -> None:
        """Close the connections; what is on its way is left alone."""
        await self._redis.aclose()

    async def _run(self, commands: Sequence[Command]) -> list[bytes]:
        answers = await self._call("EVALSHA", self._sha, commands)
        if any(isinstance(answer, NoScriptError) for answer in answers):  # none ran: it came to be known to none
            await self._check_data()
            answers = await self._call("EVAL", self._script, commands)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _check_data(self) -> None:
        """A server that forgot the script was perhaps started anew. AwayError where it has not the data it had."""
        if self._epoch is None:
            return
        kept = await self._redis.get(EPOCH)
        if kept is None or str(kept, "ascii", "replace") != self._epoch:
            raise AwayError("the data were lost", trip=self._lost)

    async def _call(self, verb: str, text: str, commands: Sequence[Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for keys, words in commands:
                pipe.execute_command(verb, text, len(keys), *keys, words)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers


def _away(error: Exception, trip: object = None) -> AwayError:
    """Whatever ended a round trip: under uvloop the client raises RuntimeError for a connection that was reset."""
    if isinstance(error, AwayError):
        return AwayError(str(error), trip=error.trip or trip)
    return AwayError(type(error).__name__, trip=trip, late=isinstance(error, _LATE))


def _asking(asks: Sequence[Ask], holder: str, changes: Sequence[Change]) -> Command:
    keys, words = _changing(changes)
    told = [words]
    for ask in asks:
        if ask.kind is CONCURRENCY:
            told.append(f"lease {ask.limit} {holder}")
        else:
            told.append(f"rate {ask.limit} {ask.amount}")
    return keys + [redis_key(ask) for ask in asks], " ".join(told)


def _changing(changes: Sequence[Change]) -> Command:
    words = [f"{change.verb} {change.ask.limit} {change.what}" for change in changes]
    return [redis_key(change.ask) for change in changes], " ".join([_LEASE, *words])


def _read(asks: Sequence[Ask], words: list[bytes], skipped: int) -> Answer:
    """The script's answer as records; the first `skipped` words are not about what was asked."""
    turn = map(int, words[skipped:])
    standings = [
        Standing(ask, remaining, reset_ms, None if retry_ms < 0 else retry_ms)
        for ask, remaining, reset_ms, retry_ms in zip(asks, turn, turn, turn, strict=True)
    ]
    return words[0] == b"1", tuple(standings)
