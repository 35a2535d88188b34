"""The settings that only training on verl has: the machines, and how the model is spread over them. Loads nothing."""

from typing import Literal

from pydantic import Field

from recall.config import Settings


class ClusterSettings(Settings):
    """The machines, and what runs on them beside training."""

    nodes: int = Field(default=1, ge=1)
    """Machines that train."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs of each."""
    ray_address: str = ""
    """The Ray cluster to run on, such as 10.0.0.1:6379 or auto; empty starts Ray on this machine."""
    sandboxes: int = Field(default=0, ge=0)
    """Sandbox servers to start on the cluster, as Ray actors spread over its nodes; 0 takes those of sandbox.urls, or a
    sandbox in each process."""
    sandbox_cpus: float = Field(default=2.0, ge=0)
    """Processors that Ray sets aside for each of them."""
    retrievers: int = Field(default=0, ge=0)
    """Retriever servers to start on the cluster, over the index that sandbox.search names; 0 takes what sandbox.search
    and sandbox.search_url name as they are."""
    retriever_cpus: float = Field(default=2.0, ge=0)
    """Processors that Ray sets aside for each of them."""


class VerlSettings(Settings):
    """How verl trains and samples."""

    mode: Literal["sync", "colocate_async", "separate_async"] = "sync"
    """`sync` samples and updates in turn; `colocate_async` samples the next step's episodes on the same GPUs while
    it waits for slow ones; `separate_async` samples on GPUs of its own."""
    rollout_nodes: int = Field(default=0, ge=0)
    """With `separate_async`, the machines that only sample."""
    rollout_gpus_per_node: int = Field(default=8, ge=1)
    """With `separate_async`, the GPUs of each."""
    sync_every: int = Field(default=1, ge=1)
    """With `separate_async`, updates between two copies of the weights to the samplers."""
    max_staleness: int = Field(default=8, ge=1)
    """With both asynchronous modes, the most versions of the weights that a group may lie behind; older ones are
    dropped and replaced."""
    engine: Literal["vllm", "sglang"] = "vllm"
    """What samples."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that one copy of the sampling engine spans."""
    engine_memory: float = Field(default=0.6, gt=0, lt=1)
    """The share of a GPU's memory that the sampling engine takes while it samples."""
    strategy: Literal["fsdp2", "fsdp"] = "fsdp2"
    """How weights, gradients and moments are sharded."""
    sequence_parallel: int = Field(default=1, ge=1)
    """GPUs that one long sequence is split over in the update (Ulysses)."""
    gradient_checkpointing: bool = True
    """Compute activations twice rather than keep them."""
    offload_weights: bool = False
    """Keep the trained weights and gradients in the memory of the host while the engine samples."""
    offload_optimizer: bool = False
    """Keep the optimizer's moments there."""
    offload_reference: bool = True
    """Keep the weights that kl_coefficient compares with there."""
    prompt_tokens: int | None = Field(default=None, ge=1)
    """Tasks with a longer prompt are passed over; by default those that leave no room for a turn."""
    logprob_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass without gradients, on each GPU; by default twice learner.micro_tokens."""
    agent_workers: int = Field(default=8, ge=1)
    """Processes that play episodes, spread over the nodes; each has one connection to the sandbox."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds without a finished step, the start counted as one, after which the run is ended; none waits for ever."""
    overrides: tuple[str, ...] = ()
    """verl's own settings as it writes them, such as actor_rollout_ref.rollout.enforce_eager=True; the last word."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every process on the cluster. For secrets there is the environment of the nodes."""
