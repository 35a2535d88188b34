"""Reads a skin from TOML and checks it, so that what the generator is handed makes whole sentences and whole worlds.

Each complaint is one line with the file, the entity, the part of it, and what would be accepted. The house's own skins
are held to more than this (more fields, longer chains); their test says so.
"""

import keyword
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from recall.errors import ConfigError
from recall.synth.procedural.kinds import KINDS
from recall.synth.procedural.names import LANGUAGES, NAMED, Named
from recall.synth.procedural.skins.schema import Action, Entity, Field, Label, Link, Move, Skin, States

T = TypeVar("T")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PLAIN = re.compile(r"[a-z]+([ -][a-z]+)*")
RESERVED = ("id", "name", "type")
"""What every entity has anyway, or what would be read as a tool's own parameter."""


def parse(text: str, where: str) -> Skin:
    """A skin from TOML text.

    Args:
        text: the file's content.
        where: what complaints call the file.

    Raises:
        ConfigError: the text is not TOML, or not a skin.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    table = _Table(where, data)
    skin = Skin(table.word("name"), table.choice("language", LANGUAGES), table.tables("entity", _entity, least=2))
    table.done()
    _check_skin(skin, where)
    return skin


def read(path: Path) -> Skin:
    """A skin from a file of the user's.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or is not a skin.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"{path}: no such skin file") from None
    except PermissionError:
        raise ConfigError(f"{path}: the skin may not be read (permission denied)") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None
    return parse(text, str(path))


