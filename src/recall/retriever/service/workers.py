"""A retriever whose searches run in other processes, each with the same memory-mapped index open.

For an index whose search is Python's (bm25s above all): one process of it uses one core, however many threads it has.
What is encoded by torch uses all cores in one process already, and would be in memory once for each.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from recall.errors import RetrieverBusy, RetrieverError
from recall.retriever.base import Card, Passage, Retriever

_RESTART_S = 2.0
"""Seconds after which asking again makes sense when a worker died."""


class Workers:
    """Searches in `count` processes. See `recall.retriever.base.Retriever`."""

    def __init__(self, opener: Callable[[], Retriever], count: int) -> None:
        """Start the processes, and wait until each has the index open. Blocking.

        Args:
            opener: opens the retriever; it is sent to the processes, so it has to be a picklable one.
            count: how many.

        Raises:
            ConfigError: what `opener` raises.
            RetrieverError: a process died.
        """
        self._opener, self._count = opener, count
        self._closed = False
        self._pool = self._started()
        try:
            cards = [self._pool.submit(_card, opener) for _ in range(count)]
            self._card, *_ = [card.result() for card in cards]
        except BrokenProcessPool as error:
            raise RetrieverError("a worker died while it opened the index") from error

    @property
    def card(self) -> Card:
        """What it is."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query, found by whichever process is free.

        Raises:
            RetrieverBusy: a process died; others take its place.
            RetrieverError: the retriever failed, or it is closed.
        """
        if self._closed:
            raise RetrieverError("the workers are closed")
        pool = self._pool
        try:
            return await asyncio.wrap_future(pool.submit(_search, self._opener, list(queries), k))
        except BrokenProcessPool:
            if pool is self._pool:
                self._pool = self._started()
            raise RetrieverBusy("a worker died and is replaced", _RESTART_S) from None

    async def close(self) -> None:
        """End the processes. Safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, get_context("spawn"), _begin, (os.getpid(),))


_opened: dict[str, tuple[Retriever, asyncio.Runner]] = {}
"""In a worker, its retriever and the loop that it searches in; nothing anywhere else."""


def _begin(parent: int) -> None:
    """Leave the end to the parent: a Ctrl-C is for it to handle, and without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()


def _here(opener: Callable[[], Retriever]) -> tuple[Retriever, asyncio.Runner]:
    if "" not in _opened:
        _opened[""] = opener(), asyncio.Runner()
    return _opened[""]


def _card(opener: Callable[[], Retriever]) -> Card:
    return _here(opener)[0].card


def _search(opener: Callable[[], Retriever], queries: list[str], k: int) -> list[list[Passage]]:
    retriever, runner = _here(opener)
    return runner.run(retriever.search(queries, k))
