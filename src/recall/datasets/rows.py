"""Files and sets of task rows, in parquet and JSONL. What stands in a row is `datasets/row.py`'s business."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recall.datasets.row import row_from_task, task_from_row
from recall.datasets.sets import is_set, shard_files
from recall.errors import ConfigError
from recall.types import Task

SUFFIXES = (".parquet", ".jsonl")
"""The file formats of task rows."""

_BATCH_ROWS = 256


def read_tasks(
    path: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
    parse_env: bool = True,
) -> list[Task]:
    """Read every task of a file or a set; see `iter_tasks`."""
    return list(iter_tasks(path, skip_bad=skip_bad, on_skip=on_skip, parse_env=parse_env))


def iter_tasks(
    path: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    on_skip: Callable[[str], None] | None = None,
    parse_env: bool = True,
) -> Iterator[Task]:
    """Read the tasks of a file one by one, in file order, or those of all files of a set.

    Args:
        path: a parquet or JSONL file, whose suffix tells the format; the directory of a set; or that directory and the
            name of a split. Of a set, every file is held against its checksum first, and one file at a time is read.
        skip_bad: leave bad rows out instead of raising. A file that cannot be read at all raises all the same.
        on_skip: called with one line for every row left out.
        parse_env: parse every environment and look the tools up in it. Without, rows are read some times faster; it is
            for rows that were checked before.

    Raises:
        ConfigError: a file cannot be read, or a row is bad. Rows count from 1; a JSONL row is its line.
    """
    path = Path(path)
    skip = (on_skip or _silently) if skip_bad else None
    if not is_set(path):
        yield from _tasks_of(path, skip, set(), parse_env=parse_env)
        return
    taken: set[int] = set()
    for file in shard_files(path):
        yield from _tasks_of(file, skip, taken, parse_env=parse_env)


def write_tasks(path: str | os.PathLike[str], tasks: Iterable[Task]) -> None:
    """Write tasks as a parquet or JSONL file, whole or not at all.

    Raises:
        ConfigError: the suffix is unknown, or a task holds what JSON or UTF-8 cannot say.
    """
    path = Path(path)
    write = _write_parquet if _suffix(path) == ".parquet" else _write_jsonl
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary, (row_from_task(task) for task in tasks))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _tasks_of(path: Path, skip: Callable[[str], None] | None, taken: set[int], *, parse_env: bool) -> Iterator[Task]:
    """The tasks of one file. `taken` gathers hashes of the ids met: the texts of a million would fill the memory."""
    rows = _parquet_rows(path) if _suffix(path) == ".parquet" else _jsonl_rows(path)
    here: dict[int, str] = {}
    for where, row in rows:
        try:
            task = task_from_row(_decoded(row, where) if isinstance(row, bytes) else row, where, parse_env=parse_env)
            key = hash((task.data_source, task.id))
            if key in taken:
                first = here.get(key, "an earlier file of the set")
                raise ConfigError(
                    f"{where}: extra_info.id: {task.id!r} is taken by {first}; ids are unique in a data_source"
                )
        except ConfigError as fault:
            if skip is None:
                raise
            skip(str(fault))
            continue
        taken.add(key)
        here[key] = where
        yield task


def _silently(line: str) -> None:
    """Say nothing of a row that is left out."""


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: unknown suffix {path.suffix!r}; accepted: {', '.join(SUFFIXES)}")
    return path.suffix


def _jsonl_rows(path: Path) -> Iterator[tuple[str, object]]:
    """Undecoded lines with their names, so that a line that is not JSON is one bad row."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield f"{path} row {number}", line
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}") from fault


def _decoded(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as fault:
        raise ConfigError(f"{where}: not JSON: {fault.msg} at column {fault.colno}") from None
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"{where}: not JSON: {fault}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    pyarrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except FileNotFoundError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror or 'no such file'}") from fault
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as fault:
        reason = " ".join(str(fault).split())
        raise ConfigError(f"{path}: not a whole parquet file (after row {number}): {reason}") from fault


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    pyarrow, parquet = _pyarrow()
    text, number = pyarrow.string(), pyarrow.float64()
    info = dict.fromkeys(("id", "env", "func_schemas", "answer_type"), text) | {"tolerance": number, "split": text}
    info |= dict.fromkeys(("depth", "max_calls"), pyarrow.int64())
    info |= dict.fromkeys(("kind", "reference", "changes", "extra"), text)
    schema = pyarrow.schema(
        {
            "data_source": text,
            "question": text,
            "ability": text,
            "reward_model": pyarrow.struct(
                {"style": text, "ground_truth": pyarrow.list_(text), "reward": text}.items()
            ),
            "extra_info": pyarrow.struct(info.items()),
        }
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as fault:
        raise ConfigError("parquet files need pyarrow: install recall[data]") from fault
    return pyarrow, parquet
