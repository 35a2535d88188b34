"""Tools that a task shows and does not need. None of them changes what a question asks for or how it is found out."""

import random
from collections.abc import Sequence
from dataclasses import replace

from recall.synth.procedural import skins
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.style import Style
from recall.synth.procedural.tools import Operation, Tool, derive
from recall.synth.procedural.world import Tables, World, draw_world, trim
from recall.types import ToolSpec

_STALE = (
    ("archived", "as it was before the last revision"), ("last_year", "as of last year"),
    ("estimated", "as an estimate"),
    ("planned", "as planned, not as it is"), ("draft", "in an unchecked draft"),
)  # fmt: skip


def duplicates(rng: random.Random, tools: Sequence[Tool], stale: World, count: int) -> tuple[list[Tool], Tables]:
    """Tools that are named and described almost like others, and read other values; with the rows that they read.

    Args:
        rng: decides everything.
        tools: of the world.
        stale: a world of the same entities and other facts.
        count: how many.
    """
    readers = [tool for tool in tools if tool.operation.verb in ("field", "record")]
    made, tables = list[Tool](), Tables()
    for tool in rng.sample(readers, min(count, len(readers))):
        prefix, told = rng.choice(_STALE)
        entity = tool.operation.entity
        name = f"{prefix}_{tool.spec.name}" if "_" in tool.spec.name else _camel(prefix, tool.spec.name)
        spec = replace(tool.spec, name=name, description=f"{tool.spec.description.rstrip('.')}, {told}.")
        source = tool.source.replace(f"def {tool.spec.name}(", f"def {name}(").replace(
            f'_row("{entity}"', f'_row("{entity} ({prefix})"'
        )
        tables[f"{entity} ({prefix})"] = stale.tables[entity]
        made.append(Tool(Operation("other", f"{entity} ({prefix})", name), spec, tool.roles, source))
    return made, tables


def denied(rng: random.Random, tools: Sequence[Tool]) -> Tool:
    """A tool that looks like another and refuses everybody."""
    tool = rng.choice([tool for tool in tools if tool.operation.verb in ("field", "record", "members")])
    name = f"{tool.spec.name}_audited" if "_" in tool.spec.name else f"{tool.spec.name}Audited"
    spec = ToolSpec(name, f"{tool.spec.description.rstrip('.')}, from the audited books.", tool.spec.parameters)
    head = tool.source.split("\n", 1)[0].replace(f"def {tool.spec.name}(", f"def {name}(")
    source = f'{head}\n    raise PermissionError("auditors only")\n'
    return Tool(Operation("other", "", name), spec, tool.roles, source)


def foreign(
    rng: random.Random, style: Style, recipe: Recipe, world: World, pool: Sequence[str]
) -> tuple[list[Tool], Tables]:
    """The tools of a small world of another domain, with its rows.

    Args:
        rng: decides everything.
        style: of the world that they stand beside.
        recipe: decides what they are like.
        world: no type of entity of theirs is called like one of its.
        pool: the domains to take them from.
    """
    others = [name for name in pool if name != world.skin.name]
    if not others:
        return [], {}
    small = recipe.model_copy(update={"entities": (1, 2), "fields": (1, 3), "rows": (4, 4), "ids": 0.0, "records": 0.0})
    skin = trim(rng, skins.load(rng.choice(others)), small)
    known = {entity.name for entity in world.skin.entities}
    entities = tuple(entity for entity in skin.entities if entity.name not in known)
    kept = {entity.name for entity in entities}
    entities = tuple(replace(e, links=tuple(link for link in e.links if link.to in kept), moves=()) for e in entities)
    other = draw_world(rng, replace(skin, entities=entities), small)
    made = [
        replace(tool, operation=Operation("other", tool.operation.entity, tool.spec.name))
        for tool in derive(rng, other, replace(style, page_size=0), small, ())
        if tool.operation.verb in ("field", "members", "where", "range")
    ]
    return made, other.tables


def _camel(prefix: str, name: str) -> str:
    first, *rest = prefix.split("_")
    return first + "".join(part.capitalize() for part in rest) + name[0].upper() + name[1:]
