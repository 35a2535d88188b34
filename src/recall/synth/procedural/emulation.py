"""The tools of a world as the generator plays them: what each returns, without any source being run.

It is written apart from the source (`tools.py`), which the agent's calls reach in the sandbox; there every result has
to be the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recall.synth.procedural.plans import Scalar
from recall.synth.procedural.scalars import Acted, Moved
from recall.synth.procedural.style import Style
from recall.synth.procedural.tools import Tool
from recall.synth.procedural.trace import Call
from recall.synth.procedural.world import NAME, Key, World


class Emulation:
    """The tools over one world."""

    def __init__(self, world: World, tools: Iterable[Tool], style: Style, rates: Mapping[str, float]) -> None:
        """Take what the tools tell of.

        Args:
            world: the facts.
            tools: the tools.
            style: what their results look like.
            rates: of currencies.
        """
        self._first = self._world = world
        self._tools = {tool.spec.name: tool for tool in tools}
        self._items, self._rates = style.cased(style.items), rates
        self._named: dict[str, dict[str, Key]] = {}

    @contextmanager
    def episode(self) -> Iterator[Call]:
        """What calls a tool while a plan is tried; what the plan changes is undone in the end.

        A tool that fails the first time does not fail here: the program says that it is to be called again.
        """
        try:
            yield self._call
        finally:
            self._world = self._first

    def changes(self, plan: Scalar) -> dict[str, Any] | None:
        """What has changed since the episode began, by path; None where a plan changes nothing."""
        if not isinstance(plan, Acted | Moved):
            return None
        entity = plan.changed.entity.name
        word = plan.states.field if isinstance(plan, Acted) else plan.link.name
        before, after = self._first.column(entity, word), self._world.column(entity, word)
        return {f"{entity}/{key}/{word}": value for key, value in after.items() if value != before[key]}

    def _call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        tool = self._tools[name]
        given = {role: arguments[parameter] for role, parameter in tool.roles.items() if parameter in arguments}
        verb, entity, word = tool.operation
        match verb:
            case "field":
                return self._one(tool, self._world.read(entity, given["key"], word), given["key"])
            case "record":
                return {each: self._world.read(entity, given["key"], each) for each in self._words(entity)}
            case "members":
                return self._several(tool, self._world.members(entity, word, given["key"]), given)
            case "where":
                return self._several(tool, self._world.where(entity, word, given["value"]), given)
            case "range":
                return self._several(tool, self._world.within(entity, word, given["low"], given["high"]), given)
            case "lookup":
                return self._key_of(entity, given["key"])
            case "rate":
                return self._one(tool, self._rates[given["key"]], given["key"])
            case "add":
                return round(given["a"] + given["b"], 6)
            case "subtract":
                return round(abs(given["a"] - given["b"]), 6)
        return self._changed(tool, given)

    def _words(self, entity: str) -> tuple[str, ...]:
        words = self._world.skin.entity(entity).words
        return (NAME, *words) if self._world.keyed == "id" else words

    def _key_of(self, entity: str, name: str) -> Key:
        named = self._named.get(entity)
        if named is None:
            named = self._named[entity] = {said: key for key, said in self._world.named[entity].items()}
        return named[name]

    @staticmethod
    def _one(tool: Tool, value: Any, key: Key) -> Any:
        if tool.match:
            return f"The {tool.noun} of {key} is {value}."
        return {tool.path[0]: value} if tool.path else value

    def _several(self, tool: Tool, found: list[Key], given: Mapping[str, Any]) -> Any:
        if tool.page_size:
            number = given.get("page", 1)
            last = number * tool.page_size
            page = found[last - tool.page_size : last]
            return {self._items: page, tool.next_page: number + 1 if last < len(found) else None}
        return {self._items: found} if tool.path else found

    def _changed(self, tool: Tool, given: Mapping[str, Any]) -> str:
        verb, entity, word = tool.operation
        kind = self._world.skin.entity(entity)
        if verb == "move":
            (move,) = [move for move in kind.moves if move.verb == word]
            self._world = self._world.changed(entity, move.link, {given["key"]: given["value"]})
        else:
            assert kind.states is not None, "what acts has states"
            (action,) = [action for action in kind.states.actions if action.verb == word]
            assert self._world.read(entity, given["key"], kind.states.field) == action.source, "a plan knows the state"
            self._world = self._world.changed(entity, kind.states.field, {given["key"]: action.target})
        return "done"
