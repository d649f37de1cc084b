"""What an account writes down of attempts that failed and may be charged, with whose keys they were made."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts import LEDGER_AWAY, Account, Accounts
from gateway.attempt_costs import failed_cost
from gateway.budgeting.holder import Held, Holder, Reservation
from gateway.budgeting.slices import Slice
from gateway.errors import ApiError
from gateway.events import AttemptEnded, Outcome, TokenUsage
from gateway.receipts import receipt
from gateway.tally import Tally
from gateway.upstream import Came
from keystore.budget_spent import spending
from keystore.budgets import NO_BUDGETS, Spend, TenantBudgets
from keystore.errors import JournalUnwritable
from keystore.journal import Journal
from keystore.journal_files import Reader, journals_in
from keystore.ledger_row import LedgerRow
from router.catalogue import Capability, Offer
from router.decision import Decision
from router.failure import Reached
from router.model_names import parse_name
from router.most import most_nano
from router.needs import Needs, read_needs
from router.plans import Plan
from router.prices import Prices
from router.query import NO_HABITS, Habits, Holding, KeySource, Median, Query
from router.ranking import Candidate, CostBasis, OutputFrom
from tests.keystore.journals import died, full_disk

PRICES = Prices(input=Decimal("0.000001"), output=Decimal("0.000002"))
NEEDS = Needs(input_tokens=100, max_output_tokens=50)
REQUEST = "req_" + "1" * 32
MOST_HELD = 700_000  # nano-dollars
PLAN = cast(Plan, SimpleNamespace(managed_budget_usd_per_month=Decimal(1)))


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

    def append_or_keep(self, line: bytes, *, reserved: bool) -> None:
        self.append(line)

    async def durable(self) -> None:
        pass


@dataclass
class Settled:
    """Budgets that only note what was settled."""

    settled: list[tuple[object, int]] = field(default_factory=list)
    next: "Named | None" = None

    async def reserve(self, *_: object) -> Reservation:
        assert self.next is not None
        return self.next

    def settle(self, reservation: "Named", nano: int) -> tuple[Held, ...]:
        self.settled.append((reservation.name, nano))
        return (("h", f"budget-{reservation.name}", nano),) if nano else ()


class Named(Reservation):
    """Held of one hard budget."""

    def __init__(self, name: str, most_nano: int) -> None:
        super().__init__([cast(Slice, object())], most_nano)
        self.name = name


class AnyBudget:
    """One hard budget for whatever is spent."""

    def matching(self, *_: object) -> list[object]:
        return [SimpleNamespace(hard=True)]


@dataclass
class Desk:
    """An account whose attempts a test plays."""

    lines: Lines = field(default_factory=Lines)
    budgets: Settled = field(default_factory=Settled)
    habits: Habits = NO_HABITS
    wrong: list[BaseException] = field(default_factory=list)
    left: list[int | None] = field(default_factory=list)
    account: Account = field(init=False)

    def report(self, request_id: str, error: BaseException) -> None:
        assert request_id == REQUEST
        self.wrong.append(error)

    def refused(self, why: object) -> None:
        raise AssertionError(why)

    def __post_init__(self) -> None:
        def now() -> datetime:
            return datetime(2026, 11, 21, 8, tzinfo=UTC)

        accounts = Accounts(self.lines, now, lambda: 5.0, self.report, cast(Holder, self.budgets), self.refused)
        tally = Tally(REQUEST, "POST", 4.0, "release-1")
        self.account = accounts.open(tally)
        query = SimpleNamespace(needs=NEEDS, habits=self.habits)
        self.account.decision = cast(Decision, SimpleNamespace(query=query, ranked=()))

    def asks(self, who: Candidate, holding: str = "") -> None:
        """Somebody is asked, and MOST_HELD is held for it as `holding`; nothing where that is empty."""
        self.budgets.next = Named(holding, MOST_HELD)
        self.account.own = cast(TenantBudgets, AnyBudget()) if holding else NO_BUDGETS
        self.account.plan = PLAN if holding else None
        asyncio.run(self.asked(who))

    async def asked(self, who: Candidate) -> None:
        """In a loop that runs: the account has reserved for it."""
        assert await self.account.reserve(who) is None
        tally, offer = self.account.tally, who.offer
        tally.provider, tally.model, tally.key_source = offer.provider_id, offer.model, who.holding.source.value
        tally.attempts += 1

    def ends(self, outcome: str, came: Came = Came(), status: int | None = 200) -> None:  # noqa: B008
        tally = self.account.tally
        ended = AttemptEnded(REQUEST, tally.provider or "", tally.model or "", outcome, 0.5, status)
        self.account.ended(ended, lambda: came)

    def row(self) -> Any:
        self.account.settle()
        return self.lines.written[-1]


OURS, THEIRS = candidate("ours", KeySource.MANAGED), candidate("theirs", KeySource.BYOK)
SILENT = Came(Reached.SENT)


def test_a_charged_attempt_is_booked_when_the_next_is_asked_and_each_with_its_keys() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("timeout", SILENT, None)
    assert desk.budgets.settled == [("first", 200_000)], "100 tokens read, 50 that may be written: booked, not let go"
    desk.asks(THEIRS, "second")
    reserved = desk.lines.written[-1]
    assert reserved["cost_nano"] == 1_000_000 + 200_000, "whoever dies now has had both"
    assert reserved["managed_nano"] == 200_000
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.note(TokenUsage(90, 10), THEIRS)
    desk.account.tally.status = 200
    row = desk.row()
    assert (row["state"], row["cost_nano"], row["managed_nano"]) == ("estimated", 310_000, 200_000)
    assert (row["input_tokens"], row["output_tokens"]) == (190, 60)
    assert row["holds"] == [["h", "budget-first", 200_000], ["h", "budget-second", 110_000]]
    attempts = orjson.loads(row["detail"])["attempts"]
    assert [(one[2], one[5]) for one in attempts] == [("timeout", 200_000), ("ok", 110_000)]
    assert attempts[0][6] == [["input", "100", "0.000001", 100_000], ["output", "50", "0.000002", 100_000]]


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
    desk.asks(candidate("theirs", KeySource.BYOK, Prices()))
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


# --- what nobody can price -------------------------------------------------------------------------------------------

UNPRICED = TokenUsage(90, 10, service_tier="flex")  # a tier that has no price here


@pytest.mark.parametrize(("who", "managed", "byok"), [(OURS, MOST_HELD, 0), (THEIRS, 0, MOST_HELD)])
def test_a_held_call_that_nobody_can_price_counts_at_what_was_held(who: Candidate, managed: int, byok: int) -> None:
    desk = Desk()
    desk.asks(who, "first")
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.note(UNPRICED, who)
    desk.account.tally.status = 200
    row = desk.row()
    assert (row["state"], row["cost_nano"]) == ("settled", None), "it is not priced all the same"
    assert (row["managed_nano"], row["byok_nano"]) == (managed, byok)
    assert desk.budgets.settled == [("first", MOST_HELD)]
    assert row["holds"] == [["h", "budget-first", MOST_HELD]]
    assert orjson.loads(row["detail"])["booked_nano"] == MOST_HELD
    spent = spending(LedgerRow.of_line(orjson.dumps(row)))
    assert spent == [(Spend.MANAGED if managed else Spend.BYOK, MOST_HELD)]


def test_attempts_with_different_keys_of_which_one_has_no_price_count_each_with_its_own() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("malformed", Came(Reached.ANSWERED, UNPRICED))
    desk.asks(THEIRS, "second")
    assert desk.lines.written[-1]["managed_nano"] == MOST_HELD, "also when the process dies now"
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.note(TokenUsage(90, 10), THEIRS)
    row = desk.row()
    assert (row["cost_nano"], row["managed_nano"], row["byok_nano"]) == (None, MOST_HELD, 110_000)
    assert desk.budgets.settled == [("first", MOST_HELD), ("second", 110_000)]


def test_what_nobody_held_and_nobody_can_price_counts_nowhere() -> None:
    desk = Desk()
    desk.asks(THEIRS)
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.note(UNPRICED, THEIRS)
    row = desk.row()
    assert row["cost_nano"] is None and spending(LedgerRow.of_line(orjson.dumps(row))) == []
    assert "booked_nano" not in orjson.loads(row["detail"])


# --- what is written though nobody reads it ---------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["cancelled", "timeout"])
@pytest.mark.parametrize(("who", "wrote"), [(OURS, 50), (THEIRS, 20)])
def test_a_plain_answer_that_nobody_waits_for_is_written_all_the_same(outcome: str, who: Candidate, wrote: int) -> None:
    """With a key that is lent at the most, with the tenant's own as its answers usually are."""
    desk = Desk(habits=Habits(usual=Median(20, 9)))
    desk.asks(who, "first")
    desk.ends(outcome, SILENT, None)
    desk.account.tally.outcome = Outcome.CLIENT_LEFT
    row = desk.row()
    cost = 100_000 + wrote * 2_000
    assert (row["state"], row["cost_nano"], row["output_tokens"]) == ("estimated", cost, wrote)
    assert desk.budgets.settled == [("first", cost)] and cost <= MOST_HELD
    ((*_, said, nano, lines, _),) = [one[2:] for one in orjson.loads(row["detail"])["attempts"]]
    assert (said, nano, sum(line[3] for line in lines)) == (500, cost, cost)


