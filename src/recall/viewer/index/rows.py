"""What the index knows of one trajectory: numbers to filter and sort by, names, and words to search for.

A line is decoded only as far as that needs; token ids and log-probabilities are counted and summed, not kept. Lines of
older versions lack fields, which then have the value that stands here.
"""

import json
import math
from collections.abc import Mapping
from functools import cache, partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any, NamedTuple

from recall.types import CallStatus, StopReason

if TYPE_CHECKING:
    from collections.abc import Callable

STOPS = tuple(reason.value for reason in StopReason)
"""Why an episode ended; a column holds the number in this tuple, and its length for a reason of a newer version."""
STATUSES = tuple(status.value for status in CallStatus)
"""How a call ended; a column holds a bit for each that an episode has."""
MAX_WORDS = 64 << 10
"""Characters of a trajectory whose words are searched for."""
_SHORT = 160


class Row(NamedTuple):
    """One trajectory in the index."""

    group: int
    task: str
    question: str
    """What was asked."""
    kind: str
    depth: int
    score: float
    correct: bool
    advantage: float
    """NaN where none was computed."""
    stop: int
    """The place in `STOPS`."""
    turns: int
    calls: int
    failed: int
    """Calls that did not end `ok`."""
    malformed: int
    statuses: int
    """Bits of the places in `STATUSES`."""
    tokens: int
    sampled: int
    logprob: float
    """Mean of the sampled tokens, nats; NaN where nothing was sampled."""
    duration: float
    tools_s: float
    """Wall time of its calls together."""
    slowest_s: float
    """Wall time of its longest call."""
    fault: bool
    answer: str
    """Cut short."""
    problem: str
    """The first thing that went wrong, cut short."""
    tools: tuple[str, ...]
    """The names that were called, each once."""
    parts: Mapping[str, float]
    """Of the reward."""
    words: str
    """What the policy and the tools wrote."""
    missing: str
    """A field that this version has and the line lacks; empty when it is whole."""


def decode(line: bytes) -> Row:
    """The row of one line.

    Raises:
        ValueError: it is not JSON, or not a trajectory.
    """
    import msgspec

    try:
        return _row(_decoder()(line))
    except (msgspec.DecodeError, msgspec.ValidationError):
        # Infinity and NaN, which Python's JSON writes, and fields of other versions.
        return _row(_loose(line))


@cache
def _decoder() -> "Callable[[bytes], Any]":
    import msgspec

    # Made here because the package comes with an extra.
    define = partial(msgspec.defstruct, gc=False)  # they hold no circles, and looking for some takes time
    raw, none = msgspec.Raw(b"[]"), None
    segment = define(
        "Segment", [("text", str, ""), ("token_ids", msgspec.Raw, raw), ("logprobs", list[float] | None, none)]
    )
    call = define(
        "Call",
        [("name", str, ""), ("status", str, "ok"), ("duration_s", float, 0.0), ("result", str, ""), ("turn", int, 0)],
    )
    task = define(
        "Task",
        [("id", str, ""), ("question", str, ""), ("kind", str, ""), ("depth", int, 0)],
    )
    reward = define("Reward", [("score", float), ("correct", bool, False), ("parts", dict[str, float], {})])
    line = define(
        "Line",
        [
            ("group", int),
            ("task", task),
            ("segments", GenericAlias(list, (segment,))),
            ("reward", reward),
            ("stop_reason", str, "done"),
            ("answer", str | None, none),
            ("calls", GenericAlias(list, (call,)), []),
            ("fault", str | None, none),
            ("duration_s", float, 0.0),
            ("advantage", float | None, none),
            ("changes", msgspec.Raw, msgspec.Raw(b"")),
        ],
    )
    return msgspec.json.Decoder(line).decode


class _Loose:
    """The fields of a JSON object as attributes, with a value for those that are missing or of another type."""

    def __init__(self, value: object, **defaults: Any) -> None:
        fields: Mapping[str, Any] = value if isinstance(value, dict) else {}
        for name, default in defaults.items():
            given = fields.get(name, default)
            wanted = float if isinstance(default, float) else type(default)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            fits = default is None or isinstance(given, wanted) or (wanted is float and number)
            setattr(self, name, given if fits else default)


def _loose(line: bytes) -> Any:
    value = json.loads(line)
    if not isinstance(value, dict) or not isinstance(value.get("segments"), list) or "reward" not in value:
        raise ValueError("not a trajectory: it has no segments or no reward")
    found = _Loose(
        value, group=0, stop_reason="done", answer=None, fault=None, duration_s=0.0, advantage=None, changes=None
    )
    task = value.get("task")
    known: Any = found
    known.task = _Loose(task, id=str(value.get("task_id", "")), question="", kind="", depth=0)
    known.reward = _Loose(value["reward"], score=math.nan, correct=False, parts={})
    known.reward.parts = {str(k): float(v) for k, v in known.reward.parts.items() if isinstance(v, int | float)}
    known.segments = [_Loose(each, text="", token_ids=[], logprobs=None) for each in value["segments"]]
    calls = value.get("calls")
    known.calls = [
        _Loose(each, name="", status="ok", duration_s=0.0, result="", turn=0)
        for each in (calls if isinstance(calls, list) else [])
    ]
    known.changes = b"" if "changes" not in value else b"null"
    for name in ("answer", "fault"):
        given = getattr(known, name)
        setattr(known, name, None if given is None else str(given))
    if not isinstance(known.advantage, int | float):
        known.advantage = None
    return known


def _row(line: Any) -> Row:
    tokens = sampled = turns = 0
    total = 0.0
    words: list[str] = []
    for number, segment in enumerate(line.segments):
        logprobs = segment.logprobs
        if logprobs is None:
            tokens += _count(segment.token_ids)
        else:
            turns += 1
            sampled += len(logprobs)
            total += sum(logprobs)
        if number:
            words.append(segment.text)
    statuses = failed = malformed = 0
    tools_s = slowest_s = 0.0
    problem = line.fault or ""
    for call in line.calls:
        bit = _STATUS_BITS.get(call.status, 0)
        statuses |= bit
        tools_s += call.duration_s
        slowest_s = max(slowest_s, call.duration_s)
        if call.status != "ok":
            failed += 1
            malformed += call.status == "malformed"
            problem = problem or f"{call.name or '(malformed)'}: {call.result}"
    return Row(
        line.group,
        line.task.id,
        line.task.question,
        line.task.kind or str(line.task.depth),
        line.task.depth,
        line.reward.score,
        line.reward.correct,
        math.nan if line.advantage is None else line.advantage,
        _STOP_PLACES.get(line.stop_reason, len(STOPS)),
        turns,
        len(line.calls),
        failed,
        malformed,
        statuses,
        tokens + sampled,
        sampled,
        total / sampled if sampled else math.nan,
        line.duration_s,
        tools_s,
        slowest_s,
        line.fault is not None,
        (line.answer or "")[:_SHORT],
        problem[:_SHORT],
        tuple(dict.fromkeys(call.name for call in line.calls if call.name)),
        line.reward.parts,
        "".join(words)[:MAX_WORDS],
        "" if bytes(line.changes) else "changes",
    )


def _count(token_ids: Any) -> int:
    """How many ids there are in a JSON list of them that was not decoded, or in a decoded one."""
    if isinstance(token_ids, list):
        return len(token_ids)
    text = bytes(token_ids)
    return text.count(b",") + 1 if len(text) > 2 else 0


_STOP_PLACES = {name: place for place, name in enumerate(STOPS)}
_STATUS_BITS = {name: 1 << place for place, name in enumerate(STATUSES)}
