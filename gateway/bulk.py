"""Where each call to a model stands among those that run in this process: in flight at once, turned away, or waiting.

Owns the order of these steps and how a caller is told. What makes a request bulk stands in `priority`, how much a
process carries in `overload`, how bulk waits in `limiting.waiting`. Must not know how a limit is counted.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from gateway.asgi import Scope, was_sent
from gateway.errors import ApiError, Problem
from gateway.limiting.asks import CONCURRENCY, Ask, Verdict
from gateway.limiting.waiting import Left, WaitingRoom, bulk_asks
from gateway.overload import Overload, abreast_after
from gateway.priority import HEADER, Priority, is_bulk, said
from gateway.tally import Tally
from router.reasons import Fault

WAITED: Final = "x-wardgate-waited-ms"
GONE: Final = "gone"  # how a wait ended whose client left, beside the words of Left
AGED_S: Final = 1.0  # after a longer wait it is looked again who calls and who may answer
AGAIN_S: Final = 5.0  # where nobody knows when there is room again
OVERLOADED: Final = Problem(
    503,
    "overloaded",
    "The gateway has as many requests as it can carry, and did not begin this one. Send it again shortly.",
    Fault.GATEWAY,
    retry_after_s=1,
    caller_may_retry=True,
)
_PAUSED: Final = Problem(
    503,
    "bulk_paused",
    "The operator has paused bulk requests of this tenant. Send it again later, or without marking it bulk.",
    Fault.PLAN,
    retry_after_s=60,
    caller_may_retry=True,
)
_STOPPING: Final = Problem(
    503,
    "shutting_down",
    "The gateway is shutting down, and this bulk request still waited for its turn. Send it again.",
    Fault.GATEWAY,
    retry_after_s=1,
    caller_may_retry=True,
    headers=MappingProxyType({"connection": "close"}),
)
_FULL: Final = Problem(
    503,
    "bulk_queue_full",
    "As many bulk requests wait here as may. Send it again shortly.",
    Fault.GATEWAY,
    retry_after_s=AGAIN_S,
    caller_may_retry=True,
)
_CROWDED: Final = Problem(
    429,
    "bulk_queue_full",
    "As many bulk requests of this tenant wait here as may of one. Send it again when some of them are answered.",
    Fault.PLAN,
    retry_after_s=AGAIN_S,
    caller_may_retry=True,
)
_EXPIRED: Final = Problem(
    503,
    "bulk_wait_expired",
    "This bulk request waited as long as it may, and the gateway had no room beside its other requests. Send it again.",
    Fault.GATEWAY,
    retry_after_s=AGAIN_S,
    caller_may_retry=True,
)
_PROBLEMS: Final[Mapping[Left, Problem]] = MappingProxyType(
    {Left.FULL: _FULL, Left.CROWDED: _CROWDED, Left.CLOSED: _STOPPING, Left.EXPIRED: _EXPIRED}
)


class _Holds(Enum):
    """What a request has of the places."""

    NOTHING = auto()
    AT_ONCE = auto()
    TURN = auto()


# Looked up once: in Python 3.11 an attribute of an enumeration costs more than the rest of this does.
_NOTHING: Final = _Holds.NOTHING
_AT_ONCE: Final = _Holds.AT_ONCE
_TURN: Final = _Holds.TURN


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one process. Times in seconds: bulk waits at most `wait_s`, and a request as a whole has
    `answer_s`. `most` requests at a time leave room for bulk. `shed` hears of each that is turned away, `waited` how
    each wait ended and how long it was."""

    room: WaitingRoom
    overload: Overload
    wait_s: float
    answer_s: float
    most: int
    shed: Callable[[Priority], None]
    waited: Callable[[str, float], None]

    def take(self, scope: Scope, *, waits: bool = True) -> "Place":
        """A place for a request of which nothing but its headers was read; ApiError 503 when there is none, 400 for a
        priority that is none. To be ended. One that never `waits` is in flight at once, also when it is bulk."""
        wanted = said(scope)
        self.check(wanted is Priority.BULK)
        return Place(self, wanted if waits else None)

    def check(self, bulk: bool) -> None:
        """ApiError 503 when this process carries as much as it can."""
        if self.overload.refuses(self.room.busy, bulk=bulk):
            self.shed(Priority.BULK if bulk else Priority.INTERACTIVE)
            raise ApiError(OVERLOADED)

    def note_lag(self, lag_s: float) -> None:
        """The loop was so late: one tick. Bulk never has more places than are allowed for it."""
        room = self.room
        self.overload.tick(lag_s, room.busy)
        places = min(self.most, self.overload.load.for_bulk)
        room.allow(places, abreast_after(room.abreast, self.most, room.running, lag_s))


