"""gateway.pricing on a real server of lists and a real database: what is bad never takes the place of what is good."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.books import Books
from gateway.control.gate import Control
from gateway.deciding import RuleBook
from gateway.price_settings import AutoApprove, PriceSettings
from gateway.pricing import decisions
from gateway.pricing.fetching import FetchFailed, fetch
from gateway.pricing.keeping import PriceKeeper
from gateway.pricing.live import bundled, catalogue_of, live_prices
from gateway.pricing.refreshing import LEASE, LEASE_FOR, Outcome, Refresh, RefreshReport, SourceOutcome, source_id
from gateway.rules import Rules
from gateway.tally import Tally
from keystore.errors import PriceConflict, PriceReleaseUnknown, PriceRowUnknown, PricesBusy
from keystore.keystore import Keystore
from keystore.price_releases import Cause, ReleaseState
from keystore.providers import Registry
from router.catalogue import Catalogue
from router.plans import load_plans
from tests.keystore.conftest import FakeClock, World
from tests.price_server import Publisher, publisher
from tests.prices import JUMPS, M2, begin_with_few, bundled_rows, few_rows, published, times


@pytest.fixture
def lists() -> Iterator[Publisher]:
    with publisher() as running:
        running.content = published(**{M2: times(M2, "2")})
        yield running


@dataclass
class Desk:
    """A keystore, rules with one list, and refreshes as they are asked for."""

    keystore: Keystore
    rules: Rules
    clock: FakeClock
    drawn: float = 0.5

    def with_settings(self, **changes: Any) -> "Desk":
        prices = replace(self.rules.prices, **changes)
        return replace(self, rules=replace(self.rules, prices=prices))

    async def refresh(self, *, by_hand: bool = True) -> RefreshReport:
        return await Refresh(self.keystore, self.rules, "test", by_hand, self.clock(), lambda: self.drawn).run()

    async def price(self, name: str = M2) -> Decimal:
        row = (await live_prices(self.keystore)).rows[name]
        price: Any = row["input_cost_per_token"]
        factor: Decimal = price / bundled_rows()[name]["input_cost_per_token"]
        return factor

    async def approve(self, number: int, *rows: str) -> int:
        made = await decisions.approve(self.keystore, self.rules, number, "test", rows=rows, now=self.clock())
        return made.number

    async def state(self, number: int) -> ReleaseState:
        return (await self.keystore.prices.get(number)).state


def rules_of(registry: Registry, **prices: Any) -> Rules:
    from gateway.config import Limits

    return Rules(registry, load_plans({}), Limits(), PriceSettings(**prices))


@pytest.fixture
async def desk(sqlite_world: World, lists: Publisher) -> AsyncIterator[Desk]:
    keystore = await sqlite_world.open(known_plans=load_plans({}).names)
    await begin_with_few(keystore)
    yield Desk(keystore, rules_of(sqlite_world.registry, urls=(lists.url,), max_bytes=8 << 20), sqlite_world.clock)
    await keystore.close()


# --- bad lists -------------------------------------------------------------------------------------------------------


def rows_of(name: str, row: str) -> bytes:
    """The map with the text of one row replaced, or a row added in front."""
    return b'{"' + name.encode() + b'": ' + row.encode() + b", " + published(**{name: None})[1:]


REFUSED = {
    "nothing": (b"", "not valid JSON"),
    "truncated text": (published()[:-500], "not valid JSON"),
    "a page": (b"<html>Moved</html>", "not valid JSON"),
    "no models": (b"{}", "it holds no model"),
    "half of the models": (None, "it lacks"),
    "ten times as many models": (None, "more than 3 times as many"),
}


def refused_content(name: str) -> bytes:
    content, _ = REFUSED[name]
    if content is not None:
        return content
    if name == "half of the models":
        return published(**dict.fromkeys(list(few_rows())[::2]))
    return published(**{f"{key}-{n}": {"mode": "chat"} for key in few_rows() for n in range(9)})


@pytest.mark.parametrize("name", REFUSED)
async def test_list_that_cannot_be_used_changes_nothing(desk: Desk, lists: Publisher, name: str) -> None:
    await desk.refresh()
    lists.content = refused_content(name)
    report = await desk.refresh()
    (source,) = report.sources
    assert source.outcome is SourceOutcome.REFUSED and REFUSED[name][1] in source.error
    assert report.outcome is Outcome.UNCHANGED and await desk.price() == 2
    newest = (await desk.keystore.prices.recent())[0]
    assert newest.state is ReleaseState.REFUSED and REFUSED[name][1] in newest.note
    await desk.refresh()  # the same again is not noted again
    assert (await desk.keystore.prices.recent())[0].number == newest.number
    lists.content = published(**{M2: times(M2, "3")})
    assert (await desk.refresh()).outcome is Outcome.LIVE and await desk.price() == 3


QUARANTINED = {
    "NaN": '{"litellm_provider": "minimax", "mode": "chat", "input_cost_per_token": NaN}',
    "negative": '{"litellm_provider": "minimax", "mode": "chat", "input_cost_per_token": -1e-6}',
    "text": '{"litellm_provider": "minimax", "mode": "chat", "input_cost_per_token": "0.1"}',
    "missing": '{"litellm_provider": "minimax", "mode": "chat"}',
    "ten times the price": '{"mode": "chat", "input_cost_per_token": 3e-6, "output_cost_per_token": 12e-6}',
    "no table": '"free"',
    "twice": '{"mode": "chat"}, "minimax/MiniMax-M2": {"mode": "embedding"}',
    "free": '{"input_cost_per_token": 0, "output_cost_per_token": 0}',
}


@pytest.mark.parametrize("name", QUARANTINED)
async def test_bad_row_keeps_its_live_value_and_the_others_go_on(desk: Desk, lists: Publisher, name: str) -> None:
    lists.content = rows_of(M2, QUARANTINED[name]).replace(b'"gpt-4o":{', b'"gpt-4o":{"max_tokens":1,')
    lists.content = lists.content.replace(
        b'"minimax/MiniMax-M2.5":{', b'"minimax/MiniMax-New":{"mode":"chat"},"minimax/MiniMax-M2.5":{'
    )
    report = await desk.refresh()
    assert report.outcome is Outcome.LIVE and report.release
    waiting = await desk.keystore.prices.waiting(report.release.number)
    assert M2 in {row.name for row in waiting}
    assert await desk.price() == 1 and "minimax/MiniMax-New" in (await live_prices(desk.keystore)).rows


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param({"status": 503}, "the server answered 503", id="503"),
        pytest.param({"status": 404}, "the server answered 404", id="404"),
        pytest.param({"cut_at": 5000}, "the answer broke off, or is no HTTP", id="truncated on the wire"),
        pytest.param({"endless": True}, "it is larger than 8388608 bytes", id="a gigabyte"),
        pytest.param({"headers": {"content-encoding": "gzip"}}, "the answer is compressed", id="compressed"),
        pytest.param(
            {"status": 302, "headers": {"location": "https://evil.example/x"}}, "another host", id="elsewhere"
        ),
        pytest.param({"status": 302, "headers": {"location": "http://127.0.0.1:1/x"}}, "another host", id="other port"),
        pytest.param({"status": 302, "headers": {"location": "/again"}}, "again and again", id="in a circle"),
        pytest.param({"status": 302, "headers": {"location": "http://[::1"}}, "is no HTTP", id="nowhere"),
    ],
)
async def test_list_that_does_not_come_changes_nothing(
    desk: Desk, lists: Publisher, spoil: dict[str, Any], said: str
) -> None:
    await desk.refresh()
    for name, value in spoil.items():
        setattr(lists, name, value)
    report = await desk.refresh()
    assert report.sources[0].outcome is SourceOutcome.FAILED and said in report.sources[0].error
    assert report.outcome is Outcome.UNCHANGED and await desk.price() == 2
    assert lists.said < 64 << 20
    state = (await desk.keystore.price_sources.of([source_id(lists.url)]))[source_id(lists.url)]
    assert said in state.error and state.due_at - desk.clock() == timedelta(minutes=15)


async def test_server_that_is_away_or_silent_is_given_up(desk: Desk, lists: Publisher) -> None:
    away = desk.with_settings(urls=("http://127.0.0.1:1/",))
    report = await away.refresh()
    assert (report.outcome, report.release) == (Outcome.FAILED, None)
    assert "does not answer" in report.sources[0].error and await desk.price() == 1
    lists.silent = threading.Event()
    try:
        report = await desk.with_settings(timeout_s=0.2).refresh()
    finally:
        lists.silent.set()
    assert report.sources[0].error == "it took longer than 0.2 seconds"


@pytest.mark.parametrize(
    ("url", "said"),
    [("file:/nowhere/prices.json", "no such file"), ("file:/dev/zero", "no such file"), ("file:/", "no such file")],
)
async def test_file_that_is_none(url: str, said: str) -> None:
    with pytest.raises(FetchFailed, match=said):
        await fetch(url, etag=None, last_modified=None, max_bytes=1000, timeout_s=1)


async def test_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a list.json"
    path.write_bytes(b"x" * 1000)
    url = f"file:{tmp_path}/a%20list.json"
    got = await fetch(url, etag=None, last_modified=None, max_bytes=1000, timeout_s=1)
    assert got is not None and got.content == b"x" * 1000
    with pytest.raises(FetchFailed, match="larger than 999 bytes"):
        await fetch(url, etag=None, last_modified=None, max_bytes=999, timeout_s=1)


async def test_redirect_on_the_same_host_is_followed(desk: Desk, lists: Publisher) -> None:
    lists.status, lists.headers = 302, {"location": "/list.json"}
    task = asyncio.create_task(desk.refresh())
    while not lists.asked:
        await asyncio.sleep(0.001)
    lists.status = 200
    assert (await task).outcome is Outcome.LIVE
    assert lists.asked[-1]["path"] == "/list.json"


async def test_nothing_of_ours_is_sent(desk: Desk, lists: Publisher) -> None:
    await desk.refresh()
    (asked,) = lists.asked
    names = {"host", "accept", "accept-encoding", "connection", "user-agent", "path"}
    assert set(asked) == names and asked["accept-encoding"] == "identity"


# --- what is new -----------------------------------------------------------------------------------------------------


async def test_unchanged_list_is_not_sent_again(desk: Desk, lists: Publisher) -> None:
    lists.etag = '"one"'
    assert (await desk.refresh()).sources[0].outcome is SourceOutcome.NEW
    report = await desk.refresh()
    assert lists.asked[-1]["if-none-match"] == '"one"'
    assert (report.outcome, report.sources[0].outcome) == (Outcome.UNCHANGED, SourceOutcome.UNCHANGED)


async def test_tag_of_a_bad_list_is_not_kept(desk: Desk, lists: Publisher) -> None:
    lists.content, lists.etag = b"{}", '"bad"'
    await desk.refresh()
    lists.content = published(**{M2: times(M2, "2")})
    await desk.refresh()
    assert "if-none-match" not in lists.asked[-1] and await desk.price() == 2


async def test_jump_waits_until_it_is_let_in(desk: Desk, lists: Publisher) -> None:
    broken: dict[str, object] = {"input_cost_per_token": -1}
    lists.content = published(**{M2: times(M2, "2"), JUMPS: times(JUMPS, "10"), "gpt-4o": broken})
    first = await desk.refresh()
    assert first.outcome is Outcome.LIVE and first.release
    assert [await desk.price(name) for name in (M2, JUMPS, "gpt-4o")] == [2, 1, 1]
    with pytest.raises(PriceRowUnknown):
        await desk.approve(first.release.number, "gpt-5")
    with pytest.raises(PriceConflict, match="cannot be let in: input_cost_per_token is negative"):
        await desk.approve(first.release.number, "gpt-4o")
    second = await desk.approve(first.release.number, decisions.ALL)
    assert second == first.release.number + 1 and await desk.price(JUMPS) == 10
    assert [(row.name, row.decision) for row in await desk.keystore.prices.waiting(second)] == [("gpt-4o", "pending")]
    decided = {row.name: row.decided_by for row in await desk.keystore.prices.waiting(first.release.number)}
    assert decided == {"gpt-4o": None, JUMPS: "test"}
    assert (await desk.refresh()).outcome is Outcome.UNCHANGED  # what was let in is not asked again
    with pytest.raises(PriceConflict, match="is superseded; refresh again"):
        await desk.approve(first.release.number, JUMPS)


async def test_model_that_vanished_goes_when_it_is_let_go(desk: Desk, lists: Publisher) -> None:
    lists.content = published(**{M2: None})
    staged = await desk.refresh()
    assert staged.outcome is Outcome.STAGED and staged.release  # nothing within bounds changed
    assert await desk.price() == 1
    assert (await desk.refresh()).release == staged.release  # it is not staged twice
    await desk.approve(staged.release.number, M2)
    assert M2 not in (await live_prices(desk.keystore)).rows


async def test_rule_never_stages_all(desk: Desk) -> None:
    never = desk.with_settings(auto_approve=AutoApprove.NEVER)
    report = await never.refresh()
    assert report.outcome is Outcome.STAGED and report.release and await desk.price() == 1
    assert await never.approve(report.release.number) == report.release.number
    assert await desk.price() == 2
    period = (await desk.keystore.prices.periods())[0]
    assert (period.number, period.cause, period.by) == (report.release.number, Cause.APPROVED, "test")


async def test_what_a_process_staged_that_died_before_the_rule_was_asked_goes_live(desk: Desk) -> None:
    left = (await desk.with_settings(auto_approve=AutoApprove.NEVER).refresh()).release
    assert left and await desk.state(left.number) is ReleaseState.STAGED
    desk.clock.advance(hours=48)
    report = await desk.refresh(by_hand=False)
    assert report.outcome is Outcome.LIVE and report.release and report.release.number == left.number
    assert await desk.price() == 2


async def test_openrouter_alone_leaves_the_other_rows(desk: Desk, lists: Publisher) -> None:
    entry = {"id": "minimax/minimax-m2", "pricing": {"prompt": "0.0000003", "completion": "0.0000012"}}
    lists.content = json.dumps({"data": [entry]}).encode()
    report = await desk.refresh()
    assert report.outcome is Outcome.LIVE and report.release
    assert report.release.counts["added"] == 1 and report.release.rows == len(few_rows()) + 1
    catalogue = await catalogue_of(await live_prices(desk.keystore), desk.rules)
    offer = catalogue.offer("openrouter/minimax/minimax-m2")
    assert offer is not None and offer.prices.input == Decimal("3e-7")
    lists.content = json.dumps({"data": [entry, {**entry, "id": "x/y"}]}).encode()
    assert (await desk.refresh()).outcome is Outcome.LIVE


async def test_two_lists_and_one_fails(desk: Desk, lists: Publisher) -> None:
    with publisher() as other:
        other.content = json.dumps(
            {"data": [{"id": "x/y", "pricing": {"prompt": "1e-6", "completion": "1e-6"}}]}
        ).encode()
        both = desk.with_settings(urls=(lists.url, other.url))
        assert (await both.refresh()).outcome is Outcome.LIVE
        other.status, lists.content = 500, published(**{M2: times(M2, "3")})
        report = await both.refresh()
    assert [source.outcome for source in report.sources] == [SourceOutcome.NEW, SourceOutcome.FAILED]
    assert report.outcome is Outcome.LIVE and await desk.price() == 3
    assert "openrouter/x/y" in (await live_prices(desk.keystore)).rows


async def test_lists_that_together_lost_too_much_are_refused(desk: Desk, lists: Publisher) -> None:
    """The first list of a source has none to be held against; what is live has."""
    lists.content = refused_content("half of the models")
    report = await desk.refresh()
    assert report.outcome is Outcome.REFUSED and report.release and "it lacks" in report.note
    assert report.release.state is ReleaseState.REFUSED
    with pytest.raises(PriceConflict, match="was refused whole"):
        await decisions.difference(desk.keystore, report.release)


async def test_for_whom_auto_changes_is_told(desk: Desk, lists: Publisher) -> None:
    for slug in ("acme", "beta", "gamma"):
        tenant = await desk.keystore.tenants.add(slug, "team")
        if slug != "gamma":
            await desk.keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-minimax-0123456789abcdef")
    lists.content = published(**{M2: times(M2, "2.9")})
    report = await desk.refresh()
    assert report.release is not None
    (change,) = report.release.impact
    assert (change["before"], change["tenants"]) == (M2, ["acme", "beta"])
    assert change["sentence"].startswith(f"for 2 tenants `auto` changes from {M2} to minimax/")
    assert report.release.counts["tenants_asked"] == 3


# --- going back ------------------------------------------------------------------------------------------------------


async def test_roll_back_and_the_rule_waits_for_a_person(desk: Desk, lists: Publisher) -> None:
    one = (await desk.refresh()).release
    lists.content = published(**{M2: times(M2, "3")})
    two = (await desk.refresh()).release
    assert one and two and await desk.price() == 3
    left, target = await decisions.roll_back(desk.keystore, None, "test")
    assert left and (left.number, target.number) == (two.number, one.number)
    assert await desk.price() == 2 and await desk.state(two.number) is ReleaseState.ROLLED_BACK
    assert (await desk.refresh(by_hand=False)).outcome is Outcome.UNCHANGED  # it does not come back by itself
    again = await desk.refresh()  # a person may ask for it: then it waits
    assert again.outcome is Outcome.STAGED and again.release and await desk.price() == 2
    await desk.approve(again.release.number)
    lists.content = published(**{M2: times(M2, "2.5")})
    assert (await desk.refresh()).outcome is Outcome.LIVE  # the rule is in force again
    _, target = await decisions.roll_back(desk.keystore, str(two.number), "test")
    assert target.number == two.number and await desk.price() == 3


async def test_roll_back_to_the_bundled_map(desk: Desk) -> None:
    _, target = await decisions.roll_back(desk.keystore, None, "test")
    assert target.number is None and target.version.startswith("bundled-") and await desk.price() == 1
    with pytest.raises(PriceConflict, match="nothing to go back from"):
        await decisions.roll_back(desk.keystore, None, "test")
    with pytest.raises(PriceConflict, match="is live already"):
        await decisions.roll_back(desk.keystore, "bundled", "test")
    with pytest.raises(PriceReleaseUnknown):
        await decisions.roll_back(desk.keystore, "the last one", "test")
    with pytest.raises(PriceReleaseUnknown):
        await decisions.roll_back(desk.keystore, "77", "test")


async def test_rejected_release_is_not_staged_by_itself(desk: Desk) -> None:
    never = desk.with_settings(auto_approve=AutoApprove.NEVER)
    one = (await never.refresh()).release
    assert one
    await desk.keystore.prices.reject(one.number, "test")
    report = await never.refresh(by_hand=False)
    assert report.release is None or report.release.number == one.number
    desk.clock.advance(hours=48)
    assert (await never.refresh(by_hand=False)).outcome is Outcome.UNCHANGED
    assert (await never.refresh()).outcome is Outcome.STAGED


# --- every process ---------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """One serving process, without its port: its keystore, its book and its keeper."""

    keystore: Keystore
    books: Books
    keeper: PriceKeeper
    moved: list[str]
    ended: list[Outcome]


async def seeded(world: World, lists: Publisher) -> Rules:
    """Rules with one list that refreshes by itself, over forty rows that are live."""
    keystore = await world.open(known_plans=load_plans({}).names)
    await begin_with_few(keystore)
    await keystore.close()
    return rules_of(world.registry, urls=(lists.url,), refresh=True)


async def process(world: World, rules: Rules) -> Process:
    keystore = await world.open(known_plans=load_plans({}).names)
    await keystore.begin_serving()
    prices = await live_prices(keystore)
    books = Books(RuleBook(rules.registry, rules.plans, await catalogue_of(prices, rules)))
    moved: list[str] = []
    ended: list[Outcome] = []

    def note(catalogue: Catalogue) -> None:
        moved.append(catalogue.version)

    log = structlog.get_logger()
    keeper = PriceKeeper(
        keystore,
        rules,
        Control(keystore, rules),
        books,
        log,
        serving=prices.number,
        moved=note,
        refreshed=ended.append,
        now=world.clock,
        draw=lambda: 0.5,
    )
    return Process(keystore, books, keeper, moved, ended)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_prices_live_24_hours_and_a_reload_reaches_every_long_lived_worker(
    world: World, lists: Publisher
) -> None:
    """The seeds: the pricing cache lives 24 hours, and workers that live longer went on with the old one."""
    rules = await seeded(world, lists)
    workers = [await process(world, rules) for _ in range(3)]
    followers = [asyncio.create_task(worker.keeper._follow()) for worker in workers]
    for worker in workers:
        worker.keystore.watch_prices(worker.keeper._wake.set)
    try:
        for hours, factor, asked in ((0, "2", 1), (23, "2", 1), (2, "3", 2), (23, "3", 2), (2, "1", 3)):
            world.clock.advance(hours=hours)
            lists.content = published(**{M2: times(M2, factor)})
            reports = [report for worker in workers if (report := await worker.keeper.look())]
            assert len(lists.asked) == asked
            assert len(reports) == (1 if hours != 23 else 0)  # one process leads; the others find it done
            for report in reports:
                assert report.outcome is Outcome.LIVE and report.release
            newest = (await live_prices(workers[0].keystore)).version
            await until(lambda: {worker.books.current.catalogue.version for worker in workers} == {newest})  # noqa: B023
            for worker in workers:
                offer = worker.books.current.catalogue.offer(M2)
                assert offer and offer.prices.input == times(M2, factor)["input_cost_per_token"]
        assert {len(worker.moved) for worker in workers} == {3}
        assert [outcome for worker in workers for outcome in worker.ended] == [Outcome.LIVE] * 3
    finally:
        for task in followers:
            task.cancel()
        await asyncio.wait(followers)
        for worker in workers:
            await worker.keystore.close()


async def test_request_keeps_the_book_that_it_began_with(desk: Desk) -> None:
    old = await catalogue_of(bundled(), desk.rules)
    books = Books(RuleBook(desk.rules.registry, desk.rules.plans, old))
    tally = Tally("r", "POST", 0.0)
    book = books.for_request(tally)
    await desk.refresh()
    new = await catalogue_of(await live_prices(desk.keystore), desk.rules)
    books.exchange(new)
    assert (book.catalogue, books.current.catalogue) == (old, new)
    assert tally.catalogue == old.version and books.current.plans is desk.rules.plans


async def test_one_process_leads_at_a_time(world: World, lists: Publisher) -> None:
    rules = await seeded(world, lists)
    one, two = [await process(world, rules) for _ in range(2)]
    try:
        lists.silent = threading.Event()
        leading = asyncio.create_task(one.keeper.look())
        await until(lambda: lists.asked)
        assert await two.keeper.look() is None
        with pytest.raises(PricesBusy):
            await Refresh(two.keystore, rules, "test", True, world.clock(), lambda: 0.5).run()
        lists.silent.set()
        report = await leading
        assert report is not None and report.outcome is Outcome.LIVE
        assert await two.keeper.look() is None and len(lists.asked) == 1
    finally:
        for each in (one, two):
            await each.keystore.close()


async def test_lease_of_a_process_that_died_runs_out(world: World, lists: Publisher) -> None:
    rules = await seeded(world, lists)
    dead, alive = [await process(world, rules) for _ in range(2)]
    try:
        assert await dead.keystore.leases.take(LEASE, LEASE_FOR)
        assert await alive.keeper.look() is None
        world.clock.advance(minutes=16)
        assert await alive.keeper.look() is not None
    finally:
        for each in (dead, alive):
            await each.keystore.close()


async def test_release_that_cannot_be_read_leaves_the_old_one(world: World, lists: Publisher) -> None:
    rules = await seeded(world, lists)
    one = await process(world, rules)
    try:
        await Refresh(one.keystore, rules, "test", True, world.clock(), lambda: 0.5).run()
        await world.sql("UPDATE wardgate_price_releases SET digest = 'spoiled'")
        before = one.books.current
        await one.keeper._guarded("prices.not_followed", one.keeper.move)
        assert one.books.current is before and one.moved == []
    finally:
        await one.keystore.close()
