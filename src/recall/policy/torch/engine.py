"""An in-process policy: any Hugging Face causal language model, sampled for many episodes at once in plain torch.

The weights are the trainer's own parameters, so that an update costs nothing but a new `version`. Requests of many
episodes are batched continuously, the keys and values of an episode stay while its tools run, and a prompt that several
episodes begin with is run once. It loads no model and serves no network.
"""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn

from recall.errors import ConfigError, PolicyError
from recall.policy.torch.cache import Shape
from recall.policy.torch.decoder import decoder_for
from recall.policy.torch.waves import EngineStats, Turn, Waves
from recall.types import Completion, Sampling


@dataclass(eq=False, slots=True)
class _Request:
    """A call of `sample` that waits for its completion."""

    order: tuple[int, int]
    """When the episode began, then when the request came."""
    turn: Turn
    future: "asyncio.Future[Completion]"
    kept: bool
    """Whether the episode was announced, so that its cache outlives the turn."""


class TorchPolicy:
    """Samples turns of many concurrent episodes; implements `recall.policy.base.Policy`.

    With `deterministic`, a batch is a function of the requests alone: before a wave, the engine waits until every
    episode that was begun and not ended has asked for its next turn, so the time that tools take cannot show in the
    numbers, and a run repeats bit for bit. Otherwise whatever has been asked for is taken.

    An episode that was never begun may sample too; nothing is kept of it, and nobody waits for it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        stop_token_ids: Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch: int = 256,
        max_context: int | None = None,
        deterministic: bool | None = None,
        wave: int = 4,
        shards: int | None = None,
        seed: int = 0,
    ) -> None:
        """An engine over `model`, which stays where it is and is put into no other mode.

        Args:
            model: a causal language model of `transformers`, adapters included.
            stop_token_ids: the tokens that end a turn.
            device: where `model` is; None asks it.
            dtype: what to sample in; None is the model's own type.
            max_batch: the most turns in one forward pass.
            max_context: the most tokens of an episode; None is the model's `max_position_embeddings`.
            deterministic: see above; None means on the CPU only.
            wave: decode steps between two admissions of waiting turns.
            shards: threads that each run a share of the groups on one core, which for a small model beats splitting
                every operation over the cores. None is torch's number of threads for a model of less than 32 million
                parameters on the CPU, else 1, and then operations use torch's number of threads.
            seed: of the stream that turns without a seed of their own draw from.

        Raises:
            ConfigError: an argument is out of range, or the model's attention cannot be routed.
        """
        parameter = next(model.parameters())
        if device is not None and torch.device(device).type != parameter.device.type:
            raise ConfigError(f"device: the model is on {parameter.device}, not on {device}")
        sizes = {"max_batch": max_batch, "wave": wave, "shards": shards, "max_context": max_context}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, got {value}")
        config: Any = model.config
        text = config.get_text_config()
        longest: int | None = max_context or getattr(text, "max_position_embeddings", None)
        if longest is None:
            raise ConfigError(f"max_context: {type(model).__name__} names no longest context; set it")
        self._max_context = longest
        self._vocabulary = int(text.vocab_size)
        if bad := [token for token in stop_token_ids if not 0 <= token < self._vocabulary]:
            raise ConfigError(f"stop_token_ids: {bad} lie outside the vocabulary of {self._vocabulary}")
        decoder = decoder_for(model, dtype)
        shape = Shape.probe(decoder, parameter.device)
        if shards is None:
            small = parameter.device.type == "cpu" and sum(p.numel() for p in model.parameters()) < 32_000_000
            shards = torch.get_num_threads() if small else 1
        # On a CPU a short pass stays in the caches, and its rows are of like length; a GPU wants work.
        prefill = 512 if parameter.device.type == "cpu" else 8192
        self._shards = [Waves(decoder, shape, stop_token_ids, prefill_tokens=prefill) for _ in range(shards)]
        self._home: dict[str, Waves] = {}
        self._deterministic = parameter.device.type == "cpu" if deterministic is None else deterministic
        self._max_batch, self._wave = max_batch, wave
        self._stream = random.Random(seed)
        self._version = self._run_version = 0
        self._counter = count()
        self._open: dict[str, int] = {}
        self._ended: list[str] = []
        self._waiting: list[_Request] = []
        self._active: list[_Request] = []
        self._busy: set[str] = set()
        self._threads = ThreadPoolExecutor(shards, "torch-policy")
        self._jobs: list[Future[None]] = []
        self._driver: asyncio.Task[None] | None = None
        self._changed: asyncio.Event | None = None
        self._closed = False

    @property
    def shards(self) -> int:
        """How many threads sample side by side."""
        return len(self._shards)

    @property
    def version(self) -> int:
        """The number of updates behind the weights. Setting it makes the engine forget what old weights computed."""
        return self._version

    @version.setter
    def version(self, value: int) -> None:
        self._version = value

    def begin(self, episode_id: str) -> None:
        """Announce an episode; see `Policy.begin`."""
        if episode_id in self._open:
            raise ValueError(f"episode {episode_id!r} has begun already")
        self._open[episode_id] = next(self._counter)

    def end(self, episode_id: str) -> None:
        """Forget the episode; see `Policy.end`."""
        self._open.pop(episode_id, None)
        self._ended.append(episode_id)
        if self._idle:
            self._forget_ended()
        self._notify()

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            PolicyError: the context is empty, too long or outside the vocabulary; torch failed; the engine is closed.
        """
        room = self._max_context - len(prompt_ids)
        if self._closed:
            raise PolicyError("the engine is closed")
        if not prompt_ids or room < 1:
            raise PolicyError(
                f"a context of {len(prompt_ids)} tokens; from 1 to {self._max_context - 1} can be sampled"
            )
        if min(prompt_ids) < 0 or max(prompt_ids) >= self._vocabulary:
            raise PolicyError(f"the context holds a token outside the vocabulary of {self._vocabulary}")
        kept = episode_id in self._open
        number = next(self._counter)
        seed = -1 if sampling.seed is None else sampling.seed
        turn = Turn(episode_id, prompt_ids, sampling, seed, min(sampling.max_tokens, room))
        order = (self._open.get(episode_id, number), number)
        request = _Request(order, turn, asyncio.get_running_loop().create_future(), kept)
        if episode_id in self._busy:
            raise PolicyError(f"episode {episode_id!r} is being sampled already")
        self._busy.add(episode_id)
        self._waiting.append(request)
        self._notify()
        try:
            return await request.future
        finally:
            # Reached on cancellation too, when the request must not be admitted any more.
            if request in self._waiting:
                self._waiting.remove(request)
                self._busy.discard(episode_id)
                self._notify()

    def stats(self) -> EngineStats:
        """What was done since the last call."""
        total = EngineStats()
        for shard in self._shards:
            total, shard.stats = total + shard.stats, EngineStats()
        return total

    def release(self) -> None:
        """Give the cache's memory back, between rollouts; open episodes go on by running their context again."""
        if self._idle:
            for shard in self._shards:
                shard.release()

    def close(self) -> None:
        """Stop the thread and free the cache. Waiting turns fail. Safe to call twice."""
        self._closed = True
        self._threads.shutdown(wait=True)
        self._fail([*self._waiting, *self._active], PolicyError("the engine was closed"))
        for shard in self._shards:
            shard.release()

    @property
    def _idle(self) -> bool:
        """Whether no wave is running, so that the cache may be touched."""
        return all(job.done() for job in self._jobs)

    def _notify(self) -> None:
        """Something that the driver may wait for has happened; start the driver where there is work and none runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # begin and end may be called between two event loops
        if self._driver is None or self._driver.done() or self._driver.get_loop() is not loop:
            if not self._waiting:
                return
            self._changed = asyncio.Event()
            self._driver = loop.create_task(self._drive())
            self._driver.add_done_callback(self._driver_done)
        if self._changed is not None:
            self._changed.set()

    def _driver_done(self, task: "asyncio.Task[None]") -> None:
        """A bug in the driver must reach those who wait, or they would wait for ever."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._fail([*self._waiting, *self._active], fault)

    async def _drive(self) -> None:
        """Admit, run a wave, answer; until nobody waits."""
        assert self._changed is not None
        while self._waiting or self._active:
            self._changed.clear()
            if self._deterministic and self._missing():
                await self._changed.wait()
                continue
            self._admit()
            if not self._active:
                continue
            fault = await self._wave_of(self._active)
            if fault is not None:
                for shard in self._shards:
                    shard.release()
                failed = len(self._active)
                self._fail(self._active, PolicyError(f"sampling {failed} turns: {type(fault).__name__}: {fault}"))
            self._answer()
            self._forget_ended()
            # Those who were answered run now, so that they can ask again before the next wave.
            await asyncio.sleep(0)

    async def _wave_of(self, requests: Sequence[_Request]) -> Exception | None:
        """Run one wave in the engine's threads, while the loop goes on; returns torch's own failure, if any."""
        shares = [[r.turn for r in requests if self._home[r.turn.episode_id] is shard] for shard in self._shards]
        threads = torch.get_num_threads()
        self._jobs = [
            self._threads.submit(self._work, shard, share)
            for shard, share in zip(self._shards, shares, strict=True)
            if share
        ]
        try:
            await asyncio.wait([asyncio.wrap_future(job) for job in self._jobs])
        finally:
            wait(self._jobs)  # also when the loop is being stopped: no wave outlives it
            if len(self._shards) > 1:
                torch.set_num_threads(threads)
        faults = [fault for job in self._jobs if (fault := job.exception()) is not None]
        for fault in faults:
            if not isinstance(fault, RuntimeError | ConfigError):
                raise fault
        return faults[0] if faults else None  # type: ignore[return-value]

    def _work(self, shard: Waves, turns: Sequence[Turn]) -> None:
        if len(self._shards) > 1:
            torch.set_num_threads(1)
        shard.run(turns, self._wave)

    def _missing(self) -> bool:
        """Whether an open episode is away, running its tools."""
        return not self._open.keys() <= self._busy

    def _admit(self) -> None:
        self._answer()  # drops those that were cancelled while the engine waited
        self._forget_ended()
        if self._run_version != self._version:
            self._run_version = self._version
            for shard in self._shards:
                shard.invalidate()
        self._waiting.sort(key=lambda request: request.order)
        free = self._max_batch - len(self._active)
        admitted, self._waiting = self._waiting[:free], self._waiting[free:]
        for request in admitted:
            if request.turn.seed < 0:
                request.turn.seed = self._stream.getrandbits(63)
            self._home_of(request.turn).join(request.turn)
            self._active.append(request)

    def _home_of(self, turn: Turn) -> Waves:
        """The shard of the turn's episode: that of its group, or the one with the fewest episodes."""
        shard = self._home.get(turn.episode_id)
        if shard is None:
            prompt = tuple(turn.prompt_ids)
            shard = next((s for s in self._shards if s.holds(prompt)), None) or min(self._shards, key=len)
            self._home[turn.episode_id] = shard
        return shard

    def _forget(self, episode_id: str) -> None:
        shard = self._home.pop(episode_id, None)
        if shard is not None:
            shard.end(episode_id)

    def _answer(self) -> None:
        going: list[_Request] = []
        for request in self._active:
            turn = request.turn
            if not turn.done and not request.future.done():
                going.append(request)
                continue
            if not request.kept or turn.episode_id not in self._open:
                self._forget(turn.episode_id)
            self._busy.discard(turn.episode_id)
            if not request.future.done():
                reason = "stop" if turn.stopped else "length"
                request.future.set_result(
                    Completion(tuple(turn.token_ids), tuple(turn.logprobs), reason, self._run_version)  # type: ignore[arg-type]
                )
        self._active = going

    def _forget_ended(self) -> None:
        for episode_id in self._ended:
            self._forget(episode_id)
        self._ended.clear()

    def _fail(self, requests: Sequence[_Request], fault: BaseException) -> None:
        for request in requests:
            if not request.future.done():
                request.future.set_exception(fault)
