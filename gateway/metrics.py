"""The gateway's Prometheus metrics: their names, labels and buckets, and what each event adds.

A subscriber of events: the code that serves a call never mentions a metric. Must not know tenants, tokens, or the text
that a caller sent: every label value comes from a closed set, and anything else is counted as `other`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.events import (
    AttemptEnded,
    Decided,
    Endpoint,
    Event,
    FellBack,
    HealthChanged,
    KeyResolved,
    Outcome,
    RequestCompleted,
    RetryRefused,
    RouteRefused,
)
from gateway.metrics_page import KeptElsewhere, WithoutCreated
from gateway.pricing.refreshing import Outcome as PriceOutcome
from gateway.series import Series
from keystore.resolve import Store, Via
from router.failure import FailureKind
from router.health import Ill
from router.query import KeySource
from router.reasons import Fault, Reason

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
NONE: Final = "none"
OK: Final = "ok"
MISSING: Final = "missing"

# --- what is measured ------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """The metric types in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its closed set of values, or the `source` that gives the set when Metrics is built."""

    name: str
    values: frozenset[str] = frozenset()
    source: str = ""  # "providers" | "models" | "build": our own versions, one value at a time


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One metric. `buckets` are upper bounds in seconds; Prometheus adds +Inf."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


def _counter(name: str, meaning: str, *labels: Label) -> Spec:
    return Spec(name, Kind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: Label) -> Spec:
    return Spec(name, Kind.GAUGE, meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: Label) -> Spec:
    return Spec(name, Kind.HISTOGRAM, meaning, labels, buckets)


def _closed(name: str, *sets: Iterable[str]) -> Label:
    return Label(name, frozenset(str(value) for values in sets for value in values))


_ENDPOINT = _closed("endpoint", Endpoint)
_CODE_CLASS = _closed("code_class", ("1xx", "2xx", "3xx", "4xx", "5xx"))
_PROVIDER = Label("provider", source="providers")
_MODEL = Label("model", source="models")
_FROM_TO = (Label("from_provider", source="providers"), Label("to_provider", source="providers"))
_VERSIONS = tuple(Label(name, source="build") for name in ("version", "catalogue", "registry"))

# Calls to models: OpenTelemetry's GenAI conventions, gen_ai.client.operation.duration (doubling from 10 ms to 82 s).
_CALL_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# First token: the same conventions, gen_ai.server.time_to_first_token, without its 1 ms bucket to stay within 16.
_FIRST_TOKEN_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Overhead: ours, dense around the few milliseconds that a pass-through call costs and the 100 ms that page someone.
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)

SPECS: Final = (
    REQUESTS := _counter(
        "wardgate_requests_total",
        "Requests answered, by endpoint, class of status code, outcome and party at fault (none when all went well).",
        *(_ENDPOINT, _CODE_CLASS, _closed("outcome", Outcome), _closed("fault", (NONE,), Fault)),
    ),
    DURATION := _histogram(
        "wardgate_request_duration_seconds",
        "Time from the arrival of a request to the end of its answer.",
        _CALL_S,
        *(_ENDPOINT, _closed("stream", ("true", "false"))),
    ),
    OVERHEAD := _histogram(
        "wardgate_overhead_seconds",
        "Request time that was not spent waiting for an upstream; a stream's slow reader counts here too.",
        _OVERHEAD_S,
        _ENDPOINT,
    ),
    FIRST_TOKEN := _histogram(
        "wardgate_time_to_first_token_seconds",
        "Time from the arrival of a request to the first token of its answer.",
        _FIRST_TOKEN_S,
        _PROVIDER,
    ),
    ATTEMPTS := _counter(
        "wardgate_upstream_attempts_total",
        "Calls to upstreams, by provider and outcome (ok, or the kind of failure).",
        *(_PROVIDER, _closed("outcome", (OK,), FailureKind)),
    ),
    UPSTREAM := _histogram(
        "wardgate_upstream_duration_seconds",
        "Time of one call to an upstream, failed calls included.",
        _CALL_S,
        _PROVIDER,
    ),
    FALLBACKS := _counter(
        "wardgate_fallbacks_total",
        "Times the next candidate was asked because one failed, by both providers and the kind of failure.",
        *(*_FROM_TO, _closed("reason", FailureKind)),
    ),
    RETRY_BUDGET_EXHAUSTED := _counter(
        "wardgate_retry_budget_exhausted_total",
        "Extra attempts that might have helped and were not made, because the retry budget was spent.",
        *(_PROVIDER, _closed("reason", FailureKind)),
    ),
    HEALTH_CHANGES := _counter(
        "wardgate_health_changes_total",
        "Marks made or renewed (ill) and ended by an answer (well): of keys, of keys at their limit, of providers.",
        *(_PROVIDER, _closed("ill", Ill), _closed("change", ("ill", "well"))),
    ),
    HEALTH_MARKS := _gauge(
        "wardgate_health_marks",
        "Marks that keep a key, a model or a provider from being asked now.",
        _closed("ill", Ill),
    ),
    HEALTH_SHARED := _gauge(
        "wardgate_health_shared",
        "1 while health is shared with other processes through Redis, else 0.",
    ),
    KEY_RESOLUTIONS := _counter(
        "wardgate_key_resolutions_total",
        "Look-ups of provider keys, by the kind of name under which the key was found, or missing.",
        *(_PROVIDER, _closed("via", Via, (MISSING,))),
    ),
    LEGACY_READS := _counter(
        "wardgate_legacy_reads_total",
        "Provider keys taken from a legacy tenant_settings table; silent for long, the table can go.",
        _PROVIDER,
    ),
    REJECTIONS := _counter(
        "wardgate_route_rejections_total",
        "Candidates rejected, by reason, in requests for which none was left.",
        _closed("reason", Reason),
    ),
    TOKENS := _counter(
        "wardgate_tokens_total",
        "Tokens as the providers counted them; the types do not overlap, so their sum is what was used.",
        *(_PROVIDER, _MODEL, _closed("type", ("input", "cached_input", "output", "reasoning"))),
    ),
    COST := _counter(
        "wardgate_cost_usd_total",
        "Cost in US dollars at list prices, of answers whose price and usage are known.",
        *(_PROVIDER, _MODEL, _closed("key_source", KeySource)),
    ),
    UNPRICED := _counter(
        "wardgate_unpriced_requests_total",
        "Answers whose cost is not known, for want of a price or of a token count.",
        _PROVIDER,
    ),
    INFLIGHT := _gauge("wardgate_inflight_requests", "Requests being served now."),
    READY := _gauge("wardgate_ready", "1 while /readyz answers 200, else 0."),
    BUILD_INFO := _gauge(
        "wardgate_build_info",
        "Always 1: the versions of the program, its model catalogue and its provider registry.",
        *_VERSIONS,
    ),
    DECISIONS_DROPPED := _counter(
        "wardgate_decisions_dropped_total",
        "Decisions of requests that were not kept, because more ended than could be written.",
    ),
    PRICE_REFRESHES := _counter(
        "wardgate_price_refreshes_total",
        "Refreshes of prices that this process led, by how they ended.",
        _closed("outcome", PriceOutcome),
    ),
    EVENT_FAILURES := _counter(
        "wardgate_event_failures_total",
        "Events that a subscriber (metrics, log) failed on; the calls themselves were not affected.",
    ),
)

_KEPT_ELSEWHERE: Final = (DECISIONS_DROPPED, EVENT_FAILURES)

# --- counting --------------------------------------------------------------------------------------------------------


class Metrics:
    """Every metric of the gateway on one registry, fed by events.

    `providers` (ids) and `models` (as RequestCompleted.model writes them) are the label values that are let through.
    """

    def __init__(self, registry: CollectorRegistry, *, providers: Collection[str], models: Collection[str]) -> None:
        given = {"providers": frozenset(providers), "models": frozenset(models), "build": frozenset[str]()}
        self._given = given
        self._page = WithoutCreated(registry)
        self._allowed = _allowed(given)
        self._counting = Series(lambda spec, values: self._counters[spec].labels(*self._held(spec, values)))
        self._timing = Series(lambda spec, values: self._histograms[spec].labels(*self._held(spec, values)))
        self._counters = {
            spec: Counter(spec.name, spec.help, spec.label_names, registry=registry)
            for spec in SPECS
            if spec.kind is Kind.COUNTER and spec not in _KEPT_ELSEWHERE
        }
        self._histograms = {
            spec: Histogram(spec.name, spec.help, spec.label_names, registry=registry, buckets=spec.buckets)
            for spec in SPECS
            if spec.kind is Kind.HISTOGRAM
        }
        self._gauges = {
            spec: Gauge(spec.name, spec.help, spec.label_names, registry=registry)
            for spec in SPECS
            if spec.kind is Kind.GAUGE
        }
        self._elsewhere = {spec: KeptElsewhere(spec.name, spec.help, registry) for spec in _KEPT_ELSEWHERE}
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
        self._counting.clear()
        self._timing.clear()

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

    def render(self) -> bytes:
        """The page in Prometheus's text format, of type CONTENT_TYPE."""
        return generate_latest(self._page)

    def _request_completed(self, event: RequestCompleted) -> None:
        code_class = f"{event.status // 100}xx"
        self._count(REQUESTS, event.endpoint, code_class, event.outcome, event.fault or NONE)
        self._observe(DURATION, event.duration_s, event.endpoint, "true" if event.stream else "false")
        self._observe(OVERHEAD, max(0.0, event.duration_s - event.upstream_s), event.endpoint)
        if event.provider is not None:
            self._answered(event, event.provider, event.model or OTHER)

    def _answered(self, event: RequestCompleted, provider: str, model: str) -> None:
        if event.first_token_s is not None:
            self._observe(FIRST_TOKEN, event.first_token_s, provider)
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
        self._counting.of(spec, values).inc(by)

    def _observe(self, spec: Spec, seconds: float, *values: str) -> None:
        self._timing.of(spec, values).observe(seconds)

    def _held(self, spec: Spec, values: tuple[str, ...]) -> list[str]:
        """`values`, in the order of the spec's labels, held to their closed sets."""
        pairs = zip(values, self._allowed[spec], strict=True)
        return [value if value in allowed else OTHER for value, allowed in pairs]

    def _start_at_zero(self, providers: Iterable[str]) -> None:
        """The small closed sets have their series from the start, so that `increase()` sees a first event."""
        for reason in Reason:
            self._count(REJECTIONS, reason, by=0)
        for provider in providers:
            self._count(LEGACY_READS, provider, by=0)
            for via in (*Via, MISSING):
                self._count(KEY_RESOLUTIONS, provider, via, by=0)


def _allowed(given: Mapping[str, frozenset[str]]) -> dict[Spec, tuple[frozenset[str], ...]]:
    """The closed sets of every spec's labels, in their order."""
    return {spec: tuple(label.values or given[label.source] for label in spec.labels) for spec in SPECS}
