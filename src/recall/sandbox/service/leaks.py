"""Counts the process groups below this process that no session accounts for. There must be none."""

import os
from pathlib import Path


def session_groups() -> int:
    """How many process groups live below the zygotes, which are this process's children; a session's are one group."""
    processes: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] not in "ZX":
                processes[int(entry)] = int(fields[1]), int(fields[2])
    own = os.getpid()
    zygotes = {pid for pid, (parent, _) in processes.items() if parent == own}
    tree = set(zygotes)
    while more := {pid for pid, (parent, _) in processes.items() if parent in tree} - tree:
        tree |= more
    zygote_groups = {processes[pid][1] for pid in zygotes}
    return len({processes[pid][1] for pid in tree - zygotes} - zygote_groups)
