"""verl's replay buffers, with the numbers of our episodes added to what verl logs of a step.

verl takes a step's metrics from the buffer; it is its extension point for them. Loaded by verl in its own processes.
"""

from collections.abc import Mapping
from typing import Any

import transfer_queue  # type: ignore[import-not-found]
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from recall.trainers.verl.rows import batch_metrics


class _Measured:
    """A replay buffer that measures what it hands out."""

    def __init__(self, **kwargs: Any) -> None:
        """Take verl's arguments, with those of ours that it leaves to buffers from outside."""
        extra = dict(kwargs.pop("sampler_kwargs") or {})
        self._group_size = int(extra.pop("group_size"))
        super().__init__(**kwargs, sampler_kwargs={}, **extra)  # type: ignore[call-arg]

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """A batch and verl's metrics of it, with ours."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)  # type: ignore[misc]
        if partition_id == "train" and batch.keys:
            metrics.update(self._measure(batch, batch_size * self._group_size))
        return batch, metrics

    @staticmethod
    def _measure(batch: Any, wanted: int) -> dict[str, float]:
        data = transfer_queue.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields", "rm_scores"]
        )
        reports: list[Mapping[str, float]] = [
            getattr(fields, "data", fields)["reward_extra_info"] for fields in data["extra_fields"]
        ]
        scores = [float(row.sum()) for row in data["rm_scores"]]
        return batch_metrics(reports, scores, wanted)


class MeasuredReplayBuffer(_Measured, ReplayBuffer):  # type: ignore[misc]
    """For the synchronous mode."""


class MeasuredAsyncReplayBuffer(_Measured, ReplayBufferAsync):  # type: ignore[misc]
    """For the asynchronous modes."""
