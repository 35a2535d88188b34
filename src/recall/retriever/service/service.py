"""What the server does, apart from HTTP: opens the index, warms it up, answers queries, counts."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from recall.errors import RetrieverBusy
from recall.retriever.base import Retriever
from recall.retriever.service.batcher import Batcher, BatchLimits
from recall.retriever.service.hits import Cache, Hits
from recall.serving.metrics import Counters, Histogram, Numbers, page

T = TypeVar("T")

WARM_UP = "What is the capital of France?"
"""The query that must be answered before the server says that it is ready."""
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Service:
    """One retriever, for everybody who asks. See `recall.serving.server.Life`."""

    def __init__(self, opener: Callable[[], Retriever], *, limits: BatchLimits, cache_bytes: int) -> None:
        """Take what is served.

        Args:
            opener: opens the retriever; it may take minutes, and is called in a thread of its own by `start`.
            limits: how queries are gathered.
            cache_bytes: how much of the hits found is remembered.
        """
        self.requests: Counter[tuple[str, int]] = Counter()
        """Requests by endpoint and HTTP status."""
        self.seconds = Histogram()
        """Of requests that were searched, from the body's end to the answer."""
        self.draining = False
        """Whether the server is about to stop, and takes nothing new."""
        self._opener, self._limits = opener, limits
        self._cache = Cache(cache_bytes)
        self._retriever: Retriever | None = None
        self._batcher: Batcher | None = None
        self._batches, self._searching = Histogram(_SIZES), Histogram()

    async def start(self) -> str:
        """Open the retriever and search once.

        Raises:
            ConfigError: there is no such index, or it is broken.
            RetrieverError: it cannot be searched.
        """
        began = time.perf_counter()
        self._retriever = retriever = await _in_a_thread(self._opener)
        await retriever.search([WARM_UP], 1)
        self._batcher = Batcher(retriever, self._cache, self._limits, observe=self._observe)
        card = retriever.card
        return f"{card.id}, {card.passages} passages, in {time.perf_counter() - began:.1f} s"

    def drain(self) -> None:
        """Take nothing new."""
        self.draining = True

    async def close(self) -> None:
        """Close the retriever. Requests in flight fail as ours."""
        self.draining = True
        if self._batcher is not None:
            await self._batcher.close()
        if self._retriever is not None:
            await self._retriever.close()

    @property
    def passages(self) -> int:
        """How many passages there are; 0 where that is not known."""
        return 0 if self._retriever is None else self._retriever.card.passages

    async def search(self, queries: Sequence[str], k: int) -> list[Hits]:
        """The hits of each query.

        Raises:
            RetrieverBusy: no room, or not ready.
            RetrieverError: the retriever failed.
        """
        if self.draining:
            raise RetrieverBusy("the server is stopping", 5.0)
        if self._batcher is None:
            raise RetrieverBusy("the index is loading", 2.0)
        began = time.perf_counter()
        hits = await self._batcher.search(queries, k)
        self.seconds.observe(time.perf_counter() - began)
        return hits

    def health(self) -> dict[str, Any]:
        """The state, in the published form, and what is served beside it."""
        if self.draining or self._batcher is None:
            free, status = 0, "stopping" if self.draining else "starting"
        else:
            free, status = self._limits.searches - self._batcher.running, "healthy"
        health: dict[str, Any] = {
            "status": status,
            "retrievers": {"total": self._limits.searches, "available": free},
        }
        if self._batcher is not None and self._retriever is not None:
            card = self._retriever.card
            health["retriever"] = {
                "id": card.id,
                "kind": card.kind,
                "passages": card.passages,
                "corpus_sha256": card.corpus_sha256,
                "encoder": card.encoder,
            }
        return health

    def page(self) -> bytes:
        """The metrics."""
        batcher = self._batcher
        gauges = {
            "ready": ("Whether queries are taken.", float(batcher is not None and not self.draining)),
            "passages": ("Passages in the index.", float(self.passages)),
            "cache_entries": ("Queries whose hits are remembered.", float(len(self._cache))),
            "cache_bytes": ("Bytes that they take.", float(self._cache.bytes)),
            "queries_waiting": ("Queries that wait for their search.", 0.0 if batcher is None else batcher.waiting),
            "searches_running": ("Searches that run now.", 0.0 if batcher is None else batcher.running),
        }
        counters: dict[str, Counters] = {
            "requests": (
                "Requests.",
                ("endpoint", "code"),
                {(endpoint, str(code)): n for (endpoint, code), n in self.requests.items()},
            ),
            "cache_evictions": ("Entries that made room for others.", (), {(): self._cache.evictions}),
        }
        if batcher is not None:
            counts = batcher.counts
            by_end = {name: getattr(counts, name) for name in counts.__slots__}
            what = "Queries by how they were answered: remembered, asked of the index, shared with another request, …"
            counters["queries"] = what, ("how",), {(name,): number for name, number in by_end.items()}
        histograms = {
            "request_seconds": ("Seconds from a request's body to its hits.", self.seconds),
            "search_seconds": ("Seconds of a search of one batch.", self._searching),
            "search_queries": ("Queries of one batch.", self._batches),
        }
        return page("recall_retriever_", Numbers(gauges, counters, histograms))

    def _observe(self, queries: int, seconds: float) -> None:
        self._batches.observe(queries)
        self._searching.observe(seconds)


async def _in_a_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread that does not hold up the end of the process, as a pool's threads would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - handed to whoever waits, which raises it
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="open the index", daemon=True).start()
    return await done
