"""What is measured: each metric's name, type, labels and buckets, and how the numbers of several processes become one.

Every label has a closed set of values. Must not know how a metric is counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.budgeting.holder import Why
from gateway.budgeting.refusals import CODES
from gateway.bulk import GONE
from gateway.events import Delivery, Endpoint, Outcome
from gateway.inbound.refusals import Refusal
from gateway.limiting.asks import Kind as Limit
from gateway.limiting.waiting import Left
from gateway.pricing.refreshing import Outcome as PriceOutcome
from gateway.priority import Priority
from keystore.budget_spent import THRESHOLDS
from keystore.budgets import Spend, Whose
from keystore.resolve import Via
from router.failure import FailureKind
from router.health import Ill
from router.query import KeySource
from router.reasons import Fault, Reason

OTHER: Final = "other"
NONE: Final = "none"
OK: Final = "ok"
MISSING: Final = "missing"
REPEATED: Final = (  # what gateway.repeats counts
    *("first", "replayed", "reused", "in_progress", "stream_ended", "unavailable", "not_kept", "unreadable"),
)


class Kind(StrEnum):
    """The metric types in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """How a series of several worker processes becomes one; counters and histograms are always sums."""

    SUM = "sum"
    LEAST = "least"
    MOST = "most"


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
    across: Across = Across.SUM

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)


def _counter(name: str, meaning: str, *labels: Label) -> Spec:
    return Spec(name, Kind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, across: Across, *labels: Label) -> Spec:
    return Spec(name, Kind.GAUGE, meaning, labels, across=across)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: Label) -> Spec:
    return Spec(name, Kind.HISTOGRAM, meaning, labels, buckets)


def _closed(name: str, *sets: Iterable[str]) -> Label:
    return Label(name, frozenset(str(value) for values in sets for value in values))


_ENDPOINT = _closed("endpoint", Endpoint)
_CODE_CLASS = _closed("code_class", ("1xx", "2xx", "3xx", "4xx", "5xx"))
_PROVIDER = Label("provider", source="providers")
_MODEL = Label("model", source="models")
_FROM_TO = (Label("from_provider", source="providers"), Label("to_provider", source="providers"))
_PER_CENT = _closed("per_cent", map(str, THRESHOLDS))
_VERSIONS = tuple(Label(name, source="build") for name in ("version", "catalogue", "registry"))

