"""A retriever that answers from a mapping: the fake behind tests of whatever searches."""

import hashlib
from collections.abc import Mapping, Sequence

from recall.retriever.base import Card, Passage


class FixedRetriever:
    """Knows the passages of each query beforehand."""

    def __init__(self, answers: Mapping[str, Sequence[Passage]], otherwise: Sequence[Passage] = ()) -> None:
        """Take the answers.

        Args:
            answers: the passages of each query, best first.
            otherwise: the passages of every other query that is not blank.
        """
        self._answers = {query: tuple(passages) for query, passages in answers.items()}
        self._otherwise = tuple(otherwise)
        known = {p.id: p.contents for passages in (*self._answers.values(), self._otherwise) for p in passages}
        checksum = hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()
        self._card = Card(f"fixed-{checksum[:8]}", "fixed", len(known), checksum)
        self.asked: list[str] = []
        """Every query, in the order asked."""
        self.closed = False
        """Whether it was closed."""

    @property
    def card(self) -> Card:
        """What it is."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The known passages of each query.

        Raises:
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 passage has to be wanted")
        self.asked.extend(queries)
        return [list(self._of(query)[:k]) for query in queries]

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _of(self, query: str) -> tuple[Passage, ...]:
        return self._answers.get(query, self._otherwise if query.strip() else ())
