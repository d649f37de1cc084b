"""The limits of this process: counted in Redis where the settings name one, else in the process.

Redis's client is imported where the settings name a Redis. Must not know who asks, nor for what.
"""

from gateway.limiting.breaker import State
from gateway.limiting.limiter import Limiter
from gateway.logs import EventLogger
from gateway.metrics import Metrics
from gateway.settings import Settings
from keystore.keystore import Keystore


def limiter_of(settings: Settings, keystore: Keystore, metrics: Metrics, log: EventLogger) -> Limiter:
    """Opening does not wait for Redis: while it is away, each process admits its share."""
    replicas = keystore.replicas

    def count() -> int:
        return replicas.number

    if not (url := settings.redis_url):
        return Limiter(replicas=count)
    from gateway.limiting.shared import SharedLimits  # brings Redis's client

    def tell(state: State, why: str) -> None:
        metrics.set_limits_shared(state is State.CLOSED)
        if state is State.CLOSED:
            log.info("limits.shared", note="limits are counted in Redis for all processes")
        else:
            log.warning("limits.not_shared", state=state.value, why=why, note="each process admits its share")

    metrics.set_limits_shared(True)
    return Limiter(
        lambda unheard: SharedLimits(url, unheard), replicas=count, tell=tell, decided_alone=metrics.decided_alone
    )
