"""Tools that a task shows and does not need. None of them changes what a question asks for or how it is found out."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

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


@dataclass
class Distractors:
    """What distracts in one world, with the rows that it reads."""

    similar: list[tuple[Operation, Tool]] = field(default_factory=list)
    """Tools that are named and described almost like one of the world's and read other values; with what that does."""
    refusing: list[Tool] = field(default_factory=list)
    """Tools that refuse everybody."""
    foreign: list[Tool] = field(default_factory=list)
    """Tools of other domains."""
    tables: Tables = field(default_factory=dict)
    """The rows of them all."""

    @property
    def tools(self) -> list[Tool]:
        """All of them."""
        return [*(tool for _, tool in self.similar), *self.refusing, *self.foreign]


def draw_distractors(
    rng: random.Random, style: Style, recipe: Recipe, world: World, tools: Sequence[Tool], pool: Sequence[str]
) -> Distractors:
    """What distracts from the tools of a world. No two tools have one name.

    Args:
        rng: decides everything.
        style: of the world.
        recipe: how many, and what they are like.
        world: no type of entity of a foreign tool is called like one of its.
        tools: its tools.
        pool: the domains to take foreign tools from.
    """
    made, taken = Distractors(), {tool.spec.name for tool in tools}

    def free(tool: Tool) -> bool:
        if tool.spec.name in taken:
            return False
        taken.add(tool.spec.name)
        return True

    stale = world.redrawn(f"{rng.getrandbits(64):016x}")
    readers = [tool for tool in tools if tool.operation.verb in ("field", "record")]
    for tool in rng.sample(readers, min(3 * recipe.duplicates[1], len(readers))):
        similar = _similar(rng, tool, stale, made.tables)
        if similar is not None and free(similar):
            made.similar.append((tool.operation, similar))
    if rng.random() < recipe.denied:
        open_ = [tool for tool in (*readers, *tools) if tool.operation.verb in ("field", "record", "members")]
        refusing = _refusing(rng.choice(open_))
        made.refusing += [refusing] if free(refusing) else []
    wanted = max(recipe.foreign[1], recipe.tools[1] - len(tools)) if recipe.foreign[1] else 0
    others = [name for name in pool if name != world.skin.name]
    known = {entity.name for entity in world.skin.entities}
    while others and len(made.foreign) < wanted:
        skin = others.pop(rng.randrange(len(others)))
        made.foreign += [tool for tool in _foreign(rng, style, recipe, skin, known, made.tables) if free(tool)]
    return made


def _similar(rng: random.Random, tool: Tool, stale: World, tables: Tables) -> Tool | None:
    told = tool.spec.description
    ways = [way for way in _STALE if way[2] not in f"{tool.spec.name} {told}".lower()]
    if not ways:
        return None
    prefix, ending, _ = rng.choice(ways)
    entity = tool.operation.entity
    name = f"{prefix}_{tool.spec.name}" if "_" in tool.spec.name else _camel(prefix, tool.spec.name)
    spec = replace(tool.spec, name=name, description=f"{told.rstrip('.')}, {ending}.")
    rows = f"{entity} ({prefix})"
    source = tool.source.replace(f"def {tool.spec.name}(", f"def {name}(").replace(f'_row("{entity}"', f'_row("{rows}"')
    whole = (NAME, *stale.skin.entity(entity).words) if stale.keyed == "id" else stale.skin.entity(entity).words
    for word in (tool.operation.word,) if tool.operation.word else whole:
        column = stale.column(entity, word)
        for key in stale.keys(entity):
            tables.setdefault(rows, {}).setdefault(key, {})[word] = column[key]
    return Tool(Operation("other", rows, name), spec, tool.roles, source)


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
    small = recipe.model_copy(update={"entities": (1, 2), "fields": (1, 3), "rows": (4, 4), "ids": 0.0, "records": 0.0})
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
