"""What the server counts. It decides nothing; how a page is written is `recall.serving.metrics`'s."""

from collections import Counter
from collections.abc import Mapping

from recall.serving.metrics import Counters, Gauge, Histogram, Numbers, page


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

    def text(self, gauges: Mapping[str, Gauge], counters: Mapping[str, Counters]) -> bytes:
        """The page, with what others count.

        Args:
            gauges: by name, what it is and its value.
            counters: by name, what it is, the names of its labels, and the values by those of the labels.
        """
        own: dict[str, Counters] = {
            "calls": (
                "Calls.",
                ("status", "profile"),
                {(status, profile): count for (status, profile), count in self.calls.items()},
            ),
            "requests": (
                "Requests.",
                ("endpoint", "code"),
                {(endpoint, str(code)): count for (endpoint, code), count in self.requests.items()},
            ),
        }
        histograms = {
            "call_queue_seconds": ("Seconds that a call waited before it began.", self.queue),
            "call_run_seconds": ("Seconds of a call in the sandbox.", self.run),
            "call_total_seconds": ("Seconds of a call, waiting included.", self.total),
        }
        return page("recall_sandbox_", Numbers(gauges, own | dict(counters), histograms))
