"""What the server counts, in the text format of Prometheus. It decides nothing.

Counting a call must cost less than the call, so counts are plain numbers here and become `prometheus_client`'s families
when somebody asks for them.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, in seconds."""

Gauge = tuple[str, float]
"""What it is, and its value."""
CountersByLabel = tuple[str, tuple[str, ...], Mapping[tuple[str, ...], float]]
"""What they are, the names of their labels, and their values by those of the labels."""

TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""The content type of `Metrics.text`."""


class Histogram:
    """How often each length of time was seen."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """By bucket; the last one is for what no bound holds."""
        self.sum_s = 0.0
        """Seconds seen, together."""

    def observe(self, seconds: float) -> None:
        """Count one length of time."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Metrics:
    """Everything that the server counts itself; what the sandbox counts is asked of it."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        """Calls by status and profile; a fault of ours has the status `infra_error`."""
        self.requests: Counter[tuple[str, int]] = Counter()
        """Requests by endpoint and HTTP status."""
        self.queue, self.run, self.total = Histogram(), Histogram(), Histogram()
        """Seconds of a call before it began, in the sandbox, and altogether."""

    def call(self, status: str, profile: str, queue_s: float, run_s: float, total_s: float) -> None:
        """Count a call that ran."""
        self.calls[status, profile] += 1
        self.queue.observe(queue_s)
        self.run.observe(run_s)
        self.total.observe(total_s)

    def text(self, gauges: Mapping[str, Gauge], counters: Mapping[str, CountersByLabel]) -> bytes:
        """The page, with what others count.

        Args:
            gauges: by name, what it is and its value.
            counters: by name, what it is, the names of its labels, and the values by those of the labels.
        """
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._families(gauges, counters)))
        return generate_latest(registry)

    def _families(self, gauges: Mapping[str, Gauge], counters: Mapping[str, CountersByLabel]) -> "Iterable[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        calls = CounterMetricFamily("recall_sandbox_calls", "Calls.", labels=["status", "profile"])
        for (status, profile), count in self.calls.items():
            calls.add_metric([status, profile], count)
        yield calls
        requests = CounterMetricFamily("recall_sandbox_requests", "Requests.", labels=["endpoint", "code"])
        for (endpoint, code), count in self.requests.items():
            requests.add_metric([endpoint, str(code)], count)
        yield requests
        for name, histogram, what in (
            ("queue", self.queue, "Seconds that a call waited before it began."),
            ("run", self.run, "Seconds of a call in the sandbox."),
            ("total", self.total, "Seconds of a call, waiting included."),
        ):
            family = HistogramMetricFamily(f"recall_sandbox_call_{name}_seconds", what)
            family.add_metric([], histogram.buckets(), histogram.sum_s)
            yield family
        for name, (what, value) in gauges.items():
            yield GaugeMetricFamily(f"recall_sandbox_{name}", what, value=value)
        for name, (what, labels, values) in counters.items():
            counter = CounterMetricFamily(f"recall_sandbox_{name}", what, labels=labels)
            for key, number in values.items():
                counter.add_metric(key, number)
            yield counter


class _Families:
    """What `prometheus_client` calls a collector."""

    def __init__(self, families: "Iterable[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterable[Metric]":
        return self._families
