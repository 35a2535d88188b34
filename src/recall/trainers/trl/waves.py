"""A policy over an engine that samples a batch at a time and blocks: vLLM as TRL has it beside the trained model.

Whatever has been asked for when the engine is free is one wave. Tools of episodes that are not in it run meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recall.errors import PolicyError
from recall.types import Completion, Sampling


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn to be sampled."""

    prompt_ids: Sequence[int]
    sampling: Sampling


Generate = Callable[[Sequence[Asked]], list[Completion]]
"""Samples one turn for each that is asked for, in order; blocks."""


class WavePolicy:
    """Samples turns of many episodes in waves; implements `recall.policy.base.Policy`."""

    def __init__(self, generate: Generate, faults: tuple[type[Exception], ...] = (RuntimeError, ValueError)) -> None:
        """A policy over `generate`, which is called in a thread, never twice at a time; `faults` are what it raises."""
        self._generate, self._faults = generate, faults
        self._waiting: list[tuple[Asked, asyncio.Future[Completion]]] = []
        self._driver: asyncio.Task[None] | None = None

    def begin(self, episode_id: str) -> None:
        """Announce an episode; the engine finds the prefix of a context in its cache by itself."""

    def end(self, episode_id: str) -> None:
        """Forget the episode."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            PolicyError: the engine failed.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((Asked(prompt_ids, sampling), future))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        completion: Completion = await future
        return completion

    async def _drive(self) -> None:
        """Sample waves until nobody waits."""
        while self._waiting:
            await asyncio.sleep(0)  # those who were answered or started together ask together
            wave = [(asked, future) for asked, future in self._waiting if not future.done()]
            self._waiting.clear()
            if not wave:
                continue
            try:
                found = await asyncio.to_thread(self._generate, [asked for asked, _ in wave])
            except self._faults as fault:
                for _, future in wave:
                    if not future.done():
                        future.set_exception(PolicyError(f"sampling a wave: {type(fault).__name__}: {fault}"))
                continue
            for (_, future), completion in zip(wave, found, strict=True):
                if not future.done():
                    future.set_result(completion)


def colocated(llm: Any, stop_token_ids: Sequence[int]) -> Generate:
    """Sampling with a `vllm.LLM` that returns log-probabilities at the temperature (`processed_logprobs`)."""
    from vllm import SamplingParams

    def generate(wave: Sequence[Asked]) -> list[Completion]:
        params = [
            SamplingParams(
                temperature=asked.sampling.temperature,
                top_p=asked.sampling.top_p,
                max_tokens=asked.sampling.max_tokens,
                seed=asked.sampling.seed,
                logprobs=0,
                ignore_eos=True,  # only those that the renderer knows end a turn
                stop_token_ids=list(stop_token_ids),
                detokenize=False,
            )
            for asked in wave
        ]
        prompts = [{"prompt_token_ids": list(asked.prompt_ids)} for asked in wave]
        turns = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
        return [
            Completion(
                tuple(turn.token_ids),
                tuple(min(0.0, row[token].logprob) for token, row in zip(turn.token_ids, turn.logprobs, strict=True)),
                turn.finish_reason,
            )
            for turn in turns
        ]

    return generate
