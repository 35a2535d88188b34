"""Makes tasks in several processes, in the order in which one would make them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
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
        self._ahead: dict[str, _Asked] = {}

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
        ahead = self._ahead.pop(split, None)
        asked = ahead if ahead is not None and ahead.start == start else self._asked(split, start)
        if ahead is not None and ahead is not asked:
            ahead.cancel()
        try:
            with boundary(RolloutError, "making tasks in several processes", BrokenProcessPool):
                while True:
                    while not asked.waiting or (not asked.enough and len(asked.waiting) < 2 * self._workers):
                        asked.more(self._pool)
                    if asked.enough:
                        self._look_ahead(split, len(asked.waiting))
                    yield from asked.waiting.popleft().result()
        finally:
            asked.cancel()

    def _asked(self, split: str, start: int) -> "_Asked":
        return _Asked(self._makes[split], start, self._wanted[split], self._blocks(split, start))

    def _look_ahead(self, split: str, waiting: int) -> None:
        """Begin with the next split, so that no process is idle while the end of this one is written."""
        assert self._pool is not None, "there are several processes"
        splits = [*self._makes]
        following = splits.index(split) + 1
        if following == len(splits):
            return
        asked = self._ahead.setdefault(splits[following], self._asked(splits[following], 0))
        while not asked.enough and waiting + len(asked.waiting) < 2 * self._workers:
            asked.more(self._pool)

    def _blocks(self, split: str, start: int) -> Iterator[range]:
        """Numbers from `start` on, in blocks that give every worker something to do."""
        wanted, unit = self._wanted[split], self._unit
        share = -(-max(0, wanted - start) // self._workers)
        units = max(1, min(self._block, share) // unit)
        while True:
            stop = (start // unit + units) * unit
            yield range(start, min(stop, wanted) if start < wanted else stop)
            start = min(stop, wanted) if start < wanted else stop


@dataclass(slots=True)
class _Asked:
    """What the processes were asked for of one split."""

    make: Make
    start: int
    wanted: int
    blocks: Iterator[range]
    waiting: deque[Future[list[Made]]] = field(default_factory=deque)
    """In order."""
    at: int = 0
    """Every number below has been asked for."""

    @property
    def enough(self) -> bool:
        """Whether no more is needed if each number has a task."""
        return max(self.at, self.start) >= self.wanted

    def more(self, pool: ProcessPoolExecutor) -> None:
        """Ask for another block."""
        block = next(self.blocks)
        self.at = block.stop
        self.waiting.append(pool.submit(_make, self.make, block))

    def cancel(self) -> None:
        """Let go of what has not begun."""
        for future in self.waiting:
            future.cancel()


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
