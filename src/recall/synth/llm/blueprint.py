"""A task before it has a world: what it starts from, the program that solves it, and how its answer is compared.

The program is one of `recall.programs` in which `{"$anchor": name}` stands for what the question will state. Anchors
are drawn from a world, so one blueprint gives a task in every world of its generator.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recall.programs import OPERATIONS, calls_of, references
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.source import World
from recall.synth.llm.state import Name
from recall.types import AnswerKind, AnswerType

GATE = "blueprint"
"""The gate at which blueprints that say no program are rejected."""

Scalar = str | int | float | bool


class FromTable(BaseModel):
    """An anchor that is a field of a row: any row, or one whose fields equal those of other anchors' rows.

    Two anchors are never drawn from the same row of a table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    """The table."""
    field: str
    """The field that the question states."""
    where: Mapping[str, str] = Field(default_factory=dict)
    """Fields that must equal `anchor.field`, a field of the row that another anchor was drawn from."""


class FromRange(BaseModel):
    """An anchor that is a whole number or a day between two others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    between: tuple[int, int] | tuple[str, str]
    """Both ends are included."""


class FromChoices(BaseModel):
    """An anchor that is one of a few values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: Annotated[tuple[Scalar, ...], Field(min_length=2)]
    """The values."""


class Blueprint(BaseModel):
    """What the model writes of a task before the question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intent: str = Field(min_length=10, max_length=600)
    """What somebody wants to know, or to have done, in a sentence."""
    anchors: Mapping[Name, FromTable | FromRange | FromChoices] = Field(min_length=1, max_length=6)
    """What the question states, in the order in which it is drawn."""
    program: tuple[Mapping[str, Any], ...] = Field(min_length=1, max_length=24)
    """The reference program."""
    answer_type: AnswerKind | Literal["none"]
    """How the answer is compared; `none` where the task asks for a change alone."""
    tolerance: float = Field(default=0.0, ge=0, le=1000)
    """For `number`."""

    @property
    def comparison(self) -> AnswerType:
        """How the answer is compared."""
        return AnswerType("text") if self.answer_type == "none" else AnswerType(self.answer_type, self.tolerance)

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """The items of the program that are calls."""
        return calls_of(self.program)


def read_blueprint(value: Any, world: World) -> Blueprint:
    """A blueprint from decoded JSON, checked against the tools and tables of its world.

    Raises:
        RejectedError: it says no program over this world.
    """
    try:
        blueprint = Blueprint.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise RejectedError(GATE, "not a blueprint", f"{where or 'the task'}: {fault['msg']}") from None
    for problem in _anchor_problems(blueprint, world):
        raise RejectedError(GATE, "anchor", problem)
    for problem in _program_problems(blueprint, world):
        raise RejectedError(GATE, "program", problem)
    return blueprint


def _anchor_problems(blueprint: Blueprint, world: World) -> Iterator[str]:
    tables: dict[str, str] = {}
    for name, anchor in blueprint.anchors.items():
        if isinstance(anchor, FromTable):
            table = world.schema.table(anchor.table)
            fields = {field.name: field for field in table.fields} if table is not None else {}
            if anchor.field not in fields or fields[anchor.field].type.startswith("list"):
                yield f"anchor {name!r}: there is no plain field {anchor.table}.{anchor.field}"
            for field, other in anchor.where.items():
                owner, _, named = other.partition(".")
                known = world.schema.table(tables[owner]) if owner in tables else None
                if field not in fields or known is None or named not in {each.name for each in known.fields}:
                    yield (
                        f"anchor {name!r}: where {field!r} = {other!r} names no field of {anchor.table}, or no field "
                        "of an anchor drawn from a table before"
                    )
            tables[name] = anchor.table
        elif isinstance(anchor, FromRange) and isinstance(anchor.between[0], str):
            try:
                first, last = (date.fromisoformat(str(day)) for day in anchor.between)
            except ValueError:
                yield f"anchor {name!r}: {anchor.between} are no days; accepted: YYYY-MM-DD"
            else:
                if first >= last:
                    yield f"anchor {name!r}: the first day is not before the last"
        elif isinstance(anchor, FromRange) and not int(anchor.between[0]) < int(anchor.between[1]):
            yield f"anchor {name!r}: the first number is not below the last"


def _program_problems(blueprint: Blueprint, world: World) -> Iterator[str]:
    tools = {tool.name: tool for tool in world.tools}
    for number, item in enumerate(blueprint.program):
        where = f"program item {number}"
        if set(item) == {"name", "arguments"} and isinstance(item["arguments"], Mapping):
            tool = tools.get(item["name"])
            if tool is None:
                yield f"{where}: no tool {item['name']!r}; there are {', '.join(tools)}"
            else:
                properties, required = tool.parameters["properties"], tool.parameters["required"]
                for name in (*(n for n in item["arguments"] if n not in properties), *required):
                    if name not in properties or name not in item["arguments"]:
                        yield f"{where}: the arguments of {tool.name} are {', '.join(properties)}"
        elif set(item) != {"value"}:
            yield f'{where}: must be {{"name": tool, "arguments": {{…}}}} or {{"value": expression}}'
        for problem in _expression_problems(item.get("arguments", item.get("value")), number, blueprint):
            yield f"{where}: {problem}"
    if not blueprint.calls:
        yield "the program calls no tool"
    named = Counter(anchors_in([dict(item) for item in blueprint.program]))
    for name in blueprint.anchors:
        if not named[name]:
            yield f"anchor {name!r} is not used by the program"


def _expression_problems(expression: Any, number: int, blueprint: Blueprint) -> Iterator[str]:
    if isinstance(expression, Mapping):
        if "$anchor" in expression:
            if expression["$anchor"] not in blueprint.anchors or len(expression) > 1:
                yield f"{dict(expression)} names no anchor"
            return
        if "$ref" in expression:
            index = expression["$ref"]
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < number:
                yield f"{dict(expression)} refers to no earlier item"
            return
        if "$op" in expression and expression["$op"] not in OPERATIONS:
            yield f"unknown operation {expression['$op']!r}; accepted: {', '.join(OPERATIONS)}"
        for value in expression.values():
            yield from _expression_problems(value, number, blueprint)
    elif isinstance(expression, list):
        for value in expression:
            yield from _expression_problems(value, number, blueprint)


def anchors_in(expression: Any) -> Iterator[str]:
    """The names of the anchors that an expression holds, repeats included."""
    if isinstance(expression, Mapping):
        if "$anchor" in expression:
            yield str(expression["$anchor"])
        else:
            for value in expression.values():
                yield from anchors_in(value)
    elif isinstance(expression, list | tuple):
        for value in expression:
            yield from anchors_in(value)


def draw(blueprint: Blueprint, world: Mapping[str, Any], generator: random.Random) -> dict[str, Scalar] | None:
    """Values for the anchors, drawn from a world; None where an anchor has no row to be drawn from.

    Args:
        blueprint: names the anchors.
        world: the tables, as JSON.
        generator: decides.
    """
    values: dict[str, Scalar] = {}
    rows: dict[str, Mapping[str, Any]] = {}
    for name, anchor in blueprint.anchors.items():
        if isinstance(anchor, FromTable):
            wanted = {}
            for field, other in anchor.where.items():
                owner, _, of = other.partition(".")
                wanted[field] = rows[owner][of]
            fitting = [
                row
                for row in world[anchor.table].values()
                if row not in rows.values() and all(row[field] == value for field, value in wanted.items())
            ]
            if not fitting:
                return None
            rows[name] = generator.choice(fitting)
            values[name] = rows[name][anchor.field]
        elif isinstance(anchor, FromChoices):
            values[name] = generator.choice(anchor.choices)
        elif isinstance(anchor.between[0], int):
            values[name] = generator.randint(int(anchor.between[0]), int(anchor.between[1]))
        else:
            first, last = (date.fromisoformat(str(day)) for day in anchor.between)
            values[name] = (first + timedelta(days=generator.randint(0, (last - first).days))).isoformat()
    return values


def exists(blueprint: Blueprint, values: Mapping[str, Scalar], world: Mapping[str, Any]) -> bool:
    """Whether values drawn from one world name something in another."""
    return all(
        any(row[anchor.field] == values[name] for row in world[anchor.table].values())
        for name, anchor in blueprint.anchors.items()
        if isinstance(anchor, FromTable)
    )


def bind(expression: Any, values: Mapping[str, Scalar]) -> Any:
    """An expression, or a program, with the values in place of the anchors."""
    if isinstance(expression, Mapping):
        if "$anchor" in expression:
            return values[expression["$anchor"]]
        return {key: bind(value, values) for key, value in expression.items()}
    if isinstance(expression, list | tuple):
        return [bind(value, values) for value in expression]
    return expression


@dataclass(frozen=True, slots=True)
class Form:
    """What a program looks like without its words."""

    template: str
    """Its operators, such as `sum(t(t($)),t($))`: `t` is a call, `$` what the question states."""
    depth: int
    """Calls on the longest path: turns, when whatever can be asked at once is."""
    width: int
    """The most calls that can be made in one turn."""
    operators: tuple[str, ...]
    """The operations besides calls, each once, sorted."""


def form_of(program: Sequence[Mapping[str, Any]]) -> Form:
    """The form of a program."""
    texts: list[str] = []
    depths: list[int] = []
    per_turn: Counter[int] = Counter()
    operators: set[str] = set()
    for item in program:
        expression = item.get("arguments", item.get("value"))
        text = _wordless(expression, texts, operators)
        depth = max((depths[index] for index in references(expression)), default=0)
        if "name" in item:
            depth += 1
            per_turn[depth] += 1
            text = f"t({text})"
        texts.append(text)
        depths.append(depth)
    return Form(texts[-1], max(depths), max(per_turn.values(), default=0), tuple(sorted(operators)))


def _wordless(expression: Any, texts: Sequence[str], operators: set[str]) -> str:
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return texts[expression["$ref"]]
        if "$op" in expression:
            operators.add(str(expression["$op"]))
            inner = ",".join(_wordless(value, texts, operators) for value in expression.get("of", ()))
            return f"{expression['$op']}({inner})"
        if "$anchor" in expression:
            return "$"
        return ",".join(_wordless(value, texts, operators) for value in expression.values())
    if isinstance(expression, list | tuple):
        return "[" + ",".join(_wordless(value, texts, operators) for value in expression) + "]"
    return "$"


def structure_of(shape: str, template: str) -> str:
    """The hash of a world's shape and a program's form; it never crosses splits."""
    return hashlib.sha256(json.dumps([shape, template]).encode()).hexdigest()[:16]


def kind_of(form: Form, calls: int, changes: bool) -> str:
    """The short name of a kind of task, such as `chain3`, `sum4` or `update2`."""
    word = "update" if changes else "-".join(form.operators) or ("chain" if form.width == 1 else "join")
    return f"{word}{calls}"
