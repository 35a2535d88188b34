"""One thing that is due at one time, and put off again and again: what comes in time costs no timer of its own."""

import asyncio
import math
from collections.abc import Callable
from time import monotonic


class Deadline:
    """Does something when its time has come, unless it is put off or cleared before."""

    def __init__(self) -> None:
        self._at = math.inf
        """When something is due, by `time.monotonic`."""
        self._action: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    @property
    def left_s(self) -> float:
        """Seconds until something is due; negative when it is overdue."""
        return self._at - monotonic()

    def attach(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Be kept by `loop` from now on; whether something was due in another one, which forgot it."""
        forgotten = self._timer is not None and self._action is not None
        self._loop, self._timer, self._rings_at = loop, None, math.inf
        return forgotten

    def set(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do `action` after a while, in place of what was to be done before.

        A timer that goes off too early is set again: most often there is one already, and it is left as it is.
        """
        self._at, self._action = monotonic() + delay_s, action
        if self._rings_at > self._at:
            self._wind(delay_s)

    def clear(self) -> None:
        """Nothing is due any more."""
        self._action = None

    def stop(self) -> None:
        """Nothing is due any more, and nothing is left in the loop."""
        self._action = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, math.inf

    def _wind(self, delay_s: float) -> None:
        if self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._at
        self._timer = self._loop.call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at, action = None, math.inf, self._action
        if action is None:
            return
        if (left_s := self.left_s) > 0:
            self._wind(left_s)
        else:
            self._action = None
            action()
