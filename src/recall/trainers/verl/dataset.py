"""verl's data set: the tasks of the run's own recipe, by number. Loaded by verl in its own processes."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from recall.config import load
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.model import renderer_of
from recall.trainers.verl.numbered import part_named, row_for, tasks_of


class TaskDataset(Dataset[dict[str, Any]]):
    """The tasks of one part of a run; what the data loader keeps of it in a checkpoint is a number."""

    def __init__(
        self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1
    ) -> None:
        """Name the tasks.

        Args:
            data_files: `train` or `validation`.
            tokenizer: verl's; ours is read from the recipe's model.
            config: verl's section `data`, where `recall_run` is the run directory.
            processor: of images; not used.
            max_samples: at most so many tasks; -1 for all.
        """
        self._recipe = load(TrainRecipe, Path(config.recall_run) / "config.toml")
        self._part = part_named(data_files if isinstance(data_files, str) else list(data_files))
        count, self._task = tasks_of(self._recipe, self._part, renderer_of(self._recipe))
        self._count = count if max_samples < 0 else min(count, max_samples)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = row_for(self._task(number), number, self._part, self._recipe)
        return {**row, "dummy_tensor": torch.tensor([0], dtype=torch.uint8)}  # verl wants a tensor in every row
