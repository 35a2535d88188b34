"""What is measured of a training step, and the log that it is written to. It computes nothing that is learned from."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from recall.errors import ConfigError
from recall.store import Run
from recall.trainers.recipe import TrainRecipe
from recall.trainers.tracking import TensorBoard, Tracker, open_trackers
from recall.types import Group


class MetricsLog:
    """Appends rows of metrics to a run, and hands them on to its trackers."""

    def __init__(self, run: Run, *, tensorboard: bool, recipe: TrainRecipe | None = None) -> None:
        """A log of `run`; no metrics are written yet.

        Args:
            run: whose `metrics.jsonl` is written.
            tensorboard: write TensorBoard's files beside it.
            recipe: says what other trackers there are; None for none.

        Raises:
            ConfigError: a tracker is wanted that is not installed, or has no key.
        """
        if tensorboard and find_spec("tensorboard") is None:
            raise ConfigError(
                "tensorboard: not installed; it comes with: pip install 'recall[train]', or set tensorboard = false"
            )
        self._run = run
        self._trackers: list[Tracker] = [TensorBoard(run)] if tensorboard else []
        if recipe is not None:
            settings = recipe.tracking
            shown = recipe.model_dump(mode="json", exclude={"verl": {"env"}})
            self._trackers += open_trackers(
                run, settings.to, project=settings.project, name=settings.name, config=shown
            )

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row.

        Raises:
            ConfigError: the disk refuses it.
        """
        self._run.append_metrics({"step": step, **metrics})
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def close(self) -> None:
        """Finish. Safe to call twice."""
        for tracker in self._trackers:
            tracker.close()


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
