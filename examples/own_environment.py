"""An environment and a reward of your own, and one update of a model's weights from them.

`python examples/own_environment.py [MODEL]`, where MODEL is nano or a directory.

An environment that is no more than tools needs none of this: write the tools into the rows (docs/tasks.md).
"""

import asyncio
import sys
from collections.abc import Sequence

from recall.evaluation.local import NANO_LIMITS, PolicySettings, load, sampler_of
from recall.evaluation.play import Player
from recall.trainers.learner import Learner, LearnerSettings, credits
from recall.types import (
    AssistantTurn,
    CallRecord,
    CallStatus,
    Message,
    RewardResult,
    Sampling,
    Step,
    StopReason,
    Task,
    ToolCall,
    ToolSpec,
    Trajectory,
)

NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SUPPLIERS = {"Kizedi": "Tota", "Tota": "Gebe", "Gebe": "Soti"}


class Desk:
    """One episode at a desk that is open for three calls; a fourth ends the episode."""

    tools = (ToolSpec("lookup_supplier", "supplier of a company", NAME),)

    def __init__(self, task: Task) -> None:
        self.task, self.calls, self.turn = task, 0, 0

    async def start(self) -> Sequence[Message]:
        """The question."""
        return (Message("user", self.task.question),)

    async def step(self, turn: AssistantTurn) -> Step:
        """Answer each call of a turn; one without calls is the last."""
        self.calls += len(turn.calls)
        if not turn.calls:
            return Step(stop=StopReason.DONE)
        if self.calls > 3:
            return Step(stop=StopReason.MAX_CALLS)
        records = tuple(self.record(call) for call in turn.calls)
        self.turn += 1
        return Step(tuple(Message("tool", record.result) for record in records), records)

    def record(self, call: object) -> CallRecord:
        """What becomes of a call: a value, or an error that the model can read."""
        if not isinstance(call, ToolCall):
            return CallRecord(self.turn, "", {}, "error: malformed", CallStatus.MALFORMED)
        found = SUPPLIERS.get(str(call.arguments.get("name")))
        status = CallStatus.EXCEPTION if found is None else CallStatus.OK
        return CallRecord(self.turn, call.name, call.arguments, found or "error: unknown company", status)

    async def close(self) -> None:
        """Nothing is held."""


def brief(task: Task, trajectory: Trajectory) -> RewardResult:
    """1 for the right answer, a tenth less for every call."""
    right = trajectory.answer in task.ground_truth
    return RewardResult(max(0.0, right - 0.1 * len(trajectory.calls)), correct=right)


async def main(model: str = "nano") -> None:
    """Play a group of 16, score it, learn from it."""
    loaded = load(PolicySettings(model=model))
    policy = sampler_of(loaded)
    player = Player(policy, loaded.renderer, Desk, brief, NANO_LIMITS)
    task = Task("desk", "Who is the supplier of the supplier of Kizedi?", ("Gebe",))
    groups = await player.play([task], samples=16, sampling=Sampling(max_tokens=NANO_LIMITS.max_turn_tokens))
    policy.close()
    learner = Learner(loaded.model, LearnerSettings(learning_rate=1e-4, minibatches=1))
    for reward, advantage in zip(groups[0].rewards, credits(groups[0], learner.algorithm), strict=True):
        print(f"reward {reward.score:.1f}  advantage {advantage:+.2f}")
    metrics = learner.update(groups, step=0, total_steps=1, seed=0)
    print({name: round(value, 4) for name, value in metrics.items()})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
