"""The functions of a world in this process, for the generator to try plans with.

The source is our own writing, which is why it may run here; what an agent calls runs in the sandbox. Each function is
compiled when it is called first, as a block calls a part of its tools only.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType
from typing import Any

from recall.synth.procedural.plans import Scalar
from recall.synth.procedural.scalars import Acted, Moved
from recall.synth.procedural.source import helpers
from recall.synth.procedural.style import Style
from recall.synth.procedural.tools import Tool
from recall.synth.procedural.trace import Call
from recall.synth.procedural.world import Tables


class Functions:
    """The tools over one state of the rows."""

    def __init__(self, tables: Tables, tools: Iterable[Tool], style: Style, codes: dict[str, CodeType]) -> None:
        """Take what the functions read.

        Args:
            tables: the rows.
            tools: the tools.
            style: decides what they share.
            codes: what was compiled already, by name; is added to.
        """
        self._first = tables
        self._rows: Tables = {kind: dict(rows) for kind, rows in tables.items()}
        self._tools = {tool.spec.name: tool for tool in tools}
        self._space: dict[str, Any] = {"_ROWS": self._rows}
        self._codes = codes
        exec(_compiled(helpers(style)), self._space)
        self._failed: dict[str, int] = self._space["_CALLED"]

    @contextmanager
    def episode(self, plan: Scalar) -> Iterator[Call]:
        """What calls a tool while a plan is tried; what the plan changes is undone in the end.

        A tool that fails the first time does not fail here: the program says that it is to be called again.
        """
        self._failed.clear()
        changed = plan.changed.entity.name if isinstance(plan, Acted | Moved) else None
        if changed is not None:
            self._rows[changed] = {key: dict(row) for key, row in self._first[changed].items()}
        try:
            yield self._call
        finally:
            if changed is not None:
                self._rows[changed] = dict(self._first[changed])

    def changes(self, plan: Scalar) -> dict[str, Any] | None:
        """What has changed since the episode began, by path; None where a plan changes nothing."""
        if not isinstance(plan, Acted | Moved):
            return None
        kind = plan.changed.entity.name
        first = self._first[kind]
        return {
            f"{kind}/{key}/{name}": value
            for key, row in self._rows[kind].items()
            for name, value in row.items()
            if first[key][name] != value
        }

    def _call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        function = self._space.get(name)
        if function is None:
            if name not in self._codes:
                self._codes[name] = compile(self._tools[name].source, f"<{name}>", "exec")
            exec(self._codes[name], self._space)
            function = self._space[name]
        self._failed.setdefault(name, 1)
        return function(**arguments)


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    return compile(source, "<helpers>", "exec")
