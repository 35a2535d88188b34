"""Our replay buffer, which also leaves a copy of the batch that is trained on, for tests only."""

import os
from pathlib import Path
from typing import Any

import torch
import transfer_queue

from recall.trainers.verl.sampler import MeasuredReplayBuffer

FIELDS = ("prompts", "responses", "response_mask", "loss_mask", "rollout_log_probs", "rm_scores")


class CopyingReplayBuffer(MeasuredReplayBuffer):
    """Writes `batch-STEP.pt` into the directory that RECALL_TEST_BATCHES names."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "train":
            data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=partition_id, select_fields=list(FIELDS))
            rows = [{name: row.tolist() for name, row in zip(FIELDS, rows, strict=True)} for rows in
                    zip(*(data[name].unbind() for name in FIELDS), strict=True)]  # fmt: skip
            torch.save(rows, Path(os.environ["RECALL_TEST_BATCHES"]) / f"batch-{global_steps}.pt")
        return batch, metrics
