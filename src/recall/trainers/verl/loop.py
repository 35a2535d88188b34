"""verl's agent loop: one episode, played by `recall.rollout` on verl's servers. Loaded by verl in its own processes."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import ray.exceptions
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
)

from recall.trainers.verl.numbered import task_of
from recall.trainers.verl.rows import output_fields, report_of, row_of
from recall.trainers.verl.stage import GroupLostError, Place, Stage, open_stage


@lru_cache(maxsize=1)
def stage_of(run: str, servers: Any) -> Stage:
    """The stage of this process; verl makes a loop for every episode, and one client of the servers for them all."""
    return open_stage(Path(run), servers, (ray.exceptions.RayError,))


class RecallAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays one episode."""

    def __init__(self, *args: Any, run: str, **kwargs: Any) -> None:
        """Take what verl hands over, and from our own configuration the run directory."""
        super().__init__(*args, **kwargs)
        self._stage = stage_of(run, self.server_manager)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """Play the task of a row of `TaskDataset`.

        Returns:
            One output; none after a fault of ours, which leaves the episode out of its group and out of the gradient.

        Raises:
            GroupLostError: no episode of the group can be learned from.
        """
        training = kwargs["recall_part"] == "train"
        place = Place(
            step=int(kwargs["global_steps"]),
            group=str(kwargs["uid"]),
            number=int(kwargs["session_id"]),
            size=int(self.rollout_config.n if training else self.rollout_config.val_kwargs.n),
            split="train" if training else str(kwargs["recall_split"]),
        )
        played = await self._stage.play(
            task_of(kwargs["recall_task"]),
            place,
            temperature=float(sampling_params["temperature"]),
            top_p=float(sampling_params["top_p"]),
        )
        if played.group_lost and training:
            raise GroupLostError(f"all {place.size} episodes failed, the last one by {played.trajectory.fault}")
        row = row_of(played.trajectory, played.reward)
        if row is None:
            return []
        report = report_of(played.trajectory, played.reward)
        sampled_s = max(0.0, report["episode_s"] - report["tool_s"])
        fields = output_fields(row, report, played.versions, sampled_s)
        return [AgentLoopOutput(**{**fields, "metrics": AgentLoopMetrics(**fields["metrics"])})]
