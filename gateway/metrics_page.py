"""What the metrics page shows beside plain counters: collectors that are read at every scrape.

Must not know which metrics there are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

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


class CountsKeptElsewhere(Collector):
    """The same with a label. Only these values of it are told; all others together are the last of them."""

    def __init__(self, name: str, meaning: str, label: str, values: Sequence[str], registry: CollectorRegistry) -> None:
        self._named = (name, meaning)
        self._label = label
        self._values = values
        self.counts: Callable[[], Mapping[str, int]] = dict
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        counts, family = self.counts(), CounterMetricFamily(*self._named, labels=[self._label])
        *known, rest = self._values
        for value in known:
            family.add_metric([value], counts.get(value, 0))
        family.add_metric([rest], sum(count for value, count in counts.items() if value not in known))
        yield family
