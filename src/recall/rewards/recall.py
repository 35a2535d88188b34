r"""The reward that ReCall was published with, for comparison and for reproducing its runs; `outcome` is our own.

Written from its published description and the scores that it gives, not from its code. Its faults are kept, and
`docs/rewards.md` lists them. It reads the transcript as text, in ChatML, and so fits that renderer only.
"""

import json
import re
from collections.abc import Sequence

from recall import answers
from recall.rewards.base import solved
from recall.types import RewardResult, Task, Trajectory

FORMAT_FLOOR = 0.1
"""What a well-formed transcript earns when its answer shares no token with any accepted one."""

_ASSISTANT = "<|im_start|>assistant\n"
_END = "<|im_end|>"
_TURN = re.compile(r"<\|im_start\|>assistant\n(.*?)(?=<\|im_start\|>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def recall_reward(task: Task, trajectory: Trajectory) -> RewardResult:
    """Score the trajectory's transcript with `score_transcript`; `correct` is typed equality, as for every reward."""
    transcript = _ASSISTANT + "".join(segment.text for segment in trajectory.segments[1:])
    form = float(well_formed(transcript))
    answer = boxed_answer(transcript)
    f1 = answers.f1(answer, task.ground_truth) if form and answer is not None else 0.0
    return RewardResult(
        score=score_transcript(transcript, task.ground_truth),
        correct=solved(task, trajectory),
        parts={"form": form, "f1": f1},
    )


def score_transcript(transcript: str, ground_truth: str | Sequence[str]) -> float:
    """The published score: 0 for a bad format or no box, else token F1, else 0.1 where the F1 is 0. Never raises.

    Args:
        transcript: what follows the prompt's user turn, from the first `<|im_start|>assistant` on.
        ground_truth: the accepted answer or answers.
    """
    answer = boxed_answer(transcript)
    if answer is None or not well_formed(transcript):
        return 0.0
    accepted = [ground_truth] if isinstance(ground_truth, str) else ground_truth
    return answers.f1(answer, accepted) or FORMAT_FLOOR


def well_formed(transcript: str) -> bool:
    """Whether the transcript ends with `<|im_end|>` and every assistant turn thinks once and calls in valid JSON.

    A call is valid when its text is JSON and mentions `"name"` and `"arguments"`, a list of calls included.
    """
    turns = _TURN.findall(transcript)
    return bool(turns) and transcript.endswith(_END) and all(_good_turn(turn) for turn in turns)


def boxed_answer(transcript: str) -> str | None:
    r"""The last `\boxed{…}` of the last assistant turn, thinking included; for `\boxed …`, what stands before a `$`."""
    turns = _TURN.findall(transcript)
    if not turns:
        return None
    turn = turns[-1].split(_END)[0]
    start = turn.rfind("\\boxed")
    if turn.startswith("\\boxed ", start):
        return str(turn[start + len("\\boxed ") :].split("$")[0])
    return answers.extract_boxed(turn)


def _good_turn(turn: str) -> bool:
    if turn.count("<think>") != 1 or turn.count("</think>") != 1:
        return False
    calls = _CALL.findall(turn)
    return len(calls) == turn.count("<tool_call>") == turn.count("</tool_call>") and all(map(_good_call, calls))


def _good_call(call: str) -> bool:
    try:
        json.loads(call)
    except (ValueError, RecursionError):
        return False
    return '"name"' in call and '"arguments"' in call
