"""The limits of this process: counted in Redis where the settings name one, else in the process; and its places.

Redis's client is imported where the settings name a Redis. Must not know who asks, nor for what.
"""

from gateway.bulk import Places
from gateway.config import Limits
from gateway.limiting.breaker import State
from gateway.limiting.limiter import Limiter
from gateway.limiting.waiting import APART_S, WaitingRoom
from gateway.logs import EventLogger
from gateway.metrics import Metrics
from gateway.overload import BULK_FIRST, Overload
from gateway.settings import Settings
from keystore.keystore import Keystore


def limiter_of(settings: Settings, keystore: Keystore, metrics: Metrics, log: EventLogger) -> Limiter:
    """Opening does not wait for Redis: while it is away, each process admits its share."""
    replicas = keystore.replicas

    def count() -> int:
        return replicas.number

    def round_failed(error: Exception) -> None:
        log.error("limits.round_failed", exc_info=error, note="what waits is told, and leases are kept, in the next")

    if not (url := settings.redis_url):
        return Limiter(replicas=count, round_failed=round_failed)
    from gateway.limiting.shared import SharedLimits  # brings Redis's client

    def tell(state: State, why: str) -> None:
        metrics.set_limits_shared(state is State.CLOSED)
        if state is State.CLOSED:
            log.info("limits.shared", note="limits are counted in Redis for all processes")
        else:
            log.warning("limits.not_shared", state=state.value, why=why, note="each process admits its share")

    metrics.set_limits_shared(True)
    return Limiter(
        lambda unheard: SharedLimits(url, unheard),
        replicas=count,
        tell=tell,
        decided_alone=metrics.decided_alone,
        round_failed=round_failed,
    )


def places_of(limits: Limits, limiter: Limiter, metrics: Metrics, log: EventLogger) -> Places:
    """Each process has its own: they bound what one event loop carries."""

    def tell(overload: Overload) -> None:
        if overload.shedding:
            log.warning("overload.began", allowed=overload.allowed, note="the event loop is late: fewer are let in")
        else:
            log.info("overload.ended", allowed=overload.allowed)

    # What waits may hold a quarter of the room for large bodies: the rest is left to requests that do not wait.
    most_bytes = limits.max_held_bytes // 4
    room = WaitingRoom(limiter, places=limits.bulk_places, most_bytes=most_bytes, apart_s=APART_S)
    room.allow(limits.bulk_places, min(limits.bulk_places, BULK_FIRST))
    overload = Overload(limits.max_in_flight, tell)
    places = Places(
        room,
        overload,
        wait_s=limits.bulk_wait_s,
        answer_s=limits.answer_timeout_s,
        most=limits.bulk_places,
        shed=metrics.shed,
        waited=metrics.bulk_waited,
    )
    metrics.watch_places(waiting=lambda: len(room), allowed=lambda: overload.allowed)
    return places
