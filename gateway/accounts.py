"""One account for each request of a tenant: what it may cost when somebody is asked, and what it did cost at its end.

Owns what becomes a row of the ledger, and when: a reserved line before a provider is asked, one terminal line before
the last byte of the answer, whatever happens. Where nobody counted the tokens, they are estimated and marked so. Must
not know where the lines are kept.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

import orjson

from gateway.budgeting.holder import Holder, Refused, Reservation, Why
from gateway.budgeting.refusals import spent, unpriced
from gateway.errors import ApiError, Problem
from gateway.events import AttemptEnded, Outcome, TokenUsage
from gateway.metering import metered
from gateway.scrub import KEY_SHAPES, MASK
from gateway.tally import Tally
from keystore.budgets import NO_BUDGETS, Budget, Spend, TenantBudgets, plan_budget
from keystore.errors import KeystoreError
from keystore.ledger_row import State, line
from router.catalogue import Capability
from router.charge import Charge, charge
from router.decision import Decision
from router.money import nano_of, usd_of
from router.most import most_nano
from router.needs import Needs
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
_ENVELOPE: Final = 300  # bytes of an answer that are not its text
_CHARACTERS: Final = 4  # of text to a token
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
    held: Reservation | None = None
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
            "cost_nano": None if expected is None else nano_of(expected),
        }
        try:
            self.accounts.journal.append(line(row))
        except KeystoreError as error:
            self._let_go()
            raise ApiError(LEDGER_AWAY) from error
        self.asking = candidate
        return None

    async def _hold(self, candidate: Candidate) -> Problem | None:
        self._let_go()  # of who was asked before and failed
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
        if self.held is not None:
            self.accounts.budgets.settle(self.held, 0)
            self.held = None

    def ended(self, attempt: AttemptEnded) -> None:
        """An attempt is over."""
        self.tried.append(attempt)
        if attempt.outcome != _CANCELLED:
            self.asking = None

    def note(self, usage: TokenUsage, served: Candidate | None, *, estimated: bool = False) -> None:
        """What was used of the model that served; its price is the tally's cost."""
        tally = self.tally
        self.usage, self.estimated = usage, estimated
        if served is None or self.decision is None:
            return
        self.charge = priced(tally, self.decision, usage, served)
        nano = None if self.charge is None else self.charge.nano
        tally.cost_usd = None if nano is None else usd_of(nano)
        if estimated and not tally.stream:
            tally.headers["x-wardgate-estimated"] = "usage"

    async def close(self) -> None:
        """Write the terminal line, and wait until it is on the disk where an answer was given."""
        if not self.settled:
            self.settle()
            if self.usage is not None:
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
            usage = self.usage
            self.leave(0 if usage is None else usage.input_tokens + usage.output_tokens)

    def _terminal(self) -> bytes:
        tally = self.tally
        if self.asking is not None and self.usage is None and self.decision is not None:
            self.note(TokenUsage(_estimated_input(self.decision.query.needs), 0), self.asking, estimated=True)
        usage = self.usage
        outcome = tally.outcome or (Outcome.OK if tally.status == 200 else Outcome.REFUSED)
        if usage is None:
            row = self._begun(State.RELEASED, outcome) | {"cost_nano": 0}
        else:
            row = self._begun(State.ESTIMATED if self.estimated else State.SETTLED, outcome) | {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_input_tokens": usage.cached_input_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "cost_nano": None if self.charge is None else self.charge.nano,
            }
        if tally.first_token_s is not None:
            row["first_token_ms"] = _ms(tally.first_token_s)
        row["status"], row["fault"], row["code"] = tally.status, tally.fault, tally.code
        row["duration_ms"], row["upstream_ms"] = _ms(self.accounts.clock() - tally.started), _ms(tally.upstream_s)
        row["detail"] = self._detail()
        if self.held is not None:
            cost = row["cost_nano"]
            row["holds"] = self.accounts.budgets.settle(self.held, cost if isinstance(cost, int) else 0)
        return line(row)

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

    def _detail(self) -> str:
        lines = () if self.charge is None else self.charge.lines
        said: dict[str, object] = {
            "lines": [
                (one.price_class, str(one.units), None if one.price is None else format(one.price, "f"), one.nano)
                for one in lines
            ]
        }
        if len(self.tried) > 1 or any(one.outcome != "ok" for one in self.tried):
            said["attempts"] = [
                (one.provider, one.model, one.outcome, one.status, _ms(one.duration_s)) for one in self.tried
            ]
        if self.tally.dropped:
            said["dropped"] = self.tally.dropped
        return orjson.dumps(said).decode()


def served_by(decision: Decision, tally: Tally) -> Candidate | None:
    """Who answered, or was asked last."""
    for candidate in decision.ranked:
        if (candidate.offer.provider_id, candidate.offer.model) == (tally.provider, tally.model):
            return candidate
    return None


def charge_of(tally: Tally, decision: Decision, usage: TokenUsage | None) -> Charge | None:
    """What so much costs at who answers; None where nobody counted it."""
    served = served_by(decision, tally)
    return None if usage is None or served is None else priced(tally, decision, usage, served)


def priced(tally: Tally, decision: Decision, usage: TokenUsage, served: Candidate) -> Charge | None:
    """What so much costs at this candidate; None where searches are paid for, which nobody counts."""
    needs = decision.query.needs
    if Capability.WEB_SEARCH in needs.capabilities:
        return None
    asked = ServiceTier.STANDARD if "service_tier" in tally.dropped else needs.service
    return charge(served.offer.prices, metered(usage, asked))


def counted(usage: TokenUsage | None, produced: int, needs: Needs, *, whole: bool) -> tuple[TokenUsage, bool]:
    """What an answer used, and whether that is an estimate: the provider's count where it is whole, else the input as
    it was estimated and the output as it came."""
    if usage is None:
        return TokenUsage(_estimated_input(needs), produced), True
    if whole:
        return usage, False
    return replace(usage, output_tokens=max(usage.output_tokens, produced)), True


def written(body: bytes) -> int:
    """About how many tokens a plain answer holds that nobody counted."""
    return max(1, (len(body) - _ENVELOPE) // _CHARACTERS)


def _estimated_input(needs: Needs) -> int:
    return needs.input_tokens if needs.estimated_tokens is None else needs.estimated_tokens


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
