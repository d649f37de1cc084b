"""What machines and people are told of a decision."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from router.decision import Decision, Rejection, Rejections, route
from router.explain import nearest_miss, refusal, summary, to_json
from router.query import Holding, KeySource, Lacking, Query
from router.reasons import Fault, Reason
from tests.router import world
from tests.router.test_decision import decide
from tests.router.test_decision_properties import QUERIES, keys
from tests.router.vectors import Row, rows, vectors


@pytest.mark.parametrize("row", rows("refusals", "case"))
def test_a_refusal_is_as_its_row_says(row: Row) -> None:
    found = refusal(decide(row))
    assert (found.status, found.code, found.fault.value) == (row["status"], row["code"], row["fault"])
    assert found.param == row.get("param")
    assert found.nearest_miss == row["nearest"]
    assert found.message.startswith("No model can answer ")
    assert row["nearest"] in found.message
    if "message" in row:
        assert found.message == row["message"]


def test_a_refusal_counts_every_reason() -> None:
    assert refusal(decide({"model": "auto"})).counts == {"model_deprecated": 1, "no_credential": 14}


def test_a_decision_with_candidates_is_no_refusal() -> None:
    with pytest.raises(ValueError, match="no refusal"):
        refusal(decide({"model": "auto", "held": ["minimax"]}))


def test_a_decision_without_anything_considered_is_no_refusal() -> None:
    decision = route(world.query({}), world.catalogue(), world.registry_of({"only": ["anthropic"]}), world.plans(), {})
    assert decision.considered == 0
    assert nearest_miss(decision) is None
    with pytest.raises(ValueError, match="no refusal"):
        refusal(decision)


def rejected_for(*reasons: str) -> Decision:
    decision = decide({"model": "minimax/MiniMax-M2"})
    rejected = tuple(Rejection(f"p/{reason}", "p", reason, Reason(reason), reason) for reason in reasons)
    return replace(decision, rejected=Rejections.of(rejected))


ANSWERS = vectors("refusals")["answer"]


@pytest.mark.parametrize("row", rows("refusals", "answer", "reason"))
def test_a_reason_has_its_answer(row: Row) -> None:
    found = refusal(rejected_for(row["reason"]))
    assert (found.status, found.code, found.param) == (row["status"], row["code"], row.get("param"))


def test_every_reason_has_an_answer_with_a_status_that_sdks_know() -> None:
    assert {row["reason"] for row in ANSWERS} == {reason.value for reason in Reason}
    assert {row["status"] for row in ANSWERS} <= {400, 403, 404, 424, 429, 503}


def test_the_most_useful_reason_speaks_for_all() -> None:
    words = [row["reason"] for row in ANSWERS]
    for place in range(len(words)):
        assert refusal(rejected_for(*reversed(words[place:]))).nearest_miss == words[place]


# --- sentences ------------------------------------------------------------------------------------------------------


def with_key(model: str, **fields: Any) -> Decision:
    key = world.holding("minimax", **fields)
    return route(world.query({"model": model}), world.catalogue(), world.registry(), world.plans(), {"minimax": key})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "with the tenant's key stored as MINIMAX_API_KEY."),
        (
            {"via": "former", "setting_key": "MINIMAX_2_7_API_KEY"},
            "with the tenant's key stored as MINIMAX_2_7_API_KEY, a name from before the provider was renamed.",
        ),
        ({"via": "family"}, "MINIMAX_API_KEY, the name of the provider's key family."),
        ({"via": "sibling"}, "MINIMAX_API_KEY, the name of another provider of the same account."),
        ({"via": "elsewhere"}, "with the tenant's key stored as MINIMAX_API_KEY."),
    ],
)
def test_a_summary_names_the_model_the_cost_and_the_key(fields: dict[str, Any], says: str) -> None:
    text = summary(with_key("minimax/MiniMax-M2", **fields))
    assert text == f"minimax/MiniMax-M2 answers first, for about 0.0009 USD, {says}" or text.endswith(says)
    assert text.startswith("minimax/MiniMax-M2 answers first, for about 0.0009 USD, with the tenant's key stored as ")


def test_a_summary_names_the_operators_key() -> None:
    text = summary(decide({"model": "gpt-4o", "managed": ["openai"], "managed_open": True}))
    assert (
        text == "openai/gpt-4o answers first, for about 0.0075 USD, with the operator's key stored as OPENAI_API_KEY."
    )


def test_a_summary_says_when_the_price_is_not_known() -> None:
    text = summary(decide({"model": "zai/glm-4.5-flash", "held": ["zai"]}))
    assert text.startswith("zai/glm-4.5-flash answers first, at an unknown price, with ")


def test_a_summary_lists_a_few_others_and_counts_the_rest() -> None:
    text = summary(decide({"model": "auto", "held": ["openai", "minimax"]}))
    assert (
        " Then minimax/MiniMax-M2, minimax/MiniMax-M3, openai/gpt-4o and 1 more."
        " Rejected 10: 9 no_credential, 1 model_deprecated." in text
    )


def test_a_summary_lists_one_other() -> None:
    text = summary(decide({"model": "mistral-large", "held": ["mistral"]}))
    assert text.endswith(". Then mistral/mistral-large-2411.")


def test_a_summary_lists_three_others_without_a_count() -> None:
    text = summary(decide({"model": "auto", "held": ["openai", "deepseek"]}))
    assert " Then deepseek/deepseek-v3.2, openai/gpt-4o, openai/gpt-4o-2024-08-06. Rejected " in text


def test_a_window_that_is_too_small_for_auto_is_told() -> None:
    held = ["groq", "google"]
    details = {each.offer_id: each.detail for each in decide({"held": held, "needs": {"input_tokens": 9}}).rejected}
    tail = "a model chosen by Wardgate reads 8192 or more"
    guard, gemma = "groq/meta-llama/llama-prompt-guard-2-22m", "google/gemini-gemma-2-27b-it"
    assert details[guard] == f"{guard} reads at most 512 tokens; {tail}"
    assert details[gemma] == f"{gemma} reads an unknown number of tokens; {tail}"


def test_a_summary_of_a_refusal_is_its_message() -> None:
    decision = decide({"model": "auto"})
    assert summary(decision) == refusal(decision).message


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_a_decision_is_told_whole() -> None:
    decision = with_key(
        "minimax/MiniMax-M3",
        via="former",
        setting_key="MINIMAX_2_7_API_KEY",
        store="legacy",
        skipped=(("MINIMAX_API_KEY", "placeholder"),),
        conflicts=("MINIMAX_OLD_API_KEY",),
    )
    assert to_json(decision) == {
        "model": "minimax/MiniMax-M3",
        "asked": "minimax/MiniMax-M3",
        "tenant": "acme",
        "plan": "team",
        "catalogue": "test-1",
        "aliases": [],
        "preferences": {
            "order": [],
            "only": [],
            "ignore": [],
            "objective": None,
            "max_input_usd_per_mtok": None,
            "max_output_usd_per_mtok": None,
            "allow_fallbacks": True,
            "require_parameters": True,
            "min_quality": None,
            "unknown_quality": False,
        },
        "needs": {
            "input_tokens": 1000,
            "estimated_input_tokens": 1000,
            "input_ratio": "1",
            "input_ratio_from_requests": 0,
            "max_output_tokens": 500,
            "capabilities": [],
            "stream": False,
            "service_tier": "default",
            "answers": 1,
        },
        "ranked": [
            {
                "rank": 1,
                "id": "minimax/MiniMax-M3",
                "provider": "minimax",
                "model": "MiniMax-M3",
                "family": "minimax-m3",
                "expected_cost_usd": "0.001",
                "basis": {
                    "input_tokens": 1000,
                    "cached_input_tokens": 0,
                    "output_tokens": 500,
                    "output_assumed": False,
                    "output_from": "limit",
                },
                "price": {
                    "input_usd_per_mtok": "0.4",
                    "cached_input_usd_per_mtok": None,
                    "output_usd_per_mtok": "1.2",
                    "tiers": [
                        {
                            "above_input_tokens": 512000,
                            "input_usd_per_mtok": "0.6",
                            "cached_input_usd_per_mtok": None,
                            "output_usd_per_mtok": "2.4",
                        }
                    ],
                },
                "objective": "cheapest",
                "quality": {"score": 50, "source": "the tests", "dated": "2026-11-20"},
                "expected_seconds": None,
                "dropped": [],
                "capabilities": {"pdf_input": False, "tools": True, "vision": True},
                "key": {
                    "source": "byok",
                    "via": "former",
                    "setting_key": "MINIMAX_2_7_API_KEY",
                    "store": "legacy",
                    "labels": [],
                    "skipped": [{"setting_key": "MINIMAX_API_KEY", "why": "placeholder"}],
                    "conflicts": ["MINIMAX_OLD_API_KEY"],
                    "remarks": [
                        "MINIMAX_API_KEY holds a placeholder and was not used",
                        "MINIMAX_OLD_API_KEY holds another key than MINIMAX_2_7_API_KEY and was not used",
                    ],
                },
                "window": {"max_input_tokens": 1000000, "max_output_tokens": 128000},
                "doubts": [],
            }
        ],
        "rejected": [],
        "counts": {},
        "summary": summary(decision),
        "nearest_miss": None,
        "fix": None,
    }


def test_every_rejection_is_told_with_word_and_sentence() -> None:
    told = to_json(decide({"model": "gpt-oss-120b", "held": ["groq"]}))
    assert told["rejected"] == [
        {
            "id": "together/openai/gpt-oss-120b",
            "provider": "together",
            "model": "openai/gpt-oss-120b",
            "reason": "no_credential",
            "detail": "together needs a key: looked for " + ", ".join(world.names("together")),
        }
    ]
    assert told["counts"] == {"no_credential": 1}
    assert told["nearest_miss"] is None


def test_a_refusal_tells_the_nearest_miss() -> None:
    told = to_json(decide({"model": "minimax/MiniMax-M2"}))
    assert told["nearest_miss"] == "minimax needs a key: looked for MINIMAX_API_KEY, MINIMAX_2_7_API_KEY"
    assert told["ranked"] == []
    assert str(told["fix"]).startswith(
        "store a key for minimax: `printf %s VALUE | wardgate key set acme MINIMAX_API_KEY`"
    )


def test_an_unpriced_candidate_tells_its_doubt_and_no_cost() -> None:
    told: Any = to_json(decide({"model": "zai/glm-4.5-flash", "held": ["zai"]}))
    (first,) = told["ranked"]
    assert first["expected_cost_usd"] is None
    assert first["price"] == {
        "input_usd_per_mtok": None,
        "cached_input_usd_per_mtok": None,
        "output_usd_per_mtok": None,
        "tiers": [],
    }
    assert first["doubts"] == [{"reason": "unpriced", "detail": "the price of zai/glm-4.5-flash is not known"}]


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _floats(each)
    elif isinstance(value, list):
        for each in value:
            yield from _floats(each)


@given(QUERIES, keys())
def test_every_decision_can_be_told(query: Query, held: dict[str, Holding | Lacking]) -> None:
    decision = route(query, world.catalogue(), world.registry(), world.plans(), held)
    told = to_json(decision)
    assert json.loads(json.dumps(told)) == told
    assert list(_floats(told)) == []
    if not decision.ranked:
        found = refusal(decision)
        assert isinstance(found.fault, Fault)
        assert found.nearest_miss in found.message
        assert sum(found.counts.values()) == decision.considered


def test_key_sources_are_told_by_their_words() -> None:
    assert [source.value for source in KeySource] == ["byok", "managed"]


def test_an_unknown_quality_is_told_as_none() -> None:
    told = to_json(decide({"model": "mistral/mistral-large-2411", "held": ["mistral"]}))
    assert told["ranked"][0]["quality"] is None  # type: ignore[index]


def test_of_models_below_the_floor_the_best_is_the_nearest_miss() -> None:
    row: Row = {"model": "auto", "held": ["openai", "minimax"], "preferences": {"min_quality": 99}}
    miss = nearest_miss(decide(row))
    assert miss is not None
    assert (miss.offer_id, miss.margin) == ("openai/gpt-4o", 29)
