"""Checks of a renderer alone: what it writes it reads, and what it appends fits on to what was there.

They take any renderer, and no model. A fault here is the costliest there is: training goes on, rewards come in, and not
one call is ever parsed.
"""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

from recall.doctor.findings import Finding, ok, wrong
from recall.errors import ConfigError
from recall.renderer import Renderer
from recall.tool_calls import SEARCH_END, typed
from recall.types import MalformedCall, Message, ToolCall, ToolSpec

PROBE = ToolSpec(
    "look_up",
    "Looks a word up.",
    {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
)
"""Stands in for a tool where the tasks have none."""


class Writer(Renderer, Protocol):
    """A renderer that can write a turn with given calls, as those of ReCall can."""

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that makes the calls."""


def example_call(tool: ToolSpec) -> ToolCall:
    """A call of the tool with arguments that its schema takes, so far as the schema says."""
    properties = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", [])
    return ToolCall(tool.name, {name: example(schema) for name, schema in properties.items() if name in required})


def example(schema: Any) -> Any:
    """A value of a JSON Schema: its own example where it has one, else the plainest of its type."""
    if not isinstance(schema, dict):
        return "x"
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0])
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: example(properties.get(name, {})) for name in schema.get("required", [])}
    if kind == "array":
        return [example(schema.get("items", {}))] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, "x" * max(1, schema.get("minLength", 1)))


def check_calls(renderer: Writer, tools: Sequence[ToolSpec]) -> Finding:
    """A scripted call of each tool is parsed as it was written."""
    cost = "a run that ends well while not one of its calls is ever parsed, so nothing about tools is learned"
    for tool in tools or (PROBE,):
        call = example_call(tool)
        try:
            ids = renderer.call_turn([call])
            turn = typed(renderer.parse(ids), [tool])
        except (ConfigError, ValueError) as fault:
            return wrong("calls", f"a call of {tool.name} cannot be written: {fault}", cost=cost, cure=_OTHER_DIALECT)
        if turn.calls != (call,):
            read = [_shown(one) for one in turn.calls] or ["no call"]
            return wrong(
                "calls",
                f"{renderer.decode(ids)!r} is a call of {tool.name}, and the parser reads {'; '.join(read)}",
                cost=cost,
                cure=_OTHER_DIALECT,
            )
    return ok("calls", f"{len(tools or (PROBE,))} tools: a call of each is read back as it was written")


_OTHER_DIALECT = "choose the dialect (policy.dialect) that the model was trained in; native is its own chat template"


def check_results(renderer: Renderer) -> Finding:
    """Results are in what the model reads, in order; 0, false, [] and "" are results."""
    for texts in (["seen 17"], ["first 3", "second 4"], ["0"], ["false"], ["[]"], [""]):
        try:
            shown = renderer.decode(renderer.reply([Message("tool", text, name=PROBE.name) for text in texts]))
        except (ConfigError, ValueError) as fault:
            shown, texts = f"(refused: {fault})", texts
        places = [shown.find(text) for text in texts]
        if -1 in places or places != sorted(places) or not shown:
            return wrong(
                "results",
                f"results {texts!r} are shown as {shown!r}",
                cost="a policy that never reads what its tools answer and learns to guess",
                cure="mend the place of tool messages in the chat template, or use the dialect 'recall'",
            )
    return ok("results", "one result and several are shown, in order; 0, false, [] and an empty text too")


def check_separator(renderer: Writer, tool: ToolSpec = PROBE) -> Finding:
    """What stands between the end of a turn and the next one is the same after a sampled turn as within a prompt."""
    question = Message("user", "Which one?")
    history = [Message("system", "Be brief."), question, Message("assistant", "This one."), question]
    try:
        known = renderer.decode(renderer.prompt(history, (tool,)))
    except (ConfigError, ValueError):
        known = renderer.decode(renderer.prompt([question], ()))
    after_calls = renderer.call_turn([_call_for(renderer, tool)])
    turns = [(after_calls, renderer.reply([Message("tool", "17", name=tool.name)]))]
    with contextlib.suppress(ValueError):  # of a dialect of one question
        turns.append((renderer.turn("This one."), renderer.reply([question])))
    seen = 0
    for turn, reply in turns:
        end = renderer.decode(turn[-1:])
        expected = {gap for gap in _gaps(known, end) if gap is not None}
        found = _GAP.match(renderer.decode(reply))
        if not expected or found is None:
            continue
        seen += 1
        if found[1] not in expected:
            return wrong(
                "separator",
                f"after {end!r} a sampled turn is followed by {found[1]!r}, and every other turn by "
                f"{' or '.join(sorted(map(repr, expected)))}",
                cost="each episode drifts from what the model was trained on, by a token at every turn",
                cure="write the separator for messages of tools too in the chat template",
            )
    return ok("separator", f"{seen} kinds of turns are followed by what follows every turn of a prompt")


_GAP = re.compile(r"([^<\[]*)[<\[]")
"""Text before the next control token, all of which begin so."""


def _gaps(text: str, end: str) -> list[str | None]:
    return [found[1] if (found := _GAP.match(part)) else None for part in text.split(end)[1:]]


def _call_for(renderer: Writer, tool: ToolSpec) -> ToolCall:
    return ToolCall("wikipedia_search", {"query": "x"}) if SEARCH_END in renderer.stop_texts else example_call(tool)


def check_prefix(renderer: Writer, tool: ToolSpec = PROBE) -> Finding:
    """A prompt is the same every time, and its text and that of its continuation are those of their parts."""
    cost = "trained tokens that the policy never saw, and caches that never hit"
    question = Message("user", "Which one?")
    prompt = renderer.prompt([question], (tool,) if not renderer.stop_texts else ())
    if renderer.prompt([question], (tool,) if not renderer.stop_texts else ()) != prompt:
        return wrong(
            "prefix",
            "the prompt of one question differs from one time to the next",
            cost=cost,
            cure="take what changes, such as the time, out of the chat template",
        )
    turn = renderer.call_turn([_call_for(renderer, tool)])
    reply = renderer.reply([Message("tool", "17", name=tool.name)])
    whole = renderer.decode([*prompt, *turn, *reply])
    parts = "".join(renderer.decode(ids) for ids in (prompt, turn, reply))
    if whole != parts:
        at = next((n for n, pair in enumerate(zip(whole, parts, strict=False)) if pair[0] != pair[1]), len(whole))
        return wrong(
            "prefix",
            f"prompt, turn and reply read {whole[max(0, at - 20) : at + 20]!r} together and "
            f"{parts[max(0, at - 20) : at + 20]!r} apart",
            cost=cost,
            cure="use a tokenizer that decodes every token by itself, such as a byte-level one",
        )
    return ok("prefix", f"a prompt of {len(prompt)} tokens is the beginning of its continuation")


def check_stop(renderer: Writer) -> Finding:
    """A turn ends in a token that the engine stops at, and that is a part of the turn."""
    for name, turn in (
        ("an answer", renderer.turn("This one.")),
        ("a call", renderer.call_turn([_call_for(renderer, PROBE)])),
    ):
        ends = turn and turn[-1] in renderer.stop_token_ids
        if not ends and not any(renderer.decode(turn).endswith(text) for text in renderer.stop_texts):
            stops = ", ".join(renderer.decode([i]) for i in sorted(renderer.stop_token_ids))
            return wrong(
                "stop token",
                f"{name} ends in {renderer.decode(turn[-1:])!r}, and the engine stops at {stops or 'nothing'}",
                cost="turns that run into the limit, for ever, because where to stop is never learned",
                cure="name the token in the tokenizer as eos_token, or mend the end of turns in the chat template",
            )
    return ok("stop token", "answers and calls end in a token that the engine stops at and training sees")


def _shown(call: ToolCall | MalformedCall) -> str:
    if isinstance(call, MalformedCall):
        return f"a malformed call ({call.problem})"
    return f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})"