@pytest.mark.parametrize("outcome", ["cancelled", "timeout"])
@pytest.mark.parametrize("reached", [Reached.UNSENT, Reached.REFUSED])
def test_what_nobody_was_sent_is_free_however_it_ends(outcome: str, reached: Reached) -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends(outcome, Came(reached), None)
    desk.account.tally.outcome = Outcome.CLIENT_LEFT
    row = desk.row()
    assert (row["state"], row["cost_nano"], row.get("output_tokens")) == ("released", 0, None)
    assert desk.budgets.settled == [("first", 0)]


def test_what_a_provider_told_before_its_client_left_stands() -> None:
    desk = Desk()
    desk.asks(OURS, "first")
    desk.ends("cancelled", Came(Reached.ANSWERED, TokenUsage(7, 3)))
    assert desk.account.failed[0].usage == TokenUsage(7, 3)


@pytest.mark.parametrize("more", [{"enable_search": True}, {"tools": [{"type": "web_search"}]}])
def test_what_is_charged_apart_from_tokens_has_no_cost_wherever_the_call_ends(more: dict[str, Any]) -> None:
    """Answered, failed, or never ended because its process died: the reserved line is what a row is made of then."""
    for outcome in (Outcome.OK, "timeout"):
        desk = Desk()
        query = SimpleNamespace(needs=NEEDS.with_fees(more), habits=NO_HABITS)
        desk.account.decision = cast(Decision, SimpleNamespace(query=query, ranked=()))
        desk.asks(THEIRS)
        assert desk.lines.written[-1]["cost_nano"] is None
        desk.ends(outcome, Came(Reached.ANSWERED, TokenUsage(100, 9)))
        if outcome == Outcome.OK:
            desk.account.note(TokenUsage(100, 9), THEIRS)
        row = desk.row()
        assert (row["cost_nano"], row["input_tokens"], row["output_tokens"]) == (None, 100, 9)
        assert desk.account.tally.cost_usd is None


