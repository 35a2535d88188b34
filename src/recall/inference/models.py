"""A model to ask, from settings: in this process, or behind a server, whose kind is found out by asking it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.engines import ServedPolicySettings, open_engine
from recall.evaluation.local import NANO_LIMITS
from recall.policy.base import Policy
from recall.policy.chat import ChatPolicy
from recall.policy.chat_ids import ChatRenderer
from recall.policy.server import ModelServer
from recall.policy.stopping import StopAtText
from recall.renderer import Renderer, build

AGENT_LIMITS = Limits(
    max_turns=32, max_tokens=32768, max_turn_tokens=4096, max_calls=128, call_timeout_s=30.0, max_result_chars=16384
)
"""What an episode of an agent may use, where nothing else is said and the model is not nano."""


class ModelSettings(ServedPolicySettings):
    """The model to ask."""

    api: Literal["auto", "completions", "sglang", "chat"] = "auto"
    """What is spoken with a server. `completions` (vLLM, SGLang, llama.cpp) and `sglang` (its own /generate) take and
    return token ids and need the tokenizer; `chat` takes any OpenAI-compatible server and returns text only. `auto`
    takes ids where the server names a directory of a tokenizer that is on this machine, and text otherwise."""


@dataclass(frozen=True, slots=True)
class Model:
    """What answers, and what it needs."""

    policy: Policy
    """Samples turns."""
    renderer: Renderer
    """Of the policy's model."""
    limits: Limits = AGENT_LIMITS
    """What fits it, where the caller says nothing."""


@asynccontextmanager
async def open_model(settings: ModelSettings) -> AsyncIterator[Model]:
    """The model, for as long as the block lasts.

    Raises:
        ConfigError: it cannot be had, or settings do not go together.
        PolicyError: the server does not answer.
    """
    if not settings.url:
        if settings.api != "auto":
            raise ConfigError("--policy.api: is for a server; give its --policy.url too")
        async with open_engine(settings) as engine:
            yield Model(engine.policy, engine.renderer, await asyncio.to_thread(_limits, settings.model))
        return
    found = await _resolved(settings)
    if found.api == "completions":
        inner = ServedPolicySettings.model_validate(found.model_dump(exclude={"api"}))
        async with open_engine(inner) as engine:
            yield Model(engine.policy, engine.renderer)
    elif found.api == "sglang":
        from recall.policy.sglang import SGLangPolicy
        from recall.policy.torch.loading import load_tokenizer

        assert found.tokenizer is not None, "_resolved has seen to it"
        renderer = build(await asyncio.to_thread(load_tokenizer, found.tokenizer), found.dialect, found.template)
        stops = sorted(renderer.stop_token_ids)
        policy = SGLangPolicy(found.url, stop_token_ids=stops, stop_texts=renderer.stop_texts)
        ending = StopAtText(policy, renderer.decode, renderer.stop_texts, piece_tokens=None)
        try:
            yield Model(ending if renderer.stop_texts else policy, renderer)
        finally:
            await policy.close()
    else:
        chat = ChatPolicy(found.url, found.model)
        try:
            yield Model(chat, ChatRenderer())
        finally:
            await chat.close()


def _limits(model: str) -> Limits:
    """What an episode of a model in this process may use: no more than its positions."""
    if model == "nano":
        return NANO_LIMITS
    try:
        known = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        positions = int(known.get("max_position_embeddings") or 0)
    except (OSError, ValueError, AttributeError):
        return AGENT_LIMITS  # whoever loads it says better what is wrong
    if not 0 < positions < AGENT_LIMITS.max_tokens:
        return AGENT_LIMITS
    fitting = {"max_tokens": positions, "max_turn_tokens": max(1, positions // 4), "max_result_chars": positions}
    return AGENT_LIMITS.model_copy(update=fitting)


async def _resolved(settings: ModelSettings) -> ModelSettings:
    """The settings with the api, the name of the model and its tokenizer filled in, as far as the server tells them."""
    server = ModelServer(settings.url)
    try:
        api, name, directory = settings.api, settings.model, settings.tokenizer
        listed = await server.get("/models")
        if api in ("auto", "sglang") and not isinstance(listed, dict):
            told = await server.get("/get_model_info")
            if isinstance(told, dict):
                api, name = "sglang", name or str(told.get("model_path", ""))
                directory = directory or _directory(told.get("tokenizer_path") or told.get("model_path"))
        models = [item for item in (listed.get("data") if isinstance(listed, dict) else None) or [] if "id" in item]
        if not name and len(models) == 1:
            name = str(models[0]["id"])
        if not name and api != "sglang":
            names = f"; it serves {', '.join(str(item['id']) for item in models)}" if models else ""
            raise ConfigError(f"policy.model: {settings.url}: say which model{names}")
        root = next((item.get("root") for item in models if item["id"] == name), None)
        directory = directory or _directory(name) or _directory(root)
    finally:
        await server.close()
    if api == "auto":
        api = "completions" if directory is not None else "chat"
    if api in ("sglang", "completions") and directory is None:
        raise ConfigError(
            f"policy.tokenizer: {settings.url}: token ids need the tokenizer of the model; give its directory, or "
            "take --policy.api chat, which returns text only"
        )
    return settings.model_copy(update={"api": api, "model": name, "tokenizer": directory})


def _directory(path: object) -> Path | None:
    """The path, where it is a directory of a tokenizer on this machine."""
    found = Path(path) if isinstance(path, str) and path else None
    return found if found is not None and (found / "tokenizer_config.json").is_file() else None
