"""Makes tasks in several processes, in the order in which one would make them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from recall.errors import RolloutError, boundary
from recall.synth.made import Made, Make

BLOCK = 256
"""Tasks that a worker is asked for at once at most: a second of work or so. The set does not depend on it."""


class Workers:
    """Processes that make blocks of tasks; a context manager. With one worker, this process makes them itself.

    Ctrl-C is the parent's business alone, and no worker outlives it.
    """

    def __init__(
        self,
        makes: Mapping[str, Make],
        wanted: Mapping[str, int],
        workers: int = 1,
        *,
        block: int = BLOCK,
        unit: int = 1,
    ) -> None:
        """Take what to make.

        Args:
            makes: for each split, what makes its tasks.
            wanted: for each split, how many tasks will be enough if each number has one; no work is begun beyond that
                before it turns out to be needed.
            workers: processes.
            block: tasks of one request, about.
            unit: tasks that are best made together; requests end at its multiples.
        """
        self._makes, self._wanted, self._workers, self._block, self._unit = makes, wanted, workers, block, unit
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self._workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def stream(self, split: str, start: int) -> Iterator[Made]:
        """The attempts at the tasks of `split` from the number `start` on, without end.

        Raises:
            RolloutError: a worker died.
        """
        make = self._makes[split]
        if self._pool is None:
            for block in self._blocks(split, start):
                yield from make(block)
            return
        waiting: deque[Future[list[Made]]] = deque()
        blocks = self._blocks(split, start)
        try:
            with boundary(RolloutError, "making tasks in several processes", BrokenProcessPool):
                at = start
                while True:
                    while not waiting or (len(waiting) < 2 * self._workers and at < self._wanted[split]):
                        block = next(blocks)
                        at = block.stop
                        waiting.append(self._pool.submit(_make, make, block))
                    yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _blocks(self, split: str, start: int) -> Iterator[range]:
        """Numbers from `start` on, in blocks that give every worker something to do."""
        wanted, unit = self._wanted[split], self._unit
        share = -(-max(0, wanted - start) // self._workers)
        units = max(1, min(self._block, share) // unit)
        while True:
            stop = (start // unit + units) * unit
            yield range(start, min(stop, wanted) if start < wanted else stop)
            start = min(stop, wanted) if start < wanted else stop


def _make(make: Make, block: range) -> list[Made]:
    return list(make(block))


def _start() -> None:
    """Prepare a worker: leave Ctrl-C to the parent, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
