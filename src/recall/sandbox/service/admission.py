"""Admission: how many calls run at once, how many wait, for how long. It knows nothing of what they do."""

import asyncio

from recall.errors import SandboxBusy
from recall.sandbox.places import Places


class QueueFull(SandboxBusy):
    """As many calls wait as may; the caller sends too much at once."""


class Gate:
    """Lets so many calls run at a time, those of one session one by one, and bounds how many wait and how long.

    A call that waits has not begun: its own time-out is not running.
    """

    def __init__(self, running: int, waiting: int) -> None:
        """Take how many may run, and how many may wait, at once."""
        self.running = 0
        """Calls inside."""
        self.waiting = 0
        """Calls that wait, for a place or for an earlier call of their session."""
        self._places = Places(running)
        self._room = waiting

    async def enter(self, turn: Places | None, timeout_s: float) -> None:
        """Wait for `turn`, then for a place; each `enter` that returns needs its `leave`.

        Args:
            turn: of the session; its calls wait for each other without taking places.
            timeout_s: seconds to wait at most.

        Raises:
            QueueFull: too many wait already.
            SandboxBusy: the wait took too long.
        """
        has_turn = turn is None or turn.take_now()
        if not has_turn or not self._places.take_now():
            if self.waiting >= self._room:
                if turn is not None and has_turn:
                    turn.release()
                raise QueueFull(f"{self.waiting} calls are waiting already", 1.0)
            self.waiting += 1
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wait(turn, has_turn)
            except TimeoutError:
                raise SandboxBusy(f"the call waited {timeout_s:g} s for its turn and was not begun", 1.0) from None
            finally:
                self.waiting -= 1
        self.running += 1

    def leave(self, turn: Places | None) -> None:
        """Let the next one in."""
        self.running -= 1
        self._places.release()
        if turn is not None:
            turn.release()

    async def _wait(self, turn: Places | None, has_turn: bool) -> None:
        if turn is not None and not has_turn:
            await turn.take()
        try:
            await self._places.take()
        except asyncio.CancelledError:
            if turn is not None:
                turn.release()
            raise
