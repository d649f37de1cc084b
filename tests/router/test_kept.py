"""A kept decision is the decision: whole when it is small, its head and its counts when it is not."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router import kept
from router.decision import Decision, Rejections, route
from router.explain import nearest_miss, to_json
from router.kept import MOST_RANKED, MOST_REJECTED, kept_json
from router.query import Holding, Lacking, Query
from router.reasons import Reason
from tests.router import world
from tests.router.test_decision import decide
from tests.router.test_decision_properties import QUERIES, keys


def stretched(decision: Decision, ranked: int, rejected: int) -> Decision:
    """The decision with so many of its candidates and rejections, under names of their own."""
    first, no = decision.ranked, decision.rejected
    more = [replace(first[n % len(first)], expected_cost=None) for n in range(ranked)] if first else []
    less = [replace(no[n % len(no)], offer_id=f"p/{n:05d}") for n in range(rejected)] if no else []
    return replace(decision, ranked=tuple(more), rejected=Rejections.of(less))


@given(QUERIES, keys(), st.integers(0, 120), st.integers(0, 450), st.booleans())
def test_record_is_the_decision_or_says_what_was_cut(
    query: Query, held: dict[str, Holding | Lacking], ranked: int, rejected: int, stretch: bool
) -> None:
    decision = route(query, world.catalogue(), world.registry(), world.plans(), held)
    decision = stretched(decision, ranked, rejected) if stretch else decision
    if not decision.considered:
        return
    told: Any = kept_json(decision)
    assert json.loads(json.dumps(told)) == told
    whole: Any = to_json(decision)
    assert len(told["ranked"]) <= MOST_RANKED and len(told["rejected"]) <= MOST_REJECTED
    shown = len(told["ranked"]) + len(told["rejected"])
    assert shown + told["cut"]["ranked"] + told["cut"]["rejected"] == told["considered"] == decision.considered
    assert sum(told["counts"].values()) == len(decision.rejected)
    for name in ("counts", "summary", "nearest_miss", "model", "asked", "needs", "catalogue", "plan", "tenant"):
        assert told[name] == whole[name]
    assert told["ranked"] == whole["ranked"][:MOST_RANKED]
    if told["cut"] == {"ranked": 0, "rejected": 0}:
        assert {name: told[name] for name in whole} == whole
    if not decision.ranked and (miss := nearest_miss(decision)):
        assert miss.offer_id in [one["id"] for one in told["rejected"]]


@given(QUERIES, keys())
def test_decision_made_again_from_the_same_inputs_has_the_same_record(
    query: Query, held: dict[str, Holding | Lacking]
) -> None:
    """The order in which keys are held does not show."""
    one = route(query, world.catalogue(), world.registry(), world.plans(), held)
    again = route(query, world.catalogue(), world.registry(), world.plans(), dict(reversed(held.items())))
    if one.considered:
        assert json.dumps(kept_json(one)) == json.dumps(kept_json(again))


def test_nearest_miss_is_kept_wherever_it_stands() -> None:
    decision = stretched(decide({"model": "auto"}), 0, 300)
    last = replace(decision.rejected[-1], reason=Reason.LACKS_TOOLS, detail="p/last cannot call tools")
    told: Any = kept.kept_json(replace(decision, rejected=Rejections.of([*decision.rejected[:-1], last])))
    assert told["nearest_miss"] == "p/last cannot call tools"
    assert told["nearest_miss"] in [each["detail"] for each in told["rejected"]]
    assert told["cut"] == {"ranked": 0, "rejected": 100}


def test_rare_reasons_are_kept_before_common_ones() -> None:
    """The one model that is cooling down is what somebody looks for among hundreds without a key."""
    decision = stretched(decide({"model": "auto", "held": ["minimax"]}), 1, 300)
    assert decision.ranked
    rows = list(decision.rejected)
    rows[250] = replace(rows[250], reason=Reason.COOLING_DOWN, detail="p/00250 is cooling down")
    told: Any = kept.kept_json(replace(decision, rejected=Rejections.of(rows)))
    assert "p/00250 is cooling down" in [each["detail"] for each in told["rejected"]]
    ids = [each["id"] for each in told["rejected"]]
    assert len(ids) == MOST_REJECTED and ids == sorted(ids)
