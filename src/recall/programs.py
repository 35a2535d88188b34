"""Reference programs: the calls that solve a task, what each is called with, and what is worked out between them.

A program is a list of items. `{"name": tool, "arguments": {parameter: expression}}` is a call; with `"retry": true` it
is made again when the tool says that it failed for the moment. `{"value": expression}` is worked out in the head and is
no call. The answer is the value of the last item. An expression is a JSON value, a list of expressions,

- `{"$ref": i}`: the result of item i; with `"path"`, a key or a list of keys and positions, what it holds there; with
  `"match"`, a regular expression of one group, what the group finds in its text;
- `{"$op": name, "of": [expression, …]}`: one of `OPERATIONS` on their values.

Programs come from data files, so whatever is wrong with one raises `ProgramError` and nothing else.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

Item = Mapping[str, Any]
Call = Callable[[str, Mapping[str, Any]], Any]
"""Calls one tool by name with arguments."""

ATTEMPTS = 4
"""How often a call with `retry` is made at most."""


class ProgramError(ValueError):
    """A reference program that cannot be carried out."""


def run(program: Sequence[Item], call: Call) -> list[Any]:
    """Run a program through the JSON boundary that a policy's calls pass.

    Args:
        program: its items.
        call: calls a tool; what it raises passes through, except that an item with `retry` is tried `ATTEMPTS` times.

    Returns:
        [items] the JSON value of each item.

    Raises:
        ProgramError: an expression cannot be worked out.
    """
    results: list[Any] = []
    for item in program:
        if "name" in item:
            arguments = {name: resolve(value, results) for name, value in item["arguments"].items()}
            results.append(_called(call, item, json.loads(json.dumps(arguments))))
        else:
            results.append(resolve(item["value"], results))
    return results


def _called(call: Call, item: Item, arguments: Mapping[str, Any]) -> Any:
    for attempt in range(ATTEMPTS):
        try:
            return json.loads(json.dumps(call(item["name"], arguments)))
        except RuntimeError:
            if not item.get("retry") or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def calls_of(program: Sequence[Item]) -> list[Item]:
    """The items that are calls."""
    return [item for item in program if "name" in item]


def references(expression: Any) -> Iterator[int]:
    """The numbers of the items that an expression reads, in order, repeats included."""
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            yield expression["$ref"]
        else:
            for value in expression.values():
                yield from references(value)
    elif isinstance(expression, list | tuple):
        for value in expression:
            yield from references(value)


def resolve(expression: Any, results: Sequence[Any]) -> Any:
    """The value of an expression, given the values of the items before it.

    Raises:
        ProgramError: it refers to what is not there, or an operation does not fit its values.
    """
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return _referred(expression, results)
        if "$op" in expression:
            return operate(str(expression["$op"]), [resolve(value, results) for value in expression.get("of", ())])
        return {key: resolve(value, results) for key, value in expression.items()}
    if isinstance(expression, list | tuple):
        return [resolve(value, results) for value in expression]
    return expression


def _referred(reference: Mapping[str, Any], results: Sequence[Any]) -> Any:
    number = reference["$ref"]
    if not isinstance(number, int) or not 0 <= number < len(results):
        raise ProgramError(f"{dict(reference)} refers to no earlier item")
    value = results[number]
    path = reference.get("path", [])
    for key in path if isinstance(path, list | tuple) else [path]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise ProgramError(f"{dict(reference)}: there is nothing under {key!r}") from None
    if "match" in reference:
        found = re.search(reference["match"], value) if isinstance(value, str) else None
        if found is None:
            raise ProgramError(f"{dict(reference)}: the text does not match")
        return found[1]
    return value


def operate(name: str, values: Sequence[Any]) -> Any:
    """Apply the operation `name`.

    Raises:
        ProgramError: there is none of this name, or it does not fit the values.
    """
    if name not in OPERATIONS:
        raise ProgramError(f"unknown operation {name!r}; accepted: {', '.join(OPERATIONS)}")
    try:
        return OPERATIONS[name](*values)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError, ArithmeticError, InvalidOperation) as fault:
        raise ProgramError(f"{name} of {json.dumps(list(values), default=str)[:200]}: {fault}") from None


def _exact(value: Any) -> Decimal:
    """A number as it is written, so that 0.1 + 0.2 is 0.3."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    return Decimal(str(value))


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _sum(*values: Any) -> int | float:
    return _number(sum((_exact(value) for value in _flat(values)), Decimal()))


def _flat(values: Sequence[Any]) -> Sequence[Any]:
    """The values, or those of the only one where that is a list."""
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _extreme(values: Sequence[Any], *, largest: bool) -> Any:
    keyed = [(_exact(value) if isinstance(value, int | float) else value, value) for value in values]
    return (max if largest else min)(keyed, key=lambda pair: pair[0])[1]


def _arg(keys: Sequence[Any], values: Sequence[Any], *, largest: bool) -> Any:
    if len(keys) != len(values):
        raise ValueError("as many keys as values are needed")
    return keys[values.index(_extreme(values, largest=largest))]


OPERATIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "sum": _sum,
        "difference": lambda a, b: _number(abs(_exact(a) - _exact(b))),
        "minus": lambda a, b: _number(_exact(a) - _exact(b)),
        "product": lambda a, b: _number(_exact(a) * _exact(b)),
        "count": len,
        "maximum": lambda *values: _extreme(_flat(values), largest=True),
        "minimum": lambda *values: _extreme(_flat(values), largest=False),
        "argmax": lambda keys, values: _arg(keys, values, largest=True),
        "argmin": lambda keys, values: _arg(keys, values, largest=False),
        "concat": lambda *lists: [value for values in lists for value in values],
        "distinct": lambda values: list(dict.fromkeys(values)),
        "intersection": lambda a, b: [value for value in a if value in b],
        "larger": lambda a, b: _exact(a) > _exact(b),
        "choose": lambda condition, a, b: a if condition else b,
        "days": lambda a, b: abs((date.fromisoformat(a) - date.fromisoformat(b)).days),
        "later": lambda day, count: (date.fromisoformat(day) + timedelta(days=count)).isoformat(),
        "round": lambda value, places: _number(_exact(value).quantize(Decimal(1).scaleb(-places))),
    }
)
"""What can be worked out between calls, by name. Numbers are exact as written; dates are ISO texts."""
