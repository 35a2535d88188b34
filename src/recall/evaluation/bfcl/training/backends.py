"""The sandbox of tasks over the leaderboard's backends: one set of instances a session, in the checkers' process.

The source of such a task is a line of Python that says so: it imports its tools from a module that there is nowhere,
so a sandbox that does not know these tasks says what is missing; and it holds the state that the backends start from.
"""

import ast
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from recall.environment import CHANGES
from recall.errors import ConfigError
from recall.evaluation.bfcl.checkers import Checkers, Opening
from recall.evaluation.bfcl.setup import default_home, interpreter_of
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Sandbox, Session, SessionOptions
from recall.types import CallStatus

_MODULE = "recall_bfcl_backends"
_FAILED = "Error during execution: "


def source_of(tools: Sequence[str], config: Mapping[str, Any]) -> str:
    """The source of a task.

    Args:
        tools: the methods that it uses.
        config: the state that each backend starts from, by class.
    """
    return f"from {_MODULE} import {', '.join((*tools, CHANGES))}\n\nCONFIG = {json.dumps(json.dumps(config))}\n"


def config_of(source: str) -> dict[str, Any] | None:
    """The state that a task's source starts from; None where it is the source of another kind of task.

    Raises:
        ConfigError: it is of this kind, and damaged.
    """
    if not source.startswith(f"from {_MODULE} import "):
        return None
    try:
        config: dict[str, Any] = json.loads(ast.literal_eval(source.split("CONFIG = ", 1)[1].strip()))
    except (IndexError, ValueError, SyntaxError) as fault:
        raise ConfigError(f"a task over BFCL's backends: its CONFIG cannot be read: {fault}") from None
    return config


class BackendSandbox:
    """Opens sessions of the backends for the sources that ask for them, and of another sandbox for all others."""

    def __init__(self, beside: Sandbox, interpreter: Path | None = None) -> None:
        """Take the other sandbox, which is closed with this one, and the interpreter of the checkers' environment.

        Nothing is started until a task needs it; without an interpreter it is then that of `recall eval bfcl --setup`.
        """
        self.beside, self.interpreter = beside, interpreter
        self._checkers: Checkers | None = None
        self._numbers = itertools.count()

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        """Open a session.

        Raises:
            ConfigError: there is no environment with bfcl-eval.
            CheckersError: its process failed.
        """
        config = config_of(source)
        if config is None:
            return await self.beside.open(source, options)
        if self._checkers is None:
            self._checkers = Checkers(self.interpreter or interpreter_of(default_home()))
        session = BackendSession(self._checkers, f"task-{next(self._numbers)}")
        await self._checkers.open(session.id, Opening(tuple(config), config, watch=True))
        return session

    async def close(self) -> None:
        """End the process and the other sandbox."""
        checkers, self._checkers = self._checkers, None
        if checkers is not None:
            await checkers.stop()
        await self.beside.close()


class BackendSession:
    """The backends of one episode."""

    def __init__(self, checkers: Checkers, id: str) -> None:
        self.id = id
        self._checkers, self._open = checkers, True

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call a method of a backend; see `recall.sandbox.base.Session.call`. The process has a time-out of its own."""
        started = perf_counter()
        if name == CHANGES:
            return CallResult(CallStatus.OK, await self._checkers.changes(self.id))
        text = await self._checkers.call(self.id, name, arguments)
        took = perf_counter() - started
        if text.startswith(_FAILED):
            return CallResult(CallStatus.EXCEPTION, error=text.removeprefix(_FAILED), duration_s=took)
        return CallResult(CallStatus.OK, text, duration_s=took)

    async def close(self) -> None:
        """Throw the backends away."""
        if self._open:
            self._open = False
            await self._checkers.close(self.id)
