"""Questions: what they must state, what they must not give away, and the words that a prompt uses for a program."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recall.synth.llm.blueprint import Blueprint, Scalar
from recall.synth.llm.certify import Certified, Instance, literals_of, occurs, program_literals
from recall.synth.llm.errors import RejectedError
from recall.types import ToolSpec

GATE = "question"
"""The gate at which questions are rejected."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_MOST_CHARS = 700
_LEAST_CHARS = 15
_GIVEN_AWAY_CHARS = 3
_FORMS: Mapping[str, str] = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "yes or no",
    "date": "a date, as YYYY-MM-DD",
    "entity": "a name or a code, exactly as it is recorded",
    "text": "a few words, exactly as they are recorded",
    "list": "a list, in any order",
    "set": "a list without repeats, in any order",
    "sequence": "a list, in the order that the request gives",
    "none": "nothing is to be answered, only to be done",
}


def check_phrasings(said: Sequence[str], certified: Certified, tools: Sequence[ToolSpec]) -> tuple[str, ...]:
    """The phrasings that hold.

    Raises:
        RejectedError: none does; what is wrong with the first.
    """
    held = []
    problems = []
    for phrasing in said:
        try:
            check_phrasing(phrasing.strip(), certified, tools)
        except RejectedError as problem:
            problems.append(problem)
        else:
            held.append(phrasing.strip())
    if not held:
        raise problems[0] if problems else RejectedError(GATE, "none", "the list is empty")
    return tuple(held)


def check_phrasing(phrasing: str, certified: Certified, tools: Sequence[ToolSpec]) -> None:
    """Check one phrasing in every world that its task was certified in.

    Raises:
        RejectedError: it does not state what an argument needs, or gives something away.
    """
    blueprint = certified.blueprint
    if not _LEAST_CHARS <= len(phrasing) <= _MOST_CHARS:
        raise RejectedError(GATE, "too short or too long", f"{len(phrasing)} characters")
    places = _PLACE.findall(phrasing)
    if set(places) != set(blueprint.anchors) or _PLACE.sub("", phrasing).strip("{}") != _PLACE.sub("", phrasing):
        wanted = ", ".join(f"{{{name}}}" for name in blueprint.anchors)
        raise RejectedError(GATE, "placeholders", f"{phrasing!r} must hold {wanted} and no others")
    for tool in tools:
        if re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", phrasing) and "_" in tool.name:
            raise RejectedError(GATE, "names a tool", f"{phrasing!r} names {tool.name}")
    for literal in stated_literals(blueprint, tools):
        if not occurs(literal, phrasing):
            raise RejectedError("provenance", "an argument is not stated", f"{literal!r} is not in {phrasing!r}")
    for instance in certified.instances:
        check_instance(ask(phrasing, instance), instance, blueprint)


def check_instance(question: str, instance: Instance, blueprint: Blueprint) -> None:
    """Check a question of one world.

    Raises:
        RejectedError: the answer, or what is found on the way to it, stands in it.
    """
    if blueprint.answer_type not in ("none", "boolean") and occurs(instance.answer, question):
        raise RejectedError(GATE, "states the answer", f"{instance.answer!r} is in {question!r}")
    anchors = {str(value) for value in instance.anchors.values()}
    for value in _found(instance):
        if str(value) not in anchors and occurs(value, question):
            raise RejectedError(GATE, "gives away what is to be found", f"{value!r} is in {question!r}")


def ask(phrasing: str, instance: Instance) -> str:
    """A phrasing with the anchors of a world in it."""
    return _PLACE.sub(lambda place: _written(instance.anchors[place[1]]), phrasing)


def stated_literals(blueprint: Blueprint, tools: Sequence[ToolSpec]) -> list[Scalar]:
    """The fixed values in arguments that nobody could know unless the question says them.

    What a schema offers as a choice, and true and false, can be known from the schema.
    """
    schemas = {tool.name: tool.parameters["properties"] for tool in tools}
    found: list[Scalar] = []
    for item in blueprint.calls:
        for name, value in item["arguments"].items():
            offered = schemas[item["name"]].get(name, {}).get("enum", ())
            for literal in literals_of(_without_anchors(value)):
                if not isinstance(literal, bool) and literal not in offered and literal not in found:
                    found.append(literal)
    return found


def steps_in_words(blueprint: Blueprint, tools: Sequence[ToolSpec]) -> str:
    """The program as the author of a question reads it, with what each tool does and without any result."""
    about = {tool.name: " ".join(tool.description.split()) for tool in tools}
    lines = []
    for number, item in enumerate(blueprint.program):
        if "name" in item:
            arguments = json.dumps(item["arguments"], ensure_ascii=False)
            lines.append(f"{number}. call {item['name']} with {arguments} ({about[item['name']]})")
        else:
            lines.append(f"{number}. work out {json.dumps(item['value'], ensure_ascii=False)}")
    return "\n".join(lines)


def form_in_words(kind: str) -> str:
    """What kind of answer is wanted, for an answer type or `none`."""
    return _FORMS[kind]


def _found(instance: Instance) -> Iterator[Scalar]:
    """The texts that calls are made with and that nobody stated: ids and the like, found on the way."""
    stated = set(map(str, program_literals(instance.program)))
    for _, arguments in instance.played.arguments:
        for value in arguments.values():
            if isinstance(value, str) and len(value) >= _GIVEN_AWAY_CHARS and value not in stated:
                yield value


def _without_anchors(expression: Any) -> Any:
    if isinstance(expression, Mapping):
        return None if "$anchor" in expression else {k: _without_anchors(value) for k, value in expression.items()}
    if isinstance(expression, list | tuple):
        return [_without_anchors(value) for value in expression]
    return expression


def _written(value: Scalar) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