def asked_for(text: str, limit: int | None, answers: int) -> Needs:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "n": answers, "max_tokens": limit}
    return read_needs(body).bounded(len(orjson.dumps(body)), body)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=2_000)
MOST_NEEDS = st.builds(asked_for, TEXTS, st.none() | st.integers(1, 10**6), st.integers(1, 5))


@given(MOST_NEEDS, st.sampled_from(["cancelled", "timeout"]), st.integers(0, 10**7), st.booleans())
def test_an_estimate_is_never_more_than_what_is_held(needs: Needs, outcome: str, produced: int, streams: bool) -> None:
    query = cast(Query, SimpleNamespace(needs=needs, habits=Habits(usual=Median(9_000, 9))))
    ended = AttemptEnded(REQUEST, "ours", "m", outcome, 0.5)
    for who in (OURS, THEIRS, THINKING):
        found = failed_cost(ended, Came(Reached.SENT, None, produced, streams), who, query, 0, ())
        most = most_nano(who.offer, needs)
        assert found is not None and found.nano is not None and most is not None
        assert 0 < found.nano <= most


# --- what is reasoned out of sight ------------------------------------------------------------------------------------

THINKING = replace(THEIRS, offer=replace(THEIRS.offer, capabilities={Capability.REASONING: True}))
USUAL = Habits(usual=Median(40, 9))


