"""verl on this machine's processors: a recipe for it, its environment, and Ray started and cleaned up after."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
SHARED_MEMORY = Path("/dev/shm")

OVERRIDES = (
    "trainer.device=cpu",
    "actor_rollout_ref.model.external_lib=cpu_engine",
    "actor_rollout_ref.model.use_remove_padding=False",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.actor.use_torch_compile=False",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
    "actor_rollout_ref.rollout.enforce_eager=True",
    "actor_rollout_ref.rollout.free_cache_engine=False",
    "+actor_rollout_ref.rollout.enable_sleep_mode=False",
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=cpu_vllm.CpuWorker",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=64",
    "reward.num_workers=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "trainer.v1.sampler.custom_sampler.path=pkg://cpu_sampler",
    "trainer.v1.sampler.custom_sampler.name=CopyingReplayBuffer",
)
"""What a machine without a GPU needs said to verl."""


def own_ray(directory: Path) -> tuple[str, ...]:
    """How verl starts Ray by itself here; a cluster that is there already refuses these."""
    return (
        "ray_kwargs.ray_init.num_cpus=16",
        "+ray_kwargs.ray_init.num_gpus=2",
        "+ray_kwargs.ray_init.include_dashboard=False",
        f"+ray_kwargs.ray_init._temp_dir={directory}",
        "+ray_kwargs.ray_init.object_store_memory=400000000",
    )


def environment(batches: Path) -> dict[str, str]:
    """The variables of every process of verl."""
    return {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "cpu_platform",
        "PYTHONPATH": f"{HERE}:{SOURCE}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "RECALL_TEST_BATCHES": str(batches),
    }


def flags(tasks: Path, batches: Path, *, ray: Sequence[str], steps: int) -> list[str]:
    """A recipe as flags: nano on two ranks and two engines, four groups of four episodes a step."""
    settings = {
        "engine": "verl",
        "steps": steps,
        "reward": "outcome",
        "checkpoint_every": 1,
        "policy.max_batch": 16,
        "policy.dtype": "float32",
        "tasks.source": tasks,
        "curriculum.by": "none",
        "rollout.groups": 4,
        "rollout.group_size": 4,
        "rollout.limits.episode_timeout_s": 120.0,
        "rollout.limits.max_result_chars": 64,
        "learner.algorithm": "dr_grpo",
        "learner.learning_rate": 1e-3,
        "learner.warmup_steps": 0,
        "learner.final_rate": 1.0,
        "learner.minibatches": 1,
        "learner.entropy_coefficient": 0.0,
        "validation.every": 0,
        "validation.tasks": 2,
        "validation.source": tasks,
        "cluster.gpus_per_node": 2,
        "verl.agent_workers": 1,
        "verl.timeout_s": 400.0,
        "verl.overrides": json.dumps([*OVERRIDES, *ray]),
        "verl.env": "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in environment(batches).items()) + "}",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


@contextmanager
def tidy_shared_memory() -> Iterator[None]:
    """Remove the segments of shared memory that were left behind since the block began."""
    before = set(SHARED_MEMORY.glob("psm_*"))
    try:
        yield
    finally:
        for left in set(SHARED_MEMORY.glob("psm_*")) - before:
            left.unlink(missing_ok=True)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a short name: Ray puts sockets into it."""
    path = Path("/tmp") / f"r{secrets.token_hex(3)}"
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_ray(directory: Path, *, gpus: int, env: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray cluster of one node, started by `ray start` as an administrator would.

    Yields:
        Its address, and the variables that its clients need.
    """
    token = directory / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={port}", f"--num-gpus={gpus}", "--num-cpus=16", "--include-dashboard=false",
        f"--temp-dir={directory}", "--object-store-memory=400000000", "--disable-usage-stats",
    ]  # fmt: skip
    with open(directory / "head.log", "wb") as log:
        head = subprocess.Popen(
            arguments, env={**os.environ, **env, **secret}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_port(port, head, directory / "head.log")
        yield f"127.0.0.1:{port}", secret
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def _wait_for_port(port: int, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if head.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"Ray did not start:\n{log.read_text(errors='replace')[-2000:]}")