# Calls to models: OpenTelemetry's GenAI conventions, gen_ai.client.operation.duration (doubling from 10 ms to 82 s).
_CALL_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
# First token: the same conventions, gen_ai.server.time_to_first_token, without its 1 ms bucket to stay within 16.
_FIRST_TOKEN_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Lag of the event loop: from what nobody feels to what stops everybody.
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# Overhead: ours, dense around the few milliseconds that a pass-through call costs and the 100 ms that page someone.
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
# Waits for a turn: from none to the longest that the shipped limits allow.
_WAIT_S = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 240.0)

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
        "Request time that was spent waiting neither for an upstream nor for a turn; a slow reader counts here too.",
        _OVERHEAD_S,
        _ENDPOINT,
    ),
    LOOP_LAG := _histogram(
        "wardgate_event_loop_lag_seconds",
        "By how much a timer of the event loop came too late, looked at ten times a second: so long everybody waits.",
        _LAG_S,
    ),
    FIRST_TOKEN := _histogram(
        "wardgate_time_to_first_token_seconds",
        "Time from the arrival of a request, or from a bulk request's turn, to the first token of its answer.",
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
        "Times the next candidate was asked because one failed or was beyond a budget, by both providers and the kind"
        " of failure or the refusal's code.",
        *(*_FROM_TO, _closed("reason", FailureKind, CODES)),
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
        Across.MOST,
        _closed("ill", Ill),
    ),
    HEALTH_SHARED := _gauge(
        "wardgate_health_shared",
        "1 while health is shared with other processes through Redis, else 0.",
        Across.LEAST,
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
        "Answers whose cost is not known, for want of a price or of a token count, or for a fee.",
        _PROVIDER,
    ),
    INFLIGHT := _gauge("wardgate_inflight_requests", "Requests being served now.", Across.SUM),
    READY := _gauge("wardgate_ready", "1 while /readyz answers 200, else 0.", Across.LEAST),
    BUILD_INFO := _gauge(
        "wardgate_build_info",
        "Always 1: the versions of the program, its model catalogue and its provider registry.",
        Across.MOST,
        *_VERSIONS,
    ),
    INBOUND_REFUSALS := _counter(
        "wardgate_inbound_refusals_total",
        "Connections refused or closed below the application, by reason; most are in no other metric.",
        _closed("reason", Refusal),
    ),
    NOT_TAKEN := _counter(
        "wardgate_connections_not_taken_total",
        "Times that the system let no new connection be taken: out of files or memory. Those that come wait.",
    ),
    WORKERS := _gauge("wardgate_workers", "Processes that serve, in this gateway.", Across.SUM),
    WORKER_RESTARTS := _counter(
        "wardgate_worker_restarts_total",
        "Worker processes that ended and were started again.",
    ),
    DECISIONS_DROPPED := _counter(
        "wardgate_decisions_dropped_total",
        "Decisions of requests that were not kept, because more ended than could be written.",
    ),
    LEDGER_PENDING := _gauge(
        "wardgate_ledger_pending_lines", "Lines of the journal that are not in the ledger yet.", Across.SUM
    ),
    LEDGER_OLDEST := _gauge(
        "wardgate_ledger_oldest_seconds", "How long the first row has waited that waits for the ledger.", Across.MOST
    ),
    LEDGER_TAKEN_OVER := _counter(
        "wardgate_ledger_journals_taken_over_total", "Journals of processes that died, which this one finished."
    ),
    LEDGER_TORN := _counter(
        "wardgate_ledger_torn_ends_total", "Ends of journals that were never whole: nobody was answered for them."
    ),
    LEDGER_ROWS := _counter("wardgate_ledger_rows_total", "Rows that this process wrote into the ledger."),
    LEDGER_REJECTED := _counter(
        "wardgate_ledger_rejected_rows_total",
        "Rows that the database did not take: they stand in rejected.jsonl beside the journal.",
    ),
    LIMITED := _counter(
        "wardgate_limited_requests_total", "Requests that a limit refused, by what it counts.", _closed("limit", Limit)
    ),
    LIMITS_SHARED := _gauge(
        "wardgate_limits_shared",
        "1 while limits are counted in Redis, 0 while each process counts its own share.",
        Across.LEAST,
    ),
    SHED := _counter(
        "wardgate_shed_requests_total",
        "Requests turned away because the process had as many as it could carry, by priority.",
        _closed("priority", Priority),
    ),
    IN_FLIGHT_ALLOWED := _gauge(
        "wardgate_inflight_allowed",
        "Calls to models at a time beyond which a new one is turned away; it falls while the event loop is late.",
        Across.SUM,
    ),
    BULK_WAITING := _gauge("wardgate_bulk_waiting", "Bulk requests that wait for their turn now.", Across.SUM),
    BULK_WAIT := _histogram(
        "wardgate_bulk_wait_seconds",
        "How long bulk requests waited for their turn, by how the wait ended.",
        _WAIT_S,
        _closed("end", Left, (GONE,)),
    ),
    LIMITS_UNHEARD := _counter(
        "wardgate_limits_unheard_total",
        "Requests that Redis was asked about and did not answer in time, decided by this process's share.",
        _closed("admitted", ("false", "true")),
    ),
    BUDGET_REFUSALS := _counter(
        "wardgate_budget_refusals_total",
        "Calls that a hard budget refused, by whether it was spent or could not be asked.",
        _closed("why", Why),
    ),
    BUDGET_OVERRUNS := _counter("wardgate_budget_overruns_total", "Calls that cost more than was held for them."),
    BUDGET_THRESHOLDS := _counter(
        "wardgate_budget_thresholds_total",
        "Thresholds of budgets that were reached, once for each period, by per cent, whose budget and whose keys.",
        *(_PER_CENT, _closed("whose", Whose), _closed("spend", Spend)),
    ),
    BUDGETS_FILLED := _gauge(
        "wardgate_budgets_filled",
        "Budgets of which so many per cent or more are spent in their present period.",
        Across.MOST,
        _PER_CENT,
    ),
    UNUSUAL := _counter(
        "wardgate_unusual_spending_total",
        "Hours in which a tenant or a token spent far more than usual, each counted once.",
        _closed("whose", (Whose.TENANT, Whose.TOKEN)),
    ),
    WEBHOOKS_TRIED := _counter(
        "wardgate_webhook_deliveries_total",
        "Alerts that were sent to a webhook, by what came of it; a failed one is tried again.",
        _closed("outcome", Delivery),
    ),
    WEBHOOKS_WAITING := _gauge(
        "wardgate_webhook_messages_waiting", "Alerts that are not delivered to their webhook yet.", Across.MOST
    ),
    IDEMPOTENT := _counter(
        "wardgate_idempotent_requests_total",
        "Requests with an Idempotency-Key, by what became of them; not_kept and unreadable are counted beside.",
        _closed("outcome", REPEATED, (OTHER,)),
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
