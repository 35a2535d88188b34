"""Ways of weights from a trainer into vLLM: its own CUDA IPC interface on a GPU, and files in memory on the CPU."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

_CHUNK_BYTES = 256 << 20
_IN_MEMORY = Path("/dev/shm")
"""Where files are in memory, on Linux."""
WORKER = "recall.policy.vllm.worker.WeightReceiver"
"""What vLLM's worker is extended by on the CPU."""


class Transfer(Protocol):
    """One way of weights into a paused engine."""

    async def send(self, weights: "Callable[[], Iterable[tuple[str, torch.Tensor]]]") -> None:
        """Replace all weights of the engine; `weights` gives a fresh pass over them each time it is called."""


class FileTransfer:
    """On the CPU: some weights at a time go through a file, which is gone when they are loaded."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    async def send(self, weights: "Callable[[], Iterable[tuple[str, torch.Tensor]]]") -> None:
        """See `Transfer`."""
        from safetensors.torch import save_file

        await self._llm.collective_rpc("recall_begin_weights")
        for chunk in _chunks(weights()):
            size = sum(tensor.nbytes for tensor in chunk.values())
            folder = Path(tempfile.mkdtemp(prefix="recall-weights-", dir=_place_for(size)))
            try:
                path = folder / "weights.safetensors"
                await asyncio.to_thread(save_file, chunk, path)
                await self._llm.collective_rpc("recall_load_weights", args=(str(path),))
            finally:
                shutil.rmtree(folder)
        await self._llm.collective_rpc("recall_finish_weights")


class IpcTransfer:
    """On one GPU that trainer and engine share: vLLM's backend `ipc`, which hands over addresses in its memory."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._source: Any = None
        self._sender: Any = None

    async def send(self, weights: "Callable[[], Iterable[tuple[str, torch.Tensor]]]") -> None:
        """See `Transfer`."""
        if self._sender is None:
            loop = asyncio.get_running_loop()
            self._sender = await asyncio.to_thread(self._open, weights, _Client(self._llm, loop))
        await asyncio.to_thread(self._sender.send_weights)

    def _open(self, weights: "Callable[[], Iterable[tuple[str, torch.Tensor]]]", client: "_Client") -> Any:
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        class Source(WeightSource):  # type: ignore[misc]
            """The trainer's weights as vLLM asks for them."""

            def metadata(self) -> list[Any]:
                return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in weights()]

            def __iter__(self) -> "Iterator[tuple[str, torch.Tensor]]":
                yield from weights()

        info = IPCTrainerInitInfo(rank=0, packed=True)
        return WeightTransferTrainerFactory.trainer_init(info, client=client, source=Source())


class _Client:
    """vLLM's side of an update, called from a thread that is not the event loop's; vLLM's `VLLMWeightSyncClient`."""

    def __init__(self, llm: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._llm, self._loop = llm, loop

    def _wait(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Tell the worker how weights will come."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        self._wait(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info)))

    def start_weight_update(self) -> None:
        """Begin."""
        self._wait(self._llm.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        """Hand over some weights."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        self._wait(self._llm.update_weights(WeightTransferUpdateRequest(update_info=update_info)))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End."""
        self._wait(self._llm.finish_weight_update(weight_version))


def _chunks(weights: "Iterable[tuple[str, torch.Tensor]]") -> "Iterator[dict[str, torch.Tensor]]":
    """Runs of weights of at most `_CHUNK_BYTES`, or of one weight."""
    chunk: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        if chunk and size + tensor.nbytes > _CHUNK_BYTES:
            yield chunk
            chunk, size = {}, 0
        chunk[name] = tensor.contiguous()
        size += tensor.nbytes
    if chunk:
        yield chunk


def _place_for(size: int) -> Path | None:
    """Where a file of `size` bytes is best: in memory where there is room, else where temporary files go."""
    if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > 2 * size:
        return _IN_MEMORY
    return None
