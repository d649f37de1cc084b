"""How messages name things."""

import pytest

from router.errors import PlanError, RouterError, did_you_mean, nearest, quoted


def test_the_docstring_is_the_default_message() -> None:
    assert str(PlanError()) == "A plan row is not valid."
    assert str(PlanError("plan 'x'")) == "plan 'x'"
    assert issubclass(PlanError, RouterError)


def test_the_nearest_word_is_named_or_nothing() -> None:
    assert nearest("byokk", ["byok", "name"]) == "byok"
    assert nearest("zzz", ["byok"]) is None
    assert did_you_mean("byokk", ["byok"]) == "; did you mean 'byok'?"
    assert did_you_mean("zzz", ["byok"]) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-4o", "'gpt-4o'"),
        ("a\nb", r"'a\nb'"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 80}'... (81 characters)"),
    ],
)
def test_a_quoted_text_is_escaped_and_cut(text: str, expected: str) -> None:
    assert quoted(text) == expected
