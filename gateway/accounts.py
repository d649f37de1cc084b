"""One account for each request of a tenant: what it may cost when somebody is asked, and what it did cost at its end.

Owns what becomes a row of the ledger, and when: a reserved line before a provider is asked, one terminal line before
the last byte of the answer, whatever happens. Where nobody counted the tokens, they are estimated and marked so. Must
not know where the lines are kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Final, Protocol, TypeVar

import orjson

from gateway.account_lines import asked_by, begun, by_keys, ms, together, told
from gateway.attempt_costs import FailedCost, charged_tier, failed_cost, priced, unread
from gateway.budgeting.holder import Held, Holder, Refused, Reservation, Why
from gateway.budgeting.refusals import spent, unpriced
from gateway.errors import ApiError, Problem
from gateway.events import AttemptEnded, Outcome, TokenUsage
from gateway.tally import Tally
from gateway.upstream import Came
from keystore.budgets import NO_BUDGETS, Budget, Spend, TenantBudgets, plan_budget
from keystore.errors import KeystoreError
from keystore.ledger_row import State, line
from keystore.money import MOST, nano_of, usd_of
from router.charge import Charge
from router.decision import Decision
from router.failure import CANCELLED
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
_COUNTS: Final = attrgetter(*_TOKENS)
T = TypeVar("T")


class Journal(Protocol):
    """Where lines go; keystore.journal."""

    def append(self, line: bytes) -> None:
        """Written, though not yet on the disk. KeystoreError when it cannot be."""

    def append_or_keep(self, line: bytes, *, reserved: bool) -> None:
        """Written, or kept until it can be; KeystoreError when it is lost."""

    def durable(self) -> Awaitable[None]:
        """All that was appended is on the disk."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Opens the accounts of a gateway. `report` hears, with the request's id, of a line that could not be
    made or written, `refused` that a budget refused a call."""

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
    asked: Candidate | None = None  # the last who was
    answered: Candidate | None = None  # who gave an answer, or began to
    measure: Callable[[], None] | None = None
    leave: Callable[[int | None], None] | None = None
    tried: list[AttemptEnded] = field(default_factory=list)
    plan: Plan | None = None
    own: TenantBudgets = NO_BUDGETS  # the tenant's and its tokens'
    failed: list[FailedCost] = field(default_factory=list)
    held: Reservation | None = None
    holds: tuple[Held, ...] = ()  # of what was held, what it cost: until the row is written
    booked: list[tuple[KeySource, int]] = field(default_factory=list)  # what budgets count of each call that cost
    refused: Why | None = None  # a budget refused the first who would have been asked
    settled: bool = False

    async def reserve(self, candidate: Candidate) -> Problem | None:
        """Hold back the most that a call can cost of every hard budget, and write down that somebody is about to be
        asked. Why a budget refuses it; raises ApiError 503 when it cannot be written down."""
        refusal = await self._hold(candidate)
        if refusal is not None:
            return refusal
        with_fees = self.decision is not None and self.decision.query.needs.beyond.charged
        holding, expected = candidate.holding, None if with_fees else self._expected(candidate)
        cost = None if expected is None else together([*self.booked, (holding.source, expected)])
        row = begun(self.tally, self.began, State.RESERVED, "") | {
            "provider": candidate.offer.provider_id,
            "model": candidate.offer.model,
            "key_source": holding.source,
            "key_via": holding.via,
            "setting_key": holding.setting_key,
            "cost_nano": cost,
        }
        row |= by_keys([*self.booked, (holding.source, expected or 0)], holding.source, cost)
        try:
            self.accounts.journal.append(line(row))
        except KeystoreError as error:
            self._let_go()
            raise ApiError(LEDGER_AWAY) from error
        self.asked, self.answered = candidate, None
        return None

    def _expected(self, candidate: Candidate) -> int | None:
        """In nano-dollars, of a call of which nothing else is known: with a key that is lent what is held for it."""
        if candidate.holding.source is KeySource.MANAGED and self._held_nano:
            return self._held_nano
        return None if candidate.expected_cost is None else nano_of(candidate.expected_cost)

    @property
    def _held_nano(self) -> int:
        """The most that the call can cost, where that is held of a budget."""
        return self.held.most_nano if self.held is not None and self.held.slices else 0

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
            self.refused = self.refused or found.why
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
        if self.held is not None:
            self.holds += self.accounts.budgets.settle(self.held, 0)
            self.held = None

    def ended(self, attempt: AttemptEnded, look: Callable[[], Came]) -> None:
        """An attempt is over. Where it gave no answer and may be charged all the same, its cost is taken out of what
        was held for it."""
        self.tried.append(attempt)
        if attempt.outcome == Outcome.OK:
            self.answered = self.asked
        elif self.asked is not None and self.decision is not None:
            query, place = self.decision.query, len(self.tried) - 1
            cost = failed_cost(attempt, look(), self.asked, query, place, self.tally.dropped)
            if cost is not None:
                self.failed.append(cost)
                self._book(cost.source, cost.nano)

    def _book(self, source: KeySource, nano: int | None) -> None:
        """A call has cost so much of what was held for it; None: nobody knows, and all of it counts."""
        counts = self._held_nano if nano is None else nano
        self.booked.append((source, counts))
        if self.held is not None:
            self.holds += self.accounts.budgets.settle(self.held, counts)
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
        if not self.failed:
            return last
        parts = [last, *(one.nano for one in self.failed)]
        return None if None in parts else min(sum(part or 0 for part in parts), MOST)

    async def close(self) -> None:
        """Write the terminal line, and wait until it is on the disk where an answer was given. The line says so: from
        then on the answer is given, though its client leaves, the process stops or the disk fails meanwhile."""
        if not self.settled:
            self.settle()
            if self.booked:
                try:
                    await self._on_disk()
                except Exception as error:  # noqa: BLE001 - the answer is paid for, and its row outlives the process
                    self.accounts.report(self.tally.request_id, error)

    async def _on_disk(self) -> None:
        try:
            await self.accounts.journal.durable()
        except asyncio.CancelledError:  # a second one ends it
            await self.accounts.journal.durable()

    def settle(self) -> None:
        """Write the terminal line, once. Whatever goes wrong with that is reported: a row is written all the same, and
        what was held is given back."""
        if self.settled:
            return
        self.settled = True
        if self.refused is not None and self.asked is None:
            self.accounts.refused(self.refused)
        try:
            if self.measure is not None:
                self._tried(self.measure)
            concluded = self._tried(self._conclude)
            written = self._tried(self._terminal) if concluded else None
            written = written or self._tried(partial(self._least, booked=concluded is not None))
            if written is not None:
                reserved = self.asked is not None
                self._tried(partial(self.accounts.journal.append_or_keep, written, reserved=reserved))
        finally:
            if self.leave is not None:
                self._tried(partial(self.leave, sum(one.input_tokens + one.output_tokens for one in self._used())))

    def _tried(self, step: Callable[[], T]) -> T | None:
        """What came of it; None when it failed, which is reported."""
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - the steps behind it are owed to the tenant, whatever this one was
            self.accounts.report(self.tally.request_id, error)
            return None

    def _conclude(self) -> bool:
        """Book what the last call cost."""
        if self.usage is None and self.answered is not None and self.decision is not None:  # nobody measured it
            query = self.decision.query
            presumed = TokenUsage(query.needs.uncorrected_tokens, unread(self.answered, query))
            self.note(presumed, self.answered, estimated=True)
        if self.usage is None:
            self._let_go()
        else:
            source = KeySource(self.tally.key_source or KeySource.BYOK)
            self._book(source, None if self.charge is None else self.charge.nano)
        return True

    def _least(self, *, booked: bool) -> bytes:
        """The terminal line where no better one can be made: whose request it was, and what was booked, or expected."""
        tally, last = self.tally, self.answered
        known = self.total if booked else 0
        if not booked and last is not None:
            known = self._expected(last)
            self._book(last.holding.source, known)
        self._let_go()
        cost = None if known is None or any(one.nano is None for one in self.failed) else together(self.booked)
        state = State.ESTIMATED if self.booked else State.RELEASED
        row = asked_by(tally, self.began, state, tally.outcome or Outcome.ERROR)
        row |= {"status": tally.status, "cost_nano": cost, "holds": self.holds}
        return line(row | by_keys(self.booked, tally.key_source, cost))

    def _used(self) -> list[TokenUsage]:
        """Of each attempt that cost something."""
        return [one.usage for one in self.failed] + ([] if self.usage is None else [self.usage])

    def _terminal(self) -> bytes:
        tally = self.tally
        outcome = tally.outcome or (Outcome.OK if tally.status == 200 else Outcome.REFUSED)
        row = begun(tally, self.began, self._state(), outcome) | {"cost_nano": self.total}
        if used := self._used():
            row |= zip(_TOKENS, (sum(counts) for counts in zip(*map(_COUNTS, used), strict=True)), strict=True)
        if tally.first_token_s is not None:
            row["first_token_ms"] = ms(tally.first_token_s)
        row["status"], row["fault"], row["code"] = tally.status, tally.fault, tally.code
        row["duration_ms"], row["upstream_ms"] = ms(self.accounts.clock() - tally.started), ms(tally.upstream_s)
        row["detail"] = self._detail(outcome)
        if self.holds:
            row["holds"] = self.holds
        if self.failed and self.usage is None:
            tally.cost_usd = None if self.total is None else usd_of(self.total)
        return line(row | by_keys(self.booked, tally.key_source, self.total))

    def _state(self) -> State:
        if not self._used():
            return State.RELEASED
        return State.ESTIMATED if self.estimated or self.failed else State.SETTLED

    def _detail(self, outcome: str) -> str:
        said: dict[str, object] = {"lines": told(self.charge)}
        service = self._service()
        if service is not ServiceTier.STANDARD:
            said["service"] = service
        if len(self.tried) > 1 or outcome != Outcome.OK:
            said["attempts"] = self._attempts()
        if self.tally.dropped:
            said["dropped"] = self.tally.dropped
        if self.tally.passed_over:
            said["passed_over"] = self.tally.passed_over
        if self.tally.waited_s is not None:
            said["waited_ms"] = ms(self.tally.waited_s)
        if self.total is None and (counts := together(self.booked)):
            said["booked_nano"] = counts
        return orjson.dumps(said).decode()

    def _service(self) -> ServiceTier:
        if self.usage is None or self.decision is None:
            return ServiceTier.STANDARD
        return charged_tier(self.usage, self.decision.query.needs, self.tally.dropped)

    def _attempts(self) -> list[tuple[object, ...]]:
        """Each with its outcome and cost; one that failed and cost something with its lines too."""
        failed = {one.place: one for one in self.failed}
        found: list[tuple[object, ...]] = []
        for place, one in enumerate(self.tried):
            known = (one.provider, one.model, one.outcome, one.status, ms(one.duration_s))
            if (cost := failed.get(place)) is not None:
                found.append((*known, cost.nano, told(cost.charge), cost.service))
            else:
                found.append((*known, 0))
        if self.tried and self.usage is not None:  # the last answered, or began to
            last, nano = self.tried[-1], None if self.charge is None else self.charge.nano
            found[-1] = (last.provider, last.model, self._ended_as(last), last.status, ms(last.duration_s), nano)
        return found

    def _ended_as(self, last: AttemptEnded) -> str:
        """An attempt that began to answer may have broken after that, or its client left."""
        if last.outcome != Outcome.OK or self.tally.outcome is None:
            return last.outcome
        return self.tally.broke or (CANCELLED if self.estimated else last.outcome)


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
    """What so much costs at this candidate; None where something is paid for apart from tokens, which nobody counts."""
    needs = decision.query.needs
    return priced(served.offer, needs, usage, charged_tier(usage, needs, tally.dropped))
