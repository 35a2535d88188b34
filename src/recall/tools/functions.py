"""Python functions as tools: schemas from signatures and docstrings, and calls in this process.

The functions are the caller's own and trusted. What a model wrote, or a data set brought, runs in the sandbox instead
(`tools/source.py`).
"""

import asyncio
import contextvars
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

from recall.errors import ConfigError
from recall.sandbox.base import CallResult
from recall.tools.base import Tool, Toolbox, marks_of
from recall.tools.schemas import is_plain, schema_of
from recall.types import CallStatus, ToolSpec

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_PARAMETER = re.compile(r"^\s*\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)$")
_FIELD = re.compile(r"^\s*:param(?:\s+[^:]*?)?\s+\*{0,2}(\w+)\s*:\s*(.*)$")
_OTHER_FIELD = re.compile(r"^\s*:(?:type|returns?|rtype|raises?)\b")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")


def tool_from_function(function: Callable[..., Any], *, skip: int = 0) -> ToolSpec:
    """What a policy is told about `function`.

    The description is the docstring up to its first section; the `Args:` section (or `:param name:` lines, or strings
    in `Annotated`) describes the parameters. A parameter without a default is required.

    Args:
        function: the function.
        skip: parameters at the front that are not the model's to give, such as `self`.

    Raises:
        ConfigError: a parameter has no type hint, or one that has no schema, or cannot be passed by name.
    """
    marks = marks_of(function)
    name = marks.name or _name(function)
    description, about = read_docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    required: list[str] = []
    for parameter, hint in _parameters(function, skip):
        where = f"function {name!r}, parameter {parameter.name!r}"
        schema, more = schema_of(hint, where)
        for key, definition in more.items():
            if definitions.setdefault(key, definition) != definition:
                raise ConfigError(f"{where}: two types that contain themselves are named {key!r}")
        if parameter.name in about:
            schema["description"] = about[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is not None:
            schema["default"] = _as_json(parameter.default, where)
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required}
    if definitions:
        parameters["$defs"] = definitions
    return ToolSpec(name, marks.description or description, parameters)


class FunctionTools:
    """Functions of this process as a source of tools; implements `recall.tools.base.ToolSource`.

    State is whatever the functions share; for state of an episode's own see `ObjectTools`. Functions of one turn run at
    the same time, plain ones each in a thread of its own; methods of one object run one after another, in the order
    called, unless they are coroutines. A plain function that runs out of time cannot be stopped, so it runs on while
    its result is dropped.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        """Read the signatures.

        Raises:
            ConfigError: a signature cannot be told to a model, or two functions have one name.
        """
        self._functions: dict[str, Bound] = {}
        tools = []
        for function in functions:
            spec = tool_from_function(function)
            if spec.name in self._functions:
                raise ConfigError(f"two functions are named {spec.name!r}")
            self._functions[spec.name] = Bound(function)
            tools.append(Tool(spec, marks_of(function)))
        self.tools = tuple(tools)
        """What is offered."""

    async def open(self) -> Toolbox:
        """The functions, as they are."""
        return Toolbox(self.tools, FunctionSession(self._functions))

    async def close(self) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Bound:
    """A function, and how its arguments are read from JSON."""

    function: Callable[..., Any]

    @cached_property
    def adapters(self) -> "Mapping[str, TypeAdapter[Any]]":
        """What turns a JSON value into the parameter's type, for parameters whose type is not JSON's own."""
        from pydantic import TypeAdapter

        return {
            parameter.name: TypeAdapter(hint) for parameter, hint in _parameters(self.function, 0) if not is_plain(hint)
        }

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them.

        Raises:
            ValueError: a value is refused, with the field in the message.
        """
        from pydantic import ValidationError

        read = dict(arguments)
        for name in self.adapters.keys() & read.keys():
            try:
                read[name] = self.adapters[name].validate_python(read[name])
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                path = ".".join(map(str, (name, *fault["loc"])))
                raise ValueError(f"argument {path!r}: {fault['msg']}") from None
        return read


