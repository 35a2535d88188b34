"""The typed state of a generated world: tables of rows with fields of a few types, and what a world must be to fit."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import combinations
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

TYPES = ("string", "integer", "number", "boolean", "date")
"""The plain types of a field; a field may also be `ref:TABLE`, the id of a row of a table, and a list of either."""
_TYPE = re.compile(r"(?:list of )?(?:string|integer|number|boolean|date|ref:([a-z][a-z0-9_]*))")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class StateField(BaseModel):
    """One field of the rows of a table."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    """How rows call it."""
    type: str
    """One of `TYPES`, `ref:TABLE`, or `list of` one of these."""
    description: str = ""
    """What it says."""

    @property
    def target(self) -> str | None:
        """The table whose rows it names; None where it names none."""
        found = _TYPE.fullmatch(self.type)
        return found[1] if found else None

    @property
    def element(self) -> str:
        """Its type, or that of its elements where it is a list."""
        return self.type.removeprefix("list of ")


class Table(BaseModel):
    """One kind of thing in the world. Its rows have ids, which are text and stand in the field `id` as well."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    """How the world calls it."""
    description: str = ""
    """What a row is."""
    fields: tuple[StateField, ...] = Field(min_length=2, max_length=16)
    """The fields of every row, `id` among them."""


class StateSchema(BaseModel):
    """The tables of a world."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tables: tuple[Table, ...] = Field(min_length=2, max_length=8)
    """What there is."""

    @model_validator(mode="after")
    def _sound(self) -> "StateSchema":
        names = [table.name for table in self.tables]
        if len(set(names)) < len(names):
            raise ValueError("two tables have one name")
        for table in self.tables:
            fields = [field.name for field in table.fields]
            if len(set(fields)) < len(fields):
                raise ValueError(f"table {table.name!r}: two fields have one name")
            if not any(field.name == "id" and field.type == "string" for field in table.fields):
                raise ValueError(f"table {table.name!r}: no field 'id' of type string")
            for field in table.fields:
                if not _TYPE.fullmatch(field.type):
                    known = ", ".join(TYPES)
                    raise ValueError(
                        f"field {table.name}.{field.name}: unknown type {field.type!r}; accepted: {known}, ref:TABLE, "
                        "or list of one of these"
                    )
                if field.target is not None and field.target not in names:
                    raise ValueError(f"field {table.name}.{field.name}: there is no table {field.target!r}")
        if not any(field.target for table in self.tables for field in table.fields):
            raise ValueError("no field refers to another table, so no question could go from one to another")
        return self

    def table(self, name: str) -> Table | None:
        """The table of this name, if there is one."""
        return next((table for table in self.tables if table.name == name), None)

    @property
    def shape(self) -> str:
        """A hash of the schema without its words: two schemas that differ in names alone have the same."""
        labels = {table.name: "" for table in self.tables}
        for _ in self.tables:  # each round tells tables apart by what they refer to, one step further than before
            labels = {
                table.name: _hash(sorted(_wordless(field, labels) for field in table.fields)) for table in self.tables
            }
        return _hash(sorted(labels.values()))[:16]


def problem_of(world: Any, schema: StateSchema, *, least_rows: int = 5, most_rows: int = 400) -> str | None:
    """What keeps a JSON value from being a world of this schema; None where nothing does."""
    return next(_problems(world, schema, least_rows, most_rows), None)


def _problems(world: Any, schema: StateSchema, least_rows: int, most_rows: int) -> Iterator[str]:
    names = [table.name for table in schema.tables]
    if not isinstance(world, Mapping) or set(world) != set(names):
        yield f"make_world must return a dict with exactly the tables {', '.join(names)}"
        return
    for table in schema.tables:
        rows = world[table.name]
        if not isinstance(rows, Mapping):
            yield f"table {table.name!r} must be a dict of rows by id"
        elif not least_rows <= len(rows) <= most_rows:
            yield f"table {table.name!r} has {len(rows)} rows; accepted: {least_rows} to {most_rows}"
        else:
            for key, row in rows.items():
                yield from _row_problems(f"{table.name}[{key!r}]", key, row, table, world)


def _row_problems(where: str, key: str, row: Any, table: Table, world: Mapping[str, Any]) -> Iterator[str]:
    fields = [field.name for field in table.fields]
    if not isinstance(row, Mapping) or set(row) != set(fields):
        yield f"{where} must be a dict with exactly the fields {', '.join(fields)}"
        return
    if row["id"] != key:
        yield f"{where}: its id is {row['id']!r}; it must be the key that it stands under"
    if "/" in key:
        yield f"{where}: an id must not hold a slash"
    for field in table.fields:
        value = row[field.name]
        values = value if field.type != field.element and isinstance(value, list) else [value]
        if field.type != field.element and not isinstance(value, list):
            yield f"{where}.{field.name} must be a list"
        elif not all(_is(item, field.element, world) for item in values):
            yield f"{where}.{field.name} must be {field.type}, not {str(value)[:60]!r}"


def _is(value: Any, kind: str, world: Mapping[str, Any]) -> bool:
    if kind.startswith("ref:"):
        return isinstance(value, str) and value in world[kind.removeprefix("ref:")]
    if kind == "date":
        return isinstance(value, str) and _is_day(value)
    return type(value) in {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}[kind]


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def sameness(worlds: Sequence[Any]) -> str | None:
    """What is wrong where worlds of different seeds are the same, or share no names; None where nothing is."""
    for one, other in combinations(worlds, 2):
        if one == other:
            return "two seeds give the same world; everything that a question may ask for must depend on the seed"
    return None


def _wordless(field: StateField, labels: Mapping[str, str]) -> str:
    kind = f"ref:{labels[field.target]}" if field.target is not None else field.element
    return f"list of {kind}" if field.type != field.element else kind


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
