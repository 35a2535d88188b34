"""Reads the questions of any file of tasks or of a benchmark, to compare others with: no answers, no environments."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recall.datasets.rows import iter_tasks
from recall.datasets.sets import is_set
from recall.errors import ConfigError

_FIELDS = ("question", "query", "instruction", "prompt")


def iter_questions(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each question with the names of the tools that come with it.

    Args:
        path: a set, a parquet file of tasks, or JSON lines: task rows, or objects that name their question `question`,
            `query`, `instruction` or `prompt`, and their tools `tools` or `functions`, where they have any.

    Raises:
        ConfigError: the file cannot be read, or a line has no question.
    """
    if is_set(path) or path.suffix == ".parquet":
        for task in iter_tasks(path, parse_env=False):
            yield task.question, tuple(tool.name for tool in task.tools)
        return
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _question(line, f"{path} row {number}")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read: {fault}") from None


def _question(line: str, where: str) -> tuple[str, tuple[str, ...]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"{where}: not JSON: {fault}") from None
    texts = [row[name] for name in _FIELDS if isinstance(row.get(name), str)] if isinstance(row, Mapping) else []
    if not texts:
        raise ConfigError(f"{where}: no question; accepted: an object with {', '.join(_FIELDS)}")
    info = _decoded(row.get("extra_info"))
    inner = isinstance(info, Mapping)
    schemas = _decoded(info.get("func_schemas")) if inner else row.get("tools", row.get("functions"))
    return texts[0], tuple(_names(schemas))


def _names(schemas: Any) -> Iterator[str]:
    for schema in schemas if isinstance(schemas, list) else ():
        inner = schema.get("function", schema) if isinstance(schema, Mapping) else None
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            yield inner["name"]


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
