"""The formats of Llama 3.x: a JSON object that is the whole turn, or whatever follows `<|python_tag|>`.

Behind the tag stands JSON, or a call as Python writes it, such as `brave_search.call(query="…")`; the small models of
3.2 write a list of such calls, without the tag.
"""

import re

from recall.tool_calls.literals import NotAValueError, Reader
from recall.tool_calls.spoken import made, turn_of
from recall.tool_calls.values import call_named, call_of, end_of_space, read_json
from recall.types import AssistantTurn, MalformedCall, ToolCall

PYTHON_TAG = "<|python_tag|>"

_LIST = re.compile(r"\[\s*[A-Za-z_][\w.\-]*\(")
_OBJECT = re.compile(r'\{\s*"(?:type|name|parameters|arguments)"\s*:')
_MEANT = re.compile(r'"(?:parameters|arguments)"\s*:')
_KEYS = ("type",)


def parse(text: str) -> AssistantTurn:
    """What a turn of Llama 3.x says. Never raises."""
    before, tag, after = text.partition(PYTHON_TAG)
    if tag:
        body = after.strip()
        calls = _objects(body) if body.startswith("{") else _python(body)
        return turn_of(text, "", [before], calls)
    body = text.strip()
    if _LIST.match(body):
        return turn_of(text, "", [], _python(body))
    if _OBJECT.match(body) and _MEANT.search(body):
        return turn_of(text, "", [], _objects(body))
    return turn_of(text, "", [text], [])


def _objects(body: str) -> list[ToolCall | MalformedCall]:
    """The calls of JSON objects with semicolons between them."""
    calls: list[ToolCall | MalformedCall] = []
    begin = 0
    while begin < len(body):
        value, stop, problem = read_json(body, begin)
        if problem:
            return [*calls, MalformedCall(body[begin:], problem)]
        key = "arguments" if isinstance(value, dict) and "arguments" in value else "parameters"
        calls.append(made(call_of(value, body[begin:stop], key, _KEYS), body[begin:stop]))
        begin = end_of_space(body, stop)
        if begin < len(body) and body[begin] != ";":
            return [*calls, MalformedCall(body[begin:], "there is text after the JSON object")]
        begin = end_of_space(body, begin + 1)
    return calls


def _python(body: str) -> list[ToolCall | MalformedCall]:
    """The calls of a Python expression: one call, or a list of them."""
    reader = Reader(body)
    calls: list[ToolCall | MalformedCall] = []
    listed = reader.found("[")
    try:
        while True:
            begin = reader.at
            name = reader.word().removesuffix(".call")
            if not name or not reader.found("("):
                raise NotAValueError(f"a call such as name(key=value) was expected at character {reader.at}")
            arguments = reader.members(")", "=")
            source = body[begin : reader.at]
            calls.append(made(call_named(name, arguments, source), source))
            if not (listed and reader.found(",")):
                break
        if (listed and not reader.found("]")) or body[reader.at :].strip():
            raise NotAValueError(f"text after the call at character {reader.at}")
    except NotAValueError as fault:
        return [*calls, MalformedCall(body, str(fault))]
    return calls
