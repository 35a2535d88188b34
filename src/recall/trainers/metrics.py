"""What is measured of a training step, and where it is written: `metrics.jsonl`, and TensorBoard's files beside it.

It computes nothing that is learned from.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.store import Run
from recall.types import Group

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENT_FILES = "events.out.tfevents.*"
"""The names that TensorBoard looks for in a directory."""


class MetricsLog:
    """Appends rows of metrics to a run. TensorBoard's files are a copy of `metrics.jsonl`, made anew on a resume."""

    def __init__(self, run: Run, *, tensorboard: bool) -> None:
        """A log of `run`; nothing is written yet.

        Raises:
            ConfigError: TensorBoard is wanted and not installed.
        """
        if tensorboard and find_spec("tensorboard") is None:
            raise ConfigError(
                "tensorboard: not installed; it comes with: pip install 'recall[train]', or set tensorboard = false"
            )
        self._run, self._tensorboard = run, tensorboard
        self._writer: SummaryWriter | None = None

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row.

        Raises:
            ConfigError: the disk refuses it.
        """
        self._run.append_metrics({"step": step, **metrics})
        if not self._tensorboard:
            return
        if self._writer is None:
            self._writer = self._copied()
        else:
            _write(self._writer, step, metrics)
        self._writer.flush()

    def close(self) -> None:
        """Finish the files. Safe to call twice."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _copied(self) -> "SummaryWriter":
        """A writer that has written every row there is, in the place of the files that are there."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second, so only once training is under way

        for left in self._run.path.glob(EVENT_FILES):
            left.unlink()
        writer = SummaryWriter(str(self._run.path))
        for row in self._run.read_metrics():
            _write(writer, row["step"], row)
        return writer


def _write(writer: "SummaryWriter", step: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if name != "step" and isinstance(value, int | float):
            writer.add_scalar(name, value, step)


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the trajectories of some groups: rewards, turns, calls and how episodes ended.

    Rewards and success are those of the trajectories without a fault of ours, at least one of which there must be.
    """
    pairs = [
        (trajectory, reward)
        for group in groups
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
    ]
    count = len(pairs)
    sound = [reward for trajectory, reward in pairs if trajectory.fault is None]
    mean = sum(reward.score for reward in sound) / len(sound)
    calls = [call for trajectory, _ in pairs for call in trajectory.calls]
    return {
        "reward/mean": mean,
        "reward/std": (sum((reward.score - mean) ** 2 for reward in sound) / len(sound)) ** 0.5,
        "success/mean": sum(reward.correct for reward in sound) / len(sound),
        "rollout/calls_mean": len(calls) / count,
        "rollout/turns_mean": sum(trajectory.turns for trajectory, _ in pairs) / count,
        "rollout/sampled_tokens_mean": sum(sum(trajectory.mask) for trajectory, _ in pairs) / count,
        "rollout/truncated": sum(trajectory.truncated for trajectory, _ in pairs) / count,
        "rollout/faults": sum(trajectory.fault is not None for trajectory, _ in pairs) / count,
        "rollout/failed_calls": sum(call.status != "ok" for call in calls) / max(1, len(calls)),
        "rollout/malformed": sum(call.status == "malformed" for call in calls) / max(1, len(calls)),
    }


def tools_share(step_s: float, rollout_s: float, engine_s: float, shards: int) -> float:
    """At most this share of a step's wall time was spent waiting for tools.

    Whatever of the rollout the engine was not at work is counted, so the engine's own pauses and the rendering of
    replies are in it; so is the time that one shard waits for another.

    Args:
        step_s: wall time of the step.
        rollout_s: wall time of its rollout.
        engine_s: seconds of work of all shards of the engine together.
        shards: how many shards worked side by side.
    """
    return max(0.0, rollout_s - engine_s / shards) / step_s
