"""Aliases: the operator's own names for models."""

from typing import Any

import pytest

from router.aliases import Alias, Wish, load_aliases
from router.errors import AliasError
from router.objective import Objective


def test_an_alias_is_worked_out_into_what_it_comes_down_to() -> None:
    aliases = load_aliases(
        {
            "fast": {"objective": "fastest", "min_quality": 40},
            "smart": {"models": ["openai/gpt-4o", " claude-sonnet-4-6 "]},
            "all": {"models": ["Smart", "fast"], "min_quality": 10, "unknown_quality": True},
        }
    )
    assert [row.name for row in aliases] == ["fast", "smart", "all"]
    assert len(aliases) == 3
    assert aliases.get("SMART") == Alias("smart", ("openai/gpt-4o", "claude-sonnet-4-6"))
    assert aliases.get("gpt-4o") is None
    assert aliases.wishes("fast") == (Wish("auto", Objective.FASTEST, 40, alias="fast"),)
    assert aliases.wishes("all") == (
        Wish("openai/gpt-4o", None, 10, True, "all"),
        Wish("claude-sonnet-4-6", None, 10, True, "all"),
        Wish("auto", Objective.FASTEST, 40, True, "all"),
    )
    assert aliases.wishes("Gpt-4o") == (Wish("Gpt-4o"),)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"a": {"models": ["a"]}}, "'a' leads back to itself: a -> a"),
        ({"a": {"models": ["b"]}, "b": {"models": ["c"]}, "c": {"models": ["B"]}}, "a -> b -> c -> b"),
        ({"auto": {"objective": "best"}}, "the name of an alias"),
        ({"default": {"objective": "best"}}, "the name of an alias"),
        ({"Fast": {"objective": "best"}}, "the name of an alias"),
        ({"": {"objective": "best"}}, "the name of an alias"),
        ({"x" * 64: {"objective": "best"}}, "the name of an alias"),
        ({"a": {"objektive": "best"}}, "did you mean 'objective'"),
        ({"a": {}}, "`models` or `objective`"),
        ({"a": {"models": ["x"], "objective": "best"}}, "one of them"),
        ({"a": {"models": []}}, "a list of 1 to 20"),
        ({"a": {"models": "x"}}, "a list of 1 to 20"),
        ({"a": {"models": [1]}}, "a list of 1 to 20"),
        ({"a": {"models": [" "]}}, "a list of 1 to 20"),
        ({"a": {"models": ["default"]}}, "a list of 1 to 20"),
        ({"a": {"models": [str(n) for n in range(21)]}}, "a list of 1 to 20"),
        ({"a": {"models": ["x" * 257]}}, "a list of 1 to 20"),
        ({"a": {"objective": "tastiest"}}, "cheapest, fastest, best, value"),
        ({"a": {"objective": 5}}, "cheapest, fastest, best, value"),
        ({"a": {"objective": "best", "min_quality": 101}}, "from 0 to 100"),
        ({"a": {"objective": "best", "min_quality": True}}, "from 0 to 100"),
        ({"a": {"objective": "best", "unknown_quality": "yes"}}, "true or false"),
    ],
)
def test_a_wrong_row_is_named(rows: dict[str, Any], says: str) -> None:
    with pytest.raises(AliasError) as refused:
        load_aliases(rows)
    assert says in str(refused.value)


def test_an_alias_does_not_come_down_to_more_than_is_tried() -> None:
    rows: dict[str, Any] = {f"a{n}": {"models": [f"m{n}-{each}" for each in range(20)]} for n in range(2)}
    with pytest.raises(AliasError, match="comes down to 40 models"):
        load_aliases(rows | {"both": {"models": ["a0", "a1"]}})
