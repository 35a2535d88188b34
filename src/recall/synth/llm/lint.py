"""A first look at generated code, before anything of it runs. It keeps mistakes out; the sandbox keeps attacks in."""

import ast
from collections.abc import Iterator

from recall.synth.llm.errors import RejectedError
from recall.synth.llm.schemas import parsed

MODULES = frozenset(
    {"bisect", "calendar", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions"}
    | {"functools", "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string"}
    | {"textwrap", "typing", "unicodedata"}
)
"""What generated code may import."""
_NAMES = frozenset(
    {
        "open",
        "input",
        "eval",
        "exec",
        "compile",
        "__import__",
        "globals",
        "locals",
        "vars",
        "breakpoint",
        "exit",
        "quit",
    }
)
"""What it may not name: none of it is needed to compute on a table."""
_CLOCK = frozenset({"now", "today", "utcnow"})
_OURS = frozenset({"WORLD", "SEED"})


def check(source: str, *, defines: frozenset[str] = frozenset(), taken: frozenset[str] = frozenset()) -> None:
    """Look at the tree of a source.

    Args:
        source: what was generated.
        defines: functions that must be there.
        taken: names that are taken by the source before it.

    Raises:
        RejectedError: the first thing that does not fit.
    """
    tree = parsed(source)
    bound = {name for node in tree.body for name in _bound(node)}
    for name in sorted(defines - bound):
        raise RejectedError("lint", "function missing", f"there must be a function {name!r} at top level")
    for name in sorted(bound & (taken | _OURS)):
        raise RejectedError("lint", "defined twice", f"{name!r} is there already")
    for node in ast.walk(tree):
        for reason, detail in _problems(node):
            raise RejectedError("lint", reason, f"line {getattr(node, 'lineno', 0)}: {detail}")


def names_of(source: str) -> frozenset[str]:
    """The names that a source binds at top level."""
    return frozenset(name for node in parsed(source).body for name in _bound(node))


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _problems(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from (_refused(alias.name) for alias in node.names if alias.name.partition(".")[0] not in MODULES)
    elif isinstance(node, ast.ImportFrom):
        module = (node.module or "").partition(".")[0]
        if node.level or module not in MODULES:
            yield _refused(node.module or ".")
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        yield "forbidden name", f"{node.id!r} must not be used"
    elif isinstance(node, ast.Attribute) and node.attr in _CLOCK:
        yield "clock", f".{node.attr} must not be used: everything follows from the seed"
    elif isinstance(node, ast.Attribute) and node.attr.startswith("__"):
        yield "forbidden name", f"{node.attr!r} must not be used"
    elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
        yield "async", "functions must not be async"


def _refused(module: str) -> tuple[str, str]:
    return "import", f"{module!r} must not be imported; accepted: {', '.join(sorted(MODULES))}"
