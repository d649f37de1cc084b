"""What holds for every decision, whatever is asked and held."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from router.catalogue import Capability
from router.decision import Decision, Router, route
from router.needs import Needs
from router.objective import Objective
from router.query import (
    NO_PACES,
    NO_PREFERENCES,
    Holding,
    Holdings,
    KeySource,
    Lacking,
    Pace,
    Paces,
    Preferences,
    Query,
)
from router.selection import Selector
from tests.router import world

PROVIDERS = [each.id for each in world.registry().providers]
MODELS = st.sampled_from(
    [
        "auto",
        "default",
        "auto:fastest",
        "auto:best",
        "auto:value",
        "gpt-oss-120b:nitro",
        *(offer.id for offer in world.catalogue().offers),
    ]
    + [offer.family for offer in world.catalogue().offers]
    + ["openrouter/x", "openai/gpt-oss-120b", "oldcloud/y", "nobody/z", ""]
) | st.text(max_size=20)
NEEDS = st.builds(
    Needs,
    input_tokens=st.sampled_from([0, 100, 8_192, 200_001, 600_000, 10**7]),
    max_output_tokens=st.none() | st.sampled_from([1, 8_193, 10**6]),
    capabilities=st.frozensets(st.sampled_from(Capability), max_size=3),
)
SOME = st.lists(st.sampled_from(PROVIDERS), max_size=2, unique=True).map(tuple)
PRICES = st.none() | st.sampled_from([Decimal("0.0000003"), Decimal("0.000002")])
PREFERENCES = st.builds(
    Preferences,
    order=SOME,
    only=st.just(()) | SOME,
    ignore=SOME,
    objective=st.none() | st.sampled_from(Objective),
    max_input_price=PRICES,
    max_output_price=PRICES,
    min_quality=st.none() | st.sampled_from([0, 50, 60, 100]),
    unknown_quality=st.booleans(),
)
PACES = st.just(NO_PACES) | st.just(Paces({"openai/gpt-4o": Pace(0.2, 50.0), "minimax/MiniMax-M2": Pace(0.5, 90.0)}))
QUERIES = st.builds(
    Query,
    models=st.lists(MODELS, max_size=2).map(tuple),
    preferences=st.just(NO_PREFERENCES) | PREFERENCES,
    paces=PACES,
    model=MODELS,
    needs=NEEDS,
    plan=st.sampled_from(list(world.plans())),
    default_model=st.none() | MODELS,
    today=st.just(world.TODAY),
    tenant=st.just("acme"),
    managed=st.booleans(),
)


@st.composite
def keys(draw: st.DrawFn) -> dict[str, Holding | Lacking]:
    found: dict[str, Holding | Lacking] = {}
    for each in PROVIDERS:
        kind = draw(st.sampled_from(["byok", "managed", "lacking", "unusable", "absent"]))
        if kind in ("byok", "managed"):
            found[each] = world.holding(each, KeySource(kind))
        elif kind == "lacking":
            found[each] = world.lacking(each)
        elif kind == "unusable":
            found[each] = world.lacking(each, (world.names(each)[0], "placeholder"))
    return found


def decide(query: Query, held: dict[str, Holding | Lacking]) -> Decision:
    return route(query, world.catalogue(), world.registry(), world.plans(), held)


def ids(decision: Decision) -> set[str]:
    return {each.offer.id for each in decision.ranked}


@given(QUERIES, keys())
def test_ranked_and_rejected_are_what_was_considered(query: Query, held: dict[str, Holding | Lacking]) -> None:
    selection = Selector(world.catalogue(), world.registry()).select(query)
    decision = decide(query, held)
    found = {offer.id for group in selection.groups for part in group.offers.values() for offer in part}
    considered = sorted([*found, *(group.asked for group in selection.groups if group.miss is not None)])
    ranked = [each.offer.id for each in decision.ranked]
    assert sorted(ranked + [each.offer_id for each in decision.rejected]) == considered
    assert decision.considered == len(considered) >= 1
    assert sum(decision.counts.values()) == len(decision.rejected)


@given(QUERIES, keys(), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(query: Query, held: dict[str, Holding | Lacking], order: object) -> None:
    items = list(held.items())
    order.shuffle(items)  # type: ignore[attr-defined]
    assert decide(query, dict(items)) == decide(query, held)


@given(QUERIES, keys(), st.sampled_from(PROVIDERS))
def test_one_more_key_never_removes_a_candidate_of_another(
    query: Query, held: dict[str, Holding | Lacking], more: str
) -> None:
    without = {provider: key for provider, key in held.items() if provider != more}
    before, after = decide(query, without), decide(query, {**without, more: world.holding(more)})
    assert ids(before) <= ids(after)
    assert all(each.offer.provider_id == more for each in after.ranked if each.offer.id not in ids(before))


@given(QUERIES, keys(), st.sampled_from(Capability))
def test_one_more_need_never_adds_a_candidate(
    query: Query, held: dict[str, Holding | Lacking], capability: Capability
) -> None:
    needs = replace(query.needs, capabilities=query.needs.capabilities | {capability})
    assert ids(decide(replace(query, needs=needs), held)) <= ids(decide(query, held))


@given(QUERIES, keys(), st.data())
def test_one_more_preference_never_adds_a_candidate(
    query: Query, held: dict[str, Holding | Lacking], data: st.DataObject
) -> None:
    had = query.preferences
    lower = [price for price in (had.max_input_price, Decimal("0.0000001")) if price is not None]
    more = data.draw(
        st.sampled_from(
            [
                replace(had, ignore=(*had.ignore, "openai")),
                replace(had, only=("minimax",) if not had.only else had.only[:1]),
                replace(had, max_input_price=min(lower)),
                replace(had, min_quality=max(had.min_quality or 0, 60)),
                replace(had, unknown_quality=False),
                replace(had, allow_fallbacks=False),
            ]
        )
    )
    assert ids(decide(replace(query, preferences=more), held)) <= ids(decide(query, held))


@given(QUERIES, keys(), MODELS)
def test_one_more_model_comes_behind_the_others(query: Query, held: dict[str, Holding | Lacking], more: str) -> None:
    before = [each.offer.id for each in decide(query, held).ranked]
    after = [each.offer.id for each in decide(replace(query, models=(*query.models, more)), held).ranked]
    assert after[: len(before)] == before


@given(QUERIES, keys())
def test_a_decision_that_is_remembered_is_the_one_that_would_be_made(
    query: Query, held: dict[str, Holding | Lacking]
) -> None:
    router, kept = Router(world.catalogue(), world.registry(), world.plans()), Holdings(held.values())
    first = router.fitting(query, kept)
    assert router.fitting(replace(query), kept) is first
    assert first == decide(query, held)


@given(QUERIES, keys(), st.integers(min_value=1, max_value=10**7))
def test_a_longer_input_never_adds_a_candidate(query: Query, held: dict[str, Holding | Lacking], more: int) -> None:
    needs = replace(query.needs, input_tokens=query.needs.input_tokens + more)
    assert ids(decide(replace(query, needs=needs), held)) <= ids(decide(query, held))


@given(QUERIES, keys())
def test_a_candidate_has_a_usable_key_that_the_plan_allows(query: Query, held: dict[str, Holding | Lacking]) -> None:
    for each in decide(query, held).ranked:
        assert each.holding == held[each.offer.provider_id]
        if each.holding.source is KeySource.BYOK:
            assert query.plan.byok
        else:
            assert query.managed


@given(QUERIES, keys())
def test_what_is_ranked_is_in_order_of_cost_among_the_certain(query: Query, held: dict[str, Holding | Lacking]) -> None:
    model = query.model.partition(":")[0]  # one group, by cost
    ranked = decide(replace(query, model=model, models=(), preferences=NO_PREFERENCES), held).ranked
    priced = [each.expected_cost for each in ranked if each.expected_cost is not None and not each.doubts]
    assert priced == sorted(priced)
    assert [each.expected_cost is None for each in ranked] == sorted(each.expected_cost is None for each in ranked)


@given(QUERIES, keys())
def test_a_decision_made_again_is_the_same(query: Query, held: dict[str, Holding | Lacking]) -> None:
    assert decide(query, held) == decide(query, held)
