"""What is behind every index: texts in, row numbers out. Blocking; `IndexedRetriever` runs it in threads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

Hits = list[tuple[int, float]]
"""Rows of the corpus with their scores, best first; of equal scores the lower row first."""


class Finder(Protocol):
    """Finds rows."""

    def find(self, texts: Sequence[str], k: int) -> list[Hits]:
        """The best rows for each text.

        Args:
            texts: [Q] none blank, all valid UTF-8; called from several threads at once.
            k: 1 to the number of rows.

        Returns:
            [Q][<= k] hits.
        """

    def close(self) -> None:
        """Let go of files and memory. Safe to call twice."""


def best(rows: "np.ndarray[Any, Any]", scores: "np.ndarray[Any, Any]", k: int) -> Hits:
    """The k highest scores with their rows.

    Args:
        rows: [N] row numbers; -1, which faiss gives where a list had no more, is left out.
        scores: [N] higher is better.
        k: at least 1.
    """
    import numpy as np

    if (rows < 0).any():
        rows, scores = rows[rows >= 0], scores[rows >= 0]
    if len(rows) > k:
        cut = np.argpartition(scores, -k)[-k:]
        rows, scores = rows[cut], scores[cut]
    order = np.lexsort((rows, -scores))
    return list(zip(rows[order].tolist(), scores[order].tolist(), strict=True))
