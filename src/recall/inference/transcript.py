"""An episode as plain text. Printing in colour, and as it happens, is the commands' business."""

import json
import re
from collections.abc import Iterator

from recall.types import CallRecord, StopReason, Task, Trajectory
from recall.viewer.text import visible

_STOP_TOKEN = re.compile(r"<\|[^|<>]*\|>\s*\Z")


def transcript(trajectory: Trajectory, task: Task | None = None) -> str:
    """An episode as plain text for a terminal: what was asked, each turn, each call with its result, and the end.

    Control characters are written out, so no text of a model or a tool can play tricks on the terminal.

    Args:
        trajectory: the episode.
        task: shows its question and accepted answers; without it, the whole prompt is shown.
    """
    return visible("\n\n".join(_paragraphs(trajectory, task))) + "\n"


def _paragraphs(trajectory: Trajectory, task: Task | None) -> Iterator[str]:
    if task is not None:
        yield _block("user", task.question)
    elif trajectory.segments:
        yield _block("prompt", trajectory.segments[0].text)
    sampled = [segment for segment in trajectory.segments if segment.sampled]
    for turn, segment in enumerate(sampled):
        yield _block(f"assistant, turn {turn + 1}, {len(segment.token_ids)} tokens", _STOP_TOKEN.sub("", segment.text))
        for record in trajectory.calls:
            if record.turn == turn:
                yield _block(_call_title(record), record.result)
    yield _ending(trajectory, task)


def _block(title: str, text: str) -> str:
    return f"[{title}]\n{text.strip()}"


def _call_title(record: CallRecord) -> str:
    call = f"{record.name}({json.dumps(dict(record.arguments), ensure_ascii=False)})" if record.name else "a call"
    return f"tool, {call}, {record.status.value}, {record.duration_s * 1000:.1f} ms"


def _ending(trajectory: Trajectory, task: Task | None) -> str:
    lines = [f"stopped: {trajectory.stop_reason.value}, {trajectory.turns} turns, {trajectory.duration_s:.2f} s"]
    if trajectory.stop_reason is StopReason.FAULT:
        lines.append(f"fault: {trajectory.fault}")
    lines.append(f"answer: {'none' if trajectory.answer is None else trajectory.answer}")
    if task is not None and task.ground_truth:
        lines.append(f"accepted: {' | '.join(task.ground_truth)}")
    return "\n".join(lines)
