"""One trajectory as HTML: the conversation, the calls, the reward by parts; and its tokens as data for the token view.

All text of models and tools passes `escape` here. What a turn called is told by the trajectory's records; the patterns
below only place and colour, they decide nothing.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from recall.types import CallRecord, RewardResult, Segment, Trajectory
from recall.viewer.live import duration
from recall.viewer.text import escape
from recall.viewer.window.pieces import pieces
from recall.viewer.window.trajectory import PER_TOKEN

Decode = Callable[[Sequence[int]], str]

MAX_TEXT = 6000
"""Characters of one text that are shown."""
MAX_TOKENS = 1500
"""Tokens of one trajectory, and of one prompt, in the token view."""

_CALL_BLOCK = re.compile(r"<tool_call>.*?(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_MARKED = re.compile(
    r"(?P<think><think>.*?(?:</think>|\Z))|(?P<boxed>\\boxed\{[^{}]*\})|(?P<ctl><\|[^|<>]*\|>)", re.DOTALL
)

_STOP = re.compile(r"(?:\s*<\|[^|<>]*\|>)+\s*\Z")
"""The stop tokens of a turn, which only the token view shows."""


def trajectory_html(
    trajectory: Trajectory, reward: RewardResult, *, key: str, title: str, level: int, advantage: float | None = None
) -> str:
    """The article of one trajectory, its title a heading of `level`; `key` names its tokens in the page's data."""
    verdict = "right" if reward.correct else "wrong"
    facts = [_count(trajectory.turns, "turn"), _count(len(trajectory.calls), "call")]
    facts += [_count(sum(trajectory.mask), "sampled token")]
    facts += [] if trajectory.stop_reason == "done" else [f"stopped by {trajectory.stop_reason}"]
    facts += [duration_of(trajectory.duration_s)] if trajectory.duration_s else []
    signed = "" if advantage is None else f'<span class="adv">advantage {advantage:+.2f}</span>'
    fault = "" if trajectory.fault is None else f'<p class="fault">Our fault: {escape(trajectory.fault)}</p>'
    return (
        f'<article class="traj" data-verdict="{verdict}">'
        f'<header><h{level}>{escape(title)}</h{level}><span class="verdict {verdict}">{verdict}</span>'
        f'<span class="score">reward {reward.score:+.2f}</span>{signed}'
        f'<button type="button" class="js" data-tokens="{escape(key)}" aria-pressed="false">Tokens</button>'
        f'<p class="facts">{escape(" · ".join(facts))}</p></header>'
        f'<div class="conversation">{fault}{_conversation(trajectory)}</div>'
        f'<div class="token-place" hidden></div>{_parts(reward)}</article>'
    )


def token_data(segments: Sequence[Segment], decode: Decode | None) -> list[dict[str, Any]]:
    """The first `MAX_TOKENS` tokens of `segments`, with what is known of each, as the view of tokens takes them."""
    room, sent = MAX_TOKENS, []
    for segment in segments:
        ids = list(segment.token_ids[:room])
        room -= len(ids)
        told: dict[str, Any] = {
            "author": "policy" if segment.sampled else "environment",
            "count": len(segment.token_ids),
            "ids": ids,
            "pieces": _pieces(segment, len(ids), decode),
        }
        for name in PER_TOKEN:
            values = getattr(segment, name)
            if values is not None:
                told[name] = [round(value, 4) if math.isfinite(value) else None for value in values[: len(ids)]]
        sent.append(told)
    return sent


def cut_text(text: str, limit: int = MAX_TEXT) -> str:
    """`text`, with a note of how much is left out where it is longer than `limit` characters."""
    return text if len(text) <= limit else f"{text[:limit]}\n… {len(text) - limit:,} more characters"


def duration_of(seconds: float) -> str:
    """A call's or an episode's time: milliseconds below a second."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def marked(text: str) -> str:
    """`text` as HTML, with thinking, the boxed answer and control tokens set apart."""
    parts, position = [], 0
    for found in _MARKED.finditer(text):
        parts.append(escape(text[position : found.start()]))
        parts.append(f'<span class="{found.lastgroup}">{escape(found.group())}</span>')
        position = found.end()
    return "".join([*parts, escape(text[position:])])


def _conversation(trajectory: Trajectory) -> str:
    parts, turn = [], -1
    for segment in trajectory.segments[1:]:
        if segment.sampled:
            turn += 1
            records = [record for record in trajectory.calls if record.turn == turn]
            parts.append(_message("policy", f"policy · turn {turn + 1}", _turn(segment.text, records)))
        elif not any(record.turn == turn for record in trajectory.calls):
            # A reply that answers no call is the environment's own word; results are shown with their calls.
            parts.append(_message("environment", "environment", marked(cut_text(segment.text.strip()))))
    return "".join(parts) or '<p class="facts">The policy wrote nothing.</p>'


def _message(author: str, role: str, body: str) -> str:
    return f'<div class="msg {author}"><span class="role">{role}</span><div class="body">{body}</div></div>'


def _turn(text: str, records: Sequence[CallRecord]) -> str:
    text = cut_text(_STOP.sub("", text).strip())
    blocks = list(_CALL_BLOCK.finditer(text))
    if len(blocks) != len(records):
        return f'<div class="say">{marked(text)}</div>' + "".join(map(_call, records))
    parts, position = [], 0
    for block, record in zip(blocks, records, strict=True):
        parts += [_say(text[position : block.start()]), _call(record)]
        position = block.end()
    return "".join([*parts, _say(text[position:])])


def _say(text: str) -> str:
    return f'<div class="say">{marked(text.strip())}</div>' if text.strip() else ""


def _call(record: CallRecord) -> str:
    arguments = "".join(
        f'<span class="arg"><b>{escape(name)}</b>={escape(cut_text(_json(value), 600))}</span>'
        for name, value in record.arguments.items()
    )
    return (
        f'<div class="call {"ok" if record.status == "ok" else "bad"}"><div class="head">'
        f'<code><span class="fn">{escape(record.name or "(no name)")}</span>({arguments})</code>'
        f'<span class="status">{escape(record.status.replace("_", " "))}</span>'
        f'<span class="time">{duration_of(record.duration_s)}</span></div>'
        f'<pre class="result">{escape(cut_text(record.result, 2000))}</pre></div>'
    )


def _parts(reward: RewardResult) -> str:
    if not reward.parts:
        return ""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value:g}</dd></div>" for name, value in reward.parts.items())
    return f'<dl class="parts" aria-label="reward by parts">{rows}</dl>'


def _pieces(segment: Segment, count: int, decode: Decode | None) -> list[str] | None:
    """The texts of the first tokens; None where they cannot be told apart."""
    if decode is None:
        found = pieces({"token_ids": segment.token_ids, "text": segment.text}, None)
        return None if found is None else found[:count]
    cut = {"token_ids": segment.token_ids[:count], "text": segment.text}
    return pieces(cut, lambda many: [decode(ids) for ids in many])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
