"""Scores by family: the shipped table, and how a name finds its row."""

from datetime import date
from typing import Any

import pytest

from router.catalogue import build_catalogue
from router.errors import ModelError
from router.model_names import parse_name
from router.overrides import load_overrides
from router.quality import Quality, load_quality, quality_of, read_quality
from tests.router import world
from tests.router.test_bundled import catalogue as bundled
from tests.router.vectors import vectors

DAY = date(2026, 11, 1)
TABLE = read_quality(
    {
        "x": {
            "source": "a test",
            "dated": DAY,
            "scores": {"gpt-4o": 60, "gpt-4o-2024-08-06": 61, "Claude-3-5-Sonnet": 70},
        }
    }
)


def test_every_shipped_family_is_one_of_the_bundled_map() -> None:
    assert [family for family in load_quality() if not bundled().of_family(family)] == []


def test_the_shipped_table_says_where_its_scores_come_from() -> None:
    table = load_quality()
    assert len(table) > 100
    assert all(each.source and each.dated >= date(2026, 1, 1) for each in table.values())
    assert table["minimax-m2"].score < table["minimax-m3"].score


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("gpt-4o", 60),
        ("openai/gpt-4o", 60),
        ("gpt-4o-2024-11-20", 60),
        ("gpt-4o-2024-08-06", 61),
        ("gpt-4o-mini", None),
        ("claude-3.5-sonnet-20241022", 70),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", 70),
    ],
)
def test_the_most_special_row_wins(name: str, score: int | None) -> None:
    found = quality_of(TABLE, parse_name(name))
    assert (found and found.score) == score


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"x": 1}, "a source has source, dated and scores"),
        ({"x": {"source": "s", "dated": DAY}}, "a source has source, dated and scores"),
        ({"x": {"source": "s", "dated": DAY, "scores": {"a": 101}}}, "score must be"),
        ({"x": {"dated": DAY, "scores": {"a": 1}}}, "source must say"),
        ({"x": {"source": "s", "dated": "2026", "scores": {"a": 1}}}, "dated must be a date"),
        ({"x": {"source": "s", "dated": DAY, "scores": {"a-1-2": 1, "a-1.2": 1}}}, "'a-1.2' has two scores"),
    ],
)
def test_a_table_that_is_wrong_is_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_quality(document)


def test_an_offer_has_its_familys_quality_and_the_operators_before_it() -> None:
    own = {"score": 99, "source": "ours", "dated": DAY}
    models: dict[str, Any] = {
        "openai/gpt-4o-mini": {"quality": own},
        "minimax/MiniMax-M2": {"family": "gpt-4o"},
        "ollama/x": {"mode": "chat", "family": "gpt-4o"},
    }
    built = build_catalogue(
        vectors("routing")["rows"],
        world.registry(),
        version="1",
        overrides=load_overrides(models, world.registry()),
        quality=TABLE,
    )
    scores = {offer.id: offer.quality and offer.quality.score for offer in built.offers}
    assert scores["openai/gpt-4o"] == 60
    assert scores["openai/gpt-4o-2024-08-06"] == 61
    assert scores["openai/gpt-4o-mini"] == 99
    assert scores["minimax/MiniMax-M2"] == 60
    assert scores["ollama/x"] == 60
    assert scores["minimax/MiniMax-M3"] is None
    mini = built.offer("openai/gpt-4o-mini")
    assert mini is not None
    assert mini.quality == Quality(99, "ours", DAY)
