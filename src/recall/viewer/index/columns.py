"""The numbers of all trajectories of a run, a file for each column, mapped into memory rather than read.

A million trajectories are some hundred megabytes on disk, of which a filter touches its own columns. Rows are only ever
appended; how many of them count is said by the index, so what a killed writer left behind its last commit is cut off.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

TYPES: Mapping[str, str] = MappingProxyType(
    {
        "file": "<u4",
        "frame": "<u8",
        "offset": "<u8",
        "length": "<u4",
        "group": "<u4",
        "step": "<i4",
        "split": "<u2",
        "task": "<u4",
        "kind": "<u2",
        "depth": "<u2",
        "score": "<f8",
        "correct": "|u1",
        "advantage": "<f8",
        "stop": "|u1",
        "turns": "<u2",
        "calls": "<u2",
        "failed": "<u2",
        "malformed": "<u2",
        "statuses": "<u2",
        "tools": "<u8",
        "tokens": "<u4",
        "sampled": "<u4",
        "logprob": "<f4",
        "duration": "<f4",
        "tools_s": "<f4",
        "slowest_s": "<f4",
        "fault": "|u1",
    }
)
"""Every column and how its values are stored; parts of rewards come on top, as `part-NUMBER`."""
PART = "<f4"
"""How a part of a reward is stored; NaN where a trajectory has no such part."""


def append(folder: Path, rows: int, values: Mapping[str, Sequence[Any]], parts: int) -> None:
    """Write values behind the first `rows` rows of every column.

    Args:
        folder: of the columns.
        rows: how many there are already.
        values: [n] by column, the same n for all.
        parts: how many parts of rewards are known; a column that is not there yet is filled with NaN.
    """
    for name, kind in {**TYPES, **{part(number): PART for number in range(parts)}}.items():
        path, dtype = folder / name, np.dtype(kind)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            held = file.seek(0, 2)
            if held > rows * dtype.itemsize:
                file.truncate(rows * dtype.itemsize)
            elif held < rows * dtype.itemsize:
                file.write(np.full(rows - held // dtype.itemsize, np.nan, dtype).tobytes())
            file.seek(rows * dtype.itemsize)
            file.write(_stored(values[name], dtype).tobytes())


def _stored(values: Sequence[Any], dtype: np.dtype[Any]) -> Column:
    """Values as they are stored; a number that is too large for its column is the largest that fits."""
    if dtype.kind not in "iu" or dtype.itemsize == 8:
        return np.asarray(values, dtype)
    limits = np.iinfo(dtype)
    fitting: Column = np.clip(np.asarray(values, "<i8"), limits.min, limits.max).astype(dtype)
    return fitting


def open_columns(folder: Path, rows: int, parts: int) -> dict[str, Column]:
    """The first `rows` rows of every column, read-only."""
    found: dict[str, Column] = {}
    for name, kind in {**TYPES, **{part(number): PART for number in range(parts)}}.items():
        empty = np.empty(0, kind)
        found[name] = np.memmap(folder / name, kind, "r", shape=(rows,)) if rows else empty
    return found


def part(number: int) -> str:
    """The column of a part of rewards."""
    return f"part-{number}"
