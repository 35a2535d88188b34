"""Asks the index: which trajectories, in which order, and how they are spread. The terminal and the page ask the same.

Numbers are compared in whole columns; words are looked up in the full-text index. Nothing here reads trajectories.
"""

import math
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError
from recall.viewer.index import columns
from recall.viewer.index.index import MANY_TOOLS, Snapshot
from recall.viewer.index.rows import STATUSES, STOPS

Mask = NDArray[np.bool_]

RANGES = (
    "step",
    "reward",
    "advantage",
    "depth",
    "turns",
    "calls",
    "failed",
    "tokens",
    "sampled",
    "logprob",
    "duration",
)
"""Filters that take a number or a range."""
_COLUMN = {"reward": "score"}
SORTS = (*RANGES, "tools_s", "slowest_s", "malformed")
"""What trajectories are sorted by; parts of rewards come on top, as `part:NAME`."""
MAX_FOUND = 30_000
"""Trajectories that a search of words finds at most: the newest ones between the first and the last that the other
filters let through."""


class Filter(Settings):
    """Which trajectories. What is empty lets everything through; ranges are `3`, `3..7`, `..7` or `3..`."""

    step: str = ""
    """Steps, such as 12 or 10..20."""
    split: str = ""
    """The split."""
    correct: bool | None = None
    """Only right ones, or only wrong ones."""
    reward: str = ""
    """A range of rewards."""
    part: tuple[str, ...] = ()
    """Ranges of parts of the reward, such as format=0.1 or f1=0.5.. ."""
    advantage: str = ""
    """A range of advantages."""
    stop: tuple[str, ...] = ()
    """Why the episode ended, such as max_tokens."""
    kind: tuple[str, ...] = ()
    """The kind of task."""
    depth: str = ""
    """Calls of the reference program."""
    tool: tuple[str, ...] = ()
    """Tools that were called, each of them."""
    status: tuple[str, ...] = ()
    """How at least one call ended, such as timeout or malformed; any of them."""
    failed: str = ""
    """A range of calls that failed."""
    turns: str = ""
    """A range of turns."""
    calls: str = ""
    """A range of calls."""
    tokens: str = ""
    """A range of tokens, prompt and results included."""
    sampled: str = ""
    """A range of sampled tokens."""
    logprob: str = ""
    """A range of the mean log-probability of sampled tokens, in nats."""
    duration: str = ""
    """A range of seconds of the episode."""
    fault: bool | None = None
    """Only those with a fault of ours, or only those without."""
    task: str = ""
    """The task with this id."""
    text: str = ""
    """Words that the policy, a tool or the question said; "two words" in quotes stand together."""
    sort: str = ""
    """What to sort by, the highest first with a - before it: reward, -tokens, part:format."""
    start: int = Field(default=0, ge=0)
    """The first one of those found."""
    limit: int = Field(default=50, ge=1, le=1000)
    """At most so many."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a filter found."""

    total: int
    """Trajectories that match."""
    rows: list[int]
    """The rows of those asked for, in order."""
    mask: Mask
    """[rows] what matches."""
    cut: bool = False
    """Whether a search of words found more than are looked at."""


def find(index: Snapshot, wanted: Filter) -> Found:
    """The trajectories that match, sorted: by step, newest last, where nothing else is said.

    Raises:
        ConfigError: a range, a name or the words cannot be understood; the message names the filter.
    """
    mask, cut = matching(index, wanted)
    rows = np.flatnonzero(mask)
    total = len(rows)
    if wanted.sort:
        rows = _sorted(index, rows, wanted.sort, wanted.start + wanted.limit)
    elif total and not _in_order(index):
        rows = rows[np.argsort(index.columns["step"][rows], kind="stable")]
    return Found(total, rows[wanted.start : wanted.start + wanted.limit].tolist(), mask, cut)


