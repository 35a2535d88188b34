"""What the server keeps of a query's passages: the bytes that answers are put together from, and a bounded memory.

A passage is written as JSON once, when it is found; a query that was asked before costs a look-up and a join.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from recall.retriever.base import Passage

Key = tuple[int, str]
"""k and the query: what decides the hits."""

_ENTRY_BYTES = 400
"""What an entry takes besides its texts: the key, the tuples, the scores and their objects."""
_PASSAGE_BYTES = 100


@dataclass(frozen=True, slots=True)
class Hits:
    """The passages of one query, best first."""

    documents: tuple[bytes, ...]
    """[n] of each passage `{"id": …, "contents": …}`, as JSON."""
    scores: tuple[float, ...]
    """[n] of each passage, as the retriever scored it."""

    @property
    def bytes(self) -> int:
        """About how much memory they take."""
        return _ENTRY_BYTES + sum(map(len, self.documents)) + _PASSAGE_BYTES * len(self.documents)


NONE = Hits((), ())
"""What a blank query finds."""


def encode(passages: Sequence[Passage]) -> Hits:
    """Write passages as JSON in UTF-8; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return Hits(
        tuple(
            json.dumps({"id": passage.id, "contents": passage.contents}, ensure_ascii=False).encode("utf-8", "replace")
            for passage in passages
        ),
        tuple(float(passage.score) for passage in passages),
    )


class Cache:
    """The hits of the queries asked last, up to so many bytes."""

    def __init__(self, room: int) -> None:
        """Take how many bytes may be held; 0 remembers nothing."""
        self.bytes = 0
        """Bytes held, about."""
        self.evictions = 0
        """Entries that made room for others."""
        self._room = room
        self._hits: OrderedDict[Key, Hits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hits)

    def get(self, key: Key) -> Hits | None:
        """The hits, if they are held."""
        hits = self._hits.get(key)
        if hits is not None:
            self._hits.move_to_end(key)
        return hits

    def put(self, key: Key, hits: Hits) -> None:
        """Hold these hits, and let go of those that nobody asked for longest."""
        size = hits.bytes + len(key[1])
        if key in self._hits or size > self._room:
            return
        self._hits[key] = hits
        self.bytes += size
        while self.bytes > self._room:
            (_, query), old = self._hits.popitem(last=False)
            self.bytes -= old.bytes + len(query)
            self.evictions += 1
