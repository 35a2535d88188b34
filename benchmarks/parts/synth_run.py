"""Makes one set of procedural tasks in a process of its own, and prints what it cost as one JSON object."""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recall.synth.procedural.recipe import recipe_of
from recall.synth.sets import SHARES, rows_of, write_procedural_set


@dataclass(frozen=True, slots=True)
class Run:
    """What is made."""

    directory: str
    rows: int
    workers: int
    recipe: str = "default"
    seed: int = 1
    shard_rows: int = 5000

    def text(self) -> str:
        """For the command line of this part."""
        return json.dumps(asdict(self))


def made(run: Run) -> dict[str, Any]:
    """Make it. Times are seconds; memory is MiB at its highest, `worker` that of the largest child process."""
    begun, before = time.perf_counter(), _cpu()
    splits = rows_of(run.rows, SHARES)
    recipe = recipe_of(run.recipe)
    manifest = write_procedural_set(
        Path(run.directory), recipe, seed=run.seed, splits=splits, workers=run.workers, shard_rows=run.shard_rows
    )
    wall = time.perf_counter() - begun
    own, children = (resource.getrusage(who).ru_maxrss / 1024 for who in _PROCESSES)
    return {
        "rows": manifest.rows,
        "workers": run.workers,
        "wall_s": wall,
        "cpu_s": _cpu() - before,
        "writer_mib": own,
        "worker_mib": children,
        "tried": manifest.tried,
        "rejected": manifest.rejected,
        "load": os.getloadavg()[0],
    }


_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu() -> float:
    """Seconds of CPU of this process and of all its children that have ended."""
    usages = [resource.getrusage(who) for who in _PROCESSES]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    print(json.dumps(made(Run(**json.loads(sys.argv[1])))))
