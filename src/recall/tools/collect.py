"""From what a user hands over as tools to the sources that an environment opens."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from recall.errors import ConfigError
from recall.tools.base import ToolSource
from recall.tools.functions import FunctionTools
from recall.tools.objects import ObjectTools
from recall.tools.retrieval import RetrieverTools

ToolLike = Any
"""A function, a class, an object with methods, a retriever, or a `ToolSource` such as `MCPTools`."""


def sources_of(tools: Iterable[ToolLike]) -> tuple[ToolSource, ...]:
    """The sources of a list of tools; its functions become one source, in the place of the first of them.

    Raises:
        ConfigError: something in it is no tool, or cannot be told to a model.
    """
    functions: list[Callable[..., Any]] = []
    sources: list[ToolSource | None] = []
    for item in tools:
        if inspect.isroutine(item):
            if not functions:
                sources.append(None)
            functions.append(item)
        else:
            sources.append(_source(item))
    return tuple(FunctionTools(functions) if source is None else source for source in sources)


def names_of(tools: Sequence[ToolSource]) -> list[str]:
    """The names of the tools that are known before anything is opened."""
    return [tool.spec.name for source in tools for tool in getattr(source, "tools", ())]


def _source(item: ToolLike) -> ToolSource:
    if not isinstance(item, type) and inspect.iscoroutinefunction(getattr(item, "open", None)):
        source: ToolSource = item
        return source
    if not isinstance(item, type) and inspect.iscoroutinefunction(getattr(item, "search", None)):
        return RetrieverTools(item)
    if isinstance(item, str | bytes | int | float | dict | list | tuple | set | None.__class__):
        raise ConfigError(
            f"tools: {item!r} is no tool; accepted: functions, classes, objects, retrievers, MCPTools, OpenAPITools, "
            "SourceTools"
        )
    return ObjectTools(item)
