"""What the offline categories of BFCL cost to play with the ground truth: wall time, processor time and memory.

RECALL_BFCL_PYTHON names an interpreter with bfcl-eval; `make test-bfcl` makes one and runs this. Fails when all of it
takes more processor time than two cores have in two minutes.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 2 * 120.0
"""Processor seconds: two minutes of two cores."""


def played(interpreter: str, entries: int | None) -> tuple[int, float, float, float, float]:
    """How many entries, wall seconds, processor seconds of all processes, and the peaks in MiB: ours, theirs."""
    with tempfile.TemporaryDirectory() as out:
        given = [] if entries is None else ["--entries", str(entries)]
        command = ["eval", "bfcl", "--script", "truth", "--checkers", interpreter, "--out", str(Path(out) / "run")]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        program = "import resource, sys; from recall.cli import main; status = main(sys.argv[1:]);"
        program += "print('MiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024); sys.exit(status)"
        done = subprocess.run(
            [sys.executable, "-c", program, *command, *given], capture_output=True, text=True, check=True
        )
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = re.search(r"^MiB ([\d.]+)$", done.stdout, re.MULTILINE)
    theirs = re.search(r"process took (\d+) MiB", done.stdout)
    assert ours is not None, "the program ends with its memory"
    assert theirs is not None, "it says what the checkers took"
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-2])["entries"], took, processor, float(ours[1]), float(theirs[1])


def main() -> int:
    """Measure, print a table, and fail when it takes too long."""
    interpreter = os.environ.get("RECALL_BFCL_PYTHON", "")
    if not interpreter:
        print("bfcl: skipped, RECALL_BFCL_PYTHON names no interpreter with bfcl-eval (make test-bfcl makes one)")
        return 0
    print(f"{'entries':>8} {'wall s':>8} {'processor s':>12} {'ms an entry':>12} {'our MiB':>9} {'their MiB':>10}")
    rows = []
    for entries in (25, 100, None):
        count, took, processor, ours, theirs = played(interpreter, entries)
        rows.append((count, took, processor))
        numbers = f"{count:>8} {took:>8.1f} {processor:>12.1f} {1000 * processor / count:>12.2f}"
        print(f"{numbers} {ours:>9.0f} {theirs:>10.0f}", flush=True)
    (few, _, low), *_, (all_of_it, wall, high) = rows
    print(f"each further entry: {1000 * (high - low) / (all_of_it - few):.2f} ms of a processor; all in {wall:.0f} s")
    return int(high > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
