"""Search by meaning: an encoder turns queries into vectors, and a flat or an approximate index compares them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from recall.retriever.encoder import Encoder
from recall.retriever.finder import Hits

if TYPE_CHECKING:
    import numpy as np


class Nearest(Protocol):
    """Compares vectors."""

    def nearest(self, queries: "np.ndarray[Any, Any]", k: int) -> list[Hits]:
        """The rows nearest to each query, [Q][<= k]."""


class Dense:
    """A finder over vectors."""

    def __init__(self, encoder: Encoder, index: Nearest) -> None:
        self._encoder, self._index = encoder, index

    def find(self, texts: Sequence[str], k: int) -> list[Hits]:
        """The rows whose vectors are nearest to those of the texts."""
        return self._index.nearest(self._encoder.encode(texts, "query"), k)

    def close(self) -> None:
        """End the encoder's threads."""
        self._encoder.close()
