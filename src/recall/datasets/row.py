"""One row of task data and the task that it says: the published ReCall row, its variants and our optional fields.

A row that cannot be used is refused here, by row and field, so that training never meets it. Environments are parsed,
never run. `docs/tasks.md` describes the row field by field.
"""

import ast
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, get_args

from recall import answers
from recall.environment import CHANGES
from recall.errors import ConfigError
from recall.programs import OPERATIONS
from recall.rewards import NAMED
from recall.types import AnswerKind, AnswerType, Task, ToolSpec

_COLUMNS = frozenset({"data_source", "question", "ability", "reward_model", "extra_info"})
_FIELDS = frozenset(
    {"id", "env", "func_schemas", "answer_type", "tolerance", "split", "depth", "max_calls", "kind", "reference"}
    | {"changes", "extra"}
)
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


def task_from_row(row: object, where: str, *, parse_env: bool = True) -> Task:
    """Build a task from one decoded row.

    Args:
        row: the row, as a mapping; nested fields may be mappings, JSON text, lists or arrays.
        where: what to call the row in an error, such as `tasks.jsonl row 3`.
        parse_env: parse the environment and look the tools up in it.

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
    tools = _tools(info.get("func_schemas"), where)
    if parse_env:
        _check_env(env, tools, where, stateful=changes is not None)
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
        depth=_calls(info.get("depth"), where, "depth", "a number of calls, 0 when unknown") or 0,
        max_calls=_calls(info.get("max_calls"), where, "max_calls", "the number of calls that an episode may make"),
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
    columns = {
        "data_source": task.data_source,
        "question": task.question,
        "ability": task.ability,
        "reward_model": {"style": "rule", "ground_truth": list(task.ground_truth), "reward": task.reward or None},
    }
    facts = {
        "answer_type": task.answer_type.kind,
        "tolerance": task.answer_type.tolerance,
        "split": task.split,
        "depth": task.depth,
        "max_calls": task.max_calls,
        "kind": task.kind,
    }
    _dump({**columns, "id": task.id, **facts}, where, "row")  # without what is long and looked at by itself
    info = {
        "id": task.id,
        "env": _encodable(task.env, where, "env"),
        "func_schemas": _dump(schemas, where, "tools"),
        **facts,
        "reference": _dump([dict(call) for call in task.reference], where, "reference"),
        "changes": None if task.changes is None else _dump(dict(task.changes), where, "changes"),
        "extra": _dump(dict(task.extra), where, "extra"),
    }
    return {**columns, "extra_info": info}


def _bad(where: str, field: str, problem: str) -> ConfigError:
    return ConfigError(f"{where}: {field}: {problem}")


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


def _tools(value: Any, where: str) -> tuple[ToolSpec, ...]:
    field = "extra_info.func_schemas"
    schemas = _json(value, where, field)
    if schemas is None or schemas == []:
        raise _bad(where, field, "no tools; accepted: a list of function schemas, or one as JSON text")
    if not isinstance(schemas, list):
        raise _bad(where, field, f"must be a list, or one as JSON text, not {type(schemas).__name__}")
    tools = [_tool(schema, where, f"{field}[{i}]") for i, schema in enumerate(schemas)]
    for i, tool in enumerate(tools):
        if tool.name == CHANGES:
            raise _bad(where, f"{field}[{i}].name", f"{CHANGES!r} tells what an episode changed and is no tool")
        if tool.name in {earlier.name for earlier in tools[:i]}:
            raise _bad(where, f"{field}[{i}].name", f"{tool.name!r} is listed twice")
    return tuple(tools)


def _check_env(env: str, tools: tuple[ToolSpec, ...], where: str, *, stateful: bool) -> None:
    """Refuse an environment that does not parse, or does not define what the row needs of it."""
    field = "extra_info.env"
    try:
        functions = _functions(env)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        line = f", line {fault.lineno}" if isinstance(fault, SyntaxError) and fault.lineno else ""
        problem = fault.msg if isinstance(fault, SyntaxError) else str(fault) or type(fault).__name__
        raise _bad(where, field, f"does not parse as Python: {problem}{line}") from None
    for i, tool in enumerate(tools):
        if tool.name not in functions:
            known = ", ".join(sorted(functions)) or "none"
            name = f"extra_info.func_schemas[{i}].name"
            raise _bad(where, name, f"{tool.name!r} is no function of env; it defines: {known}")
    if stateful and CHANGES not in functions:
        raise _bad(where, field, f"defines no function {CHANGES}, which extra_info.changes needs")


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


def _calls(value: Any, where: str, field: str, accepted: str) -> int | None:
    value = _plain(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):  # as pandas writes a missing number
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise _bad(where, f"extra_info.{field}", f"got {value!r}; accepted: {accepted}")
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
    except (TypeError, ValueError, RecursionError) as fault:
        raise _bad(where, field, f"cannot be written as JSON: {fault}") from None
    return _encodable(text, where, field)


def _encodable(text: str, where: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise _bad(where, field, f"cannot be written as JSON: {fault}") from None
    return text
