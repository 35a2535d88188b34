"""Queries of many requests become batches of one retriever: gathered, asked once however often wanted, bounded.

When nothing runs, a query is searched at once. While searches run, queries gather; the next search takes those that
are there, as soon as they are as many as last time, or the first of them has waited for the window. So a single client
never waits, and many clients get batches that grow with the load. Requests take turns within a batch: one of ten
thousand queries does not hold up those of one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recall.errors import RetrieverBusy, RetrieverError
from recall.retriever.base import Passage, Retriever
from recall.retriever.service.hits import NONE, Cache, Hits, Key, encode


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How queries are gathered, and how many."""

    searches: int = 1
    """Searches at once."""
    batch: int = 64
    """Queries of one search."""
    window_s: float = 0.003
    """Seconds that queries gather at most, while others are searched or just were."""
    waiting: int = 16384
    """Queries that wait; where there are as many, requests are refused."""
    begin_s: float = 30.0
    """Seconds in which a request's first query must be searched."""


@dataclass(slots=True)
class Counts:
    """What happened so far; whoever shows it reads it."""

    cached: int = 0
    """Queries whose hits were remembered."""
    joined: int = 0
    """Queries that another request was already waiting for."""
    searched: int = 0
    """Queries that the retriever was asked."""
    blank: int = 0
    """Queries without a character that is not white space, which find nothing."""
    failed: int = 0
    """Queries whose search failed."""
    refused: int = 0
    """Queries that there was no room for."""


@dataclass(slots=True, eq=False)
class _Want:
    """A query that is waited for: by every request that asked it meanwhile."""

    key: Key
    askers: list[tuple["_Request", int]] = field(default_factory=list)
    """Who wants it, and as which of its queries."""


@dataclass(slots=True, eq=False)
class _Request:
    """One request: its answers, and how many are missing."""

    answers: list[Hits]
    done: asyncio.Future[None]
    missing: int = 0
    begun: bool = False
    todo: deque[_Want] = field(default_factory=deque)
    """The queries that it is the first to want, which are not searched yet."""


