"""Reads what the index points at: trajectories as JSON, whole groups, with the task of the group's first line.

Nothing is refused for being odd: what a line lacks is left out, and the page says so.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recall.viewer.index.frames import read_lines
from recall.viewer.index.index import Snapshot


def group_rows(index: Snapshot, row: int) -> list[int]:
    """The rows of the group of a row, in the order written."""
    file = index.file(row)
    groups = index.columns["group"][file.first : file.first + file.rows]
    return [file.first + int(at) for at in np.flatnonzero(groups == index.columns["group"][row])]


def trajectories(index: Snapshot, rows: Sequence[int]) -> list[dict[str, Any]]:
    """The lines of some rows of one group, each with all that is known of its task; non-finite numbers become None.

    Raises:
        OSError: the file is gone, or is no longer what was indexed.
        ValueError: a line is not JSON.
    """
    first = group_rows(index, rows[0])[0]
    places = [index.place(row) for row in (first, *rows)]
    path = index.path / "trajectories" / index.file(first).name
    head, *lines = [finite(json.loads(line)) for line in read_lines(path, places)]
    task = head.get("task") if isinstance(head.get("task"), dict) else {}
    for line in lines:
        own = line.get("task") if isinstance(line.get("task"), dict) else {}
        line["task"] = {**task, **own}
    return lines


def finite(value: Any) -> Any:
    """`value` with every infinity and NaN as None, which is what JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        if value and isinstance(value[0], int):  # token ids, the bulk of a line
            return value
        return [finite(each) for each in value]
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return value
