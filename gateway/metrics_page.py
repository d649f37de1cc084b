"""What the metrics page shows beside plain counters: collectors that are read at every scrape.

Must not know which metrics there are.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class KeptElsewhere(Collector):
    """A counter whose number is kept by another part and read at every scrape."""

    def __init__(self, name: str, meaning: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._meaning = meaning
        self.count: Callable[[], int] = int
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._meaning, value=self.count())
