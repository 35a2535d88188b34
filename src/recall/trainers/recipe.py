"""The recipe of a training run: every setting, its vetted default, and what each accepts."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.trainers.curriculum import CurriculumSettings
from recall.trainers.learner import LearnerSettings


class PolicySettings(Settings):
    """The model."""

    model: str = "nano"
    """A directory in Hugging Face's format, or `nano`, the policy that comes with ReCall."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it computes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What it computes in: float32 on the CPU, bfloat16 on CUDA unless said otherwise."""
    dialect: str = "recall"
    """How tools are called; see the renderer."""
    template: Path | None = None
    """A system prompt with `{func_schemas}` in the place of ReCall's own."""
    lora_rank: int = Field(default=0, ge=0)
    """Train a LoRA adapter of this rank instead of the weights; 0 trains the weights."""
    max_batch: int = Field(default=256, ge=1)
    """Episodes that are sampled at the same time."""


class TaskSource(Settings):
    """What is trained on."""

    source: str = "synth"
    """`synth`, or a file of task rows (.parquet, .jsonl)."""
    stages: tuple[tuple[str, ...], ...] = (("1", "2"), ("3", "join"), ("4",))
    """With `synth`: kinds of task, in stages that join the mix one after another."""
    split: str = "train"
    """With `synth`: the split."""


class RolloutSettings(Settings):
    """How episodes are played."""

    groups: int = Field(default=24, ge=1)
    """Tasks a step."""
    group_size: int = Field(default=8, ge=2)
    """Trajectories of each task."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of sampling. Below 1 the update still uses the whole distribution."""
    resample: int = Field(default=0, ge=0)
    """Up to so many times a step, groups without variance are replaced by those of fresh tasks."""
    limits: Limits = Limits(max_turns=8, max_tokens=512, max_turn_tokens=48, max_calls=12, max_result_chars=256)
    """The budget of an episode."""


class ValidationSettings(Settings):
    """How success is measured on tasks that are never trained on."""

    every: int = Field(default=25, ge=0)
    """Steps between two validations; 0 for only before and after."""
    split: str = "held_out"
    """With `synth`: the split."""
    kinds: tuple[str, ...] = ("1", "2", "3", "4", "5", "join")
    """With `synth`: the kinds of task."""
    source: Path | None = None
    """With a file of tasks: the file to validate on."""
    tasks: int = Field(default=30, ge=1)
    """Tasks of each kind while training."""
    final_tasks: int = Field(default=200, ge=1)
    """Tasks of each kind before and after training."""
    patience: int = Field(default=0, ge=0)
    """Stop when so many validations in a row were no better; 0 never stops early."""


class TrainRecipe(Settings):
    """Everything that a run depends on."""

    seed: int = 0
    """Decides tasks, sampling and order."""
    steps: int = Field(default=250, ge=1)
    """Updates."""
    reward: str = "outcome"
    """The reward's name: outcome, exact, recall."""
    shuffle_rewards: bool = False
    """A control: rewards are dealt to the trajectories of a batch at random, so there is nothing to learn."""
    deterministic: bool | None = None
    """Repeat bit for bit from the same seed; None means on the CPU only."""
    checkpoint_every: int = Field(default=50, ge=0)
    """Steps between two checkpoints; 0 for only the last."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Older ones are deleted."""
    save_trajectories: bool = True
    """Write every trajectory to the run directory."""
    policy: PolicySettings = PolicySettings()
    tasks: TaskSource = TaskSource()
    rollout: RolloutSettings = RolloutSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    learner: LearnerSettings = LearnerSettings()
    validation: ValidationSettings = ValidationSettings()