def matching(index: Snapshot, wanted: Filter) -> tuple[Mask, bool]:
    """Which rows match, and whether a search of words was cut short."""
    mask = alive(index)
    for name in RANGES:
        text = getattr(wanted, name)
        if text:
            mask &= _between(index.columns[_COLUMN.get(name, name)], text, name)
    for text in wanted.part:
        name, equals, span = text.partition("=")
        if not equals or name not in index.parts:
            raise ConfigError(f"part: {text!r} is not accepted; it takes NAME=RANGE, and here are {_some(index.parts)}")
        mask &= _between(index.columns[columns.part(index.parts.index(name))], span, f"part {name}")
    for name in ("correct", "fault"):
        value = getattr(wanted, name)
        if value is not None:
            mask &= index.columns[name] == int(value)
    if wanted.split:
        mask &= index.columns["split"] == _one(wanted.split, index.splits, "split")
    if wanted.stop:
        mask &= np.isin(index.columns["stop"], [_one(each, STOPS, "stop") for each in wanted.stop])
    if wanted.kind:
        mask &= np.isin(index.columns["kind"], [_one(each, index.kinds, "kind") for each in wanted.kind])
    for tool in wanted.tool:
        mask &= _calling(index, _one(tool, index.tools, "tool"))
    if wanted.status:
        bits = sum(1 << _one(each, STATUSES, "status") for each in set(wanted.status))
        mask &= (index.columns["statuses"] & bits) != 0
    if wanted.task:
        mask &= index.columns["task"] == task_number(index, wanted.task)
    if not wanted.text:
        return mask, False
    said, cut = _saying(index, wanted.text, np.flatnonzero(mask))
    return mask & said, cut


def alive(index: Snapshot) -> Mask:
    """[rows] which ones are of files that are still there."""
    mask = np.ones(index.rows, bool)
    for file in index.files:
        if not file.alive:
            mask[file.first : file.first + file.rows] = False
    return mask


def task_number(index: Snapshot, name: str) -> int:
    """The number of a task in the index; -1 for one that no trajectory is of."""
    with index.database() as database:
        found = database.execute("select id from task where name = ?", (name,)).fetchone()
    return -1 if found is None else int(found[0])


def last_of_tasks(index: Snapshot, names: Sequence[str]) -> dict[str, int]:
    """The row of the latest trajectory of each task, by the task's name; tasks that were not played are left out."""
    with index.database() as database:
        known = dict(database.execute("select id, name from task"))
    rows = np.flatnonzero(alive(index))
    rows = rows[np.argsort(index.columns["step"][rows], kind="stable")]
    last = dict(zip(index.columns["task"][rows].tolist(), rows.tolist(), strict=True))
    wanted = set(names)
    return {known[task]: row for task, row in last.items() if known.get(task) in wanted}


def facets(index: Snapshot, mask: Mask) -> dict[str, dict[str, int]]:
    """How many of the trajectories there are by split, kind, stop reason, status of a call, tool and outcome."""
    found: dict[str, dict[str, int]] = {}
    for what, names in (("split", index.splits), ("kind", index.kinds), ("stop", (*STOPS, "other"))):
        counts = np.bincount(index.columns[what][mask], minlength=len(names))
        found[what] = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
    statuses, tools = index.columns["statuses"][mask], index.columns["tools"][mask]
    found["status"] = {
        name: count for at, name in enumerate(STATUSES) if (count := int(np.count_nonzero(statuses & (1 << at))))
    }
    found["tool"] = {
        name: count
        for at, name in enumerate(index.tools[:MANY_TOOLS])
        if (count := int(np.count_nonzero(tools & np.uint64(1 << at))))
    }
    right = int(np.count_nonzero(index.columns["correct"][mask]))
    found["correct"] = {"true": right, "false": int(np.count_nonzero(mask)) - right}
    return found


def brief(index: Snapshot, rows: Sequence[int]) -> list[dict[str, Any]]:
    """What a list shows of some rows, as JSON values."""
    if not rows:
        return []
    marks = ",".join("?" * len(rows))
    tasks = {int(index.columns["task"][row]) for row in rows}
    with index.database() as database:
        short = {
            row: (answer, problem)
            for row, answer, problem in database.execute(f"select * from short where id in ({marks})", list(rows))
        }
        asked = {
            number: (name, question)
            for number, name, question in database.execute(
                f"select id, name, question from task where id in ({','.join('?' * len(tasks))})", list(tasks)
            )
        }
    return [_brief(index, row, *short.get(row, ("", "")), *asked[int(index.columns["task"][row])]) for row in rows]


def _brief(index: Snapshot, row: int, answer: str, problem: str, task: str, question: str) -> dict[str, Any]:
    def number(name: str, digits: int = 6) -> float | None:
        value = float(index.columns[name][row])
        return round(value, digits) if math.isfinite(value) else None

    stop = int(index.columns["stop"][row])
    bits = int(index.columns["tools"][row])
    return {
        "row": row,
        **{name: int(index.columns[name][row]) for name in _WHOLE},
        "reward": number("score"),
        **{name: number(name, 4) for name in ("advantage", "logprob", "duration", "tools_s", "slowest_s")},
        "split": index.splits[int(index.columns["split"][row])],
        "kind": index.kinds[int(index.columns["kind"][row])],
        "correct": bool(index.columns["correct"][row]),
        "fault": bool(index.columns["fault"][row]),
        "stop": STOPS[stop] if stop < len(STOPS) else "other",
        "tools": [name for at, name in enumerate(index.tools[:MANY_TOOLS]) if bits >> at & 1],
        "parts": {
            name: value for at, name in enumerate(index.parts) if (value := number(columns.part(at))) is not None
        },
        "task": task,
        "question": question[:400],
        "answer": answer,
        "problem": problem,
    }


