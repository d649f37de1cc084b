"""wardgate.toml: numbers that are none."""

import tomllib
from pathlib import Path

import pytest

from gateway.config import ConfigError, Limits, load_config, parse_config
from gateway.rules import load_rules
from gateway.settings import Settings
from router.errors import AliasError


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "+nan", "1" + "0" * 400])
@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("[limits]\nanswer_timeout_s = {}", "limits.answer_timeout_s"),
        ("[plans.team]\nmanaged_budget_usd_per_month = {}", "plans.team.managed_budget_usd_per_month"),
        ("[providers.x]\nfoo = [1, {}]", "providers.x.foo"),
    ],
)
def test_number_that_is_not_finite_is_refused_by_its_path(table: str, path: str, number: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(table.format(number)))
    assert path in str(caught.value) and "finite" in str(caught.value)


def test_number_of_thousands_of_digits_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text("[limits]\nmax_attempts = " + "1" * 5000)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "w.toml")


def test_drain_may_be_zero_and_a_timeout_may_not() -> None:
    limits = parse_config({"limits": {"drain_notice_s": 0, "drain_s": 0.5, "body_timeout_s": 2}}).limits
    assert limits == Limits(drain_notice_s=0.0, drain_s=0.5, body_timeout_s=2.0)
    for name, value in (("body_timeout_s", 0), ("drain_s", -1), ("drain_s", True), ("drain_s", "1")):
        with pytest.raises(ConfigError, match=name):
            parse_config({"limits": {name: value}})


def test_models_with_a_slash_are_kept_as_rows() -> None:
    rows = {"openai/gpt-4o": {"disabled": True}}
    assert parse_config({"models": rows}).models == rows


def test_a_model_without_a_slash_is_an_alias(tmp_path: Path) -> None:
    path = tmp_path / "wardgate.toml"
    path.write_text('[models.fast]\nobjective = "fastest"\n[models."openai/gpt-4o"]\ndisabled = true\n')
    rules = load_rules(Settings(config=path))
    assert [alias.name for alias in rules.aliases] == ["fast"]
    assert list(rules.overrides.rows) == ["openai/gpt-4o"]
    path.write_text("[models.fast]\ndisabled = true\n")
    with pytest.raises(AliasError, match="no field 'disabled'"):
        load_rules(Settings(config=path))


def test_a_model_that_is_no_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a table"):
        parse_config({"models": {"openai/gpt-4o": 1}})


def test_decisions_are_kept_for_a_time_that_may_be_nothing_and_has_an_end() -> None:
    assert parse_config({"limits": {"decisions_kept_h": 0}}).limits.decisions_kept_h == 0.0
    for name, value in (("decisions_kept_h", 8785), ("decisions_kept_most", 10**9 + 1), ("decisions_kept_most", 0)):
        with pytest.raises(ConfigError, match=name):
            parse_config({"limits": {name: value}})
