"""Task rows on disk: the published ReCall row, its variants and our optional fields, in parquet and JSONL.

A row that cannot be used is refused here, by file, row and field, so that training never meets it. Environments are
parsed, never run. `docs/tasks.md` describes the row field by field.
"""

import ast
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from recall import answers
from recall.environment import CHANGES
from recall.errors import ConfigError
from recall.programs import OPERATIONS
from recall.rewards import NAMED
from recall.types import AnswerKind, AnswerType, Task, ToolSpec

SUFFIXES = (".parquet", ".jsonl")
"""The file formats of task rows."""

_COLUMNS = frozenset({"data_source", "question", "ability", "reward_model", "extra_info"})
_FIELDS = frozenset(
    {"id", "env", "func_schemas", "answer_type", "tolerance", "split", "depth", "kind", "reference", "changes", "extra"}
)
_BATCH_ROWS = 256
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def read_tasks(
    path: str | os.PathLike[str], *, skip_bad: bool = False, on_skip: Callable[[str], None] | None = None
) -> list[Task]:
    """Read every task of a file; see `iter_tasks`."""
    return list(iter_tasks(path, skip_bad=skip_bad, on_skip=on_skip))


def iter_tasks(
    path: str | os.PathLike[str], *, skip_bad: bool = False, on_skip: Callable[[str], None] | None = None
) -> Iterator[Task]:
    """Read the tasks of a parquet or JSONL file one by one, in file order.

    Args:
        path: the file; its suffix tells the format.
        skip_bad: leave bad rows out instead of raising. A file that cannot be read at all raises all the same.
        on_skip: called with one line for every row left out.

    Raises:
        ConfigError: the file cannot be read, or a row is bad. Rows count from 1; a JSONL row is its line.
    """
    path = Path(path)
    rows = _parquet_rows(path) if _suffix(path) == ".parquet" else _jsonl_rows(path)
    seen: dict[tuple[str, str], str] = {}
    for where, row in rows:
        try:
            task = task_from_row(_decoded(row, where) if isinstance(row, bytes) else row, where)
            first = seen.setdefault((task.data_source, task.id), where)
            if first is not where:
                raise _bad(where, "extra_info.id", f"{task.id!r} is taken by {first}; ids are unique in a data_source")
        except ConfigError as fault:
            if not skip_bad:
                raise
            if on_skip is not None:
                on_skip(str(fault))
            continue
        yield task


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


def task_from_row(row: object, where: str) -> Task:
    """Build a task from one decoded row.

    Args:
        row: the row, as a mapping; nested fields may be mappings, JSON text, lists or arrays.
        where: what to call the row in an error, such as `tasks.jsonl row 3`.

    Raises:
        ConfigError: the row is bad; the message names the field and what is accepted.
    """
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where}: must be an object, not {type(row).__name__}")
    info = _object(row.get("extra_info"), where, "extra_info")
    reward_model = _object(row.get("reward_model"), where, "reward_model")
    answer_type = _answer_type(info, where)
    env = _text(info.get("env"), where, "extra_info.env")
    changes = _changes(info.get("changes"), where)
    tools = _tools(info.get("func_schemas"), env, where)
    if changes is not None and CHANGES not in _functions(env):
        raise _bad(where, "extra_info.env", f"defines no function {CHANGES}, which extra_info.changes needs")
    return Task(
        id=_id(info, where),
        question=_text(row.get("question"), where, "question"),
        ground_truth=_ground_truth(
            reward_model.get("ground_truth"), answer_type.kind, where, optional=changes is not None
        ),
        env=env,
        tools=tools,
        answer_type=answer_type,
        data_source=_text(row.get("data_source"), where, "data_source", default=""),
        ability=_text(row.get("ability"), where, "ability", default="re_call"),
        split=_text(info.get("split"), where, "extra_info.split", default=""),
        depth=_depth(info.get("depth"), where),
        kind=_text(info.get("kind"), where, "extra_info.kind", default=""),
        reference=_reference(info.get("reference"), where),
        changes=changes,
        reward=_reward(reward_model.get("reward"), where),
        extra=_extra(row, info, where),
    )


def row_from_task(task: Task) -> dict[str, Any]:
    """The row of a task, in the published format with our optional fields; `task_from_row` reads the same task back.

    Raises:
        ConfigError: the task holds what JSON or UTF-8 cannot say.
    """
    where = f"task {task.id!r}"
    schemas = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in task.tools
    ]
    row = {
        "data_source": task.data_source,
        "question": task.question,
        "ability": task.ability,
        "reward_model": {"style": "rule", "ground_truth": list(task.ground_truth), "reward": task.reward or None},
        "extra_info": {
            "id": task.id,
            "env": task.env,
            "func_schemas": _dump(schemas, where, "tools"),
            "answer_type": task.answer_type.kind,
            "tolerance": task.answer_type.tolerance,
            "split": task.split,
            "depth": task.depth,
            "kind": task.kind,
            "reference": _dump([dict(call) for call in task.reference], where, "reference"),
            "changes": None if task.changes is None else _dump(dict(task.changes), where, "changes"),
            "extra": _dump(dict(task.extra), where, "extra"),
        },
    }
    _dump(row, where, "row")
    return row


