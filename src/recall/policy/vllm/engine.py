"""vLLM's AsyncLLM as a policy: token ids in, token ids and log-probabilities out, weights that follow a trainer's.

The engine runs in a process that vLLM starts from this one and that ends with it. What it has computed of an episode's
context stays in its prefix cache from turn to turn. It loads no model into this process and serves no network.
"""

import contextlib
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from recall.errors import ConfigError, PolicyError, boundary
from recall.policy.vllm.settings import Device, VllmSettings
from recall.policy.vllm.transfer import WORKER, FileTransfer, IpcTransfer, Transfer
from recall.policy.vllm.weights import named_weights
from recall.types import Completion, Sampling

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
}
"""What vLLM reads from the environment of this process and its own, unless something is set there already: nothing is
fetched or reported, and a process is not forked from one that has torch's threads."""
ON_CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""On the CPU its threads share the cores with the trainer's."""
ON_CUDA = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
"""Addresses in a GPU's memory travel to the engine's process as pickles, through a private socket."""
_CPU_BLOCK = 32
"""Tokens of a block of the cache on the CPU; vLLM's own 128 would find few of a short context again."""


@dataclass(frozen=True, slots=True)
class VllmStats:
    """What the engine did since it was last asked."""

    sampled_tokens: int = 0
    """Tokens sampled."""
    prompt_tokens: int = 0
    """Tokens of the contexts that turns were sampled after."""
    cached_tokens: int = 0
    """Those of them that were found in the prefix cache."""
    busy_s: float = 0.0
    """Seconds in which at least one turn was being sampled."""
    turn_s: float = 0.0
    """Seconds that turns took, summed over turns."""

    @property
    def mean_batch(self) -> float:
        """Turns in the engine at the average moment at which there was one."""
        return self.turn_s / self.busy_s if self.busy_s else 0.0