class _Table:
    """A TOML table that is taken apart key by key and knows where it stands."""

    def __init__(self, where: str, data: Mapping[str, Any]) -> None:
        self.where = where
        self._rest = dict(data)

    def fail(self, problem: str) -> NoReturn:
        raise ConfigError(f"{self.where}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._rest.pop(key, default)
        if value is None:
            self.fail(f"{key} is missing; it takes text")
        if not isinstance(value, str) or not value.strip() or value != value.strip():
            self.fail(f"{key} = {value!r}: it takes text that is not empty and has no space around it")
        return value

    def word(self, key: str) -> str:
        value = self.text(key)
        if not _SNAKE.fullmatch(value) or keyword.iskeyword(value) or value in RESERVED:
            taken = f", and is not {', '.join(RESERVED)} or a word of Python's"
            self.fail(f"{key} = {value!r}: it takes a snake_case name such as page_count{taken}")
        return value

    def plain(self, key: str, default: str | None = None) -> str:
        """Words that the names of tools are made of too."""
        value = self.text(key, default)
        if not _PLAIN.fullmatch(value):
            self.fail(f"{key} = {value!r}: it takes words of the letters a to z")
        return value

    def choice(self, key: str, known: Iterable[str]) -> str:
        value = self.text(key)
        if value not in (options := list(known)):
            self.fail(f"{key} = {value!r}: {_nearest(value, options)}")
        return value

    def phrase(self, key: str, default: str | None = None) -> str:
        value = self.text(key, default)
        if value.count("{}") != 1 or re.search(r"[{}]", value.replace("{}", "")):
            self.fail(f"{key} = {value!r}: it takes a phrase with {{}} in it once")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        values = self._rest.pop(key, None)
        good = isinstance(values, list) and all(
            isinstance(value, str) and value.strip() == value != "" for value in values
        )
        if not good or not 2 <= len(values) == len({value.casefold() for value in values}):
            self.fail(f"{key} = {values!r}: it takes a list of at least two texts, all different")
        return tuple(values)

    def tables(self, key: str, build: "Callable[[_Table], T]", least: int = 0) -> tuple[T, ...]:
        rows = self._rest.pop(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or len(rows) < least:
            self.fail(f"{key}: it takes a list of at least {least} tables")
        return tuple(self._build(key, number, row, build) for number, row in enumerate(rows, 1))

    def table(self, key: str, build: "Callable[[_Table], T]") -> T | None:
        row = self._rest.pop(key, None)
        if row is None:
            return None
        if not isinstance(row, dict):
            self.fail(f"{key}: it takes a table")
        return self._build(key, 0, row, build)

    def _build(self, key: str, number: int, row: Mapping[str, Any], build: "Callable[[_Table], T]") -> T:
        """Build a part that complaints call by its own name, or else by its number."""
        called = next((str(row[name]) for name in ("name", "field", "verb", "link") if name in row), str(number))
        part = key.removesuffix("s") if number else key
        table = _Table(f"{self.where}: {part} {called}", row)
        built = build(table)
        table.done()
        return built

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if self._rest:
            self.fail(f"{next(iter(self._rest))}: unknown key")


def _entity(table: _Table) -> Entity:
    name = table.word("name")
    entity = Entity(
        name,
        table.plain("noun", name.replace("_", " ")),
        table.plain("plural"),
        cast(Named, table.choice("named", NAMED)),
        table.tables("fields", _field, least=1),
        table.tables("labels", _label),
        table.tables("links", _link),
        table.table("states", _states),
        table.tables("moves", _move),
    )
    _check_entity(entity, table)
    return entity


def _field(table: _Table) -> Field:
    name = table.word("name")
    return Field(name, table.text("noun", name.replace("_", " ")), KINDS[table.choice("kind", KINDS)])


def _label(table: _Table) -> Label:
    name = table.word("name")
    noun = table.text("noun", name.replace("_", " "))
    return Label(name, noun, table.words("values"), table.phrase("phrase", f"whose {noun} is {{}}"))


def _link(table: _Table) -> Link:
    name = table.word("name")
    noun = table.text("noun", name.replace("_", " "))
    return Link(name, noun, table.word("to"), table.phrase("inverse"))


def _states(table: _Table) -> States:
    name = table.word("field")
    noun = table.text("noun", name.replace("_", " "))
    values = table.words("values")

    def action(row: _Table) -> Action:
        built = Action(row.word("verb"), row.choice("from", values), row.choice("to", values))
        if built.source == built.target:
            row.fail(f"from and to are both {built.source!r}; an action changes the state")
        return built

    phrase = table.phrase("phrase", f"whose {noun} is {{}}")
    return States(name, noun, values, table.tables("actions", action, least=1), phrase)


def _move(table: _Table) -> Move:
    return Move(table.word("link"), table.word("verb"))


def _check_entity(entity: Entity, table: _Table) -> None:
    _refuse_repeats(entity.words, table, "a field, label, link or state")
    nouns = [part.noun for group in (entity.fields, entity.labels, entity.links) for part in group]
    _refuse_repeats([*nouns, *([entity.states.noun] if entity.states else [])], table, "the noun of one")
    verbs = [move.verb for move in entity.moves] + [
        action.verb for action in (entity.states.actions if entity.states else ())
    ]
    _refuse_repeats(verbs, table, "a verb")
    if not any(field.kind.answerable for field in entity.fields):
        known = next(name for name, kind in KINDS.items() if kind.answerable)
        table.fail(f"fields: no kind among them can be an answer; give it one such as {known}")
    links = [link.name for link in entity.links]
    for move in entity.moves:
        if move.link not in links:
            table.fail(f"move {move.verb}: link = {move.link!r}: {_nearest(move.link, links)}")


def _check_skin(skin: Skin, where: str) -> None:
    table = _Table(where, {})
    _refuse_repeats([entity.name for entity in skin.entities], table, "an entity")
    _refuse_repeats([entity.plural for entity in skin.entities], table, "the plural of one")
    names = [entity.name for entity in skin.entities]
    joined = {name: {name} for name in names}
    for entity, link in skin.links:
        if link.to not in names:
            raise ConfigError(
                f"{where}: entity {entity.name}: link {link.name}: to = {link.to!r}: {_nearest(link.to, names)}"
            )
        whole = joined[entity.name] | joined[link.to]
        joined.update(dict.fromkeys(whole, whole))
    alone = [name for name in names if name not in joined[names[0]]]
    if alone:
        table.fail(f"entity {alone[0]}: no chain of links joins it with {names[0]}")


def _refuse_repeats(words: Sequence[str], table: _Table, what: str) -> None:
    repeated = [word for word, count in Counter(words).items() if count > 1]
    if repeated:
        table.fail(f"{repeated[0]!r} is {what} twice; give one of them another name")


def _nearest(written: str, known: Sequence[str]) -> str:
    """What would be accepted: all of few, the most like of many."""
    if not known:
        return "there is nothing that it could be"
    if len(known) <= 12:
        return f"it takes one of {', '.join(known)}"
    near = get_close_matches(written, known, n=3, cutoff=0.0)
    return f"the nearest known ones are {', '.join(near)}"