class Batcher:
    """One retriever, asked by many at a time. It belongs to one event loop."""

    def __init__(
        self,
        retriever: Retriever,
        cache: Cache,
        limits: BatchLimits,
        *,
        observe: Callable[[int, float], None] = lambda queries, seconds: None,
    ) -> None:
        """Take what is asked.

        Args:
            retriever: the index; closed by whoever opened it.
            cache: what is remembered.
            limits: how queries are gathered.
            observe: told of each search how many queries it had and how many seconds it took.
        """
        self.counts = Counts()
        self.waiting = 0
        """Queries that wait for their search."""
        self._retriever, self._cache, self._limits, self._observe = retriever, cache, limits, observe
        self._wanted: dict[Key, _Want] = {}
        self._queues: dict[int, deque[_Request]] = {}
        """By k, the requests with queries to search, in the order of their turns."""
        self.searches: set[asyncio.Task[None]] = set()
        """The searches that run now."""
        self._last = 1
        """Queries of the search that began last."""
        self._eldest: float | None = None
        """When the oldest of the waiting queries came, on the loop's clock."""
        self._ended = 0.0
        """When a search ended last."""
        self._timer: asyncio.Handle | None = None
        self._seconds_a_query = 0.0

    @property
    def running(self) -> int:
        """How many searches run now."""
        return len(self.searches)

    async def search(self, queries: Sequence[str], k: int) -> list[Hits]:
        """The hits of each query.

        Args:
            queries: [Q] texts; a blank one finds nothing.
            k: at least 1; passages wanted for each.

        Returns:
            [Q] hits, each with at most k passages.

        Raises:
            RetrieverBusy: too many queries wait, or the search of these did not begin in time.
            RetrieverError: the retriever failed.
        """
        cache, counts = self._cache, self.counts
        answers: list[Hits] = [NONE] * len(queries)
        unknown: list[int] = []
        for place, query in enumerate(queries):
            if not query or query.isspace():
                counts.blank += 1
            elif (hits := cache.get((k, query))) is not None:
                counts.cached += 1
                answers[place] = hits
            else:
                unknown.append(place)
        if unknown:
            await self._wait_for(queries, unknown, k, answers)
        return answers

    async def close(self) -> None:
        """Give up whatever still runs; requests that wait are told so."""
        for request in {request for queue in self._queues.values() for request in queue}:
            _fail(request, RetrieverError("the server stopped"))
        self._queues.clear()
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self.searches):
            task.cancel()
        await asyncio.gather(*self.searches, return_exceptions=True)

    async def _wait_for(self, queries: Sequence[str], unknown: Sequence[int], k: int, answers: list[Hits]) -> None:
        limits = self._limits
        if self.waiting >= limits.waiting:
            self.counts.refused += len(unknown)
            raise RetrieverBusy(f"{self.waiting} queries are waiting already", self._seconds_to_clear())
        loop = asyncio.get_running_loop()
        request = _Request(answers, loop.create_future(), missing=len(unknown))
        for place in unknown:
            key = k, queries[place]
            want = self._wanted.get(key)
            if want is None:
                want = self._wanted[key] = _Want(key)
                request.todo.append(want)
            else:
                self.counts.joined += 1
            want.askers.append((request, place))
        if request.todo:
            self.waiting += len(request.todo)
            self._queues.setdefault(k, deque()).append(request)
            self._eldest = self._eldest or loop.time()
            self._wake()
        expiry = loop.call_later(limits.begin_s, self._expire, request)
        try:
            await request.done
        finally:
            expiry.cancel()
            self._leave(request)

    def _expire(self, request: _Request) -> None:
        if not request.begun:
            waited = f"the search did not begin in {self._limits.begin_s:g} s"
            _fail(request, RetrieverBusy(waited, self._seconds_to_clear()))

    def _leave(self, request: _Request) -> None:
        """A request is answered, refused or gone: what it alone still wants is wanted no more."""
        for want in request.todo:
            self.waiting -= 1
            heirs = [asker for asker in want.askers if asker[0] is not request and not asker[0].done.done()]
            want.askers = heirs
            if not heirs:
                del self._wanted[want.key]
                continue
            heir = heirs[0][0]
            self.waiting += 1
            heir.todo.append(want)
            queue = self._queues.setdefault(want.key[0], deque())
            if heir not in queue:
                queue.append(heir)
        request.todo.clear()

    def _wake(self, *, after_s: float = 0.0) -> None:
        """Look again soon, after what else this turn of the loop brings."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(after_s, self._pump) if after_s > 0 else loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Begin the searches that may begin."""
        self._timer = None
        while self.waiting and self.running < self._limits.searches:
            if (wait_s := self._gathering_s()) > 0:
                self._wake(after_s=wait_s)
                return
            batch = self._next_batch()
            if batch:
                self._begin(batch)

    def _gathering_s(self) -> float:
        """How much longer queries should gather; 0 where a search should begin."""
        if self.waiting >= min(self._last, self._limits.batch):
            return 0.0
        # The answers of a search that just ended bring the next queries of the same clients: those are waited for.
        since = (self._eldest or 0.0) if self.running else self._ended
        return max(0.0, since + self._limits.window_s - asyncio.get_running_loop().time())

    def _next_batch(self) -> list[_Want]:
        """Up to a batch of queries of one k, the requests taking turns; the k's take turns too."""
        k = next(iter(self._queues))
        queue = self._queues.pop(k)
        batch: list[_Want] = []
        free = self._limits.searches - self.running
        most = min(self._limits.batch, -(-self.waiting // free))  # as much for each search that may begin now
        while queue and len(batch) < most:
            request = queue.popleft()
            if not request.todo:
                continue
            want = request.todo.popleft()
            self.waiting -= 1
            for asker, _ in want.askers:
                asker.begun = True
            batch.append(want)
            if request.todo:
                queue.append(request)
        if queue:
            self._queues[k] = queue
        self._eldest = asyncio.get_running_loop().time() if self.waiting else None
        return batch

    def _begin(self, batch: list[_Want]) -> None:
        self._last = len(batch)
        task = asyncio.get_running_loop().create_task(self._search(batch))
        self.searches.add(task)
        task.add_done_callback(lambda done: self._end(done, batch))

    async def _search(self, batch: list[_Want]) -> None:
        k = batch[0].key[0]
        began = time.perf_counter()
        found = await self._retriever.search([want.key[1] for want in batch], k)
        seconds = time.perf_counter() - began
        if len(found) != len(batch):
            raise RetrieverError(f"the retriever answered {len(found)} of {len(batch)} queries")
        self._observe(len(batch), seconds)
        self._seconds_a_query += 0.2 * (seconds / len(batch) - self._seconds_a_query)
        self.counts.searched += len(batch)
        for want, passages in zip(batch, found, strict=True):
            self._answer(want, passages)

    def _answer(self, want: _Want, passages: Sequence[Passage]) -> None:
        hits = encode(passages)
        self._cache.put(want.key, hits)
        del self._wanted[want.key]
        for request, place in want.askers:
            request.answers[place] = hits
            request.missing -= 1
            if not request.missing and not request.done.done():
                request.done.set_result(None)

    def _end(self, task: asyncio.Task[None], batch: list[_Want]) -> None:
        self.searches.discard(task)
        error = RetrieverError("the server stopped") if task.cancelled() else task.exception()
        if error is not None:
            self.counts.failed += len(batch)
            for want in batch:
                if self._wanted.get(want.key) is want:
                    del self._wanted[want.key]
                for request, _ in want.askers:
                    _fail(request, error)
        self._ended = asyncio.get_running_loop().time()
        self._wake()

    def _seconds_to_clear(self) -> float:
        """When trying again makes sense, by what searches took lately."""
        return max(1.0, self.waiting * self._seconds_a_query / self._limits.searches)


def _fail(request: _Request, error: BaseException) -> None:
    if not request.done.done():
        request.done.set_exception(error)