class VllmPolicy:
    """Samples turns of many concurrent episodes on vLLM; implements `recall.policy.base.Policy`."""

    shards = 1
    """vLLM works on all turns at once."""

    def __init__(
        self,
        model: Path,
        *,
        stop_token_ids: Sequence[int],
        device: Device = "cpu",
        dtype: str = "float32",
        settings: VllmSettings | None = None,
        max_batch: int = 256,
        before_top_p: bool = False,
        logprobs: bool = True,
        seed: int = 0,
    ) -> None:
        """An engine that `start` starts.

        Args:
            model: a directory in Hugging Face's format; of an adapter, that of its base model.
            stop_token_ids: the tokens that end a turn.
            device: where it computes.
            dtype: what it computes in, `float32` or `bfloat16`.
            settings: the rest.
            max_batch: the most turns in one forward pass.
            before_top_p: vLLM gives log-probabilities at the temperature of sampling but after top-p, or before top-p
                but at temperature 1; this asks for the second.
            logprobs: return log-probabilities; without them every one is 0.0, which is good enough to measure answers.
            seed: of the stream that turns without a seed of their own draw from.

        Raises:
            ConfigError: vLLM is not installed, or a setting will not do on `device`.
        """
        _check_installed()
        self._settings = settings or VllmSettings()
        self._sleeps = self._settings.sleeps(device)
        self._model, self._device, self._dtype = model, device, dtype
        self._stops, self._max_batch, self._before_top_p = sorted(stop_token_ids), max_batch, before_top_p
        self._logprobs, self._stream, self._counter = logprobs, random.Random(seed), count()
        self.version = 0
        """The number of updates behind the weights."""
        self._llm: Any = None
        self._transfer: Transfer | None = None
        self._faults: tuple[type[Exception], ...] = ()
        self._asleep = False
        self._stats = VllmStats()
        self._active, self._since = 0, 0.0

    async def start(self) -> None:
        """Load the model into a process of its own, which takes from seconds to minutes. A second call does nothing.

        Raises:
            ConfigError: vLLM does not take the model or a setting, or its process does not come up.
        """
        if self._llm is not None:
            return
        for name, value in (ENVIRONMENT | (ON_CPU if self._device == "cpu" else ON_CUDA)).items():
            os.environ.setdefault(name, value)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments()))
        except (ValueError, RuntimeError, OSError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(
                f"policy.engine: vLLM does not start with {self._model}: {why}; VLLM_LOGGING_LEVEL=INFO shows more"
            ) from error
        self._faults = (VLLMServerError, VLLMClientError, ValueError)
        self._transfer = FileTransfer(self._llm) if self._device == "cpu" else IpcTransfer(self._llm)

    def _arguments(self) -> dict[str, Any]:
        settings = self._settings
        arguments: dict[str, Any] = {
            "model": str(self._model),
            "dtype": self._dtype,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # not the sampling settings that a model's directory may hold
            "max_model_len": settings.max_context,
            "max_num_seqs": self._max_batch,
            "enable_prefix_caching": settings.prefix_cache,
            "enforce_eager": settings.starts_eager(self._device),
            "logprobs_mode": "raw_logprobs" if self._before_top_p else "processed_logprobs",
            "enable_sleep_mode": self._sleeps,
            "disable_log_stats": True,
        }
        if self._device == "cpu":
            cache = {"kv_cache_memory_bytes": int(settings.cache_gib * 2**30), "block_size": _CPU_BLOCK}
            # A prompt that is run in parts would step a seeded generator back, which torch cannot do on the CPU.
            whole = {"enable_chunked_prefill": False}
            return arguments | cache | whole | {"worker_extension_cls": WORKER}
        from vllm.config import WeightTransferConfig

        transfer = {"weight_transfer_config": WeightTransferConfig(backend="ipc")}
        return arguments | {"gpu_memory_utilization": settings.gpu_memory} | transfer

    def begin(self, episode_id: str) -> None:
        """Announce an episode; vLLM finds the prefix of a context in its cache by itself."""

    def end(self, episode_id: str) -> None:
        """Forget the episode; its cache goes when room is needed."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            PolicyError: the engine failed, dropped the turn, or does not take the context.
            ConfigError: log-probabilities would not be those of what is sampled.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if self._logprobs and sampling.top_p < 1 and not self._before_top_p:
            raise ConfigError("rollout.top_p: this engine was started for a top_p of 1")
        if self._logprobs and self._before_top_p and sampling.temperature not in (0, 1):
            raise ConfigError(_NOT_BOTH)
        asked = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=self._stream.getrandbits(63) if sampling.seed is None else sampling.seed,
            logprobs=0 if self._logprobs else None,
            ignore_eos=True,  # only those that the renderer knows end a turn
            stop_token_ids=self._stops,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        started = self._enter()
        try:
            output = await self._output(prompt_ids, asked, episode_id)
        finally:
            self._leave(started)
        turn = output.outputs[0]
        ids = tuple(turn.token_ids)
        if turn.finish_reason not in ("stop", "length") or not ids:
            raise PolicyError(f"vLLM ended a turn by {turn.finish_reason!r}, after {len(ids)} tokens")
        self._count(len(ids), len(prompt_ids), output.num_cached_tokens or 0)
        logprobs = (0.0,) * len(ids)
        if self._logprobs:
            logprobs = tuple(min(0.0, found[token].logprob) for token, found in zip(ids, turn.logprobs, strict=True))
        return Completion(ids, logprobs, turn.finish_reason, self.version)

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """[n - 1] log-probabilities of the tokens after the first, nats at temperature 1.

        Raises:
            PolicyError: as `sample`.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        asked = SamplingParams(
            max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        output = await self._output(token_ids, asked, "score")
        found = output.prompt_logprobs[1:]
        return [row[token].logprob for token, row in zip(token_ids[1:], found, strict=True)]

    async def _output(self, prompt_ids: Sequence[int], asked: Any, name: str) -> Any:
        """The one output of a request; when cancelled, vLLM drops it."""
        if self._llm is None:
            raise PolicyError("the engine is not running")
        request = {"prompt_token_ids": list(prompt_ids)}
        with boundary(PolicyError, "sampling with vLLM", *self._faults):
            answers = self._llm.generate(request, asked, request_id=f"{name}#{next(self._counter)}")
            async with contextlib.aclosing(answers):
                return [answer async for answer in answers][-1]

    async def rest(self) -> None:
        """Sample no more until `follow`, and give a GPU's memory away where the settings say so."""
        if self._sleeps and not self._asleep:
            with boundary(PolicyError, "putting vLLM to sleep", *self._faults):
                await self._llm.sleep(level=2)  # the weights are replaced before it samples again
            self._asleep = True

    async def follow(self, model: Any, version: int) -> None:
        """Take the weights of the trainer's model, forget what older ones computed, and sample again.

        Args:
            model: the trainer's, adapters included.
            version: the number of updates behind it.

        Raises:
            PolicyError: the weights did not arrive.
        """
        assert self._transfer is not None, "the engine was started"
        dtype = _torch_dtype(self._dtype)
        with boundary(PolicyError, "handing weights to vLLM", RuntimeError, OSError, *self._faults):
            if self._asleep:
                await self._llm.wake_up(tags=["weights"])
            else:
                await self._llm.pause_generation(mode="abort", clear_cache=True)
            await self._transfer.send(lambda: ((name, weight.to(dtype)) for name, weight in named_weights(model)))
            if self._asleep:
                await self._llm.wake_up(tags=["kv_cache"])
            else:
                await self._llm.resume_generation()
        self._asleep = False
        self.version = version

    def stats(self) -> VllmStats:
        """What was done since the last call."""
        stats, self._stats = self._stats, VllmStats()
        return stats

    def close(self) -> None:
        """End vLLM's process. Safe to call twice."""
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = self._transfer = None

    def _enter(self) -> float:
        now = time.perf_counter()
        if not self._active:
            self._since = now
        self._active += 1
        return now

    def _leave(self, started: float) -> None:
        now = time.perf_counter()
        self._active -= 1
        busy = 0.0 if self._active else now - self._since
        stats = self._stats
        self._stats = VllmStats(
            stats.sampled_tokens,
            stats.prompt_tokens,
            stats.cached_tokens,
            stats.busy_s + busy,
            stats.turn_s + now - started,
        )

    def _count(self, sampled: int, prompt: int, cached: int) -> None:
        stats = self._stats
        self._stats = VllmStats(
            stats.sampled_tokens + sampled,
            stats.prompt_tokens + prompt,
            stats.cached_tokens + cached,
            stats.busy_s,
            stats.turn_s,
        )


_NOT_BOTH = (
    "rollout.top_p: vLLM gives log-probabilities before top-p at temperature 1 only; set rollout.top_p or "
    "rollout.temperature to 1"
)


def check_sampling(temperature: float, top_p: float) -> None:
    """Refuse sampling whose log-probabilities vLLM does not give.

    Raises:
        ConfigError: both `top_p` and `temperature` are other than 1.
    """
    if top_p < 1 and temperature != 1:
        raise ConfigError(_NOT_BOTH)


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise ConfigError("policy.engine: vllm is not installed; in an environment of its own: pip install vllm")


def _torch_dtype(name: str) -> Any:
    import torch

    return torch.bfloat16 if name == "bfloat16" else torch.float32
