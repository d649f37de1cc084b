"""Names, families, versions, and what an entry of a model list means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.model_names import compile_models, parse_name, pattern_fault, split_provider
from tests.router import world
from tests.router.vectors import Row, rows


@pytest.mark.parametrize("row", rows("model_names", "name"))
def test_a_name_is_read(row: Row) -> None:
    name = parse_name(row["text"])
    path = row.get("path", row["text"].lower())
    assert name.path == path
    assert name.base == row.get("base", path)
    assert name.family == row["family"]
    assert name.family_path == row.get("family_path", name.family if "/" not in path else path)
    assert name.version == row.get("version")


@pytest.mark.parametrize("row", rows("model_names", "pattern"))
def test_an_entry_matches_families_and_never_parts_of_names(row: Row) -> None:
    models = compile_models([row["pattern"]], world.registry())
    assert models.holds(row["provider"], parse_name(row["model"])) is row["matches"]


def test_a_list_holds_what_any_entry_holds() -> None:
    models = compile_models(["gpt-4o", "minimax/*"], world.registry())
    assert models.holds("openai", parse_name("gpt-4o"))
    assert models.holds("minimax", parse_name("MiniMax-M2"))
    assert not models.holds("openai", parse_name("gpt-4"))


def test_an_empty_list_holds_nothing() -> None:
    assert not compile_models([], world.registry()).holds("openai", parse_name("gpt-4o"))


@pytest.mark.parametrize("row", rows("model_names", "bad_pattern"))
def test_an_entry_of_another_form_has_a_fault(row: Row) -> None:
    assert pattern_fault(row["pattern"])


@pytest.mark.parametrize("row", rows("model_names", "good_pattern"))
def test_an_entry_of_a_known_form_has_none(row: Row) -> None:
    assert pattern_fault(row["pattern"]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minimax/MiniMax-M2", ("minimax", "MiniMax-M2")),
        ("MiniMax/MiniMax-M2", ("minimax", "MiniMax-M2")),
        ("minimax_2_7/MiniMax-M2", ("minimax", "MiniMax-M2")),
        ("gemini/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("together_ai/openai/gpt-oss-120b", ("together", "openai/gpt-oss-120b")),
        ("oldcloud/bison", ("oldcloud", "bison")),
        ("meta-llama/Llama-3.3-70B", None),
        ("gpt-4o", None),
        ("minimax/", None),
        ("/gpt-4o", None),
    ],
)
def test_the_provider_is_found_by_any_of_its_names(text: str, expected: tuple[str, str] | None) -> None:
    found = split_provider(text, world.registry())
    assert (found and (found[0].id, found[1])) == expected


@given(st.text(max_size=60))
def test_every_text_is_a_name_and_its_family_begins_it(text: str) -> None:
    name = parse_name(text)
    assert name.path.startswith(name.family_path)
    assert name.base.startswith(name.family)
    assert (name.version is None) == (name.family == name.base)


@given(st.from_regex(r"[a-z][a-z0-9.]{0,8}(-[a-z][a-z0-9.]{0,8}){0,2}", fullmatch=True))
def test_a_dated_version_belongs_to_its_family_alone(family: str) -> None:
    models = compile_models([family], world.registry())
    assert models.holds("openai", parse_name(family))
    assert models.holds("openai", parse_name(f"{family}-2025-01-31"))
    assert not models.holds("openai", parse_name(f"{family}-mini"))
    assert not models.holds("openai", parse_name(f"{family}x"))
