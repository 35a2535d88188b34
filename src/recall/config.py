"""Settings: frozen pydantic models, read from a TOML recipe with dotted flags over it, and written back as TOML.

Not here: what a setting means (its owner defines and validates it) and how a command shows its flags (`cli/usage.py`).
TOML has no null, so in a recipe and in a flag alike the text `none` is None wherever the setting accepts None.
"""

import dataclasses
import enum
import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from recall.errors import ConfigError

T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound=BaseModel)

REQUIRED: Any = PydanticUndefined
"""The default of a setting that has none."""

Positional = Annotated[T, "positional"]
"""Marks a field that a command takes without a flag: `file: Positional[Path]`."""


class Settings(BaseModel):
    """The base of every settings model: frozen, and unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    takes_recipe: ClassVar[bool] = False
    """For a command: whether its one positional argument is a TOML recipe."""
    named_by: ClassVar[str] = ""
    """For a table: the setting that a flag of the table's name sets, as `--policy vllm` sets `policy.engine`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One setting of a model."""

    name: str
    """The name in recipes and flags; dotted where it stands in a table."""
    attribute: str
    """The attribute of `owner` that holds it."""
    owner: type
    """The model or dataclass that defines it."""
    annotation: Any
    """Its type, constraints included."""
    default: Any
    """Its default, or `REQUIRED`."""

    @property
    def positional(self) -> bool:
        """Whether a command takes it without a flag."""
        return "positional" in _strip(self.annotation)[1]

    @property
    def is_switch(self) -> bool:
        """Whether the bare flag means true."""
        return {_strip(option)[0] for option in _options(self.annotation)} - {types.NoneType} == {bool}

    @property
    def accepts(self) -> str:
        """The accepted values, in words."""
        return accepted(self.annotation)


