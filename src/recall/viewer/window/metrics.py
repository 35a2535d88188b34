"""Settings, metrics and state of a run as they are on disk, however far its writer got. It reads no trajectories."""

import math
import time
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from recall.viewer.window.folder import flat, read_object, read_rows

ALIVE_S = 180.0
"""A run whose files changed within so many seconds, or within three of its steps, is taken to be running."""


def config_of(run: Path) -> tuple[dict[str, Any], str, str]:
    """The settings by dotted name, the file as text, and what is wrong with it."""
    path = run / "config.toml"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, "", "config.toml is missing, so settings are not known"
    except OSError as error:
        return {}, "", f"config.toml cannot be read: {error.strerror}"
    try:
        return flat(tomllib.loads(text)), text, ""
    except tomllib.TOMLDecodeError as error:
        return {}, text, f"config.toml is not TOML: {error}"


def metrics_of(run: Path) -> dict[str, Any]:
    """Steps, a column of values for each metric, and minutes of training; what a resumed run wrote again counts."""
    path = run / "metrics.jsonl"
    try:
        stat = path.stat()
    except OSError:
        return {"steps": [], "columns": {}, "minutes": None, "notes": []}
    return _metrics(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _metrics(path: Path, _mtime: int, _size: int) -> dict[str, Any]:
    rows, notes = read_rows(path)
    by_step: dict[float, dict[str, float]] = {}
    for row in rows:
        step = row.get("step")
        if _is_number(step):
            by_step.setdefault(step, {}).update(  # type: ignore[arg-type]
                {name: value for name, value in row.items() if name != "step" and _is_number(value)}
            )
    steps = sorted(by_step)
    names = dict.fromkeys(name for step in steps for name in by_step[step])
    columns = {name: [by_step[step].get(name) for step in steps] for name in names}
    minutes = [value for value in columns.get("time/minutes", ()) if value is not None]
    return {"steps": steps, "columns": columns, "minutes": minutes[-1] if minutes else None, "notes": notes}


def files_notes(run: Path) -> list[str]:
    """What is odd about a run's own files."""
    notes = list(metrics_of(run)["notes"])
    if not (run / "metrics.jsonl").exists():
        notes.append("metrics.jsonl is not there yet: no step has ended")
    _, problem = read_object(run / "summary.json")
    return [*notes, problem] if problem else notes


def state_of(run: Path) -> str:
    """`finished`, `running`, or `stopped`: not finished, and nothing was written for a while."""
    if (run / "summary.json").exists():
        return "finished"
    times = [value for value in metrics_of(run)["columns"].get("time/step_s", ()) if value is not None]
    patience = max(ALIVE_S, 3 * max(times[-5:], default=0.0))
    newest = 0.0
    for path in (run, run / "metrics.jsonl", run / "trajectories", run / "checkpoints"):
        try:
            newest = max(newest, path.stat().st_mtime)
        except OSError:
            continue
    return "running" if time.time() - newest < patience else "stopped"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
