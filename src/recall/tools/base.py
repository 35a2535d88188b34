"""The seam to a source of tools: what it offers, and one episode's live tools.

A source is made once and serves many episodes. For each it opens a *toolbox*: what the model is told of the tools, and
the session that its calls go to. Which turn calls what, and what the model reads of it, is the environment's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from recall.sandbox.base import Session
from recall.types import CallStatus, ToolSpec

F = TypeVar("F", bound=Callable[..., Any])

_MARKS = "_recall_tool_marks"
TRIED_AGAIN = frozenset({CallStatus.TIMEOUT, CallStatus.CRASHED})
"""The ends of a call after which an idempotent tool is called again."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What the author of a tool says about it; the environment's limits hold where it says nothing."""

    name: str = ""
    """What the model calls it by; empty takes the function's name."""
    description: str = ""
    """What the model is told it does; empty takes the docstring."""
    idempotent: bool = False
    """Calling it twice does no more than calling it once, so a call that timed out or crashed is made again."""
    timeout_s: float | None = None
    """Seconds for one call."""
    max_result_chars: int | None = None
    """Characters of a result that the model is shown."""


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of a toolbox."""

    spec: ToolSpec
    """What the model is told of it."""
    marks: Marks = NO_MARKS
    """What its author says about it."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The live tools of one episode."""

    tools: tuple[Tool, ...]
    """What is offered; names are unique."""
    session: Session
    """Runs the calls. `call` answers with a value whatever a tool does; `close` throws the state away."""


class ToolSource(Protocol):
    """Where tools come from."""

    async def open(self) -> Toolbox:
        """The tools of one episode.

        Raises:
            ConfigError: the source does not describe tools.
            RolloutError: it cannot be reached.
        """

    async def close(self) -> None:
        """Give up what episodes share, such as connections. Safe to call twice."""


def tool(
    *,
    name: str = "",
    description: str = "",
    idempotent: bool = False,
    timeout_s: float | None = None,
    max_result_chars: int | None = None,
) -> Callable[[F], F]:
    """Say more about a function than its signature does; see `Marks`. The function stays as it is.

    >>> @tool(idempotent=True, timeout_s=2)
    ... def weather(city: str) -> str: ...
    """
    marks = Marks(name, description, idempotent, timeout_s, max_result_chars)

    def mark(function: F) -> F:
        setattr(function, _MARKS, marks)
        return function

    return mark


def marks_of(function: Callable[..., Any]) -> Marks:
    """What was said about a function with `tool`."""
    marks: Marks = getattr(function, _MARKS, NO_MARKS)
    return marks


def is_marked(function: object) -> bool:
    """Whether `tool` was used on it."""
    return hasattr(function, _MARKS)
