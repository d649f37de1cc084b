"""What is learnt about one request while it is served; at its end it becomes one RequestCompleted.

The only mutable record of the data plane: the endpoint writes into it, the edge turns it into headers and the event.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from gateway.attempt_costs import FailedCost
from gateway.errors import Problem
from gateway.events import AttemptEnded, Endpoint, Outcome, RequestCompleted, TokenUsage
from gateway.upstream import Came
from keystore.budgets import TenantBudgets
from router.charge import Charge
from router.decision import Decision
from router.health_steps import Attempt
from router.plans import Plan
from router.ranking import Candidate
from router.reasons import Fault

KEY = "wardgate.tally"  # where the edge leaves it in the ASGI scope
MOST_NAMED = 5  # candidates that were passed over


def mint_request_id() -> str:
    """An id of ours: 128 random bits, not ordered by time."""
    return "req_" + secrets.token_hex(16)


class Account(Protocol):
    """What a request costs, as those see it who serve it; gateway.accounts. `measure` notes what a stream used, when it
    has ended; `leave` gives back what the request holds of its limits, and hears how many tokens it had.
    `own` are the budgets of the tenant and its tokens; `failed` is what attempts cost that gave no answer, `charge`
    what the answer cost, estimated where nobody counted. `total` is what all of it cost, in whole nano-dollars; None
    where that is not known."""

    decision: Decision | None
    plan: Plan | None
    own: TenantBudgets
    measure: Callable[[], None] | None
    leave: Callable[[int | None], None] | None
    failed: list[FailedCost]
    charge: Charge | None

    @property
    def total(self) -> int | None: ...

    def note(self, usage: TokenUsage, served: Candidate | None, *, estimated: bool = False) -> None:
        """What was used of the model that served."""

    async def reserve(self, candidate: Candidate) -> Problem | None:
        """Somebody is about to be asked; why that may not be, when a budget refuses it. Raises ApiError where nobody
        may be asked at all."""

    def ended(self, attempt: AttemptEnded, look: Callable[[], Came]) -> None:
        """An attempt is over; `look` tells what came of it."""

    def close(self) -> Awaitable[None]:
        """Settle before the last byte of the answer, and wait until that cannot be lost."""

    def settle(self) -> None:
        """Settle, if that was not done yet."""


@dataclass(slots=True)
class Tally:
    """The facts so far; times in seconds on the monotonic clock."""

    request_id: str
    method: str
    started: float
    catalogue: str = ""
    endpoint: Endpoint = Endpoint.UNKNOWN
    outcome: Outcome | None = None
    broke: str | None = None  # how a stream broke that had begun: the word of a failure's kind
    status: int = 0
    begun: bool = False  # the answer's first message was sent: no second answer may start
    ended: bool = False  # the answer's last message was sent
    owed: bool = False  # an answer that is kept for whoever asks again: it is made also when its client has left
    fault: str | None = None
    code: str | None = None
    tenant: str | None = None
    tenant_id: str = ""
    token_id: str | None = None
    requested_model: str | None = None
    provider: str | None = None
    model: str | None = None
    key_source: str | None = None
    key_via: str | None = None
    key_label: str = ""
    key_former: int | None = None  # the version of a superseded key that stood in
    setting_key: str | None = None  # the name under which the key is stored
    attempts: int = 0
    dropped: tuple[str, ...] = ()  # parameters that were left out of the last attempt, which the request allowed
    passed_over: tuple[str, ...] = ()  # better candidates that a budget did not allow, each with the code that says so
    asked: Attempt | None = None  # the last of them, as health knows it
    provider_request_id: str | None = None  # the last attempt's, as the provider named it
    client_request_id: str | None = None
    stream: bool = False
    upstream_s: float = 0.0
    answering_s: float = 0.0  # the last attempt: until its answer, or the first event of its stream, was there
    upstream_then_s: float = 0.0  # `upstream_s` at that time
    first_token_s: float | None = None
    waited_s: float | None = None  # for its turn; None: it is not bulk
    usage: TokenUsage | None = None
    cost_usd: Decimal | None = None
    headers: dict[str, str] = field(default_factory=dict)  # further headers of the answer
    give_back: Callable[[], None] | None = None  # the room that its body takes
    account: Account | None = None  # what it costs; None: nobody is charged

    def response_headers(self) -> dict[str, str]:
        """`x-wardgate-*` of what is known when the answer's headers leave; a stream's cost is not known by then."""
        key = None if self.key_source is None else f"{self.key_source}:{self.key_via}"
        cost = None if self.cost_usd is None else format(self.cost_usd, "f")
        known = {
            "x-wardgate-request-id": self.request_id,
            "x-wardgate-provider": self.provider,
            "x-wardgate-provider-request-id": self.provider_request_id,
            "x-wardgate-model": self.model,
            "x-wardgate-key": key,
            "x-wardgate-key-label": self.key_label or None,
            "x-wardgate-key-former": None if self.key_former is None else str(self.key_former),
            "x-wardgate-attempts": str(self.attempts),
            "x-wardgate-dropped": ", ".join(self.dropped) or None,
            "x-wardgate-passed-over": ", ".join(self.passed_over) or None,
            "x-wardgate-cost-usd": cost,
            "x-wardgate-catalogue": self.catalogue,
        }
        return {name: value for name, value in known.items() if value is not None} | self.headers

    def pass_over(self, those: Sequence[str]) -> None:
        """Somebody is asked in the place of those; of many the first are named."""
        known = [*self.passed_over, *those]
        more = (f"{len(known) - MOST_NAMED} more",) if len(known) > MOST_NAMED else ()
        self.passed_over = (*known[:MOST_NAMED], *more)

    def note(self, problem: Problem) -> None:
        """The request ends in `problem`."""
        self.fault, self.code = problem.fault.value, problem.code
        if self.outcome is None:
            self.outcome = Outcome.ERROR if problem.fault is Fault.GATEWAY else Outcome.REFUSED

    def completed(self, now: float) -> RequestCompleted:
        """The event for the end of the request at `now`; what nobody judged and did not end is an error of ours."""
        outcome = self.outcome or (Outcome.OK if self.ended else Outcome.ERROR)
        fault = Fault.GATEWAY.value if outcome is Outcome.ERROR and self.fault is None else self.fault
        return RequestCompleted(
            request_id=self.request_id,
            endpoint=self.endpoint,
            method=self.method,
            status=self.status,
            outcome=outcome,
            duration_s=now - self.started,
            upstream_s=self.upstream_s,
            first_token_s=self.first_token_s,
            waited_s=self.waited_s,
            fault=fault,
            code=self.code,
            tenant=self.tenant,
            token_id=self.token_id,
            requested_model=self.requested_model,
            provider=self.provider,
            model=self.model,
            key_source=self.key_source,
            key_via=self.key_via,
            key_label=self.key_label or None,
            key_former=self.key_former,
            attempts=self.attempts,
            dropped=self.dropped,
            passed_over=self.passed_over,
            client_request_id=self.client_request_id,
            stream=self.stream,
            usage=self.usage,
            cost_usd=self.cost_usd,
            catalogue=self.catalogue or None,
        )
