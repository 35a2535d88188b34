"""A world that keeps count: what working a plan out would cost an agent, without any tool being called."""

from collections.abc import Hashable, Mapping
from typing import Any

from recall.synth.procedural.tools import Operation, Tool
from recall.synth.procedural.trace import CannotRunError
from recall.synth.procedural.world import Key, World


class Ledger(World):
    """Counts the calls that reveal what is asked of it; one that was made already costs nothing.

    It follows what `Trace` calls, from the rows alone, so that most plans can be thrown away before they are carried
    out.
    """

    def __init__(self, world: World, tools: Mapping[Operation, Tool]) -> None:
        super().__init__(world.skin, world.keyed, world.named, world._seed, world._columns)
        self._inverse = world._inverse
        self._tools = tools
        self._made: set[tuple[Any, ...]] = set()
        self._known: set[tuple[str, str, Key]] = set()
        self._ages: dict[tuple[str, str], int] = {}
        self.columns: dict[tuple[str, str], None] = {}
        """The columns that the calls told of, by type of entity and word, in the order of the first call."""

    @property
    def calls(self) -> int:
        """The calls so far."""
        return len(self._made)

    def read(self, entity: str, key: Key, word: str) -> Any:
        """See `World`."""
        if (entity, word, key) not in self._known:
            self.columns[entity, word] = None
            if Operation("field", entity, word) in self._tools:
                self._made.add(("field", entity, word, key))
            elif Operation("record", entity) in self._tools:
                self._made.add(("record", entity, key))
            else:
                raise CannotRunError(f"no tool reads {entity} {word}")
        return super().read(entity, key, word)

    def members(self, entity: str, link: str, target: Key) -> list[Key]:
        """See `World`."""
        return self._listed(super().members(entity, link, target), "members", entity, link, target)

    def where(self, entity: str, word: str, value: str) -> list[Key]:
        """See `World`."""
        return self._listed(super().where(entity, word, value), "where", entity, word, value)

    def within(self, entity: str, word: str, low: Any, high: Any) -> list[Key]:
        """See `World`."""
        return self._listed(super().within(entity, word, low, high), "range", entity, word, low, high)

    def _listed(self, found: list[Key], verb: Any, entity: str, word: str, *arguments: Any) -> list[Key]:
        tool = self._tools.get(Operation(verb, entity, word))
        if tool is None:
            raise CannotRunError(f"no tool lists {entity} by {word}")
        self.columns[entity, word] = None
        call = (verb, entity, word, self._ages.get((entity, word), 0), *arguments)
        self._made.update((*call, page) for page in range(tool.pages_of(len(found))))
        return found

    def spend(self, operation: Hashable, *arguments: Any) -> None:
        """See `World`."""
        if operation not in self._tools:
            raise CannotRunError(f"no tool does {operation}")
        self._made.add((operation, *arguments))

    def changed(self, entity: str, word: str, values: Mapping[Key, Any]) -> "Ledger":
        """See `World`. What was changed need not be read; a list that it bears on would have to be read again."""
        after = Ledger(super().changed(entity, word, values), self._tools)
        after._made, after.columns = self._made, self.columns
        after._known = self._known | {(entity, word, key) for key in values}
        after._ages = {**self._ages, (entity, word): self._ages.get((entity, word), 0) + 1}
        return after