class FunctionSession:
    """Calls functions of this process; implements `recall.sandbox.base.Session`."""

    def __init__(self, functions: Mapping[str, Bound]) -> None:
        self._functions = functions
        self._locks: dict[int, asyncio.Lock] = {}

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call a function; see `recall.sandbox.base.Session.call`."""
        bound = self._functions.get(name)
        if bound is None:
            return CallResult(CallStatus.UNKNOWN_TOOL, error=f"there is no tool {name!r}")
        try:
            read = bound.read(arguments)
        except ValueError as error:
            return CallResult(CallStatus.BAD_ARGUMENTS, error=str(error))
        function = bound.function
        if inspect.iscoroutinefunction(function):
            return await _timed(function(**read), timeout_s)
        owner = getattr(function, "__self__", None)
        if owner is None or inspect.ismodule(owner):
            return await _timed(_in_thread(function, read), timeout_s)
        async with self._locks.setdefault(id(owner), asyncio.Lock()):
            return await _timed(_in_thread(function, read), timeout_s)

    async def close(self) -> None:
        """Nothing to do: the state belongs to the caller."""


async def _timed(result: Awaitable[Any], timeout_s: float | None) -> CallResult:
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            value = as_json(await result)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is an answer to the model
        if isinstance(error, TimeoutError) and deadline.expired():
            return CallResult(CallStatus.TIMEOUT, error=f"the call took longer than {timeout_s:g} s")
        # What a tool could not reach now it may reach in a moment, unlike what it found wrong.
        lost = isinstance(error, ConnectionError | TimeoutError)
        status = CallStatus.CRASHED if lost else CallStatus.EXCEPTION
        return CallResult(status, error=f"{type(error).__name__}: {error}")
    return CallResult(CallStatus.OK, value)


async def _in_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a plain function in a thread of its own.

    A pool would make slow tools of many episodes wait for each other, and a hanging one would keep the process from
    ending; these threads do neither.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(function, **arguments)
        except BaseException as raised:  # noqa: BLE001 - handed to whoever waits
            error = RuntimeError("StopIteration was raised") if isinstance(raised, StopIteration) else raised
            if isinstance(raised, SystemExit | KeyboardInterrupt):
                error = RuntimeError(f"{type(raised).__name__} was raised")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name=f"tool {_name(function)}", daemon=True).start()
    return await done


def as_json(value: Any) -> Any:
    """A result as a JSON value: models, dataclasses, enums, dates and sets as pydantic writes them.

    Raises:
        TypeError, ValueError: JSON cannot say it.
    """
    return json.loads(json.dumps(value, allow_nan=False, default=_jsonable))


def _jsonable(value: Any) -> Any:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value, inf_nan_mode="constants")
    except PydanticSerializationError:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable") from None


def _as_json(value: Any, where: str) -> Any:
    try:
        return as_json(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the default cannot be told to a model: {error}") from None


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if name is None:
        raise ConfigError(f"tool {function!r}: has no name; accepted: functions, methods, classes")
    return str(name)


def _parameters(function: Callable[..., Any], skip: int) -> list[tuple[inspect.Parameter, Any]]:
    """The parameters that a model gives, each with its type.

    Raises:
        ConfigError: one has no type hint, or cannot be passed by name.
    """
    name = _name(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(f"function {name!r}: a type hint cannot be resolved: {error}") from error
    found = []
    for parameter in list(inspect.signature(function).parameters.values())[skip:]:
        where = f"function {name!r}, parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{where}: is {parameter.kind.description}; accepted: parameters passed by name")
        if parameter.name not in hints:
            raise ConfigError(f"{where}: has no type hint")
        found.append((parameter, hints[parameter.name]))
    return found


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each parameter, continuation lines joined."""
    description: list[str] = []
    about: dict[str, str] = {}
    section, name, indent = "", "", 0
    for line in text.splitlines():
        heading, listed = _SECTION.match(line), _FIELD.match(line)
        if heading:
            section, name = heading[1], ""
        elif listed or (section == ":" and _OTHER_FIELD.match(line)) or (not section and _OTHER_FIELD.match(line)):
            section, name, indent = ":", listed[1] if listed else "", -1
            if listed:
                about[name] = listed[2].strip()
        elif not section:
            description.append(line)
        elif section in (":", "Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            found = _PARAMETER.match(line) if section != ":" and (not name or depth <= indent) else None
            if found:
                name, indent = found[1], depth
                about[name] = found[2].strip()
            elif name:
                about[name] = f"{about[name]} {line.strip()}".strip()
    return "\n".join(description).strip(), about
