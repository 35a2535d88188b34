"""Tells tasks whose tools remember nothing between two calls, so that a sandbox that forgets everything can run them.

The source is read, never run. In doubt a tool is said to keep state: a task that is left out costs nothing.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache

from recall.types import Task

_CHANGING = frozenset(
    {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault",
     "sort", "update", "write"}
)  # fmt: skip
_FRESH = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.Constant, ast.JoinedStr)
_COPYING = frozenset({"list", "dict", "set", "sorted", "copy", "deepcopy", "defaultdict", "Counter", "deque"})


def state_of(task: Task) -> str | None:
    """Why a task cannot be run by a stateless sandbox, in words; None where it can."""
    if task.changes is not None:
        return "it is about state"
    if any(item.get("retry") for item in task.reference):
        return "a tool fails at first and is called again"
    keeping = _keeping(task.env)
    for tool in task.tools:
        if tool.name in keeping:
            return "a tool changes what it shares with others"
    return None


@lru_cache(maxsize=16)
def _keeping(source: str) -> frozenset[str]:
    """The functions that change something that outlives their call, themselves or by those that they call."""
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    keeping = {name for name, node in functions.items() if _changes_what_it_shares(node)}
    uses = {
        name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & set(functions)
        for name, node in functions.items()
    }
    grown = True
    while grown:
        more = {name for name, used in uses.items() if used & keeping} - keeping
        keeping |= more
        grown = bool(more)
    return frozenset(keeping)


def _changes_what_it_shares(function: ast.FunctionDef) -> bool:
    own = _own_names(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Global | ast.Nonlocal):
            return True
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if _root(node) not in own:
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            if _root(node.func) not in own:
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next":
            return True  # what is left of an iterator is state
    return False


def _own_names(function: ast.FunctionDef) -> set[str]:
    """The names that only ever stand for something that the call made itself."""
    fresh: set[str] = set()
    other: set[str] = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    for node in ast.walk(function):
        for name, value in _bindings(node):
            (fresh if _is_fresh(value) else other).add(name)
    return fresh - other


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that a statement binds, each with the value where that is plain to see."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        yield name.id, value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield from ((name.id, None) for name in ast.walk(node.target) if isinstance(name, ast.Name))


def _is_fresh(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        called = value.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        whole = name != "copy"  # a shallow copy shares what it holds
        return name in _COPYING and whole
    return isinstance(value, _FRESH)


def _root(node: ast.AST) -> str:
    """The name that a chain of subscripts and attributes starts with; empty where it starts with something else."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
