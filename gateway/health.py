"""Opens the health of this process: its clock, who hears of it, and whether it is shared through Redis.

Redis's client is imported where the settings name a Redis. Owns how a mark becomes an event. Must not know the rules of
health, which are the router's.
"""

import random
import time
from datetime import UTC, datetime
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from gateway.config import ConfigError
from gateway.events import Events, HealthChanged
from gateway.metrics import Metrics
from gateway.settings import Settings
from router.health_keeper import HealthChange, HealthKeeper
from router.retry_budget import RetryBudget


class Sharing(Protocol):
    """Keeps the health of this process in step with the others'."""

    async def run(self) -> None: ...

    async def close(self) -> None: ...


def open_health(events: Events, metrics: Metrics) -> HealthKeeper:
    """The health of this process, told to the subscribers. Its clock is the wall's at the start; it never goes back."""
    offset = time.time() - time.monotonic()
    keeper = HealthKeeper(lambda: offset + time.monotonic(), random.random)
    keeper.listen(lambda change: events.publish(health_changed(change)))
    metrics.watch_health(keeper.denying)
    return keeper


def health_changed(change: HealthChange) -> HealthChanged:
    """A change of a mark as the event that metrics and log take."""
    subject, mark = change.subject, change.mark
    return HealthChanged(
        ill=subject.ill.value,
        provider=subject.provider_id,
        change="well" if mark is None else "ill",
        model=subject.model or None,
        whose=subject.whose or None,
        why=mark.why if mark else None,
        since=_iso(mark.since) if mark else None,
        until=_iso(mark.until) if mark else None,
        elsewhere=change.elsewhere,
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def check_redis_url(settings: Settings) -> None:
    """Raises ConfigError for what is no URL of a Redis, or has other options than it may; nothing of the URL is
    repeated, since it may hold a password."""
    if not settings.redis_url:
        return
    from router.health_sharing import OPTIONS, OptionError, check_url

    try:
        check_url(settings.redis_url)
    except OptionError:
        known = ", ".join(sorted(OPTIONS))
        why = "has an option that is not known here, or that does not go with the others: it may have"
        raise ConfigError(f"WARDGATE_REDIS_URL {why} {known} (ssl_* with rediss:// alone)") from None
    except ValueError:
        raise ConfigError("WARDGATE_REDIS_URL is no URL of a Redis; use redis://, rediss:// or unix://") from None


def sharing_of(
    settings: Settings, health: HealthKeeper, budget: RetryBudget, metrics: Metrics, log: FilteringBoundLogger
) -> Sharing | None:
    """The sharing of health through WARDGATE_REDIS_URL; None without one. Opening does not wait for Redis: while it is
    away each process goes on with its own view."""
    if not settings.redis_url:
        return None
    from router.health_sharing import HealthSharing  # brings Redis's client

    def replicas(number: int) -> None:
        budget.replicas = number

    def tell(shared: bool, why: str) -> None:
        metrics.set_health_shared(shared)
        if shared:
            log.info("health.shared", note="marks are shared with the other processes through Redis")
        else:
            budget.replicas = 1
            log.warning("health.not_shared", why=why, note="Redis is away: this process goes on with its own view")

    return HealthSharing(health, settings.redis_url, tell=tell, replicas=replicas)