def load(model: type[SettingsT], path: Path | None, overrides: Sequence[str] = ()) -> SettingsT:
    """Read a TOML recipe, put dotted flags over it, and validate the whole.

    Args:
        model: the settings to build.
        path: the recipe; None starts from the defaults.
        overrides: `--key value`, `--key=value`, `--switch` or `--no-switch`; the last one given wins.

    Raises:
        ConfigError: the file is missing or broken, a key is unknown, a value is not accepted. One line that names the
            file or the flag, the key, and what would be accepted.
    """
    data = _read(path) if path is not None else {}
    positionals, flags = split_arguments(model, overrides)
    if positionals:
        raise ConfigError(f"unexpected argument {positionals[0]!r}; settings are given as --key value")

    def where(key: str) -> str:
        given = any(key == flag or key.startswith(f"{flag}.") or flag.startswith(f"{key}.") for flag, _ in flags)
        return f"--{key}" if given or path is None else f"{path}: {key}"

    known = _known(model, data, "", where)
    for name, text in flags:
        key = find(model, name)
        assert key is not None, "split_arguments returns known keys only"
        _place(known, name.split("."), _known(key.annotation, _decode(text, key.annotation), name, where), name)
    try:
        return model.model_validate_json(json.dumps(_over_defaults(model, known), default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(_explain(error, model, where)) from None


def dump(settings: BaseModel) -> str:
    """The settings as TOML that `load` reads back equal; a None that is also the default is left out."""
    lines: list[str] = []
    _write_table(settings, None, "", lines)
    return "\n".join(lines).strip("\n") + "\n"


def split_arguments(model: type[BaseModel], arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split a command line into its positional arguments and its `(key, text)` flags.

    Raises:
        ConfigError: a flag is unknown or lacks its value.
    """
    positionals: list[str] = []
    flags: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return positionals + rest, flags
        if not re.match(r"-+[A-Za-z_]", token):
            positionals.append(token)
            continue
        written, equals, text = token.lstrip("-").partition("=")
        key = find(model, written) or find(model, written.replace("-", "_"))
        if key is None and token.startswith("--no-") and not equals:
            denied = find(model, written.removeprefix("no-").replace("-", "_"))
            if denied is not None and denied.is_switch:
                flags.append((denied.name, "false"))
                continue
        if key is None or not token.startswith("--"):
            raise ConfigError(f"{token.partition('=')[0]}: unknown flag; {_nearest(written, model, '--')}")
        if not equals and key.is_switch:
            text = rest.pop(0) if rest and rest[0].lower() in ("true", "false", "none") else "true"
        elif not equals:
            if not rest or re.match(r"--[A-Za-z_]", rest[0]):
                raise ConfigError(f"--{key.name}: needs a value; it takes {key.accepts}")
            text = rest.pop(0)
        name = "" if text.lstrip().startswith("{") else next(map(_named_by, tables(key.annotation)), "")
        flags.append((f"{key.name}.{name}" if name else key.name, text))
    return positionals, flags


def _named_by(table: type) -> str:
    return table.named_by if issubclass(table, Settings) else ""


def members(owner: type) -> dict[str, Key]:
    """The settings that a model or dataclass defines itself, tables included, by their undotted names."""
    if issubclass(owner, BaseModel):
        return {
            info.alias or name: Key(
                info.alias or name, name, owner, _annotated(info), info.get_default(call_default_factory=True)
            )
            for name, info in owner.model_fields.items()
        }
    hints = get_type_hints(owner, include_extras=True)
    found = {}
    for field in dataclasses.fields(cast(Any, owner)):
        default = REQUIRED
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = Key(field.name, field.name, owner, hints[field.name], default)
    return found


def keys(model: type, prefix: str = "", defaults: Any = None) -> Iterator[Key]:
    """Every setting of a model, tables opened, in the order of definition.

    Args:
        model: a model or dataclass.
        prefix: what the names start with.
        defaults: an instance whose values are the defaults, where the table around it sets them.
    """
    for key in members(model).values():
        default = key.default if defaults is None else getattr(defaults, key.attribute)
        inner = tables(key.annotation)
        for table in inner:
            yield from keys(table, f"{prefix}{key.name}.", default if isinstance(default, table) else None)
        if not inner:
            yield dataclasses.replace(key, name=prefix + key.name, default=default)


def find(annotation: Any, name: str) -> Key | None:
    """The setting at a dotted name under a model, or None; any key of a mapping is known."""
    head, _, tail = name.partition(".")
    for table in tables(annotation):
        key = members(table).get(head)
        if key is not None and not tail:
            return key
        found = find(key.annotation, tail) if key is not None else None
        if found is not None:
            return dataclasses.replace(found, name=f"{head}.{found.name}")
    item = _item(annotation, Mapping)
    if item is None or not head:
        return None
    return Key(name, "", dict, item, REQUIRED) if not tail else find(item, tail)


def tables(annotation: Any) -> list[type]:
    """The models and dataclasses among the options of an annotation."""
    options = [_strip(option)[0] for option in _options(annotation)]
    return [o for o in options if isinstance(o, type) and (issubclass(o, BaseModel) or dataclasses.is_dataclass(o))]


def accepted(annotation: Any) -> str:
    """The values that an annotation accepts, in words: `a number above 0 or none`."""
    return " or ".join(dict.fromkeys(_accepted_option(option) for option in _options(annotation)))


def takes_many(annotation: Any) -> bool:
    """Whether an annotation is a list, a tuple or a set."""
    return _item(annotation, Sequence) is not None


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_BOUNDS: tuple[tuple[type, str, str], ...] = (
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Le, "le", "at most"),
    (annotated_types.Lt, "lt", "below"),
)


def _accepted_option(option: Any) -> str:
    plain, metadata = _strip(option)
    bounds = " and ".join(f"{w} {getattr(m, a)}" for m in metadata for kind, a, w in _BOUNDS if isinstance(m, kind))
    if plain is types.NoneType or plain is None:
        return "none"
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(_toml(value) for value in get_args(plain))
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return "one of " + ", ".join(_toml(value.value) for value in plain)
    if tables(plain):
        return "a table of " + ", ".join(name for table in tables(plain) for name in members(table))
    if _item(plain, Mapping) is not None:
        return f"a table, each value {accepted(_item(plain, Mapping))}"
    if _item(plain, Sequence) is not None:
        return f"a list, each {accepted(_item(plain, Sequence))}"
    return f"{_WORDS.get(plain, getattr(plain, '__name__', str(plain)))} {bounds}".strip()


def _annotated(info: FieldInfo) -> Any:
    annotation: Any = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return annotation


def _strip(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without its `Annotated`, and the metadata that stood there."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    plain, *items = get_args(annotation)
    inner, more = _strip(plain)
    return inner, more + [part for item in items for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _options(annotation: Any) -> list[Any]:
    """The members of a union, each with the metadata of the whole; the annotation itself where it is none."""
    plain, metadata = _strip(annotation)
    if get_origin(plain) not in (Union, types.UnionType):
        return [annotation]
    options = []
    for option in get_args(plain):
        for item in metadata if option is not types.NoneType else ():
            option = Annotated[option, item]
        options.extend(_options(option))
    return options


def _item(annotation: Any, kind: type) -> Any | None:
    """What the values of a mapping, or the items of a list, tuple or set, are; None where it is neither."""
    for option in _options(annotation):
        plain, _ = _strip(option)
        origin = get_origin(plain) or plain
        if not isinstance(origin, type) or issubclass(origin, str):
            continue
        arguments = get_args(plain)
        if issubclass(origin, Mapping) and kind is Mapping:
            return arguments[1] if arguments else Any
        if kind is Sequence and issubclass(origin, (Sequence, AbstractSet)):
            return arguments[0] if arguments else Any
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"{path}: no such recipe file") from None
    except PermissionError:
        raise ConfigError(f"{path}: the recipe may not be read (permission denied)") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _known(annotation: Any, value: Any, name: str, where: Any) -> Any:
    """`value` with `none` read as None, after every key in it was found to be known."""
    if value == "none" and types.NoneType in _options(annotation):
        return None
    if isinstance(value, dict):
        owners = tables(annotation)
        inner = {key.name: key.annotation for owner in owners for key in members(owner).values()}
        result = {}
        for part, item in value.items():
            full = f"{name}.{part}" if name else part
            if owners and part not in inner:
                near = _nearest(part, owners, f"{name}." if name else "")
                raise ConfigError(f"{where(full)}: unknown key; {near}")
            result[part] = _known(inner[part] if owners else _item(annotation, Mapping) or Any, item, full, where)
        return result
    if isinstance(value, list):
        item_type = _item(annotation, Sequence) or Any
        return [_known(item_type, item, f"{name}[{index}]", where) for index, item in enumerate(value)]
    return value


def _nearest(written: str, model: type[BaseModel] | list[type], prefix: str) -> str:
    """The known key most like `written`, as a whole or by its last part."""
    from difflib import SequenceMatcher

    owners = model if isinstance(model, list) else [model]
    names = [key.name for owner in owners for key in keys(owner)]
    names += [name for owner in owners for name in members(owner)] if isinstance(model, list) else []
    if not names:
        return "there are no keys here"

    def likeness(name: str) -> float:
        whole = SequenceMatcher(None, written, name).ratio()
        return max(whole, 0.95 * SequenceMatcher(None, written.split(".")[-1], name.split(".")[-1]).ratio())

    return f"the nearest known one is {prefix}{max(names, key=likeness)}"


def _decode(text: str, annotation: Any) -> Any:
    """The value that a flag's text stands for: the first reading that the annotation accepts, else the text."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for reading in _readings(text):
        try:
            adapter.validate_json(json.dumps(reading, default=str), strict=True)
        except ValidationError:
            continue
        return reading
    return next((value for value in _toml_value(text) if isinstance(value, dict)), text)


def _readings(text: str) -> Iterator[Any]:
    if text.lower() == "none":
        yield None
    yield text
    if text.lower() in ("true", "false"):
        yield text.lower() == "true"
    yield from _toml_value(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?", text):  # `.5` and `5.`, which TOML does not know
        yield float(text)
    parts = [part.strip() for part in text.split(",")] if text else []
    yield parts
    yield [value for part in parts for value in (*_toml_value(part), part)[:1]]


def _toml_value(text: str) -> list[Any]:
    try:
        return list(tomllib.loads(f"value = {text}").values())[:1]
    except tomllib.TOMLDecodeError:
        return []


def _place(data: dict[str, Any], parts: list[str], value: Any, name: str) -> None:
    for part in parts[:-1]:
        inner = data.get(part)
        data[part] = inner if isinstance(inner, dict) else {}
        data = data[part]
    data[parts[-1]] = value


def _over_defaults(owner: type, data: dict[str, Any]) -> dict[str, Any]:
    """Put partial tables over the values that the table around them gives as default.

    Without it, `[learner] batch = 4` would reset the rest of `learner` to the defaults of its class.
    """
    merged = dict(data)
    for name, key in members(owner).items():
        given, inner = data.get(name), tables(key.annotation)
        if not isinstance(given, dict) or len(inner) != 1:
            continue
        if isinstance(key.default, inner[0]):
            given = _merge(to_jsonable_python(key.default, by_alias=True, inf_nan_mode="constants"), given)
        merged[name] = _over_defaults(inner[0], given)
    return merged


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merge(under[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(under.get(k), dict)}
    return {**under, **over, **both}


def _explain(error: ValidationError, model: type[BaseModel], where: Any) -> str:
    faults = error.errors(include_url=False)
    places: dict[str, Any] = {}
    for fault in faults:
        annotation: Any = model
        name = ""
        for part in fault["loc"]:
            if isinstance(part, int) and _item(annotation, Sequence) is not None:
                annotation, name = _item(annotation, Sequence), f"{name}[{part}]"
            elif isinstance(part, str) and (key := find(annotation, part)) is not None:
                annotation, name = key.annotation, f"{name}.{part}" if name else part
        places.setdefault(name, (fault, annotation))
    name, (fault, annotation) = next(iter(places.items()))
    place = f"{where(name)}: " if name else ""
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    if fault["type"] == "missing":
        return f"{place}required; it takes {accepted(annotation)}{more}"
    if fault["type"] in ("value_error", "assertion_error"):
        return f"{place}{fault['ctx']['error']}{more}"
    value = repr(fault["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{place}{shown} is not accepted; it takes {accepted(annotation)}{more}"


def _write_table(table: Any, default: Any, prefix: str, lines: list[str]) -> None:
    inner: list[tuple[str, Any, Any]] = []
    for name, key in members(type(table)).items():
        value = getattr(table, key.attribute)
        usual = key.default if default is None else getattr(default, key.attribute)
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            inner.append((name, value, usual if type(usual) is type(value) else None))
        elif value is not None:
            lines.append(f"{name} = {_toml(to_jsonable_python(value, by_alias=True, inf_nan_mode='constants'))}")
        elif usual is not None:
            lines.append(f'{name} = "none"')
    for name, value, usual in inner:
        lines.extend(("", f"[{prefix}{name}]"))
        _write_table(value, usual, f"{prefix}{name}.", lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
