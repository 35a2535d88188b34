"""Sparse search by bm25s, memory-mapped: all scores are computed when the index is built, a query adds some up.

The default up to some two million passages. A query takes time in proportion to the passages that share a word with it;
`fulltext.py` does not, and is for more.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from recall.config import Settings
from recall.retriever import postings
from recall.retriever.corpus import Corpus
from recall.retriever.finder import Hits, best
from recall.retriever.progress import Report
from recall.retriever.tokens import Tokenizer, TokenizerSettings


class Bm25Settings(Settings):
    """The two constants of BM25."""

    k1: float = Field(default=1.5, ge=0)
    """How slowly repetitions of a word saturate."""
    b: float = Field(default=0.75, ge=0, le=1)
    """How much long passages are held back."""


class Bm25:
    """A finder over the files that `postings.py` writes."""

    def __init__(self, directory: Path, tokenizer: Tokenizer) -> None:
        import bm25s

        self._index: Any = bm25s.BM25.load(directory, mmap=True, show_progress=False)
        self._vocabulary: dict[str, int] = self._index.vocab_dict
        self._tokenizer = tokenizer

    @staticmethod
    def build(corpus: Corpus, into: Path, settings: Bm25Settings, tokenizer: TokenizerSettings, report: Report) -> None:
        """Write the index of a corpus into the directory `into`; goes on with one that was begun."""
        postings.build(corpus, into, Tokenizer(tokenizer), settings.k1, settings.b, report)

    def find(self, texts: Sequence[str], k: int) -> list[Hits]:
        """The rows with the highest scores above zero."""
        return [self._best(text, k) for text in texts]

    def close(self) -> None:
        """Let go of the mapped files."""
        self._index.scores = {}

    def _best(self, text: str, k: int) -> Hits:
        known = [self._vocabulary[word] for word in self._tokenizer.words(text) if word in self._vocabulary]
        if not known:
            return []
        scores = self._index.get_scores_from_ids(known)
        touched = np.flatnonzero(scores)  # every other passage shares no word with the query
        return best(touched, scores[touched], k)
