"""What an account writes down of attempts that failed and may be charged, with whose keys they were made."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import orjson

from gateway.accounts import Account, Accounts
from gateway.budgeting.holder import Held, Holder, Reservation
from gateway.events import AttemptEnded, Outcome, TokenUsage
from gateway.tally import Tally
from gateway.upstream import Came
from router.catalogue import Offer
from router.decision import Decision
from router.failure import Reached
from router.model_names import parse_name
from router.needs import Needs
from router.prices import Prices
from router.query import Holding, KeySource
from router.ranking import Candidate, CostBasis, OutputFrom

PRICES = Prices(input=Decimal("0.000001"), output=Decimal("0.000002"))
NEEDS = Needs(input_tokens=100, max_output_tokens=50)
REQUEST = "req_" + "1" * 32


def candidate(provider: str, source: KeySource, prices: Prices = PRICES) -> Candidate:
    offer = Offer(provider, "m", parse_name("m"), "chat", prices)
    return Candidate(offer, Holding(provider, source, "canonical", "K", "credentials"), Decimal("0.001"), CostBasis(
        100, 50, OutputFrom.LIMIT))  # fmt: skip


@dataclass
class Lines:
    """A journal in memory."""

    written: list[Any] = field(default_factory=list)

    def append(self, line: bytes) -> None:
        self.written.append(orjson.loads(line))

    async def durable(self) -> None:
        pass


@dataclass
class Settled:
    """Budgets that only note what was settled."""

    settled: list[tuple[object, int]] = field(default_factory=list)

    def settle(self, reservation: object, nano: int) -> tuple[Held, ...]:
        self.settled.append((reservation, nano))
        return (("h", f"budget-{reservation}", nano),) if nano else ()


@dataclass
class Desk:
    """An account whose attempts a test plays."""

    lines: Lines = field(default_factory=Lines)
    budgets: Settled = field(default_factory=Settled)
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        def heard(*_: object) -> None:
            raise AssertionError("nothing goes wrong here")

        def now() -> datetime:
            return datetime(2026, 11, 21, 8, tzinfo=UTC)

        accounts = Accounts(self.lines, now, lambda: 5.0, heard, cast(Holder, self.budgets), heard)
        tally = Tally(REQUEST, "POST", 4.0, "release-1")
        self.account = accounts.open(tally)
        self.account.decision = cast(Decision, SimpleNamespace(query=SimpleNamespace(needs=NEEDS), ranked=()))

    def asks(self, who: Candidate, holding: str) -> None:
        """Somebody is asked, and so much is held for it as `holding`."""
        asyncio.run(self.account.reserve(who))
        self.account.held = cast(Reservation, holding)
        tally, offer = self.account.tally, who.offer
        tally.provider, tally.model, tally.key_source = offer.provider_id, offer.model, who.holding.source.value
        tally.attempts += 1

    def ends(self, outcome: str, came: Came = Came(), status: int | None = 200) -> None:  # noqa: B008
        tally = self.account.tally
        ended = AttemptEnded(REQUEST, tally.provider or "", tally.model or "", outcome, 0.5, status)
        self.account.ended(ended, came)

    def row(self) -> Any:
        self.account.settle()
        return self.lines.written[-1]


OURS, THEIRS = candidate("ours", KeySource.MANAGED), candidate("theirs", KeySource.BYOK)
SILENT = Came(Reached.SENT)


def test_a_charged_attempt_is_booked_when_the_next_is_asked_and_each_with_its_keys() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("timeout", SILENT, None)
    assert desk.budgets.settled == [("first", 100_000)], "100 tokens read, none written: booked and not let go"
    desk.asks(THEIRS, "second")
    assert desk.lines.written[-1]["cost_nano"] == 1_000_000 + 100_000, "whoever dies now has had both"
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.note(TokenUsage(90, 10), THEIRS)
    desk.account.tally.status = 200
    row = desk.row()
    assert (row["state"], row["cost_nano"], row["managed_nano"]) == ("estimated", 210_000, 100_000)
    assert (row["input_tokens"], row["output_tokens"]) == (190, 10)
    assert row["holds"] == [["h", "budget-first", 100_000], ["h", "budget-second", 110_000]]
    attempts = orjson.loads(row["detail"])["attempts"]
    assert [(one[2], one[5]) for one in attempts] == [("timeout", 100_000), ("ok", 110_000)]
    assert attempts[0][6] == [["input", "100", "0.000001", 100_000]]


def test_what_is_refused_lets_go_and_costs_nothing() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("rate_limited", Came(Reached.REFUSED), 429)
    desk.asks(THEIRS, "second")
    assert desk.budgets.settled == [("first", 0)]
    desk.ends("connect", Came(Reached.UNSENT), None)
    desk.account.tally.outcome, desk.account.tally.status = Outcome.FAILED, 502
    row = desk.row()
    assert (row["state"], row["cost_nano"]) == ("released", 0) and "holds" not in row and "managed_nano" not in row
    assert [one[5] for one in orjson.loads(row["detail"])["attempts"]] == [0, 0]
    assert desk.budgets.settled == [("first", 0), ("second", 0)]


def test_a_failed_attempt_without_a_price_makes_the_whole_unknown_and_never_zero() -> None:
    desk = Desk()
    desk.asks(candidate("theirs", KeySource.BYOK, Prices()), "first")
    desk.ends("malformed", Came(Reached.ANSWERED, TokenUsage(7, 3)))
    desk.account.tally.outcome, desk.account.tally.status = Outcome.FAILED, 502
    row = desk.row()
    assert (row["state"], row["cost_nano"], row["input_tokens"], row["output_tokens"]) == ("estimated", None, 7, 3)
    assert desk.account.tally.cost_usd is None


def test_an_only_attempt_whose_answer_broke_says_how() -> None:
    for outcome, broke, estimated, told in (
        (Outcome.CUT, "truncated", True, "truncated"),
        (Outcome.CLIENT_LEFT, None, True, "cancelled"),
        (Outcome.CLIENT_LEFT, None, False, "ok"),
    ):
        desk = Desk()
        desk.asks(OURS, "first")
        desk.ends(Outcome.OK, Came(Reached.ANSWERED))
        desk.account.tally.outcome, desk.account.tally.broke = outcome, broke
        desk.account.note(TokenUsage(90, 10), OURS, estimated=estimated)
        (attempt,) = orjson.loads(desk.row()["detail"])["attempts"]
        assert (attempt[2], attempt[5]) == (told, 110_000)


def test_an_output_nobody_counted_is_never_more_than_an_answer_can_have() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("malformed", Came(Reached.ANSWERED, None, 10**9))
    assert desk.account.failed[0].usage == TokenUsage(100, 50)