@pytest.mark.parametrize(
    ("who", "came", "wrote"),
    [
        (THINKING, Came(Reached.SENT, streams=True), 40),
        (THINKING, Came(Reached.ANSWERED, None, 3, streams=True), 40),
        (THINKING, Came(Reached.ANSWERED, None, 45, streams=True), 45),
        (THINKING, Came(Reached.ANSWERED, None, 3, streams=True, reasoned=True), 3),
        (THINKING, Came(Reached.ANSWERED, TokenUsage(100, 9, reasoning_tokens=8), 3, streams=True), 9),
        (THINKING, Came(Reached.ANSWERED, TokenUsage(100, 1), 3, streams=True), 40),
        (replace(THINKING, holding=OURS.holding), Came(Reached.ANSWERED, None, 3, streams=True), 40),
        (OURS, Came(Reached.ANSWERED, None, 3, streams=True), 3),
        (THEIRS, Came(Reached.SENT, streams=True), 0),
    ],
)
@pytest.mark.parametrize("outcome", ["cancelled", "timeout", "truncated"])
def test_a_stream_of_a_model_that_reasons_out_of_sight_is_as_long_as_usual(
    outcome: str, who: Candidate, came: Came, wrote: int
) -> None:
    desk = Desk(habits=USUAL)
    desk.asks(who)
    desk.ends(outcome, came)
    found = [one.usage.output_tokens for one in desk.account.failed]
    charged = outcome != "truncated" or came.reached is Reached.ANSWERED
    assert found == ([wrote] if charged else [])


# --- a process that dies, and an account that cannot be written -----------------------------------------------------


def test_what_is_reserved_with_a_key_that_is_lent_is_what_is_held() -> None:
    for who, nano in ((OURS, MOST_HELD), (THEIRS, 1_000_000)):
        desk = Desk()
        desk.asks(who, "first")
        assert desk.lines.written[-1]["cost_nano"] == nano


def broken(*_: object) -> None:
    raise ZeroDivisionError


def test_a_row_that_cannot_be_made_is_written_in_its_least_form() -> None:
    desk = Desk()
    account, tally = desk.account, desk.account.tally
    account.leave = desk.left.append
    desk.asks(OURS, "first")
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    account.note(TokenUsage(90, 10), OURS)
    tally.status, tally.dropped = 200, ("half a character: \ud800",)  # which JSON does not hold
    row = desk.row()
    assert (row["request_id"], row["state"], row["cost_nano"]) == (REQUEST, "estimated", 110_000)
    assert LedgerRow.of_line(orjson.dumps(row)).holds == (("h", "budget-first", 110_000),)
    assert desk.budgets.settled == [("first", 110_000)] and desk.left == [100]
    assert len(desk.wrong) == 1, "it is reported"


@pytest.mark.parametrize(("who", "nano"), [(OURS, MOST_HELD), (THEIRS, 1_000_000)])
def test_a_call_whose_cost_cannot_be_reckoned_counts_at_what_was_held_or_expected(who: Candidate, nano: int) -> None:
    desk = Desk()
    desk.account.leave = desk.left.append
    desk.asks(who, "first")
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    desk.account.decision = cast(Decision, SimpleNamespace(query=None))
    row = desk.row()
    assert (row["state"], row["cost_nano"], row["provider"]) == ("estimated", nano, who.offer.provider_id)
    assert desk.budgets.settled == [("first", nano)] and desk.left == [0] and len(desk.wrong) == 1


def test_an_answer_that_nobody_could_measure_is_estimated_and_all_is_given_back() -> None:
    desk = Desk()
    desk.account.measure, desk.account.leave = broken, desk.left.append
    desk.asks(OURS, "first")
    desk.ends(Outcome.OK, Came(Reached.ANSWERED))
    row = desk.row()
    assert (row["state"], row["cost_nano"], row["output_tokens"]) == ("estimated", 200_000, 50)
    assert desk.budgets.settled == [("first", 200_000)] and desk.left == [150]
    assert [type(error) for error in desk.wrong] == [ZeroDivisionError]


def test_a_journal_that_fails_in_any_way_keeps_nobody_out() -> None:
    desk = Desk()
    desk.account.leave = desk.left.append
    desk.asks(OURS, "first")
    desk.ends("rate_limited", Came(Reached.REFUSED), 429)
    desk.lines.written = cast(list[Any], None)
    desk.account.settle()
    assert desk.left == [0] and len(desk.wrong) == 1 and desk.budgets.settled == [("first", 0)]


