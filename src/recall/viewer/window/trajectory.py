"""One trajectory as a page shows it: texts within bounds, tokens with what is known of each. It invents nothing.

What a run does not record is absent here, and the page says that it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.viewer.window.pieces import Batch, decoder, find_tokenizer, pieces

MAX_TEXT = 60_000
"""Characters of one text that are sent; the whole is sent when it is asked for."""
MAX_TOKENS = 200_000
"""Tokens of one trajectory that are sent one by one."""
PER_TOKEN = ("logprobs", "entropies", "learner_logprobs")
"""What a segment may say of each of its tokens; the last two are written by trainers that record them."""


def shown(line: Mapping[str, Any], run: Path, *, tokens: bool = True) -> dict[str, Any]:
    """A trajectory's line as it is sent: segments, calls, reward, task.

    Args:
        line: as `fetch.trajectories` gives it.
        run: whose tokenizer tells tokens apart.
        tokens: whether tokens are sent one by one, or only texts.
    """
    decode = _decoder(run) if tokens else None
    segments, room = [], MAX_TOKENS
    for segment in line.get("segments") or []:
        logprobs = segment.get("logprobs")
        sent: dict[str, Any] = {
            "author": "environment" if logprobs is None else "policy",
            "count": len(segment.get("token_ids") or []),
            "version": segment.get("policy_version"),
            **_cut(segment.get("text"), "text"),
        }
        if segment.get("from_text"):
            sent["from_text"] = True
        if tokens and room >= sent["count"]:
            room -= sent["count"]
            sent["ids"] = segment.get("token_ids") or []
            sent["pieces"] = pieces(segment, decode)
            sent |= {name: _rounded(segment[name]) for name in PER_TOKEN if isinstance(segment.get(name), list)}
        segments.append(sent)
    return {
        "segments": segments,
        "calls": [{**call, **_cut(call.get("result"), "result")} for call in line.get("calls") or []],
        "reward": line.get("reward"),
        "advantage": line.get("advantage"),
        "answer": line.get("answer"),
        "fault": line.get("fault"),
        "duration_s": line.get("duration_s"),
        "stop_reason": line.get("stop_reason"),
        "seed": None if line.get("seed") is None else str(line["seed"]),  # JavaScript has no integers of 63 bits
        "changes": line.get("changes"),
        "task": _task(line.get("task") or {}) if tokens else {},
        "tokenizer": decode is not None,
    }


def text_of(line: Mapping[str, Any], part: str) -> str:
    """The whole text of `segment-N` or `result-N`.

    Raises:
        ConfigError: there is no such part.
    """
    kind, _, number = part.partition("-")
    parts = {"segment": ("segments", "text"), "result": ("calls", "result")}
    if kind not in parts or not number.isdecimal():
        raise ConfigError(f"part: {part!r} is not accepted; it takes segment-N or result-N")
    group, name = parts[kind]
    found = line.get(group) or []
    if int(number) >= len(found):
        raise ConfigError(f"part: {part!r}: there are {len(found)}")
    return str(found[int(number)].get(name) or "")


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    sent = dict(task)
    sent |= _cut(task.get("env"), "env")
    extra = json.dumps(task.get("extra") or {}, ensure_ascii=False)
    if len(extra) > MAX_TEXT:
        sent["extra"] = {"left out": f"{len(extra):,} characters; they are in the copy as JSON"}
    return sent


def _cut(text: object, name: str) -> dict[str, Any]:
    text = text if isinstance(text, str) else "" if text is None else json.dumps(text, ensure_ascii=False)
    if len(text) <= MAX_TEXT:
        return {name: text}
    return {name: text[:MAX_TEXT], f"{name}_chars": len(text)}


def _rounded(values: list[Any]) -> list[float | None]:
    return [round(value, 5) if isinstance(value, int | float) else None for value in values]


def _decoder(run: Path) -> Batch | None:
    path = find_tokenizer(run)
    return None if path is None else decoder(path, path.stat().st_mtime_ns)
