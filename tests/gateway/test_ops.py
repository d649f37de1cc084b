"""ops/: every metric, label and label value that the dashboard and the alerts name exists, and the alerts fire."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.metric_specs import OTHER, SPECS, Kind, Spec
from gateway.metrics import Metrics

OPS = Path(__file__).parents[2] / "ops"
PROMETHEUS = OPS / "prometheus"
SCRAPE_LABELS = frozenset({"job", "instance"})  # set by Prometheus itself
MACROS = {"$__rate_interval": "5m", "$__range": "1h"}  # Grafana's

# --- reading expressions ---------------------------------------------------------------------------------------------

SELECTOR = re.compile(r"\b((?:wardgate|process|python)_[a-z0-9_]+|up)\b\s*(\{[^}]*\})?")
MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby\s*\(([^)]*)\)")
LABEL_IN_TEXT = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


def series_of(spec: Spec) -> dict[str, frozenset[str]]:
    """The series names of a metric, each with its labels."""
    labels = frozenset(spec.label_names)
    if spec.kind is not Kind.HISTOGRAM:
        return {spec.name: labels}
    return {f"{spec.name}_bucket": labels | {"le"}, f"{spec.name}_sum": labels, f"{spec.name}_count": labels}


OURS = {series: (spec, labels) for spec in SPECS for series, labels in series_of(spec).items()}
THEIRS = {"up"} | {
    sample.name
    for family in text_string_to_metric_families(
        Metrics(CollectorRegistry(), providers=(), models=()).render().decode()
    )
    for sample in family.samples
    if not sample.name.startswith("wardgate_")
}


def grouped_by(expr: str) -> set[str]:
    return {name.strip() for group in GROUPING.findall(expr) for name in group.split(",")}


def faults(expr: str) -> list[str]:
    """What an expression names that does not exist."""
    found: list[str] = []
    known_labels: set[str] = set(SCRAPE_LABELS)
    selectors = SELECTOR.findall(expr)
    if not selectors:
        found.append(f"no metric in {expr!r}")
    for series, matchers in selectors:
        if series not in OURS:
            found += [] if series in THEIRS else [f"no metric {series}"]
            continue
        spec, labels = OURS[series]
        known_labels |= labels
        found += _matcher_faults(spec, labels, matchers)
    return found + [f"no label {name} to group by" for name in sorted(grouped_by(expr) - known_labels)]


def _matcher_faults(spec: Spec, labels: frozenset[str], matchers: str) -> Iterator[str]:
    closed = {label.name: label.values for label in spec.labels if label.values}
    for label, operator, value in MATCHER.findall(matchers):
        if label not in labels | SCRAPE_LABELS:
            yield f"{spec.name} has no label {label}"
        for word in value.split("|") if "~" in operator else [value]:
            if word not in closed.get(label, {word}) | {OTHER}:
                yield f"{spec.name} never has {label}={word}"


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("rate(wardgate_nope_total[5m])", "no metric wardgate_nope_total"),
        ("rate(wardgate_requests_created[5m])", "no metric wardgate_requests_created"),
        ("wardgate_overhead_seconds", "no metric wardgate_overhead_seconds"),
        ('wardgate_ready{tenant="acme"}', "wardgate_ready has no label tenant"),
        ('wardgate_requests_total{fault="operator"}', "wardgate_requests_total never has fault=operator"),
        ('wardgate_requests_total{outcome=~"ok|lost"}', "wardgate_requests_total never has outcome=lost"),
        ("sum by (reason) (wardgate_requests_total)", "no label reason to group by"),
        ("process_nope", "no metric process_nope"),
        ("vector(1)", "no metric in 'vector(1)'"),
    ],
)
def test_mistake_in_an_expression_is_found(expr: str, fault: str) -> None:
    assert faults(expr) == [fault]


# --- the dashboard ---------------------------------------------------------------------------------------------------

DASHBOARD: dict[str, Any] = json.loads((OPS / "grafana" / "wardgate.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def resolved(expr: str) -> str:
    """The expression with Grafana's macros and the provider variable filled in."""
    for macro, value in MACROS.items():
        expr = expr.replace(macro, value)
    return expr.replace('"$provider"', '"minimax|deepseek"')


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_dashboard_names_only_what_exists(title: str, target: dict[str, Any]) -> None:
    expr = resolved(target["expr"])
    assert "$" not in expr, title
    assert faults(expr) == []


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_legend_shows_labels_that_the_series_have(title: str, target: dict[str, Any]) -> None:
    shown = set(LABEL_IN_TEXT.findall(target["legendFormat"]))
    assert shown <= grouped_by(target["expr"]) | SCRAPE_LABELS, title


