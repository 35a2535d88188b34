"""Reads whole files of trajectories for the index, several at once where there are many.

A file is read as chunks of columns, since columns go from one process to another, and into the index, faster than rows.
"""

import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recall.store import FORMAT, VERSION
from recall.viewer.index.frames import Ending, Place, iter_lines
from recall.viewer.index.rows import Row, decode

BATCH = 4096
"""Rows of a chunk at most."""
MANY_BYTES = 16 << 20
"""Bytes of files, compressed, from which on other processes help."""
LARGE_BYTES = 24 << 20
"""Bytes of a file, compressed, from which on it is read chunk by chunk in this process, because of memory."""
WORKERS = 4
"""Processes that help at most; never more than there are processors."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one file."""

    step: int
    split: str
    count: int
    places: Sequence[Sequence[int]]
    """[3][count] the fields of `Place`."""
    fields: Mapping[str, Sequence[Any]]
    """[count] by field of `Row`."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of a file when it has been read."""

    step: int
    split: str
    problem: str
    """What is wrong with it, in words; empty when nothing is."""


def read_files(files: Sequence[tuple[Path, os.stat_result]]) -> Iterator[Iterator[Chunk | Told]]:
    """The chunks of each file in turn, and what is said of it."""
    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    if workers == 1 or sum(stat.st_size for _, stat in files) < MANY_BYTES:
        yield from (read_file(path) for path, _ in files)
        return
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")  # a server has threads, and a fork would copy their locks
    with ProcessPoolExecutor(workers, spawn, initializer=_humble) as pool:
        ahead: deque[Future[list[Chunk | Told]] | None] = deque()
        todo = iter(files)
        for path, _ in files:
            while len(ahead) < 2 * workers and (following := next(todo, None)) is not None:
                large = following[1].st_size >= LARGE_BYTES
                ahead.append(None if large else pool.submit(_whole, following[0]))
            first = ahead.popleft()
            yield read_file(path) if first is None else iter(first.result())


def read_file(path: Path) -> Iterator[Chunk | Told]:
    """The chunks of a file, and in the end what is said of it. A file that is odd is read as far as it goes."""
    step, split, problem = _step(path), _split(path), ""
    ending, bad, missing, count = Ending(), 0, "", 0
    announced: int | None = None
    held: list[tuple[Place, Row]] = []
    try:
        for number, (place, line) in enumerate(iter_lines(path, ending)):
            if number == 0:
                step, split, announced, problem = _header(line, step, split)
                if announced == -1:
                    break
                continue
            try:
                row = decode(line)
            except (ValueError, TypeError, AttributeError, RecursionError):
                bad += 1
                continue
            missing = missing or row.missing
            count += 1
            held.append((place, row))
            if len(held) == BATCH:
                yield _chunk(held, step, split)
                held = []
    except OSError as error:
        ending.problem = f"cannot be read: {error.strerror or error}"
    if held:
        yield _chunk(held, step, split)
    notes = [problem, ending.problem]
    notes += [f"{bad} of its lines could not be read"] if bad else []
    notes += [f"is of an earlier version, whose lines have no {missing!r}"] if missing else []
    if announced not in (None, -1, count + bad) and not ending.problem:
        notes.append(f"has {count} trajectories and announces {announced}")
    yield Told(step, split, "; ".join(note for note in notes if note))


def _whole(path: Path) -> list[Chunk | Told]:
    return list(read_file(path))


def _humble() -> None:
    """Let whoever trains on this machine go first."""
    os.nice(10)


def _chunk(held: Sequence[tuple[Place, Row]], step: int, split: str) -> Chunk:
    places = tuple(zip(*(place for place, _ in held), strict=True))
    fields = dict(zip(Row._fields, zip(*(row for _, row in held), strict=True), strict=True))
    return Chunk(step, split, len(held), places, fields)


def _header(line: bytes, step: int, split: str) -> tuple[int, str, int | None, str]:
    """Step, split, announced trajectories (-1: read nothing of it) and what is odd about the first line."""
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return step, split, -1, "is not a trajectories file"
    version, told = header.get("version"), header.get("trajectories")
    if isinstance(version, int) and version > VERSION:
        return step, split, -1, f"is of version {version}, and this ReCall reads up to {VERSION}; update ReCall"
    note = "" if version == VERSION else f"is of version {version!r}, before {VERSION}; what it lacks is left empty"
    step = header["step"] if isinstance(header.get("step"), int) else step
    split = header["split"] if isinstance(header.get("split"), str) else split
    return step, split, told if isinstance(told, int) and told >= 0 else None, note


def _step(path: Path) -> int:
    return int(re.findall(r"\d+", path.name)[0])


def _split(path: Path) -> str:
    return path.name.removesuffix(".jsonl.zst").partition("-")[2].partition("-")[2] or "train"
