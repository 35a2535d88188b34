"""Policies that know the ground truth: the whole of it, none of it, or a mixture of it with what models do wrong."""

import ast
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.functions import tool_name
from recall.evaluation.bfcl.sources import in_source
from recall.types import Completion, Sampling, ToolCall

Turn = Sequence[ToolCall] | str
"""What a script does in one turn: calls, or words."""
Script = Callable[[Entry], Generator[Turn, str, None]]
"""The turns of an entry; each is sent the text that came after it."""

_DONE = "That is done."


class CallWriter(Protocol):
    """What a script needs of a renderer."""

    def turn(self, text: str) -> list[int]:
        """[n] ids of a turn that says `text`, stop token included."""

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that makes calls in the dialect's own format, stop token included."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids."""


class PlayedScript:
    """Plays a script for one episode, its calls in the renderer's own format."""

    def __init__(self, turns: Generator[Turn, str, None], renderer: CallWriter) -> None:
        """Take the turns, and what writes them."""
        self._turns, self._renderer = turns, renderer
        self._read = 0

    def begin(self, episode_id: str) -> None:
        """Nothing to do: there is one episode."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """The next turn, cut to `sampling.max_tokens`."""
        try:
            turn = (
                self._turns.send(self._renderer.decode(prompt_ids[self._read :])) if self._read else next(self._turns)
            )
        except StopIteration:
            turn = _DONE  # an episode goes on for longer than the script where a turn was not understood
        ids = self._renderer.turn(turn) if isinstance(turn, str) else self._renderer.call_turn(turn)
        written = tuple(ids[: sampling.max_tokens])
        self._read = len(prompt_ids) + len(written)
        return Completion(written, (0.0,) * len(written), "stop" if len(written) == len(ids) else "length")

    def end(self, episode_id: str) -> None:
        """Leave the script."""
        self._turns.close()


def truth(entry: Entry) -> Generator[Turn, str, None]:
    """Write the calls of the ground truth, one step a user turn, and then a sentence."""
    if entry.sort == "memory":
        yield from _remembered(entry)
        return
    for calls in true_calls(entry):
        if calls:
            yield calls
        if entry.classes or not calls:
            yield _DONE


def empty(entry: Entry) -> Generator[Turn, str, None]:
    """Say a sentence in every turn, and call nothing."""
    for _ in entry.turns:
        yield "I would rather not."


def mixed(entry: Entry) -> Generator[Turn, str, None]:
    """Do, by a draw from the entry's id, what is right or one of the things that models do wrong.

    They are: nothing said, prose, prose that reads like a call, a call left out, a call twice, a value changed, a value
    of another type, an argument left out or made up, and a function that does not exist.
    """
    rng = random.Random(f"mixed/{entry.id}")
    kind = rng.choice(("truth", "truth", "truth", "nothing", "prose", "call in prose", *_DAMAGES))
    if kind == "truth" or entry.sort == "memory":
        yield from truth(entry) if kind == "truth" else empty(entry)
        return
    damaged = rng.randrange(len(entry.turns))
    for number, calls in enumerate(true_calls(entry)):
        turn: Turn = calls
        if number == damaged:
            turn = _WORDS[kind] if kind in _WORDS else _DAMAGES[kind](list(calls), rng)
        if turn or not entry.classes:
            yield turn or ""
        if entry.classes and not isinstance(turn, str):
            yield _DONE


SCRIPTS: Mapping[str, Script] = MappingProxyType({"truth": truth, "empty": empty, "mixed": mixed})
"""By name."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {"nothing": "", "prose": "I have looked into it, and it cannot be done.", "call in prose": "[help(me='out')]"}
)


def true_calls(entry: Entry) -> list[list[ToolCall]]:
    """By user turn, the calls of the ground truth.

    Of a single turn that is each function with the first value that is allowed for each argument; where only relevance
    is judged, a call of the first function, or none.
    """
    if entry.sort == "multi_turn":
        return [[_call(code, entry) for code in turn] for turn in entry.truth]
    if entry.sort == "relevance":
        return [[ToolCall(tool_name(entry.functions[0]["name"]), {})] if entry.category == "live_relevance" else []]
    documents = {function["name"]: function["parameters"] for function in entry.functions}
    return [
        [
            _single(name, allowed, documents[name], entry.language)
            for each in entry.truth
            for name, allowed in each.items()
        ]
    ]


