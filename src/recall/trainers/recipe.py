"""The recipe of a training run: every setting, its vetted default, and what each accepts. It loads no torch."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.local import NANO_LIMITS, PolicySettings, SandboxSettings
from recall.trainers.curriculum import CurriculumSettings
from recall.trainers.trl.settings import TrlSettings
from recall.trainers.verl.settings import ClusterSettings, VerlSettings

if TYPE_CHECKING:
    from recall.trainers.algorithms import Algorithm


class TaskSource(Settings):
    """What is trained on."""

    source: str = "synth"
    """`synth` or `procedural` (the generators), the directory of a set, or a file of task rows (.parquet, .jsonl)."""
    stages: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(
        default=(("1", "2", "3", "join"), ("4",)), min_length=1
    )
    """With `synth`, kinds of task, in stages that join the mix one after another."""
    recipe: str = "default"
    """With `procedural`, what tasks are made of, one of default, nano, published and hard, or a TOML file."""
    split: str = "train"
    """With a generator or a set, the split."""
    revisit: float = Field(default=0.5, ge=0, le=1)
    """The share of tasks that are played again because some of their group solved them and others did not, as far as
    there are such tasks. Not for a file of rows without a curriculum, which comes back anyway."""


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
    limits: Limits = NANO_LIMITS
    """The budget of an episode."""


class LearnerSettings(Settings):
    """How weights are updated."""

    algorithm: str = "dapo"
    """One of grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce_pp, reinforce_pp_baseline."""
    learning_rate: float = Field(default=2.4e-3, gt=0)
    """AdamW's, before its rise and its fall are multiplied in."""
    warmup_steps: int = Field(default=200, ge=0)
    """Steps over which the learning rate rises linearly. A long rise keeps the policy varied while it explores."""
    initial_rate: float = Field(default=0.2, ge=0, le=1)
    """The share of the learning rate that the rise starts from."""
    final_rate: float = Field(default=0.1, ge=0, le=1)
    """Over the whole run the learning rate falls linearly to this share of itself; without the fall success swings to
    the last step."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    minibatches: int = Field(default=2, ge=1)
    """Optimizer steps that one batch of groups is cut into."""
    epochs: int = Field(default=1, ge=1)
    """Passes over one batch of groups."""
    micro_tokens: int = Field(default=2048, ge=1)
    """The most tokens of one forward and backward pass; gradients are accumulated over passes."""
    clip_low: float | None = Field(default=None, ge=0)
    """Overrides the algorithm's lower clip."""
    clip_high: float | None = Field(default=None, ge=0)
    """Overrides the algorithm's upper clip."""
    constant_length: int = Field(default=256, ge=1)
    """The length that dr_grpo and rloo divide by, in tokens."""
    kl_coefficient: float | None = Field(default=None, ge=0)
    """Weight of the divergence from the weights at the start (k3, Schulman 2020); none takes the algorithm's own, 0.001
    with grpo and 0 with the others."""
    entropy_coefficient: float = 0.01
    """Weight of the mean entropy of the sampled tokens, added to the objective."""
    overlong_tokens: int = Field(default=0, ge=0)
    """DAPO's soft punishment of length: over the last so many tokens before rollout.limits.max_tokens the reward falls
    by up to 1, and by 1 where the limit ended the episode; 0 for none."""
    importance_cap: float | None = Field(default=None, gt=0)
    """With a cap, log-probabilities are computed again before the update, and tokens are weighted by the ratio of these
    to the sampler's, at most the cap; corrects for an engine whose numbers differ from the trainer's."""

    def rate(self, step: int, total_steps: int) -> float:
        """The learning rate of a step, from 0, of a run."""
        warm = self.initial_rate + (1 - self.initial_rate) * min(1.0, (step + 1) / (self.warmup_steps + 1))
        passed = step / max(1, total_steps)
        return self.learning_rate * warm * (1 - (1 - self.final_rate) * passed)

    @property
    def kl(self) -> float:
        """The weight of the divergence: what is set, else the algorithm's own."""
        return self.chosen().kl if self.kl_coefficient is None else self.kl_coefficient

    def chosen(self) -> "Algorithm":
        """The algorithm with the overrides in place.

        Raises:
            ConfigError: there is none of this name.
        """
        from recall.trainers.algorithms import ALGORITHMS  # loads torch

        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"learner.algorithm {self.algorithm!r}: accepted are {', '.join(ALGORITHMS)}")
        named = ALGORITHMS[self.algorithm]
        low = named.clip_low if self.clip_low is None else self.clip_low
        high = named.clip_high if self.clip_high is None else self.clip_high
        return replace(named, clip_low=low, clip_high=high)


class ValidationSettings(Settings):
    """How success is measured on tasks that are never trained on."""

    every: int = Field(default=40, ge=0)
    """Steps between two validations; 0 for only before and after."""
    split: str = "held_out"
    """With `synth`, the split."""
    kinds: tuple[str, ...] = Field(default=("1", "2", "3", "4", "5", "join"), min_length=1)
    """With `synth`, the kinds of task."""
    splits: tuple[str, ...] = Field(default=("validation", "new_worlds", "new_templates", "new_skins"), min_length=1)
    """With `procedural` or a set, the splits; success is reported by split and kind."""
    source: Path | None = None
    """With a file of tasks, the file to validate on."""
    tasks: int = Field(default=30, ge=1)
    """Tasks of each kind, or of each split, while training, at most."""
    final_tasks: int = Field(default=100, ge=1)
    """Tasks of each kind, or of each split, before and after training, at most."""
    patience: int = Field(default=0, ge=0)
    """Stop when so many validations in a row were no better; 0 never stops early."""


class TrackingSettings(Settings):
    """Where metrics go besides `metrics.jsonl`. Keys are read from the environment, and stand in no file of a run."""

    to: tuple[Literal["wandb", "trackio"], ...] = ()
    """Trackers: `wandb` reads WANDB_API_KEY, or with WANDB_MODE=offline writes into the run; `trackio` HF_TOKEN."""
    project: str = Field(default="recall", min_length=1)
    """The project there."""
    name: str = ""
    """What the run is called there; by default as its directory."""


class TrainRecipe(Settings):
    """Everything that a run depends on."""

    engine: Literal["local", "trl", "verl"] = "local"
    """What trains: this process alone, TRL in it, or verl on the GPUs of a cluster."""
    seed: int = 0
    """Decides tasks, sampling and order."""
    steps: int = Field(default=280, ge=1)
    """Updates."""
    reward: str = "exact"
    """The reward's name: outcome, exact, recall, or row, which leaves it to each row."""
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
    tensorboard: bool = True
    """Write the metrics as TensorBoard's event files too."""
    policy: PolicySettings = PolicySettings()
    tasks: TaskSource = TaskSource()
    rollout: RolloutSettings = RolloutSettings()
    sandbox: SandboxSettings = SandboxSettings()
    curriculum: CurriculumSettings = CurriculumSettings()
    learner: LearnerSettings = LearnerSettings()
    validation: ValidationSettings = ValidationSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = ClusterSettings()
    verl: VerlSettings = VerlSettings()
    trl: TrlSettings = TrlSettings()