def _bad(where: str, field: str, problem: str) -> ConfigError:
    return ConfigError(f"{where}: {field}: {problem}")


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
    info |= {"depth": pyarrow.int64(), "kind": text, "reference": text, "changes": text, "extra": text}
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


def _plain(value: Any) -> Any:
    """The value without numpy: arrays become lists, scalars Python numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: Any, where: str, field: str, default: str | None = None) -> str:
    """The text of a field; where a default is given the field may be missing or empty."""
    if value is None and default is not None:
        return default
    if value is None:
        raise _bad(where, field, "missing; accepted: text")
    if not isinstance(value, str):
        raise _bad(where, field, f"must be text, not {type(value).__name__}")
    if not value.strip() and default is None:
        raise _bad(where, field, "empty; accepted: text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(where, field, "holds half of a surrogate pair; accepted: text that UTF-8 can say") from None
    return value


def _json(value: Any, where: str, field: str) -> Any:
    """The decoded value of a field that is stored either as JSON text or as what the text would say."""
    value = _plain(value)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as fault:
        raise _bad(where, field, f"not JSON: {fault}") from None


def _object(value: Any, where: str, field: str) -> Mapping[str, Any]:
    if value is None:
        raise _bad(where, field, "missing; accepted: an object, or one as JSON text")
    value = _json(value, where, field)
    if not isinstance(value, Mapping):
        raise _bad(where, field, f"must be an object, or one as JSON text, not {type(value).__name__}")
    return value


def _id(info: Mapping[str, Any], where: str) -> str:
    value = _plain(info.get("id"))
    if value is None:
        value = _plain(info.get("index"))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, where, "extra_info.id")


def _answer_type(info: Mapping[str, Any], where: str) -> AnswerType:
    kind: Any = info.get("answer_type") or "text"
    kinds = get_args(AnswerKind)
    if kind not in kinds:
        raise _bad(where, "extra_info.answer_type", f"unknown {kind!r}; accepted: {', '.join(kinds)}")
    tolerance = _plain(info.get("tolerance"))
    tolerance = 0.0 if tolerance is None else tolerance
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not math.isfinite(tolerance) or tolerance < 0:
        raise _bad(where, "extra_info.tolerance", f"got {tolerance!r}; accepted: a finite number of at least 0")
    return AnswerType(kind=kind, tolerance=float(tolerance))


def _ground_truth(value: Any, kind: AnswerKind, where: str, *, optional: bool) -> tuple[str, ...]:
    field = "reward_model.ground_truth"
    value = _plain(value)
    accepted = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not accepted and optional:
        return ()
    if not accepted:
        raise _bad(where, field, "missing; accepted: text, or a list of texts")
    texts = []
    for answer in accepted:
        answer = _plain(answer)
        # Derived data sets store computed answers as JSON numbers and booleans.
        text = json.dumps(answer) if isinstance(answer, int | float) else answer
        texts.append(_text(text, where, field))
        if answers.value_of(texts[-1], kind) is None:
            raise _bad(where, field, f"{texts[-1]!r} does not read as {kind}, the answer type")
    return tuple(texts)


def _tools(value: Any, env: str, where: str) -> tuple[ToolSpec, ...]:
    field = "extra_info.func_schemas"
    schemas = _json(value, where, field)
    if schemas is None or schemas == []:
        raise _bad(where, field, "no tools; accepted: a list of function schemas, or one as JSON text")
    if not isinstance(schemas, list):
        raise _bad(where, field, f"must be a list, or one as JSON text, not {type(schemas).__name__}")
    try:
        functions = _functions(env)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        line = f", line {fault.lineno}" if isinstance(fault, SyntaxError) and fault.lineno else ""
        problem = fault.msg if isinstance(fault, SyntaxError) else str(fault) or type(fault).__name__
        raise _bad(where, "extra_info.env", f"does not parse as Python: {problem}{line}") from None
    tools = [_tool(schema, where, f"{field}[{i}]") for i, schema in enumerate(schemas)]
    for i, tool in enumerate(tools):
        if tool.name not in functions:
            known = ", ".join(sorted(functions)) or "none"
            raise _bad(where, f"{field}[{i}].name", f"{tool.name!r} is no function of env; it defines: {known}")
        if tool.name == CHANGES:
            raise _bad(where, f"{field}[{i}].name", f"{CHANGES!r} tells what an episode changed and is no tool")
        if tool.name in {earlier.name for earlier in tools[:i]}:
            raise _bad(where, f"{field}[{i}].name", f"{tool.name!r} is listed twice")
    return tuple(tools)


def _tool(schema: Any, where: str, field: str) -> ToolSpec:
    schema = _object(schema, where, field)
    if isinstance(schema.get("function"), Mapping):
        schema = schema["function"]
    parameters = schema.get("parameters")
    parameters = _NO_ARGUMENTS if parameters is None else _json(parameters, where, f"{field}.parameters")
    if not isinstance(parameters, Mapping):
        raise _bad(where, f"{field}.parameters", f"must be a JSON Schema object, not {type(parameters).__name__}")
    return ToolSpec(
        name=_text(schema.get("name"), where, f"{field}.name"),
        description=_text(schema.get("description"), where, f"{field}.description", default=""),
        parameters=_without_nulls(parameters),
    )


def _without_nulls(value: Any) -> Any:
    """Drop null members: a parquet struct gives every tool the parameters of all the others, as nulls."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=16)
