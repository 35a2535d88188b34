"""The Python source of a world's tools: the rows, what the tools share, and the tools themselves."""

import json
from collections.abc import Iterable
from dataclasses import replace

from recall.synth.procedural.style import Style
from recall.synth.procedural.tools import Tool
from recall.synth.procedural.world import Tables

PRELUDE = """\
import json

_ROWS = json.loads({data})
"""
ROW = """

def _row(kind, key):
    if not isinstance(key, str) or key not in _ROWS[kind]:
        raise ValueError(f"unknown {kind} {key!r}")
    return _ROWS[kind][key]
"""
PAGED = """

def _page(found, number):
    if not isinstance(number, int) or number < 1:
        raise ValueError("pages count from 1")
    last = number * {size}
    following = number + 1 if last < len(found) else None
    return {{"{items}": found[last - {size} : last], "{following}": following}}
"""
FAILING = """

_CALLED = {}


def _fail_first(name):
    _CALLED[name] = _CALLED.get(name, 0) + 1
    if _CALLED[name] == 1:
        raise RuntimeError("temporarily unavailable, try again")
"""
CHANGES = """

_FIRST = json.dumps(_ROWS)


def _changes():
    first, changes = json.loads(_FIRST), {}
    for kind, rows in _ROWS.items():
        for key, row in rows.items():
            for name, value in row.items():
                if first[kind][key][name] != value:
                    changes[f"{kind}/{key}/{name}"] = value
    return changes
"""


def source_of(tables: Tables, tools: Iterable[Tool], style: Style, *, changing: bool) -> str:
    """Python source that defines the tools over the rows.

    Args:
        tables: the rows; those of no tool are left out.
        tools: what it defines.
        style: decides what they share.
        changing: define `_changes`, which tells what an episode left behind.
    """
    tools = list(tools)
    parts = [PRELUDE.format(data=repr(json.dumps(tables, ensure_ascii=False))), ROW]
    if style.page_size:
        parts.append(_paged(style))
    if any(tool.failing for tool in tools):
        parts.append(FAILING)
    if changing:
        parts.append(CHANGES)
    return "".join(parts) + "".join(f"\n\n{tool.source}" for tool in tools)


def with_failure(tool: Tool) -> Tool:
    """The tool, failing when it is called first."""
    head, body = tool.source.split("\n", 1)
    return replace(tool, source=f'{head}\n    _fail_first("{tool.spec.name}")\n{body}', failing=True)


def _paged(style: Style) -> str:
    return PAGED.format(size=style.page_size, items=style.cased(style.items), following=style.next_page)
