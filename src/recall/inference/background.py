"""An event loop in a thread of its own, for code that has none."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Runs coroutines one after another or side by side, in one loop that lasts, so that connections do too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recall", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`; whatever interrupts the wait cancels it.

        Raises:
            RuntimeError: the caller is this very loop.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a coroutine of the agent cannot wait for the agent; use the asynchronous methods")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