_WHOLE = ("step", "group", "depth", "turns", "calls", "failed", "malformed", "tokens", "sampled")


def _between(column: columns.Column, text: str, name: str) -> Mask:
    low, dots, high = text.partition("..")
    try:
        least = float(low) if low else -math.inf
        most = (float(high) if high else math.inf) if dots else least
    except ValueError:
        least = most = math.nan
    if math.isnan(least) or math.isnan(most):
        raise ConfigError(f"{name}: {text!r} is not accepted; it takes a number, or a range such as 3..7, ..7 or 3..")
    if column.dtype == np.float32:
        # 0.1 is not the nearest float32; what was written as 0.1 has to be found as 0.1.
        least, most = float(np.float32(least)), float(np.float32(most))
    found: Mask = (column >= least) & (column <= most)
    return found


def _calling(index: Snapshot, tool: int) -> Mask:
    if tool < MANY_TOOLS:
        found: Mask = (index.columns["tools"] & np.uint64(1 << tool)) != 0
        return found
    with index.database() as database:
        rows = database.execute("select row from called where tool = ?", (tool,)).fetchall()
    mask = np.zeros(index.rows, bool)
    mask[[row for (row,) in rows if row < index.rows]] = True
    return mask


def _one(text: str, names: Sequence[str], what: str) -> int:
    if text not in names:
        raise ConfigError(f"{what}: {text!r} is not accepted; here are {_some(names)}")
    return names.index(text)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


def _in_order(index: Snapshot) -> bool:
    steps = [file.step for file in index.files]
    return steps == sorted(steps)


def _sorted(index: Snapshot, rows: NDArray[np.int64], text: str, count: int) -> NDArray[np.int64]:
    name = text.removeprefix("-")
    if name.startswith("part:") and name[5:] in index.parts:
        column = columns.part(index.parts.index(name[5:]))
    elif name in SORTS:
        column = _COLUMN.get(name, name)
    else:
        accepted = ", ".join([*SORTS, *(f"part:{part}" for part in index.parts)])
        raise ConfigError(f"sort: {text!r} is not accepted; it takes {accepted}, each with or without a -")
    keys = index.columns[column][rows].astype(float)
    keys = np.where(np.isnan(keys), np.inf, -keys if text.startswith("-") else keys)
    if count < len(rows) // 4:
        # Only the first ones are wanted: all that are not above the last of them, so that equals stay in order.
        bound = np.partition(keys, count)[count]
        chosen = np.flatnonzero(keys <= bound)
        rows, keys = rows[chosen], keys[chosen]
    return rows[np.argsort(keys, kind="stable")]


def _saying(index: Snapshot, text: str, among: NDArray[np.int64]) -> tuple[Mask, bool]:
    query = match_query(text)
    mask = np.zeros(index.rows, bool)
    if not len(among):
        return mask, False
    with index.database() as database:
        try:
            said = database.execute(
                "select rowid from said where said match ? and rowid between ? and ? order by rowid desc limit ?",
                (query, int(among[0]), int(among[-1]), MAX_FOUND),
            ).fetchall()
            asked = database.execute("select rowid from asked where asked match ?", (query,)).fetchall()
        except sqlite3.OperationalError as error:
            raise ConfigError(f"text: {text!r} cannot be searched for: {error}") from error
    found = np.fromiter((row for (row,) in said), np.int64, len(said))
    mask[found[found < index.rows]] = True
    if asked:
        mask |= np.isin(index.columns["task"], [number for (number,) in asked])
    return mask, len(said) == MAX_FOUND


def match_query(text: str) -> str:
    """What a user typed as a query: all its words, quoted ones together; the last one may be the beginning of a word.

    Raises:
        ConfigError: there is no word in it.
    """
    found = re.findall(r'"([^"]*)"|(\S+)', text)
    words = [(quoted or bare).replace('"', "") for quoted, bare in found]
    words = [word for word in words if re.search(r"\w", word)]
    if not words:
        raise ConfigError(f"text: {text!r} has no word in it")
    return " ".join(f'"{word}"' for word in words[:-1]) + f' "{words[-1]}"' + ("" if text.endswith('"') else "*")
