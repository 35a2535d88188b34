"""vLLM's worker on the CPU under verl, for tests only: rollout.engine_kwargs.vllm.worker_extension_cls.

vLLM packs the weights of linear layers when it loads them, and then cannot load new ones; plain layers can. What verl
receives through shared memory is a view of it on the CPU, so it is copied before the memory is given back.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch
import vllm.model_executor.layers.utils as layers
import vllm.model_executor.layers.vocab_parallel_embedding as embedding
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def plain_linear(layer: Any, remove_weight: bool) -> None:
    """Keep the layer's weight as it is."""
    layer.cpu_linear = torch.nn.functional.linear


for module in (layers, embedding):
    if hasattr(module, "dispatch_cpu_unquantized_gemm"):
        module.dispatch_cpu_unquantized_gemm = plain_linear

_receive = transfer.BucketedWeightReceiver.receive_weights
_clean_up = transfer.BucketedWeightReceiver._cleanup


def receive_copies(self: Any, on_bucket_received: Callable[[list[tuple[str, torch.Tensor]], bool], None]) -> None:
    """Receive weights, and hand on copies of them."""
    _receive(self, lambda weights, last: on_bucket_received([(name, w.clone()) for name, w in weights], last))


def clean_up(self: Any) -> None:
    """Let go of the shared memory before it is closed."""
    self.buffer = None
    gc.collect()
    _clean_up(self)


transfer.BucketedWeightReceiver.receive_weights = receive_copies
transfer.BucketedWeightReceiver._cleanup = clean_up


class CpuWorker(vLLMColocateWorkerExtension):
    """verl's worker, with what is above in its process."""
