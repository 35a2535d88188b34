"""A second look at what a retriever found: a cross-encoder reads the query and the passage together.

Optional and slow, some hundred times the cost of a vector comparison; it belongs behind a retriever that is quick.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError, RetrieverError, boundary
from recall.retriever.base import Card, Passage, Retriever


class RerankSettings(Settings):
    """Whether and how passages are looked at again."""

    model: str = ""
    """A cross-encoder in Hugging Face's format, such as BAAI/bge-reranker-base; empty is none."""
    candidates: int = Field(default=20, ge=1)
    """Passages that the retriever is asked for, at least, and that are looked at."""
    tokens: int = Field(default=512, ge=8)
    """Where the query and the passage together are cut."""
    batch: int = Field(default=32, ge=1)
    """Pairs of one pass."""
    device: str = "auto"
    """On which of auto, cpu, cuda or cuda:N it runs."""


class Reranker(Protocol):
    """Says how well passages fit a query; blocking, called in threads."""

    @property
    def name(self) -> str:
        """What it is called on cards."""

    def scores(self, query: str, passages: Sequence[Passage]) -> Sequence[float]:
        """One number for each passage, higher is better."""


class CrossEncoder:
    """A reranker in Hugging Face's format with one output."""

    def __init__(self, settings: RerankSettings) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from recall.retriever.encoder import device_named

        self.name = settings.model
        """What it is called on cards."""
        self._settings, self._lock = settings, threading.Lock()
        self._device = device_named(settings.device, "--rerank.device")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(settings.model)
            model: Any = AutoModelForSequenceClassification.from_pretrained(settings.model)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"--rerank.model: {settings.model}: cannot be loaded: {line}") from error
        if model.config.num_labels != 1:
            raise ConfigError(f"--rerank.model: {settings.model} has {model.config.num_labels} outputs; accepted: 1")
        self._model = (model.half() if self._device.type == "cuda" else model).to(self._device).eval()

    def scores(self, query: str, passages: Sequence[Passage]) -> Sequence[float]:
        """The model's output for each passage."""
        import torch

        found: list[float] = []
        with self._lock, torch.inference_mode():
            for start in range(0, len(passages), self._settings.batch):
                texts = [passage.contents for passage in passages[start : start + self._settings.batch]]
                batch = self._tokenizer(
                    [query] * len(texts),
                    texts,
                    truncation="longest_first",
                    max_length=self._settings.tokens,
                    padding=True,
                    return_tensors="pt",
                ).to(self._device)
                found += self._model(**batch).logits[:, 0].float().tolist()
        return found


class Reranked:
    """A retriever whose passages are put in another order."""

    def __init__(self, retriever: Retriever, reranker: Reranker, candidates: int) -> None:
        self._retriever, self._reranker, self._candidates = retriever, reranker, candidates

    @property
    def card(self) -> Card:
        """What it is."""
        card = self._retriever.card
        return replace(card, id=f"{card.id}+{self._reranker.name.rpartition('/')[2]}")

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The k best of the candidates, with the reranker's scores.

        Raises:
            RetrieverError: the retriever or the reranker failed.
        """
        found = await self._retriever.search(queries, max(k, self._candidates))
        return await asyncio.to_thread(
            lambda: [self._ordered(query, passages)[:k] for query, passages in zip(queries, found, strict=True)]
        )

    async def close(self) -> None:
        """Close the retriever."""
        await self._retriever.close()

    def _ordered(self, query: str, passages: Sequence[Passage]) -> list[Passage]:
        if not passages:
            return []
        with boundary(RetrieverError, "reranking", RuntimeError, MemoryError):
            scores = self._reranker.scores(query.encode("utf-8", "replace").decode(), passages)
        scored = [replace(passage, score=score) for passage, score in zip(passages, scores, strict=True)]
        return sorted(scored, key=lambda passage: -passage.score)
