"""Tools that a task shows and does not need. None of them changes what a question asks for or how it is found out."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from recall.synth.procedural import skins
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.style import Style
from recall.synth.procedural.tools import Operation, Tool, derive
from recall.synth.procedural.world import NAME, Tables, World, draw_world, trim
from recall.types import ToolSpec

_STALE = (
    ("archived", "as it was before the last revision", "archiv"),
    ("last_year", "as of last year", "last"),
    ("estimated", "as an estimate", "estimat"),
    ("planned", "as planned, not as it is", "plan"),
    ("draft", "in an unchecked draft", "draft"),
)
"""What the name of a near-duplicate begins with, what its description ends with, and what neither may hold before."""


class Distractors:
    """What distracts in one world, with the rows that it reads. No two tools have one name."""

    def __init__(
        self, rng: random.Random, style: Style, recipe: Recipe, world: World, tools: Sequence[Tool], pool: Sequence[str]
    ) -> None:
        """Draw what is there whatever a task needs.

        Args:
            rng: decides everything.
            style: of the world.
            recipe: how many, and what they are like.
            world: no type of entity of a foreign tool is called like one of its.
            tools: its tools.
            pool: the domains to take foreign tools from.
        """
        self.tables: Tables = {}
        """The rows of all that was drawn so far."""
        self._taken = {tool.spec.name for tool in tools}
        self._seed = f"{rng.getrandbits(64):016x}"
        self._stale = world.redrawn(self._seed)
        self._similar: dict[Operation, Tool | None] = {}
        readers = [tool for tool in tools if tool.operation.verb in ("field", "record", "members")]
        refusing = _refusing(rng.choice(readers)) if rng.random() < recipe.denied else None
        self.refusing = [refusing] if refusing is not None and self._free(refusing) else []
        """Tools that refuse everybody."""
        self.foreign: list[Tool] = []
        """Tools of other domains."""
        wanted = max(recipe.foreign[1], recipe.tools[1] - len(tools)) if recipe.foreign[1] else 0
        others = [name for name in pool if name != world.skin.name]
        known = {entity.name for entity in world.skin.entities}
        while others and len(self.foreign) < wanted:
            skin = others.pop(rng.randrange(len(others)))
            self.foreign += [t for t in _foreign(rng, style, recipe, skin, known, self.tables) if self._free(t)]

    def _free(self, tool: Tool) -> bool:
        """Take a name, if nothing else has it."""
        if tool.spec.name in self._taken:
            return False
        self._taken.add(tool.spec.name)
        return True

    @property
    def tools(self) -> list[Tool]:
        """All that were drawn so far."""
        return [*(tool for tool in self._similar.values() if tool is not None), *self.refusing, *self.foreign]

    def like(self, tool: Tool) -> Tool | None:
        """A tool that is named and described almost like one of the world's and reads other values, the same whenever
        it is asked for; None where there is none.
        """
        if tool.operation not in self._similar:
            self._similar[tool.operation] = self._alike(tool) if tool.operation.verb in ("field", "record") else None
        return self._similar[tool.operation]

    def _alike(self, tool: Tool) -> Tool | None:
        rng, told = random.Random(f"{self._seed}/{tool.spec.name}"), tool.spec.description
        ways = [way for way in _STALE if way[2] not in f"{tool.spec.name} {told}".lower()]
        if not ways:
            return None
        prefix, ending, _ = rng.choice(ways)
        entity = tool.operation.entity
        name = f"{prefix}_{tool.spec.name}" if "_" in tool.spec.name else _camel(prefix, tool.spec.name)
        spec = replace(tool.spec, name=name, description=f"{told.rstrip('.')}, {ending}.")
        rows = f"{entity} (other)"
        source = tool.source.replace(f"def {tool.spec.name}(", f"def {name}(").replace(
            f'_row("{entity}"', f'_row("{rows}"'
        )
        similar = Tool(Operation("other", rows, name), spec, tool.roles, source)
        if name in self._taken:  # by a tool that was there from the start, so that no order of asking matters
            return None
        stale = self._stale
        whole = (NAME, *stale.skin.entity(entity).words) if stale.keyed == "id" else stale.skin.entity(entity).words
        table = self.tables.setdefault(rows, {key: {} for key in stale.keys(entity)})
        for word in (tool.operation.word,) if tool.operation.word else whole:
            column = stale.column(entity, word)
            for key, row in table.items():
                row[word] = column[key]
        return similar


def _refusing(tool: Tool) -> Tool:
    name = f"{tool.spec.name}_audited" if "_" in tool.spec.name else f"{tool.spec.name}Audited"
    spec = ToolSpec(name, f"{tool.spec.description.rstrip('.')}, from the audited books.", tool.spec.parameters)
    head = tool.source.split("\n", 1)[0].replace(f"def {tool.spec.name}(", f"def {name}(")
    source = f'{head}\n    raise PermissionError("auditors only")\n'
    return Tool(Operation("other", "", name), spec, tool.roles, source)


def _foreign(
    rng: random.Random, style: Style, recipe: Recipe, name: str, known: set[str], tables: Tables
) -> Iterator[Tool]:
    """The tools of a small world of another domain."""
    operators = tuple(operator for operator in recipe.operators if operator != "update")
    small = recipe.model_copy(
        update={
            "entities": (1, 2),
            "fields": (1, 3),
            "rows": (4, 4),
            "ids": 0.0,
            "records": 0.0,
            "operators": operators,
        }
    )
    skin = trim(rng, skins.skin_of(name), small)
    entities = tuple(entity for entity in skin.entities if entity.name not in known)
    kept = {entity.name for entity in entities}
    known |= kept
    entities = tuple(replace(e, links=tuple(link for link in e.links if link.to in kept), moves=()) for e in entities)
    other = draw_world(rng, replace(skin, entities=entities), small)
    tables |= other.tables()
    for tool in derive(rng, other, replace(style, page_size=0), small, ()):
        if tool.operation.verb in ("field", "members", "where", "range"):
            yield replace(tool, operation=Operation("other", tool.operation.entity, tool.spec.name))


def _camel(prefix: str, name: str) -> str:
    first, *rest = prefix.split("_")
    return first + "".join(part.capitalize() for part in rest) + name[0].upper() + name[1:]