def _functions(source: str) -> frozenset[str]:
    """The names that the source binds at its top level, where tools are looked up. Cached: rows often share one env."""
    with warnings.catch_warnings():
        # Warnings about the source (an invalid escape, say) are not about the row.
        warnings.simplefilter("ignore")
        return frozenset(_bound(ast.parse(source)))


def _bound(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child.name
        elif isinstance(child, ast.Assign):
            yield from (target.id for target in child.targets if isinstance(target, ast.Name))
        elif isinstance(child, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in child.names)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case) and not isinstance(child, ast.ClassDef):
            yield from _bound(child)


def _depth(value: Any, where: str) -> int:
    value = _plain(value)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise _bad(where, "extra_info.depth", f"got {value!r}; accepted: a number of calls, 0 when unknown")
    return value


def _reference(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    field = "extra_info.reference"
    calls = _json(value, where, field)
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise _bad(where, field, f"must be a list of calls, or one as JSON text, not {type(calls).__name__}")
    for i, item in enumerate(calls):
        problem: str | None = 'must be a call {"name": text, "arguments": object}, or a value {"value": …}'
        if isinstance(item, Mapping):
            value = "value" in item and not {"name", "arguments"} & item.keys()
            call = isinstance(item.get("name"), str) and isinstance(item.get("arguments"), Mapping)
            problem = _misfit(item["value"] if value else item["arguments"], i) if value or call else problem
        if problem is not None:
            raise _bad(where, f"{field}[{i}]", problem)
    return tuple(calls)


def _misfit(expression: Any, before: int) -> str | None:
    """What is wrong with an expression of a reference program that has `before` items before it; None if nothing is."""
    if isinstance(expression, Mapping) and "$ref" in expression:
        item = expression["$ref"]
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < before:
            return f"$ref: got {item!r}; accepted: the number of an earlier item, from 0"
    elif isinstance(expression, Mapping) and "$op" in expression:
        if expression["$op"] not in OPERATIONS:
            return f"$op: unknown {expression['$op']!r}; accepted: {', '.join(OPERATIONS)}"
        return _misfit(expression.get("of"), before)
    elif isinstance(expression, Mapping | list):
        parts = expression.values() if isinstance(expression, Mapping) else expression
        return next((problem for part in parts if (problem := _misfit(part, before)) is not None), None)
    return None


def _changes(value: Any, where: str) -> Mapping[str, Any] | None:
    field = "extra_info.changes"
    if value is None:
        return None
    changes = _object(value, where, field)
    for path in changes:
        if not isinstance(path, str) or not all(path.split("/")):
            raise _bad(where, field, f"{path!r} is no path; accepted: names between slashes, such as orders/O17/status")
    return dict(changes)


def _reward(value: Any, where: str) -> str:
    name = _text(value, where, "reward_model.reward", default="")
    if name and name not in NAMED:
        raise _bad(where, "reward_model.reward", f"unknown {name!r}; accepted: {', '.join(NAMED)}, or none")
    return name


def _extra(row: Mapping[str, Any], info: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the row carries beyond the fields that we know; of equal names the innermost counts."""
    inner = info.get("extra")
    columns = {key: _plain(value) for key, value in row.items() if key not in _COLUMNS and value is not None}
    fields = {key: _plain(value) for key, value in info.items() if key not in _FIELDS and value is not None}
    if info.get("id") is None:
        fields.pop("index", None)
    return columns | fields | dict({} if inner is None else _object(inner, where, "extra_info.extra"))


def _dump(value: Any, where: str, field: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as fault:
        raise _bad(where, field, f"cannot be written as JSON: {fault}") from None
    return text
