"""Metrics pages of several processes as one: counters and histograms added up, gauges by their row.

Pure. Must not know how pages travel. A counter of a process that has ended stays in the sum, so that none ever falls.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from gateway.metric_specs import SPECS, Across, Kind

# A page: families in their order, each [name, type, help, [[sample, {label: value}, number], ...]].
Page = list[list[Any]]

# Gauges of the Python client: how those of several processes become one.
CLIENTS: Final[Mapping[str, Across]] = {
    "process_virtual_memory_bytes": Across.SUM,
    "process_resident_memory_bytes": Across.SUM,
    "process_start_time_seconds": Across.LEAST,
    "process_open_fds": Across.SUM,
    "process_max_fds": Across.LEAST,
    "python_info": Across.MOST,
}
GAUGES: Final = {**CLIENTS, **{spec.name: spec.across for spec in SPECS if spec.kind is Kind.GAUGE}}
COUNTED: Final = ("counter", "histogram")


def page_of(families: Iterable[Metric]) -> Page:
    """What a process counts, as JSON data."""
    return [
        [family.name, family.type, family.documentation, [[s.name, s.labels, s.value] for s in family.samples]]
        for family in families
    ]


def added_up(pages: Iterable[Page]) -> Page:
    """One page of several."""
    whole: dict[str, list[Any]] = {}  # family -> its row, whose samples are a dict until the end
    for page in pages:
        for name, kind, meaning, samples in page:
            held = whole.setdefault(name, [name, kind, meaning, {}])[3]
            rule = Across.SUM if kind in COUNTED else GAUGES.get(name, Across.SUM)
            for sample, labels, number in samples:
                key = (sample, *sorted(labels.items()))
                held[key] = [sample, labels, _one(rule, held[key][2], number) if key in held else number]
    return [[name, kind, meaning, list(held.values())] for name, kind, meaning, held in whole.values()]


def _one(rule: Across, left: float, right: float) -> float:
    if rule is Across.SUM:
        return left + right
    return min(left, right) if rule is Across.LEAST else max(left, right)


def left_behind(page: Page) -> Page:
    """What stays of a process that has ended: its counters and histograms."""
    return [family for family in page if family[1] in COUNTED]


class Whole:
    """A page as prometheus_client's exposition wants it."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterable[Metric]:
        for name, kind, meaning, samples in self._page:
            family = Metric(name, meaning, kind)
            family.samples = [Sample(sample, labels, number) for sample, labels, number in samples]
            yield family
