"""A policy behind its engine, from settings: the model in this process, or behind a server of OpenAI's completions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.evaluation.local import PolicySettings, load
from recall.policy.base import Policy
from recall.policy.stopping import StopAtText
from recall.renderer import Renderer, build

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class ServedPolicySettings(PolicySettings):
    """The model, in this process or behind a server."""

    url: str = ""
    """The address of a server of OpenAI's completions, such as http://127.0.0.1:8000/v1, `model` being its name there.
    Its key is read from RECALL_POLICY_API_KEY."""
    tokenizer: Path | None = None
    """The directory of the tokenizer of a server's model, where `model` is not one."""
    from_text: bool = False
    """Take a server that returns text without token ids, which is good enough to measure answers."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What samples, and what it needs."""

    policy: Policy
    """Samples turns, which end at the texts of the dialect where it has any."""
    renderer: Renderer
    """Of the policy's model and dialect."""
    tokenizer: "PreTrainedTokenizerFast"
    """Of the policy's model."""


@asynccontextmanager
async def open_engine(settings: ServedPolicySettings) -> AsyncIterator[Engine]:
    """The engine, for as long as the block lasts.

    Raises:
        ConfigError: the model or its tokenizer cannot be had, or settings do not go together.
    """
    if settings.url:
        if settings.engine != "torch":
            raise ConfigError("--policy.engine: is of the model in this process; leave it out with --policy.url")
        from recall.policy.openai import OpenAIPolicy

        tokenizer = await asyncio.to_thread(_tokenizer_of, settings)
        renderer = build(tokenizer, settings.dialect, settings.template)
        end = renderer.turn("")[-1]
        server = OpenAIPolicy(
            settings.url,
            settings.model,
            stop_token_ids=[end, *sorted(renderer.stop_token_ids - {end})],
            stop_texts=renderer.stop_texts,
            from_text=(lambda text: renderer.turn(text)[:-1]) if settings.from_text else None,
            logprobs=False,
        )
        try:
            yield Engine(_ending(server, renderer, None), renderer, tokenizer)
        finally:
            await server.close()
        return
    for name, value in (("tokenizer", settings.tokenizer), ("from_text", settings.from_text)):
        if value:
            raise ConfigError(f"--policy.{name}: is for a server; give its --policy.url too")
    if settings.engine == "vllm":
        async with _vllm(settings) as on_vllm:
            yield on_vllm
        return
    from recall.policy.torch import TorchPolicy

    loaded = await asyncio.to_thread(load, settings)
    engine = TorchPolicy(
        loaded.model,
        stop_token_ids=sorted(loaded.renderer.stop_token_ids),
        dtype=None if loaded.dtype == next(loaded.model.parameters()).dtype else loaded.dtype,
        max_batch=settings.max_batch,
    )
    try:
        yield Engine(_ending(engine, loaded.renderer, 32), loaded.renderer, loaded.tokenizer)
    finally:
        engine.close()


@asynccontextmanager
async def _vllm(settings: ServedPolicySettings) -> AsyncIterator[Engine]:
    """The engine that is vLLM in process, which reads the model by itself."""
    from recall.policy.torch.loading import device_named, dtype_named, load_tokenizer, resolve
    from recall.policy.vllm import VllmPolicy

    source, device = resolve(settings.model), device_named(settings.device)
    tokenizer = await asyncio.to_thread(load_tokenizer, source)
    renderer = build(tokenizer, settings.dialect, settings.template)
    engine = VllmPolicy(
        source,
        stop_token_ids=sorted(renderer.stop_token_ids),
        device="cuda" if device.type == "cuda" else "cpu",
        dtype=str(dtype_named(settings.dtype, device)).removeprefix("torch."),
        settings=settings.vllm,
        max_batch=settings.max_batch,
        logprobs=False,
    )
    try:
        await engine.start()
        yield Engine(_ending(engine, renderer, 32), renderer, tokenizer)
    finally:
        engine.close()


def _ending(policy: Policy, renderer: Renderer, piece_tokens: int | None) -> Policy:
    if not renderer.stop_texts:
        return policy
    return StopAtText(policy, renderer.decode, renderer.stop_texts, piece_tokens=piece_tokens)


def _tokenizer_of(settings: ServedPolicySettings) -> "PreTrainedTokenizerFast":
    from recall.policy.torch.loading import load_tokenizer

    path = settings.tokenizer or Path(settings.model)
    if not path.is_dir():
        raise ConfigError(f"--policy.tokenizer: {path}: no such directory; it takes that of the model's tokenizer")
    return load_tokenizer(path)
