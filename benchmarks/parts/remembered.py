"""A sandbox that answers from memory: what a step would take if tools cost nothing.

Only for tools that are pure functions of their arguments, as the generator's are.
"""

import json
from collections.abc import Mapping
from typing import Any

from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Sandbox, Session, SessionOptions


class Remembered:
    """Asks `sandbox` what it has not been asked before, and answers everything else at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.asked = 0
        """Calls that the sandbox had to be asked for."""
        self._known: dict[tuple[str, str, str], CallResult] = {}

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        """A session of the sandbox is opened only once there is something to ask."""
        return _Session(self, source)

    async def close(self) -> None:
        """The sandbox is whoever's made it."""

    async def result(self, source: str, name: str, arguments: Mapping[str, Any]) -> CallResult:
        """What calling a function of `source` comes to."""
        key = source, name, json.dumps(arguments)
        if key not in self._known:
            session = await self.sandbox.open(source)
            self._known[key] = await session.call(name, arguments)
            await session.close()
            self.asked += 1
        return self._known[key]


class _Session:
    def __init__(self, memory: Remembered, source: str) -> None:
        self._memory, self._source = memory, source

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        del timeout_s
        return await self._memory.result(self._source, name, arguments)

    async def close(self) -> None:
        """There is nothing to close."""
