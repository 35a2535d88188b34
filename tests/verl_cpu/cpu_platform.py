"""A platform of verl for machines without a GPU, for tests only.

verl loads it by VERL_USE_EXTERNAL_MODULES=cpu_platform, and takes it by VERL_PLATFORM=cpu.

Ray is told of as many GPUs as wanted; processes meet over gloo. Two things that verl takes for granted are patched: how
it names the backend of torch.distributed, and what the distribution of vLLM for the CPU is called.
"""

import importlib.metadata
import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _Device(types.ModuleType):
    """`torch.cpu`, with what verl asks of `torch.cuda` and that is nothing here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


def _nothing(*arguments: Any, **named: Any) -> None:
    """Do nothing."""


def _device_module() -> _Device:
    module = _Device("verl_cpu_device")
    answers: dict[str, Any] = {
        "is_available": lambda: False,  # so that verl measures no memory
        "current_device": lambda: torch.device("cpu"),
        "device_count": lambda: 1,
        "mem_get_info": lambda *a: (8 << 30, 16 << 30),
        "get_device_name": lambda *a: "cpu",
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *a: torch.get_rng_state(),
        "set_rng_state": lambda state, *a: torch.set_rng_state(state),
    }
    zeros = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
    answers |= dict.fromkeys(zeros, lambda *a: 0)
    idle = (
        "empty_cache", "synchronize", "set_device", "ipc_collect", "reset_peak_memory_stats",
        "reset_accumulated_memory_stats", "set_per_process_memory_fraction",
    )  # fmt: skip
    for name, answer in {**answers, **dict.fromkeys(idle, _nothing)}.items():
        setattr(module, name, answer)
    return module


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """See `PlatformBase`."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return os.environ.get("VERL_PLATFORM") == "cpu"

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        """There is one."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Nothing is asynchronous."""

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """There is nothing to set."""

    def empty_cache(self) -> None:
        """There is no cache."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """Nothing is profiled."""

    def profiler_stop(self) -> None:
        """Nothing is profiled."""

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights travel through /dev/shm

    def cudart(self) -> None:
        return None

    def rollout_env_vars(self) -> dict[str, str]:
        return {k: os.environ[k] for k in ("VLLM_CPU_KVCACHE_SPACE",) if k in os.environ}


def _patch() -> None:
    import verl.utils.distributed as distributed

    start = distributed.initialize_global_process_group_ray

    def start_on_gloo(timeout_second: int | None = None, backend: str | None = None) -> Any:
        # verl would ask for "cpu:gloo,cpu:gloo", which torch refuses.
        return start(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    distributed.initialize_global_process_group_ray = start_on_gloo
    known = importlib.metadata.version

    def version(distribution_name: str) -> str:
        # vLLM itself takes the suffix to mean that it runs on the CPU.
        return f"{known('vllm-cpu')}+cpu" if distribution_name == "vllm" else known(distribution_name)

    importlib.metadata.version = version


if os.environ.get("VERL_PLATFORM") == "cpu":
    _patch()
