"""The seam to a retriever: queries in, passages out, best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a corpus, as FlashRAG's corpora hold it."""

    id: str
    """Its name in the corpus."""
    contents: str
    """`"title"` in double quotes, a line break, then the text."""
    score: float = 0.0
    """How well it fits the query: higher is better, the scale is the retriever's own."""

    @property
    def title(self) -> str:
        """The first line, without the quotes around it; the whole where there is one line only."""
        line = self.contents.partition("\n")[0].strip()
        return line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' else line

    @property
    def text(self) -> str:
        """What follows the first line."""
        return self.contents.partition("\n")[2]


@dataclass(frozen=True, slots=True)
class Card:
    """What a retriever is: enough to tell whether two runs searched the same thing in the same way."""

    id: str
    """A short name for tables, such as `bm25-3fa92c01`: the kind, and the start of a checksum over all that decides
    what it finds."""
    kind: str
    """`bm25`, `flat`, `hybrid`, … or `fixed`; for a service, that of the index behind it."""
    passages: int
    """How many passages it searches; 0 where it does not say."""
    corpus_sha256: str = ""
    """The checksum of the corpus, expanded; empty where it does not say."""
    encoder: str = ""
    """The model that turns text into vectors; empty where none does."""


class Retriever(Protocol):
    """Finds passages."""

    @property
    def card(self) -> Card:
        """What it is; does not change."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query.

        Any text is a query: an empty one finds nothing, one that is too long is read as far as the encoder goes.

        Args:
            queries: [Q] texts.
            k: at least 1; passages wanted for each.

        Returns:
            [Q][<= k] best first; fewer where the corpus or the index has no more to offer.

        Raises:
            RetrieverBusy: there is no room now.
            RetrieverError: the index, the encoder or the service failed.
            ValueError: k is less than 1.
        """

    async def close(self) -> None:
        """Let go of the index or the connections. Safe to call twice."""
