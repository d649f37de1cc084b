"""Counts the gateway's Prometheus metrics: what each event adds to those of `metric_specs`.

A subscriber of events: the code that serves a call never mentions a metric. Must not know tenants, tokens, or the text
that a caller sent: every label value comes from a closed set, and anything else is counted as `other`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

from gateway.budgeting.holder import Why
from gateway.events import (
    AttemptEnded,
    BudgetCrossed,
    Decided,
    Delivery,
    Event,
    FellBack,
    HealthChanged,
    KeyResolved,
    Outcome,
    RequestCompleted,
    RetryRefused,
    RouteRefused,
    SpendUnusual,
    WebhookTried,
)
from gateway.inbound.refusals import Refusal
from gateway.limiting.asks import Kind as Limit
from gateway.metric_specs import (
    ATTEMPTS,
    BUDGET_OVERRUNS,
    BUDGET_REFUSALS,
    BUDGET_THRESHOLDS,
    BUDGETS_FILLED,
    BUILD_INFO,
    BULK_WAIT,
    BULK_WAITING,
    COST,
    DECISIONS_DROPPED,
    DURATION,
    EVENT_FAILURES,
    FALLBACKS,
    FIRST_TOKEN,
    HEALTH_CHANGES,
    HEALTH_MARKS,
    HEALTH_SHARED,
    IDEMPOTENT,
    IN_FLIGHT_ALLOWED,
    INBOUND_REFUSALS,
    INFLIGHT,
    KEY_RESOLUTIONS,
    LEDGER_OLDEST,
    LEDGER_PENDING,
    LEDGER_REJECTED,
    LEDGER_ROWS,
    LEDGER_TAKEN_OVER,
    LEDGER_TORN,
    LEGACY_READS,
    LIMITED,
    LIMITS_SHARED,
    LIMITS_UNHEARD,
    LOOP_LAG,
    MISSING,
    NONE,
    NOT_TAKEN,
    OTHER,
    OVERHEAD,
    PRICE_REFRESHES,
    READY,
    REJECTIONS,
    REPEATED,
    REQUESTS,
    RETRY_BUDGET_EXHAUSTED,
    SHED,
    SPECS,
    TOKENS,
    UNPRICED,
    UNUSUAL,
    UPSTREAM,
    WEBHOOKS_TRIED,
    WEBHOOKS_WAITING,
    WORKERS,
    Kind,
    Spec,
)
from gateway.metrics_page import CountsKeptElsewhere, KeptElsewhere
from gateway.pricing.refreshing import Outcome as PriceOutcome
from gateway.priority import Priority
from gateway.series import Series
from keystore.budget_spent import THRESHOLDS
from keystore.budgets import Spend, Whose
from keystore.resolve import Store, Via
from keystore.shipment import Counts
from router.health import Ill
from router.reasons import Reason

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_KEPT_ELSEWHERE: Final = (
    DECISIONS_DROPPED,
    EVENT_FAILURES,
    LEDGER_ROWS,
    LEDGER_REJECTED,
    LEDGER_TAKEN_OVER,
    LEDGER_TORN,
    BUDGET_OVERRUNS,
)


class Metrics:
    """Every metric of the gateway on one registry, fed by events.

    `providers` (ids) and `models` (as RequestCompleted.model writes them) are the label values that are let through.
    """

    def __init__(self, registry: CollectorRegistry, *, providers: Collection[str], models: Collection[str]) -> None:
        given = {"providers": frozenset(providers), "models": frozenset(models), "build": frozenset[str]()}
        self._given = given
        self._page = registry
        self._allowed = _allowed(given)
        counted = [spec for spec in SPECS if spec not in (*_KEPT_ELSEWHERE, IDEMPOTENT)]
        self._series = Series(counted, self._held, registry)
        self._gauges = {
            spec: Gauge(spec.name, spec.help, spec.label_names, registry=registry)
            for spec in SPECS
            if spec.kind is Kind.GAUGE
        }
        self._elsewhere = {spec: KeptElsewhere(spec.name, spec.help, registry) for spec in _KEPT_ELSEWHERE}
        (outcome,) = IDEMPOTENT.label_names
        values = (*REPEATED, OTHER)
        self._repeated = CountsKeptElsewhere(IDEMPOTENT.name, IDEMPOTENT.help, outcome, values, registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._start_at_zero(given["providers"])
        self._on: dict[type, Callable[..., None]] = {
            RequestCompleted: self._request_completed,
            Decided: lambda _: None,  # what becomes of it is counted
            KeyResolved: self._key_resolved,
            AttemptEnded: self._attempt_ended,
            FellBack: self._fell_back,
            RetryRefused: self._retry_refused,
            HealthChanged: self._health_changed,
            RouteRefused: self._route_refused,
            BudgetCrossed: lambda event: self._count(BUDGET_THRESHOLDS, str(event.per_cent), event.whose, event.spend),
            SpendUnusual: lambda event: self._count(UNUSUAL, Whose.TOKEN if event.token_id else Whose.TENANT),
            WebhookTried: lambda event: self._count(WEBHOOKS_TRIED, event.outcome),
        }

    def __call__(self, event: Event) -> None:
        """Count one event."""
        self._on[type(event)](event)

    def request_began(self) -> None:
        """One more request in flight; each is followed by `request_ended`."""
        self._gauges[INFLIGHT].inc()

    def request_ended(self) -> None:
        """One request less in flight."""
        self._gauges[INFLIGHT].dec()

    def note_loop_lag(self, seconds: float) -> None:
        """A timer of the event loop came so much too late."""
        self._observe(LOOP_LAG, seconds)

    def set_serving(self) -> None:
        """This process serves: one of so many."""
        self._gauges[WORKERS].set(1)

    def refused(self, refusal: Refusal) -> None:
        """A connection was refused or closed below the application."""
        self._count(INBOUND_REFUSALS, refusal)

    def not_taken(self) -> None:
        """The system let no connection be taken."""
        self._count(NOT_TAKEN)

    def set_ready(self, ready: bool) -> None:
        """What /readyz says."""
        self._gauges[READY].set(1 if ready else 0)

    def set_build(self, *, version: str, catalogue: str, registry: str) -> None:
        """The versions in use now; the former ones leave the page."""
        self._gauges[BUILD_INFO].clear()
        self._gauges[BUILD_INFO].labels(version, catalogue, registry).set(1)

    def set_models(self, models: Collection[str]) -> None:
        """The models of the catalogue in use now: another one is counted as `other`."""
        self._given["models"] = frozenset(models)
        self._allowed = _allowed(self._given)
        self._series.ask_anew()

    def price_refreshed(self, outcome: PriceOutcome) -> None:
        """One refresh of prices has ended."""
        self._count(PRICE_REFRESHES, outcome)

    def set_health_shared(self, shared: bool) -> None:
        """Whether other processes hear of this one's marks."""
        self._gauges[HEALTH_SHARED].set(1 if shared else 0)

    def watch_health(self, denying: Callable[[Ill], int]) -> None:
        """`denying` gives the marks of an ill; it is asked at every scrape."""
        for ill in Ill:
            self._gauges[HEALTH_MARKS].labels(ill.value).set_function(partial(denying, ill))

    def watch_event_failures(self, count: Callable[[], int]) -> None:
        """`count` gives Events.failures; it is read at every scrape."""
        self._elsewhere[EVENT_FAILURES].count = count

    def watch_decisions_dropped(self, count: Callable[[], int]) -> None:
        """`count` gives DecisionKeeper.dropped; it is read at every scrape."""
        self._elsewhere[DECISIONS_DROPPED].count = count

    def watch_ledger(self, pending: Callable[[], int], oldest_s: Callable[[], float], counts: Counts) -> None:
        """The shipper's numbers; they are read at every scrape."""
        self._gauges[LEDGER_PENDING].set_function(pending)
        self._gauges[LEDGER_OLDEST].set_function(oldest_s)
        self._elsewhere[LEDGER_ROWS].count = lambda: counts.shipped
        self._elsewhere[LEDGER_REJECTED].count = lambda: counts.rejected
        self._elsewhere[LEDGER_TAKEN_OVER].count = lambda: counts.taken_over
        self._elsewhere[LEDGER_TORN].count = lambda: counts.torn

    def watch_repeats(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """`counts` gives those of Repeats; they are read at every scrape."""
        self._repeated.counts = counts

    def watch_overruns(self, count: Callable[[], int]) -> None:
        """`count` gives the budgeting Holder's overruns; it is read at every scrape."""
        self._elsewhere[BUDGET_OVERRUNS].count = count

    def limited(self, limit: Limit) -> None:
        """A limit refused a request."""
        self._count(LIMITED, limit)

    def set_limits_shared(self, shared: bool) -> None:
        """Whether limits are counted in Redis."""
        self._gauges[LIMITS_SHARED].set(1 if shared else 0)

    def shed(self, priority: Priority) -> None:
        """A request was turned away because the process had as many as it could carry."""
        self._count(SHED, priority)

    def bulk_waited(self, end: str, seconds: float) -> None:
        """A bulk request's wait for its turn has ended: a word of `Left`, or GONE."""
        self._observe(BULK_WAIT, seconds, end)

    def watch_places(self, waiting: Callable[[], int], allowed: Callable[[], int]) -> None:
        """How many bulk requests wait, and how many may be in flight; both are read at every scrape."""
        self._gauges[BULK_WAITING].set_function(waiting)
        self._gauges[IN_FLIGHT_ALLOWED].set_function(allowed)

    def decided_alone(self, admitted: bool) -> None:
        """Redis did not answer about a request in time, and this process's share decided."""
        self._count(LIMITS_UNHEARD, "true" if admitted else "false")

    def budget_refused(self, why: Why) -> None:
        """A hard budget refused a call."""
        self._count(BUDGET_REFUSALS, why)

    def set_filled(self, reached: Mapping[int, int]) -> None:
        """How many budgets have reached which threshold, the highest of each."""
        for least in THRESHOLDS:
            number = sum(budgets for per_cent, budgets in reached.items() if per_cent >= least)
            self._gauges[BUDGETS_FILLED].labels(str(least)).set(number)

    def set_webhooks_waiting(self, number: int) -> None:
        """So many alerts are not delivered yet."""
        self._gauges[WEBHOOKS_WAITING].set(number)

    def families(self) -> Iterable[Metric]:
        """What stands on the page, as data."""
        return self._page.collect()

    def render(self) -> bytes:
        """The page in Prometheus's text format, of type CONTENT_TYPE."""
        return generate_latest(self._page)

    def _request_completed(self, event: RequestCompleted) -> None:
        code_class = f"{event.status // 100}xx"
        self._count(REQUESTS, event.endpoint, code_class, event.outcome, event.fault or NONE)
        self._observe(DURATION, event.duration_s, event.endpoint, "true" if event.stream else "false")
        self._observe(OVERHEAD, event.overhead_s, event.endpoint)
        if event.provider is not None:
            self._answered(event, event.provider, event.model or OTHER)

    def _answered(self, event: RequestCompleted, provider: str, model: str) -> None:
        if event.first_token_s is not None:
            self._observe(FIRST_TOKEN, max(0.0, event.first_token_s - (event.waited_s or 0.0)), provider)
        if (usage := event.usage) is not None:
            self._count_tokens(provider, model, "cached_input", usage.cached_input_tokens)
            self._count_tokens(provider, model, "input", usage.input_tokens - usage.cached_input_tokens)
            self._count_tokens(provider, model, "reasoning", usage.reasoning_tokens)
            self._count_tokens(provider, model, "output", usage.output_tokens - usage.reasoning_tokens)
        if event.cost_usd is not None:  # a float is exact enough to draw; money itself is never added up here
            self._count(COST, provider, model, event.key_source or OTHER, by=float(event.cost_usd))
        elif event.outcome in (Outcome.OK, Outcome.CUT):
            self._count(UNPRICED, provider)

    def _count_tokens(self, provider: str, model: str, kind: str, tokens: int) -> None:
        if tokens > 0:  # a provider that reports more cached than input tokens must not make a counter fall
            self._count(TOKENS, provider, model, kind, by=tokens)

    def _key_resolved(self, event: KeyResolved) -> None:
        self._count(KEY_RESOLUTIONS, event.provider, event.via)
        if event.store == Store.LEGACY:
            self._count(LEGACY_READS, event.provider)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._count(ATTEMPTS, event.provider, event.outcome)
        self._observe(UPSTREAM, event.duration_s, event.provider)

    def _fell_back(self, event: FellBack) -> None:
        self._count(FALLBACKS, event.from_provider, event.to_provider, event.reason)

    def _retry_refused(self, event: RetryRefused) -> None:
        self._count(RETRY_BUDGET_EXHAUSTED, event.provider, event.reason)

    def _health_changed(self, event: HealthChanged) -> None:
        if not event.elsewhere:  # each change counts once in the fleet
            self._count(HEALTH_CHANGES, event.provider, event.ill, event.change)

    def _route_refused(self, event: RouteRefused) -> None:
        for reason, candidates in event.counts.items():
            self._count(REJECTIONS, reason, by=candidates)

    # series

    def _count(self, spec: Spec, *values: str, by: float = 1.0) -> None:
        self._series.count(spec, values, by)

    def _observe(self, spec: Spec, seconds: float, *values: str) -> None:
        self._series.observe(spec, values, seconds)

    def _held(self, spec: Spec, values: tuple[str, ...]) -> tuple[str, ...]:
        """`values`, in the order of the spec's labels, held to their closed sets."""
        pairs = zip(values, self._allowed[spec], strict=True)
        return tuple(str(value) if value in allowed else OTHER for value, allowed in pairs)

    def _start_at_zero(self, providers: Iterable[str]) -> None:
        """The small closed sets have their series from the start, so that `increase()` sees a first event."""
        for reason in Reason:
            self._count(REJECTIONS, reason, by=0)
        for refusal in Refusal:
            self._count(INBOUND_REFUSALS, refusal, by=0)
        for whose in Whose:
            for per_cent, spend in product(THRESHOLDS, Spend):
                self._count(BUDGET_THRESHOLDS, str(per_cent), whose, spend, by=0)
        for each in (Whose.TENANT, Whose.TOKEN):
            self._count(UNUSUAL, each, by=0)
        for outcome in Delivery:
            self._count(WEBHOOKS_TRIED, outcome, by=0)
        self.set_filled({})
        for priority in Priority:
            self._count(SHED, priority, by=0)
        for provider in providers:
            self._count(LEGACY_READS, provider, by=0)
            for via in (*Via, MISSING):
                self._count(KEY_RESOLUTIONS, provider, via, by=0)


def _allowed(given: Mapping[str, frozenset[str]]) -> dict[Spec, tuple[frozenset[str], ...]]:
    """The closed sets of every spec's labels, in their order."""
    return {spec: tuple(label.values or given[label.source] for label in spec.labels) for spec in SPECS}
