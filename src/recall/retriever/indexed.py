"""A retriever over an index on this machine: a corpus, a finder of rows, and threads, so that no event loop waits."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from recall.errors import RetrieverError, boundary
from recall.retriever.base import Card, Passage
from recall.retriever.corpus import Corpus
from recall.retriever.finder import Finder


class IndexedRetriever:
    """Searches one index; `search` may be awaited many times at once."""

    def __init__(self, corpus: Corpus, finder: Finder, card: Card) -> None:
        self._corpus, self._finder, self._card = corpus, finder, card
        self._closed = False

    @property
    def card(self) -> Card:
        """What it is."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query; equal queries are searched once, blank ones find nothing.

        Raises:
            RetrieverError: it is closed, or the index or the encoder failed.
            ValueError: k is less than 1.
        """
        return await asyncio.to_thread(self.find, queries, k)

    def find(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """What `search` gives; blocking."""
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 passage has to be wanted")
        texts = [query.encode("utf-8", "replace").decode() for query in queries]  # halves of surrogate pairs become ?
        wanted = [text for text in dict.fromkeys(texts) if text.strip()]
        found = self._found(wanted, min(k, len(self._corpus))) if wanted else {}
        return [list(found.get(text, ())) for text in texts]

    async def close(self) -> None:
        """Let go of the index. Safe to call twice."""
        self._closed = True
        self._finder.close()
        self._corpus.close()

    def _found(self, texts: Sequence[str], k: int) -> dict[str, list[Passage]]:
        if self._closed:
            raise RetrieverError(f"{self._card.id}: searched after it was closed")
        try:
            # torch and faiss report what goes wrong in them, out of memory included, as RuntimeError
            with boundary(RetrieverError, f"searching {self._card.id}", RuntimeError, MemoryError, OSError):
                hits = self._finder.find(texts, k)
            passages = ([replace(self._corpus[row], score=score) for row, score in found] for found in hits)
            return dict(zip(texts, passages, strict=True))
        except (AttributeError, KeyError, ValueError) as error:
            if self._closed:  # the files went away under a search
                raise RetrieverError(f"{self._card.id}: closed while it was searched") from error
            raise
