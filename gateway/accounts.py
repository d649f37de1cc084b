"""One account for each request of a tenant: what it may cost when somebody is asked, and what it did cost at its end.

Owns what becomes a row of the ledger, and when: a reserved line before a provider is asked, one terminal line before
the last byte of the answer, whatever happens. Where nobody counted the tokens, they are estimated and marked so. Must
not know where the lines are kept.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import orjson

from gateway.attempt_costs import FailedCost, charged_tier, estimated_input, failed_cost, priced
from gateway.budgeting.holder import Held, Holder, Refused, Reservation, Why
from gateway.budgeting.refusals import spent, unpriced
from gateway.errors import ApiError, Problem
from gateway.events import AttemptEnded, Outcome, TokenUsage
from gateway.scrub import KEY_SHAPES, MASK
from gateway.tally import Tally
from gateway.upstream import Came
from keystore.budgets import NO_BUDGETS, Budget, Spend, TenantBudgets, plan_budget
from keystore.errors import KeystoreError
from keystore.ledger_row import State, line
from keystore.money import MOST, nano_of, usd_of
from router.charge import Charge
from router.decision import Decision
from router.most import most_nano
from router.plans import Plan
from router.prices import ServiceTier
from router.query import KeySource
from router.ranking import Candidate
from router.reasons import Fault

LEDGER_AWAY: Final = Problem(
    503,
    "ledger_unavailable",
    "The gateway cannot write down what this request costs, so it does not ask anybody. Send it again in a moment.",
    Fault.GATEWAY,
    caller_may_retry=True,
    headers={"retry-after": "5"},
)
_TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_NAME: Final = 256  # characters of a model's name that are kept
_CANCELLED: Final = "cancelled"  # an attempt that was broken off: the client left, or the gateway stops


class Journal(Protocol):
    """Where lines go; keystore.journal."""

    def append(self, line: bytes) -> None:
        """Written, though not yet on the disk. KeystoreError when it cannot be."""

    def durable(self) -> Awaitable[None]:
        """All that was appended is on the disk."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Opens the accounts of a gateway. `report` hears, with the request's id, of a line that could not be
    written, `refused` that a budget refused a call."""

    journal: Journal
    now: Callable[[], datetime]
    clock: Callable[[], float]
    report: Callable[[str, BaseException], None]
    budgets: Holder
    refused: Callable[[Why], None]

    def open(self, tally: Tally) -> "Account":
        """The account of a request whose tenant is known."""
        began = self.now() - timedelta(seconds=self.clock() - tally.started)
        account = tally.account = Account(self, tally, began)
        return account


@dataclass(slots=True)
class Account:
    """What is known of one request's money; `measure` and `leave` as in gateway.tally."""

    accounts: Accounts
    tally: Tally
    began: datetime
    decision: Decision | None = None
    usage: TokenUsage | None = None  # estimated where nobody counted
    charge: Charge | None = None
    estimated: bool = False
    asking: Candidate | None = None  # somebody was asked and has not answered
    measure: Callable[[], None] | None = None
    leave: Callable[[int | None], None] | None = None
    tried: list[AttemptEnded] = field(default_factory=list)
    plan: Plan | None = None
    own: TenantBudgets = NO_BUDGETS  # the tenant's and its tokens'
    failed: list[FailedCost] = field(default_factory=list)
    held: Reservation | None = None
    holds: tuple[Held, ...] = ()  # of what was held, what it cost: until the row is written
    settled: bool = False

    async def reserve(self, candidate: Candidate) -> Problem | None:
        """Hold back the most that a call can cost of every hard budget, and write down that somebody is about to be
        asked. Why a budget refuses it; raises ApiError 503 when it cannot be written down."""
        refusal = await self._hold(candidate)
        if refusal is not None:
            return refusal
        expected, holding = candidate.expected_cost, candidate.holding
        row = self._begun(State.RESERVED, "") | {
            "provider": candidate.offer.provider_id,
            "model": candidate.offer.model,
            "key_source": holding.source,
            "key_via": holding.via,
            "setting_key": holding.setting_key,
            "cost_nano": None if expected is None else nano_of(expected) + sum(one.nano or 0 for one in self.failed),
        }
        try:
            self.accounts.journal.append(line(row))
        except KeystoreError as error:
            self._let_go()
            raise ApiError(LEDGER_AWAY) from error
        self.asking = candidate
        return None

    async def _hold(self, candidate: Candidate) -> Problem | None:
        self._let_go()  # of who was asked before and cost nothing
        matching = self._budgets(candidate.holding.source)
        if not matching or self.decision is None:
            return None
        most = most_nano(candidate.offer, self.decision.query.needs)
        if most is None:
            return unpriced(candidate) if any(budget.hard for budget in matching) else None
        found = await self.accounts.budgets.reserve(matching, most, self.began)
        if isinstance(found, Refused):
            self.accounts.refused(found.why)
            return spent(found)
        self.held = found
        return None

    def _budgets(self, source: KeySource) -> Sequence[Budget]:
        """Those that the spend with such a key is counted in."""
        if source is KeySource.BYOK:
            return () if self.own is NO_BUDGETS else self.own.matching(self.tally.token_id or "", Spend.BYOK, None)
        if self.plan is None:
            return ()
        monthly = plan_budget(self.tally.tenant_id, nano_of(self.plan.managed_budget_usd_per_month))
        return self.own.matching(self.tally.token_id or "", Spend.MANAGED, monthly)

    def _let_go(self) -> None:
        """Of a call that cost nothing."""
        self._book(0)

    def ended(self, attempt: AttemptEnded, came: Came) -> None:
        """An attempt is over. Where it gave no answer and may be charged all the same, its cost is taken out of what
        was held for it."""
        self.tried.append(attempt)
        if attempt.outcome == _CANCELLED:
            return
        asked, self.asking = self.asking, None
        if attempt.outcome == Outcome.OK or asked is None or self.decision is None:
            return
        needs, place = self.decision.query.needs, len(self.tried) - 1
        cost = failed_cost(attempt, came, asked, needs, place, self.tally.dropped)
        if cost is not None:
            self.failed.append(cost)
            self._book(cost.nano)

    def _book(self, nano: int | None) -> None:
        """A call has cost so much of what was held for it."""
        if self.held is not None:
            self.holds += self.accounts.budgets.settle(self.held, nano or 0)
            self.held = None

    def note(self, usage: TokenUsage, served: Candidate | None, *, estimated: bool = False) -> None:
        """What was used of the model that served; its price is the tally's cost."""
        tally = self.tally
        self.usage, self.estimated = usage, estimated
        if served is None or self.decision is None:
            return
        self.charge = _priced(tally, self.decision, usage, served)
        nano = self.total
        tally.cost_usd = None if nano is None else usd_of(nano)
        if (estimated or self.failed) and not tally.stream:
            tally.headers["x-wardgate-estimated"] = "usage"

    @property
    def total(self) -> int | None:
        """What the request cost, failed attempts included; None where a part of it is not known."""
        last = 0 if self.usage is None else None if self.charge is None else self.charge.nano
        parts = [last, *(one.nano for one in self.failed)]
        return None if None in parts else min(sum(part or 0 for part in parts), MOST)

    async def close(self) -> None:
        """Write the terminal line, and wait until it is on the disk where an answer was given."""
        if not self.settled:
            self.settle()
            if self.usage is not None or self.failed:
                await self.accounts.journal.durable()

    def settle(self) -> None:
        """Write the terminal line, once."""
        if self.settled:
            return
        self.settled = True
        if self.measure is not None:
            self.measure()
        try:
            self.accounts.journal.append(self._terminal())
        except KeystoreError as error:
            self.accounts.report(self.tally.request_id, error)
        if self.leave is not None:
            self.leave(sum(usage.input_tokens + usage.output_tokens for usage in self._used()))

    def _used(self) -> list[TokenUsage]:
        """Of each attempt that cost something."""
        return [one.usage for one in self.failed] + ([] if self.usage is None else [self.usage])

    def _terminal(self) -> bytes:
        tally = self.tally
        if self.asking is not None and self.usage is None and self.decision is not None:
            self.note(TokenUsage(estimated_input(self.decision.query.needs), 0), self.asking, estimated=True)
        outcome = tally.outcome or (Outcome.OK if tally.status == 200 else Outcome.REFUSED)
        row = self._begun(self._state(), outcome) | {"cost_nano": self.total}
        if used := self._used():
            row |= {name: sum(getattr(usage, name) for usage in used) for name in _TOKENS}
        if tally.first_token_s is not None:
            row["first_token_ms"] = _ms(tally.first_token_s)
        row["status"], row["fault"], row["code"] = tally.status, tally.fault, tally.code
        row["duration_ms"], row["upstream_ms"] = _ms(self.accounts.clock() - tally.started), _ms(tally.upstream_s)
        row["detail"] = self._detail(outcome)
        self._book(0 if self.charge is None else self.charge.nano)
        if self.holds:
            row["holds"] = self.holds
        if self.failed:
            self._tell_failed(row)
        return line(row)

    def _state(self) -> State:
        if not self._used():
            return State.RELEASED
        return State.ESTIMATED if self.estimated or self.failed else State.SETTLED

    def _tell_failed(self, row: dict[str, object]) -> None:
        """What of the cost is with the operator's keys, where the attempts went with different ones; and the whole of
        it in the answer's header, where nobody answered."""
        tally, total = self.tally, self.total
        parts = [(one.source, one.nano or 0) for one in self.failed]
        if self.usage is not None and self.charge is not None:
            parts.append((KeySource(tally.key_source or KeySource.BYOK), self.charge.nano or 0))
        if any(source != tally.key_source for source, _ in parts):
            row["managed_nano"] = sum(nano for source, nano in parts if source is KeySource.MANAGED)
        if self.usage is None:
            tally.cost_usd = None if total is None else usd_of(total)

    def _begun(self, state: State, outcome: str) -> dict[str, object]:
        """The fields of a LedgerRow that are known when somebody is asked."""
        tally = self.tally
        return {
            "request_id": tally.request_id,
            "began_at": self.began,
            "tenant_id": tally.tenant_id,
            "token_id": tally.token_id or "",
            "endpoint": tally.endpoint,
            "state": state,
            "outcome": outcome,
            "client_request_id": tally.client_request_id,
            "stream": tally.stream,
            "model_asked": self._asked(),
            "provider": tally.provider,
            "model": tally.model,
            "key_source": tally.key_source,
            "key_via": tally.key_via,
            "setting_key": tally.setting_key,
            "catalogue": tally.catalogue or None,
            "attempts": tally.attempts,
        }

    def _asked(self) -> str | None:
        """The model as the caller wrote it: a key may stand where a name belongs."""
        tally, asked = self.tally, self.tally.requested_model
        if asked is None or asked in (tally.model, f"{tally.provider}/{tally.model}"):
            return asked
        return KEY_SHAPES.sub(MASK, asked[:_NAME])

    def _detail(self, outcome: str) -> str:
        said: dict[str, object] = {"lines": _told(self.charge)}
        service = self._service()
        if service is not ServiceTier.STANDARD:
            said["service"] = service
        if len(self.tried) > 1 or outcome != Outcome.OK:
            said["attempts"] = self._attempts()
        if self.tally.dropped:
            said["dropped"] = self.tally.dropped
        return orjson.dumps(said).decode()

    def _service(self) -> ServiceTier:
        if self.usage is None or self.decision is None:
            return ServiceTier.STANDARD
        return charged_tier(self.usage, self.decision.query.needs, self.tally.dropped)

    def _attempts(self) -> list[tuple[object, ...]]:
        """Each with its outcome and cost; one that failed and cost something with its lines too."""
        failed = {one.place: one for one in self.failed}
        told: list[tuple[object, ...]] = []
        for place, one in enumerate(self.tried):
            known = (one.provider, one.model, one.outcome, one.status, _ms(one.duration_s))
            if (cost := failed.get(place)) is not None:
                told.append((*known, cost.nano, _told(cost.charge), cost.service))
            else:
                told.append((*known, 0))
        if self.tried and self.usage is not None:  # the last answered, or was asked when the client left
            last, nano = self.tried[-1], None if self.charge is None else self.charge.nano
            told[-1] = (last.provider, last.model, self._ended_as(last), last.status, _ms(last.duration_s), nano)
        return told

    def _ended_as(self, last: AttemptEnded) -> str:
        """An attempt that began to answer may have broken after that, or its client left."""
        if last.outcome != Outcome.OK or self.tally.outcome is None:
            return last.outcome
        return self.tally.broke or (_CANCELLED if self.estimated else last.outcome)


def served_by(decision: Decision, tally: Tally) -> Candidate | None:
    """Who answered, or was asked last."""
    for candidate in decision.ranked:
        if (candidate.offer.provider_id, candidate.offer.model) == (tally.provider, tally.model):
            return candidate
    return None


def charge_of(tally: Tally, decision: Decision, usage: TokenUsage | None) -> Charge | None:
    """What so much costs at who answers; None where nobody counted it."""
    served = served_by(decision, tally)
    return None if usage is None or served is None else _priced(tally, decision, usage, served)


def _priced(tally: Tally, decision: Decision, usage: TokenUsage, served: Candidate) -> Charge | None:
    """What so much costs at this candidate; None where searches are paid for, which nobody counts."""
    needs = decision.query.needs
    return priced(served.offer, needs, usage, charged_tier(usage, needs, tally.dropped))


def _told(cost: Charge | None) -> list[tuple[object, ...]]:
    return [
        (one.price_class, str(one.units), None if one.price is None else format(one.price, "f"), one.nano)
        for one in (() if cost is None else cost.lines)
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
