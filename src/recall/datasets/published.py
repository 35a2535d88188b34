"""Writes tasks as rows of the published data, five columns and nothing else, for trainers that know no others.

What such a row cannot say is lost: the answer's type, the reference program, the split, and what the generator knows.
"""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recall.datasets.row import row_from_task
from recall.errors import ConfigError
from recall.types import Task

_BATCH_ROWS = 256


def published_row(task: Task) -> dict[str, Any]:
    """The row of a task with the published columns and fields alone.

    Raises:
        ConfigError: the task has no answer, or holds what JSON or UTF-8 cannot say.
    """
    if not task.ground_truth:
        raise ConfigError(f"task {task.id!r}: has no answer, and published rows are about nothing else")
    row = row_from_task(task)
    info = row["extra_info"]
    return {
        "data_source": row["data_source"],
        "question": row["question"],
        "ability": "re_call",
        "reward_model": {"style": "rule", "ground_truth": list(task.ground_truth)},
        "extra_info": {"id": info["id"], "env": info["env"], "func_schemas": info["func_schemas"]},
    }


def write_published(path: Path, tasks: Iterable[Task]) -> int:
    """Write a parquet or JSONL file, whole or not at all, and return the number of rows.

    Raises:
        ConfigError: the suffix is unknown, or a task cannot be said in such a row.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"{path}: unknown suffix {path.suffix!r}; accepted: .parquet, .jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        rows = (published_row(task) for task in tasks)
        written = (_write_parquet if path.suffix == ".parquet" else _write_jsonl)(temporary, rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    schema = pyarrow.schema(
        {
            "data_source": text,
            "question": text,
            "ability": text,
            "reward_model": pyarrow.struct({"style": text, "ground_truth": pyarrow.list_(text)}.items()),
            "extra_info": pyarrow.struct({"id": text, "env": text, "func_schemas": text}.items()),
        }
    )
    written = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    return written
