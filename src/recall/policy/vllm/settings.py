"""The settings of vLLM in process, and what they come to on a device. It loads neither torch nor vLLM."""

from typing import Literal

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError

Device = Literal["cpu", "cuda"]


class VllmSettings(Settings):
    """vLLM in process, where `policy.engine` is `vllm`."""

    gpu_memory: float = Field(default=0.45, gt=0, lt=1)
    """The share of a GPU's memory that the engine takes, its cache included; the trainer has the rest."""
    cache_gib: float = Field(default=1.0, gt=0)
    """On the CPU, the memory for keys and values in GiB."""
    max_context: int | None = Field(default=None, ge=2)
    """The most tokens of an episode; none takes the model's own."""
    prefix_cache: bool = True
    """Keep keys and values of what has been run, so that a turn computes only what is new since the last one."""
    eager: bool | None = None
    """Start without compiling and without CUDA graphs, and sample slower; none means on the CPU only."""
    sleep: bool | None = None
    """Give the GPU's memory to the trainer while it updates; none means on a GPU. There is none of it on the CPU."""
    tolerance: float | None = Field(default=None, gt=0)
    """Nats that the engine's log-probabilities may be from the trainer's after a sync: the largest of them in float32,
    the mean in bfloat16. None takes 0.001 and 0.05. What is beyond it is counted; ten times as much, or three times in
    a row, ends the run."""

    def sleeps(self, device: Device) -> bool:
        """Whether the engine gives its memory away during updates.

        Raises:
            ConfigError: it is asked to on the CPU.
        """
        if self.sleep and device == "cpu":
            raise ConfigError("policy.vllm.sleep: vLLM has no sleep on the CPU; leave it out, or set it to false")
        return device == "cuda" if self.sleep is None else self.sleep

    def check_room(self, max_tokens: int) -> None:
        """Refuse episodes that the engine has no room for.

        Raises:
            ConfigError: `max_context` is less than an episode may have.
        """
        if self.max_context is not None and self.max_context < max_tokens:
            raise ConfigError(
                f"policy.vllm.max_context: {self.max_context} is less than rollout.limits.max_tokens, {max_tokens}"
            )

    def starts_eager(self, device: Device) -> bool:
        """Whether the engine starts without compiling."""
        return device == "cpu" if self.eager is None else self.eager

    def accepted_drift(self, *, float32: bool) -> float:
        """Nats that are accepted between engine and trainer."""
        return self.tolerance or (1e-3 if float32 else 0.05)
