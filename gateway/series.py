"""Counters and times of this process as plain numbers, read at every scrape.

The loop alone counts, so no number needs a lock, of which the library's own have one each. Owns the series by their
labels; looking one up by what was asked for is remembered. Must not know which metrics there are.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.metric_specs import Kind, Spec

MOST: Final = 10_000  # names that callers invent count as one series, but are asked for under each
INFINITE: Final = float("inf")

Labels = tuple[str, ...]


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Times:
    """One series of a histogram; `bounds` rise."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """How many were at most each bound, and the sum."""
        names = [floatToGoString(bound) for bound in (*self._bounds, INFINITE)]  # type: ignore[no-untyped-call]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Series(Collector):
    """The series of counters and histograms; `held` gives the values of labels as they are shown."""

    def __init__(
        self, specs: Iterable[Spec], held: Callable[[Spec, Labels], Labels], registry: CollectorRegistry
    ) -> None:
        self._held = held
        self._counts: dict[Spec, dict[Labels, Count]] = {}
        self._times: dict[Spec, dict[Labels, Times]] = {}
        for spec in specs:
            if spec.kind is Kind.COUNTER:
                self._counts[spec] = {} if spec.labels else {(): Count()}
            elif spec.kind is Kind.HISTOGRAM:
                self._times[spec] = {} if spec.labels else {(): Times(spec.buckets)}
        self._asked_counts: dict[tuple[Spec, Labels], Count] = {}
        self._asked_times: dict[tuple[Spec, Labels], Times] = {}
        registry.register(self)

    def count(self, spec: Spec, values: Labels, by: float = 1.0) -> None:
        """Add to a counter."""
        found = self._asked_counts.get((spec, values))
        if found is None:
            self._make_room()
            kept = self._counts[spec].setdefault(self._held(spec, values), Count())
            found = self._asked_counts[spec, values] = kept
        found.value += by

    def observe(self, spec: Spec, values: Labels, seconds: float) -> None:
        """Add to a histogram."""
        found = self._asked_times.get((spec, values))
        if found is None:
            self._make_room()
            kept = self._times[spec].setdefault(self._held(spec, values), Times(spec.buckets))
            found = self._asked_times[spec, values] = kept
        found.observe(seconds)

    def ask_anew(self) -> None:
        """Other values of labels are let through from now on."""
        self._asked_counts.clear()
        self._asked_times.clear()

    def _make_room(self) -> None:
        if len(self._asked_counts) + len(self._asked_times) >= MOST:
            self.ask_anew()

    def collect(self) -> Iterator[Metric]:
        for spec, counts in self._counts.items():
            counter = CounterMetricFamily(spec.name, spec.help, labels=spec.label_names)
            for labels, count in list(counts.items()):
                counter.add_metric(labels, count.value)
            yield counter
        for spec, times in self._times.items():
            histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.label_names)
            for labels, each in list(times.items()):
                histogram.add_metric(labels, *each.told())
            yield histogram