class Place:
    """One request's. It is in flight from the beginning; once it is known to be bulk it holds nothing until its turn
    has come."""

    __slots__ = ("_holds", "_places", "_wanted", "bulk", "size")

    def __init__(self, places: Places, wanted: Priority | None) -> None:
        self._places = places
        self._wanted = wanted
        self._holds = _NOTHING
        self.size = 0  # bytes of its body
        self.bulk = wanted is Priority.BULK
        if not self.bulk:
            self._begin()

    def learn(self, *, token: bool = False, tier: object = None) -> None:
        """What is known of the request by now; ApiError 503 where it turns out to be bulk and there is no room for
        bulk."""
        if not self.bulk and is_bulk(self._wanted, token=token, tier=tier):
            self.bulk = True
            self.end()
            self._places.check(bulk=True)

    @contextmanager
    def reading(self, scope: Scope) -> Iterator[None]:
        """While its body is on its way it is not in flight: who sends slowly shuts nobody out. ApiError 503 where there
        is no room any more once it is there."""
        if was_sent(scope):  # it is here already, as nearly every one is
            yield
            return
        with self.aside():
            yield
        if self._holds is _AT_ONCE:
            self.end()
            self._places.check(bulk=False)
            self._begin()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While it waits for the answer to another request, which is in flight itself, it is not: many that repeat one
        request shut nobody out."""
        held = self._holds is _AT_ONCE
        if held:
            self.end()
        try:
            yield
        finally:
            if held:
                self._begin()

    def _begin(self) -> None:
        self._places.room.begin()
        self._holds = _AT_ONCE

    async def wait(
        self, asks: Sequence[Ask], tally: Tally, anew: Callable[[], Awaitable[Sequence[Ask]]] | None = None
    ) -> Verdict:
        """The limits' answer once its turn has come: admitted, or refused where no wait helped. Raises ApiError 503,
        or 429 for the tenant's own many. `anew` tells what is asked by then, after a long wait. The tally says how long
        it took, however it ends."""
        places = self._places
        began, how = time.monotonic(), GONE

        async def now() -> Sequence[Ask]:
            nonlocal asks
            if anew is not None and time.monotonic() - began > AGED_S:
                asks = await anew()
            return bulk_asks(asks)

        patience_s = min(places.wait_s, places.answer_s - (began - tally.started))
        try:
            left, verdict = await places.room.enter(tally.tenant_id, bulk_asks(asks), patience_s, self.size, now)
            how = left.value
        finally:
            tally.waited_s = time.monotonic() - began
            tally.headers |= {HEADER: Priority.BULK.value, WAITED: str(round(tally.waited_s * 1000))}
            places.waited(how, tally.waited_s)
        if left is Left.ADMITTED:
            self._holds = _TURN
        if verdict is None or left in (Left.FULL, Left.CLOSED):
            raise ApiError(self._problem(left, tally))
        return verdict if verdict.refused is None else _as_asked(verdict, asks)

    def _problem(self, left: Left, tally: Tally) -> Problem:
        if left is Left.EXPIRED and self._places.room.is_paused(tally.tenant_id):
            return _PAUSED
        return _PROBLEMS[left]

    def end(self) -> None:
        """Give back what it holds; may be called again."""
        holds, self._holds = self._holds, _NOTHING
        if holds is _AT_ONCE:
            self._places.room.end()
        elif holds is _TURN:
            self._places.room.leave()


def _as_asked(verdict: Verdict, asks: Sequence[Ask]) -> Verdict:
    """A refusal of bulk in terms of the whole limits, as the plan has them."""
    whole = {ask.key: ask for ask in asks}
    standings = tuple(each._replace(ask=whole.get(each.ask.key, each.ask)) for each in verdict.standings)
    refused = verdict.refused
    return verdict._replace(
        standings=standings,
        refused=None if refused is None else refused._replace(ask=whole.get(refused.ask.key, refused.ask)),
    )


def told_of_bulk(problem: Problem, kind: object, tally: Tally) -> Problem:
    """A limit's refusal of a bulk request, which says that it is bulk and how long it waited."""
    left = "which leaves a quarter of them to other requests, " if kind is CONCURRENCY else ""
    text = f"{problem.message} It is bulk, {left}and waited {tally.waited_s or 0:.3g} s."
    return replace(problem, message=text)
