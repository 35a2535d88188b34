"""ReCall's own rewards: typed, monotone, from the outcome alone. `docs/rewards.md` says why they are shaped so."""

from recall import answers
from recall.rewards.base import answered_rightly, changed_rightly, solved
from recall.types import CallStatus, RewardResult, StopReason, Task, Trajectory

FORM_WEIGHT = 0.1
"""What a well-formed trajectory earns whatever it answers."""
ANSWER_WEIGHT = 0.9
"""What the right answer earns."""
PARTIAL_LIMIT = 0.9
"""The most that a partly right text answer scores: all the right words in the wrong order are not the answer."""


def outcome(task: Task, trajectory: Trajectory) -> RewardResult:
    """Score 0.1 x form + 0.9 x answer; 0 for a trajectory that did not finish, or lacks an answer that is asked for.

    `form` is 1 when no call was malformed. `answer` is 1 for a solved task: an answer equal to an accepted one under
    the task's answer type, and the changes asked for. Otherwise, for a well-formed trajectory with the right changes
    and the type `text`, it is the token F1 up to `PARTIAL_LIMIT`; otherwise 0.
    """
    correct = solved(task, trajectory)
    finished = trajectory.stop_reason is StopReason.DONE
    answered = bool(trajectory.answer and trajectory.answer.strip())
    malformed = sum(call.status is CallStatus.MALFORMED for call in trajectory.calls)
    form, answer = 0.0, 0.0
    if finished and (answered or not task.ground_truth):
        form = float(malformed == 0)
        answer = 1.0 if correct else form * _partial(task, trajectory)
    return RewardResult(
        score=FORM_WEIGHT * form + ANSWER_WEIGHT * answer,
        correct=correct,
        parts={
            "form": form,
            "answer": answer,
            "finished": float(finished),
            "answered": float(answered),
            "malformed_calls": float(malformed),
            **_state_parts(task, trajectory),
        },
    )


def exact(task: Task, trajectory: Trajectory) -> RewardResult:
    """Score 1 for a solved task, else 0."""
    correct = solved(task, trajectory)
    answer = float(trajectory.stop_reason is StopReason.DONE and answered_rightly(task, trajectory))
    parts = {"answer": answer} if task.ground_truth else {}
    return RewardResult(score=float(correct), correct=correct, parts=parts | _state_parts(task, trajectory))


def _state_parts(task: Task, trajectory: Trajectory) -> dict[str, float]:
    """For a task about state: whether the changes are right, and whether a tool of a finished episode lost them."""
    if task.changes is None:
        return {}
    lost = trajectory.stop_reason is StopReason.DONE and trajectory.changes is None
    return {"state": float(changed_rightly(task, trajectory)), "state_lost": float(lost)}


def _partial(task: Task, trajectory: Trajectory) -> float:
    """Token F1 against the accepted answers that are words; a number, alone or as a typed answer, has no parts."""
    if task.answer_type.kind != "text" or not changed_rightly(task, trajectory):
        return 0.0
    answer = answers.value_of(trajectory.answer or "", "text")
    accepted = [answers.value_of(text, "text") for text in task.ground_truth]
    shares = [answers.token_f1(answer, text) for text in accepted if isinstance(answer, str) and isinstance(text, str)]
    return min(max(shares, default=0.0), PARTIAL_LIMIT)