def _single(name: str, allowed: Mapping[str, Any], parameters: Mapping[str, Any], language: str) -> ToolCall:
    """A call of a single turn: what is required, and what may not be left out."""
    required = [key for key in parameters.get("required", ()) if allowed.get(key)]
    wanted = [key for key, values in allowed.items() if values and (values[0] != "" or key in required)]
    properties = parameters["properties"]
    values = {key: _first(allowed[key]) for key in wanted if key in properties or "" not in allowed[key]}
    if language != "python":
        values = {key: in_source(value, properties[key], language) for key, value in values.items()}
    return ToolCall(tool_name(name), values)


def _first(allowed: Sequence[Any]) -> Any:
    """The first allowed value: the leaderboard lists what is allowed at every key of an object too."""
    value = next((each for each in allowed if each != ""), "")
    return [_plain(item) for item in value] if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {
        key: _first(allowed) if isinstance(allowed, list) and allowed else allowed
        for key, allowed in value.items()
        if not (isinstance(allowed, list) and allowed and allowed[0] == "")
    }


def _call(code: str, entry: Entry) -> ToolCall:
    """A call of the ground truth, whose arguments are literals, by position or by name."""
    node = ast.parse(code, mode="eval").body
    assert isinstance(node, ast.Call), f"{entry.id}: {code} is no call"
    assert isinstance(node.func, ast.Name), f"{entry.id}: {code} calls no function by name"
    documents = [*entry.functions, *(each for some in entry.appearing.values() for each in some)]
    names = next(list(each["parameters"]["properties"]) for each in documents if each["name"] == node.func.id)
    arguments = {name: ast.literal_eval(value) for name, value in zip(names, node.args, strict=False)}
    arguments |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return ToolCall(node.func.id, arguments)


def _remembered(entry: Entry) -> Generator[Turn, str, None]:
    """Of a question, what the leaderboard accepts, which is asked of the memory first; conversations fill it in vain.

    No ground truth says what to keep of a conversation, so something of each is kept, and the answer does not need it.
    """
    kind = entry.classes[0].removeprefix("MemoryAPI_")
    keep, ask = _MEMORIES[kind]
    if not entry.conversation:
        yield [ask]
        yield str(entry.truth[0])
        return
    for number, said in enumerate(entry.turns):
        yield (
            [keep(f"{entry.id.split('_')[-1].split('-')[0]}_{number}", said[-1].content[:60])] if number == 0 else _DONE
        )
        if number == 0:
            yield _DONE


def _key_value(key: str, text: str) -> ToolCall:
    return ToolCall("archival_memory_add", {"key": f"note_{key}", "value": text})


def _text(key: str, text: str) -> ToolCall:
    return ToolCall("memory_append", {"text": f"{key}: {text}\n"})


def _sentence(key: str, text: str) -> ToolCall:
    return ToolCall("archival_memory_add", {"text": text})


_MEMORIES: Mapping[str, tuple[Callable[[str, str], ToolCall], ToolCall]] = MappingProxyType(
    {
        "kv": (_key_value, ToolCall("archival_memory_list_keys", {})),
        "rec_sum": (_text, ToolCall("memory_retrieve", {})),
        "vector": (_sentence, ToolCall("archival_memory_retrieve", {"query": "note", "top_k": 3})),
    }
)


def _leave_out(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return calls[:-1]


def _twice(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return calls + calls[:1]


def _with_arguments(calls: list[ToolCall], rng: random.Random, change: Callable[[str, Any], Any]) -> list[ToolCall]:
    """The calls, with one argument of one of them changed."""
    places = [(place, name) for place, call in enumerate(calls) for name in call.arguments]
    if not places:
        return calls
    place, name = rng.choice(places)
    call = calls[place]
    changed = {**call.arguments, name: change(name, call.arguments[name])}
    return [*calls[:place], ToolCall(call.name, changed), *calls[place + 1 :]]


def _other_value(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return _with_arguments(calls, rng, lambda name, value: _changed(value))


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return value[:-1] if isinstance(value, list) else {}


def _other_type(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return _with_arguments(calls, rng, lambda name, value: 7 if isinstance(value, str) else str(value))


def _missing(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return [ToolCall(call.name, dict(list(call.arguments.items())[1:])) for call in calls]


def _made_up(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return [ToolCall(call.name, {**call.arguments, "urgency": "high"}) for call in calls]


def _unknown(calls: list[ToolCall], rng: random.Random) -> list[ToolCall]:
    return [*calls[:-1], ToolCall("do_as_i_say", {"please": True})]


_DAMAGES: Mapping[str, Callable[[list[ToolCall], random.Random], list[ToolCall]]] = MappingProxyType(
    {
        "left out": _leave_out,
        "twice": _twice,
        "other value": _other_value,
        "other type": _other_type,
        "missing argument": _missing,
        "made up argument": _made_up,
        "unknown function": _unknown,
    }
)
