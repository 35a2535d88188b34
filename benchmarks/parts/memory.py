"""Peak memory of this process and of the processes that it started. Linux only, standard library only.

The process itself is exact: the kernel's high-water mark, reset at the start. The processes that run the tools come and
go, so they are sampled, by their proportional share of what they have in common; the two peaks are added.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

INTERVAL_S = 0.02
"""Between two samples of the children."""


class Peak:
    """The peak while the `with` block runs; `mb` is that of everything, `grown_mb` what came on top of the start."""

    mb = 0.0
    grown_mb = 0.0
    children_mb = 0.0

    def __enter__(self) -> "Peak":
        Path("/proc/self/clear_refs").write_text("5")
        self._before_mb = own_mb("VmRSS")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self.mb = own_mb("VmHWM") + self.children_mb
        self.grown_mb = self.mb - self._before_mb

    def _sample(self) -> None:
        while True:
            self.children_mb = max(self.children_mb, sum(share_mb(child) for child in descendants(os.getpid())))
            if self._done.wait(INTERVAL_S):
                return


def own_mb(field: str) -> float:
    """A field of this process's status that counts memory, in MB (2**20 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) / 1024


def share_mb(pid: int) -> float:
    """The proportional set size of a process in MB; 0 when it is gone or not ours to read."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def descendants(pid: int) -> Iterator[int]:
    """The living processes that `pid` started, and those that they started."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in (int(number) for text in lists for number in text.split()):
        yield child
        yield from descendants(child)
