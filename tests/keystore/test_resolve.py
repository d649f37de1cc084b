"""Which name answers for a provider: tests/vectors/resolution.toml, and what holds for every registry."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.providers import Registry, load_registry, provider_from_row
from keystore.resolve import (
    UNUSABLE_BECAUSE,
    Found,
    HeldName,
    Missing,
    NameTable,
    Store,
    Unusable,
    Via,
    inspect_value,
    known_names,
    names_for,
    provider_for_setting,
    resolve,
)

VECTORS = Path(__file__).parents[1] / "vectors"
CASES: list[dict[str, Any]] = tomllib.loads((VECTORS / "resolution.toml").read_text(encoding="utf-8"))["case"]
VALUES: list[dict[str, Any]] = tomllib.loads((VECTORS / "key_values.toml").read_text(encoding="utf-8"))["value"]
HOST_ROW = {"wire": "openai", "base_url": "https://api.acme.example/v1", "hosts": ["api.acme.example"]}


def name_of(case: dict[str, Any]) -> str:
    return str(case["name"])


def held_names(values: dict[str, str], legacy: list[str]) -> dict[str, HeldName]:
    return {
        name: HeldName(
            name, Store.LEGACY if name in legacy else Store.CREDENTIALS, inspect_value(value), value.strip().encode()
        )
        for name, value in values.items()
    }


def outcome(case: dict[str, Any]) -> Found | Missing:
    registry = load_registry(case.get("rows", {}))
    provider = registry.successor(case["provider"])
    assert provider is not None
    return resolve(held_names(case["held"], case.get("legacy", [])), provider, registry)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_resolution_is_as_in_the_table(case: dict[str, Any]) -> None:
    result = outcome(case)
    assert [[each.setting_key, each.why.value] for each in result.skipped] == case.get("skipped", [])
    if isinstance(result, Missing):
        assert case["found"] == ""
        assert list(result.tried) == case["tried"]
    else:
        assert (result.setting_key, result.via.value) == (case["found"], case["via"])
        assert list(result.conflicts) == case.get("conflicts", [])
        assert (result.store is Store.LEGACY) == (result.setting_key in case.get("legacy", []))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_resolution_is_unchanged_when_held_names_come_in_another_order(case: dict[str, Any]) -> None:
    turned = {**case, "held": dict(reversed(case["held"].items()))}
    assert outcome(turned) == outcome(case)


def test_resolution_is_the_same_when_the_process_has_another_hash_seed() -> None:
    code = (
        "import json, sys; from tests.keystore.test_resolve import CASES, outcome;"
        "print(json.dumps([repr(outcome(case)) for case in CASES]))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert [json.loads(one) for one in seen] == [[repr(outcome(case)) for case in CASES]]


@pytest.mark.parametrize("former", [None, "live", "retired"])
def test_resolution_is_unchanged_when_a_former_providers_row_goes(former: str | None) -> None:
    """T33: the answer depends on the held names and the surviving row, not on a row that may be removed."""
    row = {**HOST_ROW, "base_url": "https://api.minimax.io/v1", "hosts": ["api.minimax.io"]}
    rows = {} if former is None else {"minimax_2_7": {**row, "retired": former == "retired"}}
    registry = load_registry(rows)
    minimax = registry.get("minimax")
    assert minimax is not None
    result = resolve(held_names({"MINIMAX_2_7_API_KEY": "mm-1"}, []), minimax, registry)
    assert result == Found("minimax", "MINIMAX_2_7_API_KEY", Via.FORMER, Store.CREDENTIALS, (), ())


IDS = st.sampled_from(["a", "b", "c", "a_2", "b_2", "c_2"])
HELD = st.dictionaries(
    st.sampled_from([f"{each}_API_KEY" for each in ["A", "B", "C", "A_2", "B_2", "C_2", "SHARED"]]),
    st.sampled_from(["k1", "k2", "", "<x>", "sk-***"]),
)


@st.composite
def registries(draw: st.DrawFn) -> Registry:
    claimed: set[str] = set()
    rows = []
    for provider_id in draw(st.lists(IDS, min_size=1, unique=True)):
        formers = [each for each in draw(st.lists(IDS, max_size=2, unique=True)) if each not in {provider_id, *claimed}]
        claimed |= set(formers)
        host = draw(st.sampled_from(["x.example", "y.example"]))
        family = draw(st.sampled_from(["SHARED_API_KEY", "OTHER_API_KEY"]))
        fields = {"base_url": f"https://{host}", "hosts": [host], "api_key_env_var": family, "former_ids": formers}
        rows.append(provider_from_row(provider_id, {**HOST_ROW, **fields, "retired": draw(st.booleans())}))
    return Registry(rows)


@settings(deadline=None)
@given(registries(), HELD)
def test_resolution_holds_its_promises_for_any_registry(registry: Registry, values: dict[str, str]) -> None:
    held = held_names(values, [])
    for provider in registry.providers:
        names = [name for name, _ in names_for(provider, registry)]
        usable = [name for name in names if name in held and held[name].unusable is None]
        result = resolve(held, provider, registry)
        assert len(names) == len(set(names))
        assert {each.setting_key for each in result.skipped} == {n for n in names if n in held and held[n].unusable}
        if isinstance(result, Missing):
            assert not usable
            assert list(result.tried) == names
        else:
            assert result.setting_key == usable[0]
            assert set(result.conflicts) == {n for n in usable if values[n] != values[usable[0]]}


# --- whose name is it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting_key", "provider_id"),
    [
        ("MINIMAX_API_KEY", "minimax"),
        ("MINIMAX_2_7_API_KEY", "minimax"),
        ("GEMINI_API_KEY", "google"),
        ("DASHSCOPE_API_KEY", "qwen"),
        ("HF_TOKEN", "huggingface"),
        ("STRIPE_API_KEY", None),
        ("minimax_api_key", None),
        ("", None),
    ],
)
def test_setting_belongs_to_the_provider_that_would_ask_for_it(setting_key: str, provider_id: str | None) -> None:
    found = provider_for_setting(setting_key, load_registry())
    assert (found.id if found else None) == provider_id


def test_setting_belongs_to_the_canonical_owner_when_others_want_it_too() -> None:
    rows: dict[str, dict[str, object]] = {
        "acme_first": {**HOST_ROW, "api_key_env_var": "ACME_API_KEY", "former_ids": ["acme_old"]},
        "acme": {**HOST_ROW, "retired": False},
        "acme_old": {**HOST_ROW, "retired": True},
    }
    registry = load_registry(rows)
    owner, heir = provider_for_setting("ACME_API_KEY", registry), provider_for_setting("ACME_OLD_API_KEY", registry)
    assert owner is not None
    assert owner.id == "acme"
    assert heir is not None
    assert heir.id == "acme_first"


def test_known_names_are_all_that_any_provider_looks_for() -> None:
    registry = load_registry({"acme": {**HOST_ROW, "retired": True, "former_ids": ["acme_1"]}})
    looked_for = {name for row in registry.providers for name, _ in names_for(row, registry)}
    assert known_names(registry) == looked_for
    assert {"ACME_API_KEY", "ACME_1_API_KEY"} <= looked_for


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VALUES, ids=name_of)
def test_value_is_judged_as_in_the_table(case: dict[str, Any]) -> None:
    value = None if case.get("null") else case["text"] * case.get("times", 1)
    why = inspect_value(value)
    assert (why.value if why else "") == case["unusable"]


def test_values_of_the_table_cover_every_judgement() -> None:
    judged = {case["unusable"] for case in VALUES} - {""}
    of_more_than_the_value = {Unusable.DAMAGED, Unusable.WRONG_HOST, Unusable.LACKS_FIELDS}
    assert judged == {why.value for why in set(Unusable) - of_more_than_the_value}


def test_every_judgement_has_its_sentence() -> None:
    assert set(UNUSABLE_BECAUSE) == set(Unusable)
    assert len(set(UNUSABLE_BECAUSE.values())) == len(Unusable)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=48, max_codepoint=122, categories=["Lu", "Ll", "Nd"]), min_size=24))
def test_value_is_usable_when_it_is_long_random_letters_and_digits(tail: str) -> None:
    assert inspect_value(f"sk-q7{tail}") is None


@settings(deadline=None)
@given(st.text(max_size=200))
def test_value_gets_one_judgement_when_it_is_anything(value: str) -> None:
    why = inspect_value(value)
    assert why is None or why in Unusable
    if why is None:
        assert value.strip().isascii()
        assert value.strip().isprintable()


def test_name_table_says_the_same_as_each_look_up(registry: Registry) -> None:
    table = NameTable(registry)
    for provider in registry.live():
        assert table.names[provider.id] == names_for(provider, registry)
        assert table.missing[provider.id] == resolve({}, provider, registry)
        assert all(provider.id in table.asked_by[name] for name, _ in table.names[provider.id])
    assert set(table.names) == {provider.id for provider in registry.live()}
