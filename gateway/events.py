"""What happened, as frozen records, and the bus that tells subscribers.

Metrics and logs are subscribers: the code that serves a request publishes a record and never mentions a metric. A
subscriber that fails is counted and left behind, so that neither a metric nor a log line can break a call.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from router.decision import Decision


class Endpoint(StrEnum):
    """The closed set of route names that may become a metric label."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    MODELS = "models"
    ROUTE = "route"
    REQUESTS = "requests"
    USAGE = "usage"
    BUDGETS = "budgets"
    OPS = "ops"
    ADMIN = "admin"
    KEYS = "keys"  # self-service
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """How a request ended for the caller."""

    OK = "ok"
    REFUSED = "refused"  # answered with an error before any upstream was asked
    FAILED = "failed"  # every attempt failed
    CUT = "cut"  # the stream broke after its first byte
    CLIENT_LEFT = "client_left"
    ERROR = "error"  # the gateway's own fault


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the provider counted them. Cached, stored and heard tokens are inside input, reasoning and spoken ones
    inside output; those stored for an hour are inside the stored ones."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    service_tier: str | None = None  # as the provider says that it answered; None: it does not say


@dataclass(frozen=True, slots=True)
class RequestCompleted:
    """Published exactly once for every request, also on failure and when the client leaves. Times in seconds."""

    request_id: str
    endpoint: Endpoint
    method: str
    status: int
    outcome: Outcome
    duration_s: float
    upstream_s: float = 0.0  # time spent waiting for upstreams
    first_token_s: float | None = None
    waited_s: float | None = None  # a bulk request, for its turn
    fault: str | None = None  # router.reasons.Fault, when the answer is an error
    code: str | None = None  # the word in the error body
    tenant: str | None = None  # slug
    token_id: str | None = None
    requested_model: str | None = None  # as the caller wrote it: for logs, never for a label
    provider: str | None = None
    model: str | None = None
    key_source: str | None = None
    key_via: str | None = None
    key_label: str | None = None  # of several keys of one name
    key_former: int | None = None  # the version of a superseded key that stood in
    attempts: int = 0
    dropped: tuple[str, ...] = ()  # parameters that were left out, which the caller allowed
    passed_over: tuple[str, ...] = ()  # better candidates that a budget did not allow, each with the code that says so
    client_request_id: str | None = None  # what the caller sent as x-request-id, when it is well formed
    stream: bool = False
    usage: TokenUsage | None = None
    cost_usd: Decimal | None = None  # None when the price is unknown: never zero for want of a price
    catalogue: str | None = None

    @property
    def overhead_s(self) -> float:
        """Time that was ours: neither an upstream's, nor waited for a turn."""
        return max(0.0, self.duration_s - self.upstream_s - (self.waited_s or 0.0))


@dataclass(frozen=True, slots=True)
class Decided:
    """The router decided who may answer a request, and whether anyone may."""

    request_id: str
    tenant_id: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class KeyResolved:
    """A provider key was looked for: `via` says under which kind of name it was found, or `missing`."""

    request_id: str
    tenant: str
    provider: str
    via: str  # canonical | family | former | sibling | missing
    setting_key: str | None = None  # the stored name, never a value
    store: str | None = None  # credentials | legacy
    canonical_name: str | None = None  # the name it should be stored under


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One call to one upstream; `outcome` is `ok` or the word of router.failure.FailureKind."""

    request_id: str
    provider: str
    model: str
    outcome: str
    duration_s: float
    status: int | None = None
    key_label: str | None = None  # of several keys of one name
    key_former: int | None = None  # the version of a superseded key that stood in
    provider_request_id: str | None = None  # the upstream's own


@dataclass(frozen=True, slots=True)
class FellBack:
    """The next candidate was asked because this one failed or was beyond a budget, or the same provider with the
    tenant's next key."""

    request_id: str
    from_provider: str
    to_provider: str
    reason: str  # router.failure.FailureKind, or a code of budgeting.refusals
    to_key: str | None = None  # the label of that next key, or "version 3" of a former one; None: another candidate


@dataclass(frozen=True, slots=True)
class RetryRefused:
    """Another attempt might have helped, and the retry budget of the gateway was spent."""

    request_id: str
    provider: str
    reason: str  # router.failure.FailureKind


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """A mark was made or renewed, or its subject is well again. Times are ISO 8601."""

    ill: str  # router.health.Ill
    provider: str
    change: str  # ill | well
    model: str | None = None  # None: all models
    whose: str | None = None  # the id of a key or of a tenant; None: everybody
    why: str | None = None
    since: str | None = None
    until: str | None = None
    elsewhere: bool = False  # another process found it out


@dataclass(frozen=True, slots=True)
class RouteRefused:
    """No candidate was left; how many were rejected for which router.reasons.Reason."""

    request_id: str
    tenant: str
    requested_model: str
    counts: dict[str, int] = field(default_factory=dict)
    nearest_miss: str = ""


@dataclass(frozen=True, slots=True)
class BudgetCrossed:
    """So much of a budget is spent: told once for each threshold and period, by one process. Times are ISO 8601."""

    tenant: str  # slug
    tenant_id: str
    token_id: str | None  # None: the budget is of all the tenant's tokens
    budget: str  # its key
    whose: str  # keystore.budgets.Whose
    spend: str  # keystore.budgets.Spend
    per_cent: int
    spent_usd: Decimal
    amount_usd: Decimal
    resets_at: str


@dataclass(frozen=True, slots=True)
class SpendUnusual:
    """A token or a tenant spent in one hour so much more than usual: told once for each hour, by one process."""

    tenant: str  # slug
    token_id: str | None  # None: all the tenant's tokens together
    hour: str  # when it begins, ISO 8601
    spent_usd: Decimal
    usual_usd: Decimal
    factor: int


class Delivery(StrEnum):
    """What came of trying to deliver an alert to a webhook."""

    DELIVERED = "delivered"
    FAILED = "failed"  # it is tried again
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class WebhookTried:
    """An alert was sent to a webhook, or could not be; nothing of it or of the answer is here."""

    webhook: str  # its id
    message: str  # its id
    outcome: Delivery
    tries: int
    status: int | None = None  # of the receiver's answer
    why: str | None = None


Event = (
    RequestCompleted
    | Decided
    | KeyResolved
    | AttemptEnded
    | FellBack
    | RetryRefused
    | HealthChanged
    | RouteRefused
    | BudgetCrossed
    | SpendUnusual
    | WebhookTried
)
Subscriber = Callable[[Event], None]


class Events:
    """Tells each subscriber of each event, in order; counts the ones that failed."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = subscribers
        self.failures = 0

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber; a failing one never reaches the caller."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - a metric or a log line must not break a call
                self.failures += 1
