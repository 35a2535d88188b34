"""A page of metrics in the text format of Prometheus, from plain numbers.

Counting a request must cost less than the request, so counts are plain numbers until somebody asks for the page.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of a histogram of seconds."""

TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""The content type of a page."""


Gauge = tuple[str, float]
"""What it is, and its value."""
Counters = tuple[str, tuple[str, ...], Mapping[tuple[str, ...], float]]
"""What they are, the names of their labels, and their values by those of the labels."""


class Histogram:
    """How often each size was seen."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Take the upper bounds of the buckets, ascending."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0
        """All sizes together."""

    def observe(self, size: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, size)] += 1
        self.sum += size

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a page shows, by name."""

    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    counters: Mapping[str, Counters] = field(default_factory=dict)
    histograms: Mapping[str, tuple[str, Histogram]] = field(default_factory=dict)
    """What it is, and what was seen."""


def page(prefix: str, numbers: Numbers) -> bytes:
    """The page; every name on it begins with `prefix`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(_families(prefix, numbers)))
    return generate_latest(registry)


def _families(prefix: str, numbers: Numbers) -> "Iterable[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for name, (what, labels, values) in numbers.counters.items():
        counter = CounterMetricFamily(prefix + name, what, labels=labels)
        for key, number in values.items():
            counter.add_metric(key, number)
        yield counter
    for name, (what, histogram) in numbers.histograms.items():
        family = HistogramMetricFamily(prefix + name, what)
        family.add_metric([], histogram.buckets(), histogram.sum)
        yield family
    for name, (what, value) in numbers.gauges.items():
        yield GaugeMetricFamily(prefix + name, what, value=value)


class _Collector:
    """What `prometheus_client` calls a collector."""

    def __init__(self, families: "Iterable[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterable[Metric]":
        return self._families
