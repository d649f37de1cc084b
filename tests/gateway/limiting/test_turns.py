"""Whose turn it is: rotation, bounds, places; as stories and as a property."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gateway.limiting.turns import Turns

PLACES, MOST, MOST_EACH = 3, 8, 4
TENANTS = ("a", "b", "c")


def turns(places: int = PLACES) -> Turns[str]:
    return Turns(places, MOST, MOST_EACH)


def taken(each: Turns[str], now: int = 0) -> list[str]:
    found = []
    while (who := each.take(now)) is not None:
        found.append(who)
    return found


def test_tenants_are_served_in_rotation_when_one_has_many() -> None:
    queue = turns(places=99)
    for who in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert queue.join(who[0], who)
    assert taken(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_lane_that_is_left_out_holds_up_no_other_and_gives_its_tenant_no_more_turns() -> None:
    each = turns(places=9)
    for who, lane in (("a1", "x"), ("a2", "x"), ("a3", ""), ("a4", "y")):
        assert each.join("a", who, lane)
    for who in ("b1", "b2"):
        assert each.join("b", who)
    assert each.take(0) == "a1"
    each.defer("a", "a1", 100, "x")
    assert [each.take(0) for _ in range(5)] == ["b1", "a3", "b2", "a4", None]
    assert each.leave("a", "a2", "x") and not each.leave("a", "a1")
    assert (each.take(100), len(each)) == ("a1", 0)


def test_too_many_are_turned_away_of_one_tenant_and_of_all() -> None:
    queue = turns()
    assert [queue.join("a", f"a{n}") for n in range(5)] == [True] * 4 + [False]
    assert [queue.join("b", f"b{n}") for n in range(4)] == [True] * 4
    assert not queue.join("c", "c0")


def test_requests_that_cannot_wait_leave_places_to_nobody_when_there_are_as_many() -> None:
    queue = turns()
    queue.join("a", "a1")
    queue.urgent = PLACES
    assert queue.take(0) is None
    queue.urgent -= 1
    assert queue.take(0) == "a1"


def test_tenant_is_left_out_when_it_is_paused_or_its_limits_refuse() -> None:
    queue = turns()
    for who in ("a1", "b1", "c1"):
        queue.join(who[0], who)
    queue.pause(frozenset("a"))
    assert queue.take(0) == "b1"
    queue.defer("b", "b1", 500)
    assert taken(queue, 499) == ["c1"]
    assert taken(queue, 500) == ["b1"]
    queue.pause(frozenset())
    assert taken(queue, 500) == ["a1"]


STEP = st.one_of(
    st.tuples(st.just("join"), st.sampled_from(TENANTS)),
    st.tuples(st.sampled_from(("take", "done", "urgent", "calm", "leave", "defer")), st.just("")),
)


@given(st.lists(STEP, max_size=60))
def test_nobody_is_lost_passed_over_or_let_in_beyond_the_places(steps: list[tuple[str, str]]) -> None:
    queue = turns()
    waiting: dict[str, deque[str]] = {tenant: deque() for tenant in TENANTS}
    passed: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}  # who went while this tenant waited
    running: list[str] = []
    for number, (step, tenant) in enumerate(steps):
        who = f"{tenant}{number}"
        everyone = [each for one in waiting.values() for each in one]
        if step == "join" and queue.join(tenant, who):
            if not waiting[tenant]:
                passed[tenant].clear()
            waiting[tenant].append(who)
        elif step == "take":
            free = len(running) + queue.urgent < PLACES
            who = queue.take(number) or ""
            assert bool(who) == (free and bool(everyone))
            if who:
                assert waiting[who[0]].popleft() == who  # the first of its tenant
                for other in TENANTS:
                    if other != who[0] and waiting[other]:
                        assert who[0] not in passed[other]  # nobody goes twice while another waits
                        passed[other].add(who[0])
                passed[who[0]].clear()
                running.append(who)
        elif step == "done" and running:
            running.pop()
            queue.done()
        elif step == "defer" and running:
            who = running.pop()
            queue.defer(who[0], who, 0)
            for other in TENANTS:
                passed[other].clear()
            waiting[who[0]].appendleft(who)
        elif step == "leave" and everyone:
            assert queue.leave(everyone[-1][0], everyone[-1])
            waiting[everyone[-1][0]].remove(everyone[-1])
        elif step in ("urgent", "calm"):
            queue.urgent = max(0, queue.urgent + (1 if step == "urgent" else -1))
        assert len(queue) == sum(map(len, waiting.values()))
        assert queue.running == len(running)


@given(st.lists(st.sampled_from(TENANTS), max_size=40))
def test_tenant_that_has_few_gets_in_at_the_cost_of_who_has_most(comers: list[str]) -> None:
    queue = turns(places=0)
    waiting: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    for number, tenant in enumerate(comers):
        longest = max(map(len, waiting.values()))
        last = queue.yields(tenant)
        assert (last is not None) is (len(queue) == MOST - (last is not None) and longest > len(waiting[tenant]) + 1)
        if last is not None:
            assert len(waiting[last[0]]) == longest and waiting[last[0]].pop() == last
        if queue.join(tenant, f"{tenant}{number}"):
            waiting[tenant].append(f"{tenant}{number}")
        else:
            crowded, nobody_has_more = len(waiting[tenant]) == MOST_EACH, longest <= len(waiting[tenant]) + 1
            assert crowded or (len(queue) == MOST and nobody_has_more)
        assert len(queue) == sum(map(len, waiting.values())) <= MOST
    assert sorted(queue.clear()) == sorted(each for one in waiting.values() for each in one)
    assert len(queue) == 0 and queue.join("a", "anew")
