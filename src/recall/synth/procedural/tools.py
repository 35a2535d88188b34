"""The tools of a world, derived from its types of entity: what each does, what the policy is told, and its source.

The source is the only implementation there is: the generator calls it in its own process (it is our own writing), the
agent's calls reach it in the sandbox.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from recall.synth.procedural.english import a
from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.recipe import Recipe
from recall.synth.procedural.skins.schema import Entity, Link
from recall.synth.procedural.style import Style
from recall.synth.procedural.world import NAME, World
from recall.types import ToolSpec

Verb = Literal[
    "field", "record", "members", "where", "range", "lookup", "rate", "act", "move", "add", "subtract", "other"
]


class Operation(NamedTuple):
    """What a tool does, in the words of the skin and whatever it is named."""

    verb: Verb
    entity: str = ""
    """The type of entity that it is about."""
    word: str = ""
    """The field, link, label or action that it is about."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function over a world."""

    operation: Operation
    spec: ToolSpec
    """What the policy is told."""
    roles: Mapping[str, str]
    """By role (`key`, `value`, `low`, `high`, `page`, …) the name of the parameter."""
    source: str
    """Its definition."""
    path: tuple[str, ...] = ()
    """Where the value, or the list, lies in what it returns."""
    match: str = ""
    """A regular expression that finds the value where the tool answers in a sentence."""
    noun: str = ""
    """What a value that it reads is called."""
    failing: bool = False
    """Whether its first call in an episode fails."""
    page_size: int = 0
    """Entries of a page, where the list comes in pages; else 0."""
    next_page: str = ""
    """Where a page says the number of the next one, which is null on the last."""

    def pages_of(self, count: int) -> int:
        """The calls that a list of so many takes."""
        return max(1, -(-count // self.page_size)) if self.page_size else 1


def derive(rng: random.Random, world: World, style: Style, recipe: Recipe, currencies: Sequence[str]) -> list[Tool]:
    """Every tool that the world's types of entity give, no two of one name."""
    tools: list[Tool] = []
    taken: set[str] = set()
    maker = _Maker(world, style)
    for entity in world.skin.entities:
        for tool in _tools_of(rng, maker, entity, recipe):
            if tool.spec.name not in taken:
                taken.add(tool.spec.name)
                tools.append(tool)
    if currencies:
        tools.append(maker.rate(currencies))
    return [*tools, maker.arithmetic("add"), maker.arithmetic("subtract")]


def _tools_of(rng: random.Random, maker: "_Maker", entity: Entity, recipe: Recipe) -> Iterator[Tool]:
    if maker.world.keyed == "id":
        yield maker.lookup(entity)
    if rng.random() < recipe.records:
        yield maker.record(entity)
    else:
        for name, noun, kind in columns(maker.world, entity):
            yield maker.value(entity, name, noun, kind)
    if "members" in recipe.operators:
        links = [(other, link) for other, link in maker.world.skin.links if link.to == entity.name]
        yield from (maker.members(other, link, entity) for other, link in links)
    if "where" in recipe.operators:
        yield from (maker.where(entity, label.name, label.noun, label.values) for label in entity.labels)
    if "range" in recipe.operators:
        ordered = (field for field in entity.fields if field.kind.ordered)
        yield from (maker.range(entity, field.name, field.noun, field.kind) for field in ordered)
    if not recipe.stateless and "update" in recipe.operators:
        if entity.states is not None:
            for action in entity.states.actions:
                yield maker.act(entity, action.verb, entity.states.field, action.source, action.target)
        for move in entity.moves:
            link = next(link for link in entity.links if link.name == move.link)
            yield maker.move(entity, move.verb, link)


def columns(world: World, entity: Entity) -> Iterator[tuple[str, str, Kind | None]]:
    """The readable columns of a type of entity: name, noun, and kind, which is None for links and the name."""
    if world.keyed == "id":
        yield NAME, "name", None
    for field in entity.fields:
        yield field.name, field.noun, field.kind
    for label in entity.labels:
        yield label.name, label.noun, label.kind
    for link in entity.links:
        yield link.name, link.noun, None
    if entity.states is not None:
        yield entity.states.field, entity.states.noun, entity.states.kind


class _Maker:
    """Makes the tools of a world in its style."""

    def __init__(self, world: World, style: Style) -> None:
        self.world, self.style = world, style

    def _key(self, entity: Entity) -> tuple[str, dict[str, Any]]:
        name = self.style.cased(self.style.key.format(entity=entity.name))
        if self.style.plain:
            return name, {"type": "string"}
        told = f"{'id' if self.world.keyed == 'id' else 'name'} of the {entity.noun}"
        return name, {"type": "string", "description": told}

    def value(self, entity: Entity, word: str, noun: str, kind: Kind | None) -> Tool:
        """Reads one column of one entity."""
        key, schema = self._key(entity)
        name = self.style.name("field", entity=entity.name, word=word, plural="")
        unit = f", in {kind.unit}" if kind is not None and kind.unit else ""
        value, path, match = self._wrapped(f'_row("{entity.name}", {key})["{word}"]', word, noun, key, kind)
        source = f"def {name}({key}):\n    return {value}\n"
        whose = f"{noun} of {a(entity.noun)}"
        told = whose if self.style.plain else f"The {whose}{unit}."
        spec = ToolSpec(name, told, _parameters({key: schema}))
        return Tool(Operation("field", entity.name, word), spec, {"key": key}, source, path, match, noun)

    def _wrapped(
        self, value: str, word: str, noun: str, key: str, kind: Kind | None
    ) -> tuple[str, tuple[str, ...], str]:
        wrapping = self.style.wrapping
        if wrapping == "bare":
            return value, (), ""
        if wrapping == "prose" and (kind is None or kind.json == "string"):
            return f'"The {noun} of " + {key} + " is " + {value} + "."', (), r" is (.+)\.$"
        if wrapping == "named":
            return f'{{"{self.style.cased(word)}": {value}}}', (self.style.cased(word),), ""
        wrapping = "value" if wrapping == "value" else "result"
        return f'{{"{wrapping}": {value}}}', (wrapping,), ""

    def record(self, entity: Entity) -> Tool:
        """Reads every column of one entity."""
        key, schema = self._key(entity)
        name = self.style.name("record", entity=entity.name)
        words = [(word, noun, kind) for word, noun, kind in columns(self.world, entity)]
        units = ", ".join(f"{noun} in {kind.unit}" if kind and kind.unit else noun for _, noun, kind in words)
        body = ", ".join(f'"{word}": row["{word}"]' for word, _, _ in words)
        source = f'def {name}({key}):\n    row = _row("{entity.name}", {key})\n    return {{{body}}}\n'
        spec = ToolSpec(name, f"All about {a(entity.noun)}: {units}.", _parameters({key: schema}))
        return Tool(Operation("record", entity.name), spec, {"key": key}, source)

    def members(self, entity: Entity, link: Link, target: Entity) -> Tool:
        """Lists what leads to an entity by a link."""
        key, schema = self._key(target)
        same = key == self.style.cased(self.style.key.format(entity=entity.name))
        key = self.style.cased(link.name) if same or "{" not in self.style.key else key
        name = self.style.name("members", entity=entity.name, word=link.name, plural=_snake(entity.plural))
        found = f'[key for key, row in _ROWS["{entity.name}"].items() if row["{link.name}"] == {key}]'
        told = f"The {entity.plural} whose {link.noun} is the given {target.noun}."
        check = f'    _row("{target.name}", {key})\n'
        return self._listing(
            Operation("members", entity.name, link.name), name, told, {key: schema}, {"key": key}, found, check
        )

    def where(self, entity: Entity, word: str, noun: str, values: Sequence[str]) -> Tool:
        """Lists the entities with a label."""
        key = self.style.cased(word)
        name = self.style.name("where", entity=entity.name, word=word, plural=_snake(entity.plural))
        found = f'[key for key, row in _ROWS["{entity.name}"].items() if row["{word}"] == {key}]'
        schema = {"type": "string", "enum": list(values)}
        told = f"The {entity.plural} with a given {noun}."
        return self._listing(
            Operation("where", entity.name, word), name, told, {key: schema}, {"value": key}, found, ""
        )

    def range(self, entity: Entity, word: str, noun: str, kind: Kind) -> Tool:
        """Lists the entities with a value between two bounds."""
        low, high = (self.style.cased(bound) for bound in self.style.bounds)
        name = self.style.name("range", entity=entity.name, word=word, plural=_snake(entity.plural))
        found = f'[key for key, row in _ROWS["{entity.name}"].items() if {low} <= row["{word}"] <= {high}]'
        schema = {"type": kind.json}
        unit = f" in {kind.unit}" if kind.unit else ""
        told = f"The {entity.plural} by {noun}{unit}, both bounds included."
        return self._listing(
            Operation("range", entity.name, word), name, told, {low: schema, high: schema}, {"low": low, "high": high},
            found, "",
        )  # fmt: skip

    def _listing(
        self, operation: Operation, name: str, told: str, parameters: dict[str, Any], roles: dict[str, str], found: str,
        check: str,
    ) -> Tool:  # fmt: skip
        style = self.style
        items = style.cased(style.items)
        path: tuple[str, ...] = (items,)
        if style.page_size:
            signature = ", ".join([*parameters, f"{style.page}=1"])
            returned = f"_page({found}, {style.page})"
            told += f" In pages of {style.page_size}."
            page = {style.page: {"type": "integer", "description": "from 1; the first when left out"}}
            spec = ToolSpec(name, told, _parameters(parameters, optional=page))
            roles = {**roles, "page": style.page}
        else:
            signature = ", ".join(parameters)
            returned, path = (found, ()) if style.listing == "bare" else (f'{{"{items}": {found}}}', path)
            spec = ToolSpec(name, told, _parameters(parameters))
        source = f"def {name}({signature}):\n{check}    return {returned}\n"
        return Tool(
            operation, spec, roles, source, path, page_size=style.page_size,
            next_page=style.next_page if style.page_size else "",
        )  # fmt: skip

    def lookup(self, entity: Entity) -> Tool:
        """Finds the id of an entity by its name."""
        name = self.style.name("lookup", entity=entity.name)
        source = (
            f"def {name}(name):\n"
            f'    for key, row in _ROWS["{entity.name}"].items():\n'
            f'        if row["{NAME}"] == name:\n'
            f"            return key\n"
            f'    raise ValueError(f"no {entity.noun} is called {{name!r}}")\n'
        )
        spec = ToolSpec(
            name, f"The id of {a(entity.noun)} by its full name.", _parameters({"name": {"type": "string"}})
        )
        return Tool(Operation("lookup", entity.name), spec, {"key": "name"}, source)

    def rate(self, currencies: Sequence[str]) -> Tool:
        """How many units of a currency one credit is worth."""
        name = self.style.name("rate")
        value, path, _ = self._wrapped('_row("currency", currency)["rate"]', "rate", "rate", "currency", None)
        if self.style.wrapping == "prose":
            value, path = '{"rate": _row("currency", currency)["rate"]}', ("rate",)
        source = f"def {name}(currency):\n    return {value}\n"
        schema = {"currency": {"type": "string", "enum": list(currencies)}}
        spec = ToolSpec(name, "How many units of a currency one credit buys.", _parameters(schema))
        return Tool(Operation("rate", "currency"), spec, {"key": "currency"}, source, path)

    def arithmetic(self, verb: Literal["add", "subtract"]) -> Tool:
        """Adds two numbers, or takes the smaller from the larger."""
        name = self.style.name(verb)
        expression = "a + b" if verb == "add" else "abs(a - b)"
        told = "The sum of two numbers." if verb == "add" else "The difference between two numbers, never negative."
        if self.style.plain:
            told = "sum of two numbers" if verb == "add" else "difference of two numbers"
        schema = {"type": "integer" if self.style.plain else "number"}
        source = f"def {name}(a, b):\n    return round({expression}, 6)\n"
        return Tool(
            Operation(verb), ToolSpec(name, told, _parameters({"a": schema, "b": schema})), {"a": "a", "b": "b"}, source
        )

    def act(self, entity: Entity, verb: str, field: str, before: str, after: str) -> Tool:
        """Changes the state of an entity that is in the right one."""
        key, schema = self._key(entity)
        name = self.style.name("act", entity=entity.name, word=verb)
        source = (
            f"def {name}({key}):\n"
            f'    row = _row("{entity.name}", {key})\n'
            f'    if row["{field}"] != {before!r}:\n'
            f"        raise ValueError({key} + ' is ' + row[{field!r}] + ', not {before}')\n"
            f'    row["{field}"] = {after!r}\n'
            f'    return "done"\n'
        )
        told = f"Change {a(entity.noun)} from {before} to {after}."
        return Tool(
            Operation("act", entity.name, verb), ToolSpec(name, told, _parameters({key: schema})), {"key": key}, source
        )

    def move(self, entity: Entity, verb: str, link: Link) -> Tool:
        """Points a link of an entity elsewhere."""
        key, schema = self._key(entity)
        name = self.style.name("move", entity=entity.name, word=verb)
        value = self.style.cased(f"new_{link.name}")
        source = (
            f"def {name}({key}, {value}):\n"
            f'    row = _row("{entity.name}", {key})\n'
            f'    _row("{link.to}", {value})\n'
            f'    row["{link.name}"] = {value}\n'
            f'    return "done"\n'
        )
        told = f"Give {a(entity.noun)} another {link.noun}."
        parameters = _parameters({key: schema, value: {"type": "string"}})
        return Tool(
            Operation("move", entity.name, verb), ToolSpec(name, told, parameters), {"key": key, "value": value}, source
        )


def _parameters(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _snake(plural: str) -> str:
    return "_".join("".join(sign if sign.isalnum() else " " for sign in plural.lower()).split())
