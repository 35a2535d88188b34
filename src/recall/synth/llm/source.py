"""Puts an environment together from generated parts: one self-contained source a seed, and its variants for checks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from recall.synth.llm.state import StateSchema
from recall.types import ToolSpec


@dataclass(frozen=True, slots=True)
class World:
    """A generated world: what it is made of, and the tools over it."""

    schema: StateSchema
    """Its tables."""
    world_code: str
    """Defines `make_world(seed)`."""
    tool_code: str = ""
    """Defines the tools, over the global `WORLD`."""
    tools: tuple[ToolSpec, ...] = ()
    """What a policy is told of them."""

    def source(self, seed: int, *, shuffle: int | None = None, traced: bool = False, more: str = "") -> str:
        """The source of an environment with the world of a seed.

        Args:
            seed: goes into the source as a number.
            shuffle: puts the rows into another order, drawn from this number.
            traced: notes what the code does besides computing, for `_noticed()`.
            more: source that goes behind.
        """
        world = f"make_world({seed})" if shuffle is None else f"_shuffled(make_world({seed}), {shuffle})"
        parts = [
            _inside("tracing") if traced else "",
            self.world_code,
            "" if shuffle is None else _inside("shuffling"),
            f"SEED = {seed}\nWORLD = {world}\n",
            self.tool_code,
            more,
        ]
        return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"

    def stateful(self, seed: int, *, shuffle: int | None = None, traced: bool = False) -> str:
        """The source with `_changes()`, which tells what was changed since the start."""
        return self.source(seed, shuffle=shuffle, traced=traced, more=changes_source())

    @property
    def tool_set(self) -> str:
        """A hash of the tools' names and schemas."""
        text = json.dumps([[tool.name, tool.description, dict(tool.parameters)] for tool in self.tools], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def _inside(name: str) -> str:
    """The text of a module of `inside`."""
    return resources.files("recall.synth.llm.inside").joinpath(f"{name}.py").read_text(encoding="utf-8")


def _without_docstring(text: str) -> str:
    """The text of a module after its docstring."""
    return text.split('"""', 2)[2].strip("\n") + "\n"


@lru_cache
def changes_source() -> str:
    """What an environment needs to tell the final state. It copies the world when it is loaded, after the tools."""
    return f"""{_without_docstring(_inside("changes"))}

import copy as _copy

_BEFORE = _copy.deepcopy(WORLD)


def _changes() -> dict[str, Any]:
    return _changed(_BEFORE, WORLD)
"""


NOTICED = "_noticed"
"""The function of a traced source that says what was noted."""


def with_tests(world: World, test_code: str, seed: int) -> str:
    """The source of an environment with self-tests behind it; `_counts()` says which tools they called."""
    names = [tool.name for tool in world.tools]
    wrapped = "\n".join(f"{name} = _counted({name})" for name in names)
    counts = "def _counts():\n    return _CALLED\n"
    return world.source(seed, more="\n\n".join([_inside("selftests"), wrapped, counts, test_code]))


def with_search(world: World, seed: int) -> str:
    """The source of an environment with `_search(…)`, which looks for a shorter way to an answer."""
    names = ", ".join(f"{tool.name!r}: {tool.name}" for tool in world.tools)
    call = "return _shorter(WORLD, tools, parameters, known, answer, levels, most_calls)"
    function = f"def _search(parameters, known, answer, levels, most_calls):\n    tools = {{{names}}}\n    {call}\n"
    return world.source(seed, more=f"{_inside('search')}\n\n{function}")


def parameters_of(tools: Sequence[ToolSpec]) -> dict[str, dict[str, str]]:
    """The type of each required parameter of each tool, for the search; no known scalar fits an `enum` or a list."""
    return {
        tool.name: {
            name: str(tool.parameters["properties"][name].get("type", "any")) for name in tool.parameters["required"]
        }
        for tool in tools
    }


def foreign_program() -> str:
    """The program of the second process that determinism is checked in."""
    return _inside("foreign")
