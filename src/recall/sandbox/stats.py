"""What a sandbox has done, in counts; for metrics and for people. It decides nothing."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class SandboxStats:
    """Counts since the sandbox was made; the gauges at the end are of now."""

    opened: int = 0
    """Sessions opened, copies included."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls by the status that they came to."""
    kills: Counter[str] = field(default_factory=Counter)
    """Processes that were ended, by reason: `timeout`, `violation`, `cancelled`, `closed`, `crashed`."""
    restarts: int = 0
    """Zygotes that had to be replaced."""
    live: int = 0
    """Sessions whose process is not known to be gone, those of the pool included."""
    pooled: int = 0
    """Processes that wait for a session."""

    @property
    def violations(self) -> int:
        """Sessions that wrote to their channel what was no answer."""
        return self.kills["violation"]

    def __add__(self, other: "SandboxStats") -> "SandboxStats":
        return SandboxStats(
            self.opened + other.opened,
            self.calls + other.calls,
            self.kills + other.kills,
            self.restarts + other.restarts,
            self.live + other.live,
            self.pooled + other.pooled,
        )
