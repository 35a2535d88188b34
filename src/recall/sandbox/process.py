"""The processes of one session as the parent sees them: interrupt, stop, kill. It reads no byte that a tool wrote.

A plain session is one child of the zygote, which sends it the signals. A session that copies itself is whichever
process spoke last: the kernel says which one that was, and it is held by a descriptor, so that no other process that
gets its number can be meant.
"""

import os
import signal
from contextlib import suppress
from typing import Protocol


class Signals(Protocol):
    """Who can signal the children of a zygote."""

    def signal(self, kind: bytes, number: int) -> None:
        """Kill (`K`), interrupt (`I`), stop (`S`) or continue (`C`) the child of a session, with its copies."""


class Family:
    """A session and its copies: one process group, ended as a whole when the last of them is closed."""

    def __init__(self, number: int, signals: Signals) -> None:
        self.number, self.signals = number, signals
        self.members = 0


class Process:
    """What a session runs in."""

    def __init__(self, family: Family, *, copies: bool) -> None:
        """With `copies`, the process is found out from what it sends; see `spoke`."""
        self.family = family
        self._copies = copies
        self._descriptor: int | None = None
        self._speaker = 0
        self._stopped = False
        self._gone = False
        family.members += 1

    def heard(self, pid: int) -> None:
        """Note which process sent a message, as the kernel says."""
        self._speaker = pid

    def spoke(self) -> None:
        """The process that was heard last is the session's from now on; it waits for us, so its number is its own."""
        if self._copies and self._speaker:
            self._forget()
            with suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(self._speaker)

    def interrupt(self) -> None:
        """Ask the tool to stop, by an exception."""
        if self._copies:
            self._signal(signal.SIGALRM)
        else:
            self.family.signals.signal(b"I", self.family.number)

    def kill_copy(self) -> None:
        """End the process that spoke last, and no other."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Take the CPU away until `go_on`."""
        if not self._stopped:
            self._stopped = True
            self._halt(b"S", signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `stop`."""
        if self._stopped:
            self._stopped = False
            self._halt(b"C", signal.SIGCONT)

    def end(self) -> None:
        """Kill it, and with the last of a family everything that any of them started. Safe to call twice."""
        if self._gone:
            return
        self._gone = True
        self.kill_copy()
        self._forget()
        self.family.members -= 1
        if not self.family.members:
            self.family.signals.signal(b"K", self.family.number)

    def _halt(self, kind: bytes, number: int) -> None:
        if self._copies:
            self._signal(number)
        else:
            self.family.signals.signal(kind, self.family.number)

    def _signal(self, number: int) -> None:
        if self._descriptor is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
