"""The settings that only training with TRL has. Loads nothing."""

from typing import Any, Literal

from pydantic import Field

from recall.config import Settings


class TrlSettings(Settings):
    """TRL, where `engine` is `trl`."""

    sampler: Literal["model", "colocate", "server"] = "model"
    """What samples: `model`, our engine on the weights that TRL trains; `colocate`, vLLM on the same GPUs; `server`, a
    vLLM server that TRL sends the weights to."""
    server_url: str = ""
    """With `server`, its address, such as http://127.0.0.1:8000."""
    engine_memory: float = Field(default=0.3, gt=0, lt=1)
    """With `colocate`, the share of a GPU's memory that vLLM takes."""
    pass_trajectories: int = Field(default=8, ge=1)
    """Trajectories in one forward and backward pass of a process; gradients are accumulated over passes."""
    gradient_checkpointing: bool = True
    """Compute activations twice rather than keep them."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of TRL's GRPOConfig, such as `deepspeed`; none that the recipe has a setting for."""