def test_variables_of_the_dashboard_name_only_what_exists() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["provider"]["query"]).groups()  # type: ignore[union-attr]
    assert label in OURS[series][1]


def test_every_metric_stands_on_the_dashboard() -> None:
    drawn = {series for _, target in TARGETS for series, _ in SELECTOR.findall(target["expr"])}
    assert [spec.name for spec in SPECS if not drawn & set(series_of(spec))] == []


def test_panels_have_a_title_a_sentence_and_the_chosen_data_source() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    titles = [panel["title"] for panel in PANELS]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert titles.count("Fallbacks") == 1


@dataclass(frozen=True)
class Place:
    """A panel's rectangle on the grid."""

    title: str
    x: int
    y: int
    w: int
    h: int

    def overlaps(self, other: "Place") -> bool:
        apart_x = self.x + self.w <= other.x or other.x + other.w <= self.x
        return not (apart_x or self.y + self.h <= other.y or other.y + other.h <= self.y)


def test_panels_do_not_overlap_on_the_grid_of_24() -> None:
    places = [Place(panel["title"], **panel["gridPos"]) for panel in DASHBOARD["panels"]]
    assert [place.title for place in places if place.x + place.w > 24] == []
    assert [(a.title, b.title) for a, b in combinations(places, 2) if a.overlaps(b)] == []


def test_provisioning_files_are_of_grafanas_shape() -> None:
    folder = OPS / "grafana" / "provisioning"
    dashboards = yaml.safe_load((folder / "dashboards" / "wardgate.yaml").read_text(encoding="utf-8"))
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert dashboards["apiVersion"] == sources["apiVersion"] == 1
    assert dashboards["providers"][0]["options"]["path"].startswith("/etc/grafana/")
    assert sources["datasources"][0]["type"] == "prometheus"


# --- the alerts ------------------------------------------------------------------------------------------------------

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
RULE_TESTS = ("alerts_test.yml", "alerts_weeks_test.yml")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_alert_names_only_what_exists(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"]) == []


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_alert_text_uses_labels_that_the_alert_has(rule: dict[str, Any]) -> None:
    aggregated = re.search(r"\b(?:sum|histogram_quantile)\b", rule["expr"]) is not None
    has = grouped_by(rule["expr"]) if aggregated else SCRAPE_LABELS
    used = {name for text in rule["annotations"].values() for name in LABEL_IN_TEXT.findall(text)}
    assert used <= has


def test_every_alert_is_shown_to_fire_and_to_stay_silent() -> None:
    seen: dict[str, set[bool]] = {}
    for name in RULE_TESTS:
        for case in yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))["tests"]:
            for check in case["alert_rule_test"]:
                seen.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert seen == {name: {True, False} for name in RULES}


def test_scrape_example_names_the_job_that_the_alerts_count_on() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert [job["job_name"] for job in config["scrape_configs"]] == ["wardgate"]
    assert 'job="wardgate"' in RULES["WardgateDown"]["expr"]
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])


# --- promtool --------------------------------------------------------------------------------------------------------


@pytest.fixture
def promtool() -> str:
    found = os.environ.get("WARDGATE_PROMTOOL") or shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is neither on PATH nor named by WARDGATE_PROMTOOL")
    return found


def run(promtool: str, *arguments: str) -> None:
    ran = subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", *RULE_TESTS),
    ],
    ids=" ".join,
)
def test_promtool_agrees_with_the_files(promtool: str, arguments: tuple[str, ...]) -> None:
    run(promtool, *arguments)


def test_promtool_can_read_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{index}", "expr": resolved(each["expr"])} for index, (_, each) in enumerate(TARGETS)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    run(promtool, "check", "rules", str(path))
