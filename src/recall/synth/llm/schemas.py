"""What a policy is told of generated tools: derived from type hints and docstrings by reading the source, never run.

A model that wrote the schemas itself would sooner or later promise what the code does not do.
"""

import ast
from typing import Any

from recall.synth.llm.errors import RejectedError
from recall.tools.functions import read_docstring
from recall.types import ToolSpec

GATE = "schema"
"""The gate at which tools without a schema are rejected."""

_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}


def tools_of(source: str) -> tuple[ToolSpec, ...]:
    """The tools that a source defines: its functions at top level whose names do not begin with `_`, in order.

    Raises:
        RejectedError: the source does not parse, or one of its tools lacks a hint, a docstring or a description.
    """
    functions = [node for node in parsed(source).body if isinstance(node, ast.FunctionDef)]
    tools = tuple(_tool(node) for node in functions if not node.name.startswith("_"))
    if not tools:
        raise RejectedError(GATE, "no tools", "there is no function at top level without a leading underscore")
    return tools


def parsed(source: str) -> ast.Module:
    """The tree of a source.

    Raises:
        RejectedError: it does not parse.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        line = f", line {fault.lineno}" if isinstance(fault, SyntaxError) and fault.lineno else ""
        said = fault.msg if isinstance(fault, SyntaxError) else str(fault)
        raise RejectedError("lint", "not Python", f"{said}{line}") from None


def _tool(node: ast.FunctionDef) -> ToolSpec:
    arguments = node.args
    if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
        raise RejectedError(GATE, "parameters not by name", f"tool {node.name!r}")
    description, about = read_docstring(ast.get_docstring(node) or "")
    if not description:
        raise RejectedError(GATE, "no docstring", f"tool {node.name!r}")
    if node.returns is None:
        raise RejectedError(GATE, "no type hint", f"tool {node.name!r}, what it returns")
    plain = [*arguments.args, *arguments.kwonlyargs]
    missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
    properties: dict[str, Any] = {}
    for parameter, default in zip(plain, defaults, strict=True):
        where = f"tool {node.name!r}, parameter {parameter.arg!r}"
        if parameter.annotation is None:
            raise RejectedError(GATE, "no type hint", where)
        if parameter.arg not in about:
            raise RejectedError(GATE, "parameter not described", f"{where}: not in 'Args:' of the docstring")
        schema = _schema(parameter.annotation, where) | {"description": about[parameter.arg]}
        if default is not None and (value := _literal(default, where)) is not None:
            schema["default"] = value
        properties[parameter.arg] = schema
    required = [p.arg for p, default in zip(plain, defaults, strict=True) if default is None]
    return ToolSpec(node.name, description, {"type": "object", "properties": properties, "required": required})


def _schema(hint: ast.expr, where: str) -> dict[str, Any]:
    match hint:
        case ast.Name(id=name) if name in _PLAIN:
            return {"type": _PLAIN[name]}
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return {"enum": [_literal(value, where) for value in values]}
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _union([_schema(inner, where), {"type": "null"}])
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _union([_schema(left, where), _schema(right, where)])
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return {"type": "array", "items": _schema(inner, where)}
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[ast.Name(id="str"), inner])):
            return {"type": "object", "additionalProperties": _schema(inner, where)}
    accepted = "str, int, float, bool, list[…], dict[str, …], Literal[…], Optional[…], unions of these with |"
    raise RejectedError(GATE, "type hint without a schema", f"{where}: {ast.unparse(hint)}; accepted: {accepted}")


def _union(members: list[dict[str, Any]]) -> dict[str, Any]:
    if all(member.keys() == {"type"} for member in members):
        kinds = [kind for member in members for kind in _listed(member["type"])]
        return {"type": list(dict.fromkeys(kinds))}
    return {"anyOf": members}


def _listed(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _literal(node: ast.expr, where: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = ...
    if value is not None and not isinstance(value, str | int | float | bool):
        raise RejectedError(GATE, "default is no plain value", f"{where}: {ast.unparse(node)}")
    return value