def test_a_model_whose_name_is_no_text_is_written() -> None:
    desk = Desk()
    desk.account.tally.requested_model = "gpt\ud800"
    row = desk.row()
    assert row["model_asked"] == "gpt?" and desk.wrong == []


def test_how_long_a_bulk_request_waited_is_in_its_row() -> None:
    desk = Desk()
    desk.account.tally.waited_s = 1.2345
    row = desk.row()
    assert orjson.loads(row["detail"])["waited_ms"] == 1_234
    assert receipt(LedgerRow.of_line(orjson.dumps(row)))["waited_ms"] == 1_234


@dataclass
class SlowDisk(Lines):
    """A journal in memory whose disk takes its time."""

    written_through: asyncio.Event = field(default_factory=asyncio.Event)

    async def durable(self) -> None:
        await self.written_through.wait()


@pytest.mark.parametrize("cancels", [1, 2])
def test_answer_whose_row_is_written_is_given_though_the_process_stops(cancels: int) -> None:
    """Else the row says `ok`, and the caller is told to ask again. A second signal ends it all the same."""
    disk = SlowDisk()
    desk = Desk(lines=disk)
    desk.asks(THEIRS)
    desk.ends("ok")

    async def story() -> bool:
        closing = asyncio.create_task(desk.account.close())
        for _ in range(cancels):
            await asyncio.sleep(0)
            closing.cancel()
        await asyncio.sleep(0)
        disk.written_through.set()
        await asyncio.wait({closing})
        return closing.cancelled()

    assert asyncio.run(story()) is (cancels == 2)
    assert [row["state"] for row in disk.written] == ["reserved", "estimated"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_answer_whose_row_is_written_is_given_though_the_disk_fails_to_sync(cancelled: bool, tmp_path: Path) -> None:
    """It was paid for: whoever is told to ask again pays for it twice."""

    class Failing(Journal):
        def _on_disk(self, work: object) -> None:
            raise OSError(5, "Input/output error")

    async def story() -> None:
        journal = Failing(tmp_path, database="db-1")
        desk = Desk(lines=cast(Lines, journal))
        await desk.asked(THEIRS)
        desk.ends("ok")
        closing = asyncio.create_task(desk.account.close())
        await asyncio.sleep(0)
        if cancelled:
            closing.cancel()
        await closing
        assert [type(error) for error in desk.wrong] == [JournalUnwritable]
        died(journal)

    asyncio.run(story())
    assert [row["state"] for row in rows_in(tmp_path)] == ["reserved", "estimated"]


def test_row_that_the_disk_did_not_take_is_written_before_the_next_request_is_asked(tmp_path: Path) -> None:
    journal = Journal(tmp_path, database="db-1", sync=False)
    paid, free, refused, after = (Desk(lines=cast(Lines, journal)) for _ in range(4))
    paid.asks(OURS, "first")
    paid.ends(Outcome.OK, Came(Reached.ANSWERED))
    paid.account.note(TokenUsage(90, 10), OURS)
    paid.account.tally.status = 200
    free.asks(THEIRS)
    free.ends("upstream_error", Came(Reached.REFUSED), 500)
    with full_disk():
        asyncio.run(paid.account.close())
        free.account.settle()
        with pytest.raises(ApiError) as told:
            refused.asks(THEIRS)
        assert told.value.problem is LEDGER_AWAY and journal.kept == 2
        refused.account.settle()
    assert paid.wrong == free.wrong == refused.wrong == [], "they are kept: the shipper tells it"
    assert paid.budgets.settled == [("first", 110_000)]
    after.asks(THEIRS)
    died(journal)
    found = [(row["state"], row["cost_nano"]) for row in rows_in(tmp_path)]
    assert found[2:] == [("settled", 110_000), ("released", 0), ("released", 0), ("reserved", 1_000_000)]
    assert rows_in(tmp_path)[2]["holds"] == [["h", "budget-first", 110_000]], "given back when the row is written"


def rows_in(folder: Path) -> list[Any]:
    """What the lines of a folder's only journal say."""
    (journal_id,) = journals_in(folder)
    reader = Reader(folder, journal_id)
    found = [orjson.loads(record.payload) for record in reader.read()]
    reader.close()
    return found
