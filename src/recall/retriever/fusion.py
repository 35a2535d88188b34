"""Two finders as one, by the ranks that each gives: reciprocal rank fusion.

Source: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods"; 60 is theirs.
"""

from collections.abc import Sequence

from recall.retriever.finder import Finder, Hits

DEPTH = 100
"""Rows that each finder is asked for, at least."""


class Fused:
    """A finder that asks others; a row's score is the sum of 1 / (constant + rank) over those that found it."""

    def __init__(self, finders: Sequence[Finder], rows: int, constant: int = 60) -> None:
        """Take the finders.

        Args:
            finders: over the same corpus.
            rows: its rows.
            constant: how little the first ranks count more than the next ones.
        """
        self._finders, self._rows, self._constant = tuple(finders), rows, constant

    def find(self, texts: Sequence[str], k: int) -> list[Hits]:
        """The rows with the highest sums."""
        depth = min(max(k, DEPTH), self._rows)
        found = [finder.find(texts, depth) for finder in self._finders]
        return [self._fused(lists)[:k] for lists in zip(*found, strict=True)]

    def close(self) -> None:
        """Close them all."""
        for finder in self._finders:
            finder.close()

    def _fused(self, lists: Sequence[Hits]) -> Hits:
        sums: dict[int, float] = {}
        for hits in lists:
            for rank, (row, _) in enumerate(hits, 1):
                sums[row] = sums.get(row, 0.0) + 1 / (self._constant + rank)
        return sorted(sums.items(), key=lambda hit: (-hit[1], hit[0]))
