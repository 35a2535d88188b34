"""Objects as tools: the public methods of an instance that lives for one episode."""

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from recall.errors import ConfigError
from recall.sandbox.base import CallResult
from recall.tools.base import Tool, Toolbox, is_marked, marks_of
from recall.tools.functions import Bound, FunctionSession, tool_from_function


class ObjectTools:
    """A class, or an instance of one, as a source of tools; implements `recall.tools.base.ToolSource`.

    Each episode has an instance of its own: the class is called without arguments, an instance is copied as it was when
    it was handed over. Its public methods are the tools; where some are marked with `tool`, only those. An instance
    that is a context manager is entered when the episode begins and left when it ends. Methods of one turn run one
    after another, in the order called, unless they are coroutines.
    """

    def __init__(self, made_by: type | object) -> None:
        """Take a class that needs no arguments, or an instance.

        Raises:
            ConfigError: it has no public method, or one that cannot be told to a model.
        """
        if isinstance(made_by, type):
            self._make: Callable[[], Any] = made_by
            kind = made_by
        else:
            kept = copy.deepcopy(made_by)
            self._make = lambda: copy.deepcopy(kept)
            kind = type(made_by)
        methods = _methods(kind)
        if not methods:
            raise ConfigError(f"tools: {kind.__name__} has no public method that could be a tool")
        self._names = {spec.name: name for name, spec in methods.items()}
        self.tools = tuple(Tool(spec, marks_of(getattr(kind, name))) for name, spec in methods.items())
        """What is offered."""

    async def open(self) -> Toolbox:
        """A fresh instance."""
        async with AsyncExitStack() as stack:
            made = self._make()
            if hasattr(made, "__aenter__"):
                made = await stack.enter_async_context(made)
            elif hasattr(made, "__enter__"):
                made = stack.enter_context(made)
            bound = {name: Bound(getattr(made, method)) for name, method in self._names.items()}
            return Toolbox(self.tools, _ObjectSession(FunctionSession(bound), stack.pop_all()))
        raise AssertionError("a context manager kept an exception for itself")

    async def close(self) -> None:
        """Nothing is shared."""


class _ObjectSession:
    """The session of one instance."""

    def __init__(self, functions: FunctionSession, stack: AsyncExitStack) -> None:
        self._functions, self._stack = functions, stack

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call a method; see `recall.sandbox.base.Session.call`."""
        return await self._functions.call(name, arguments, timeout_s=timeout_s)

    async def close(self) -> None:
        """Leave the instance."""
        await self._stack.aclose()


def _methods(kind: type) -> dict[str, Any]:
    """What the model is told of each public method, by the method's name, in the order written."""
    names = [
        name
        for owner in reversed(kind.__mro__[:-1])
        for name, value in vars(owner).items()
        if not name.startswith("_") and isinstance(value, staticmethod | classmethod | _FUNCTION)
    ]
    names = [name for name in dict.fromkeys(names) if callable(getattr(kind, name, None))]
    if any(is_marked(getattr(kind, name)) for name in names):
        names = [name for name in names if is_marked(getattr(kind, name))]
    plain = {name: isinstance(inspect.getattr_static(kind, name), _FUNCTION) for name in names}
    return {name: tool_from_function(getattr(kind, name), skip=int(plain[name])) for name in names}


_FUNCTION = type(lambda: None)
