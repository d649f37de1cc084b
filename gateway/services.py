"""Everything alive, built once at start-up and passed in: nothing in the gateway is a module-level singleton."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.alerting.delivering import Alerting
from gateway.bodies import Bodies
from gateway.books import Books
from gateway.budgeting.holder import Holder
from gateway.bulk import Places
from gateway.config import Limits
from gateway.control.gate import Control
from gateway.events import Events
from gateway.habits import HabitKeeper, PaceKeeper
from gateway.health import Sharing
from gateway.keeping import DecisionKeeper
from gateway.lending import Lending
from gateway.live_check import LiveCheck
from gateway.metrics import Metrics
from gateway.pricing.keeping import PriceKeeper
from gateway.repeats import Repeats
from gateway.transport import Transport
from gateway.upstream import Lane
from keystore.journal import Journal
from keystore.keystore import Keystore
from keystore.shipping import Shipper
from router.health_keeper import HealthKeeper
from router.retry_budget import RetryBudget


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Readiness:
    """Whether new requests should come here; written by the server, read by `/readyz`."""

    ready: bool = False
    why_not: str = "starting"


@dataclass(frozen=True, slots=True)
class Services:
    """The opened parts of one gateway."""

    books: Books
    keystore: Keystore
    control: Control
    prices: PriceKeeper
    transport: Transport
    lane: Lane
    live_check: LiveCheck  # one for the process: its turns bound the calls of all callers
    events: Events
    keeper: DecisionKeeper
    metrics: Metrics
    limits: Limits
    habits: HabitKeeper
    paces: PaceKeeper
    readiness: Readiness
    health: HealthKeeper
    retry_budget: RetryBudget
    bodies: Bodies
    accounts: Accounts
    admission: Admission
    places: Places
    budgets: Holder
    alerting: Alerting
    repeats: Repeats
    lending: Lending
    journal: Journal
    shipper: Shipper
    sharing: Sharing | None  # None: there is no Redis
    report: Callable[[str, BaseException], None]  # logs an unexpected exception under a request id
    now: Callable[[], datetime] = utc_now
    origins: frozenset[str] = frozenset()  # of pages that may call from a browser
