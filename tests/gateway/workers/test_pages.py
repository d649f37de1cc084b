"""Pages of several processes as one: counters never fall, gauges follow their row."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metric_specs import BUILD_INFO, SPECS, Across, Kind
from gateway.metrics import Metrics
from gateway.workers.pages import COUNTED, GAUGES, Page, Whole, added_up, left_behind, page_of


def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), providers=["minimax"], models=["MiniMax-M2"])


def number(page: Page, sample: str, **labels: str) -> float:
    return sum(float(s[2]) for family in page for s in family[3] if s[0] == sample and labels.items() <= s[1].items())


def gauge(name: str, value: float) -> Page:
    return [[name, "gauge", "x", [[name, {}, value]]]]


def counter(value: float, **labels: str) -> Page:
    return [["a", "counter", "x", [["a_total", labels, value]]]]


def test_every_gauge_of_a_page_has_its_row() -> None:
    gauges = {family[0] for family in page_of(metrics().families()) if family[1] not in COUNTED}
    assert gauges - GAUGES.keys() == set()
    assert {spec.name for spec in SPECS if spec.kind is Kind.GAUGE} <= GAUGES.keys()


def test_every_gauge_is_documented_under_its_row() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    _, sums, rest = page.partition("  - sums: ")
    sums, _, rest = rest.partition("  - the least of all workers: ")
    least, _, rest = rest.partition("  - the most: ")
    told = {Across.SUM: sums, Across.LEAST: least, Across.MOST: rest.partition("\n- ")[0]}
    gauges = [spec for spec in SPECS if spec.kind is Kind.GAUGE and spec is not BUILD_INFO]  # that is always 1
    assert [spec.name for spec in gauges if f"`{spec.name}`" not in told[spec.across]] == []


def test_counters_and_histograms_are_added_label_by_label() -> None:
    page = added_up([counter(2, x="1"), counter(3, x="1"), counter(5, x="2")])
    assert (number(page, "a_total", x="1"), number(page, "a_total", x="2")) == (5, 5)


def test_gauges_follow_their_row() -> None:
    for name, expected in (("wardgate_workers", 5), ("wardgate_ready", 2), ("wardgate_health_marks", 3)):
        assert number(added_up([gauge(name, 2), gauge(name, 3)]), name) == expected, name


def test_ended_process_leaves_its_counters_and_no_gauge() -> None:
    left = left_behind(counter(2) + gauge("wardgate_workers", 1))
    assert number(left, "a_total") == 2 and number(left, "wardgate_workers") == 0


def test_whole_is_written_as_one_process_writes_its_page() -> None:
    subject = metrics()
    page = added_up([page_of(subject.families())])
    ours = generate_latest(Whole(page)).decode()
    theirs = subject.render().decode()

    def names(text: str) -> list[tuple[str, str]]:
        return [(family.name, family.type) for family in text_string_to_metric_families(text)]

    assert names(ours) == names(theirs)
    assert ours.count("\n") == theirs.count("\n")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100), st.booleans()), max_size=40))
def test_no_counter_falls_whoever_ends(steps: list[tuple[int, int, bool]]) -> None:
    live: dict[int, float] = {}
    left: Page = []
    seen = counted = 0.0
    for worker, more, ends in steps:
        live[worker] = live.get(worker, 0.0) + more
        counted += more
        if ends:
            left = added_up([left, left_behind(counter(live.pop(worker)))])
        now = number(added_up([*map(counter, live.values()), left]), "a_total")
        assert now >= seen and now == counted
        seen = now
