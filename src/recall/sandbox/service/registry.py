"""The sessions that the server has handed out: by id, evicted when they idle or when room is needed.

An id is 128 random bits: whoever knows it may use the session. What was evicted is remembered for a while, so that its
owner is told that it is gone rather than that it never was.
"""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from recall.errors import SandboxBusy, SandboxError
from recall.sandbox.base import SessionOptions
from recall.sandbox.places import Places
from recall.sandbox.session import LocalSession

_REMEMBERED = 65_536
"""Ids of evicted sessions that are kept."""


class UnknownSessionError(SandboxError):
    """There is no session of this id, and none is remembered."""


class EvictedSessionError(SandboxError):
    """The session was ended by the server, for the reason given."""


@dataclass(slots=True, eq=False)
class Entry:
    """One session that somebody holds the id of."""

    id: str
    """The id."""
    session: LocalSession
    """The session itself."""
    options: SessionOptions
    """How it was opened."""
    opened_at: float
    """When, in seconds of the monotonic clock."""
    used_at: float
    """When it was last asked for, or answered."""
    calls: int = 0
    """Calls that it has answered."""
    users: int = 0
    """Requests that hold it now; it is not evicted while there are any."""
    lost: bool = False
    """Whether its state is gone."""
    turn: Places = field(default_factory=lambda: Places(1))
    """Held by the call that runs; the others wait in order."""


class Registry:
    """Sessions by id, the one unused for longest first."""

    def __init__(self, *, room: int, idle_s: float, grace_s: float) -> None:
        """Set the bounds.

        Args:
            room: sessions at once.
            idle_s: seconds without a call after which a session ends.
            grace_s: seconds without a call after which a session may be ended to make room for another.
        """
        self._room = room
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._reserved = 0
        self._evicted: OrderedDict[str, str] = OrderedDict()
        self.evictions = {"idle": 0, "room": 0}
        """Sessions ended so far, by reason."""

    def __len__(self) -> int:
        return len(self._entries)

    def idle(self) -> int:
        """Sessions that nothing is asked of now."""
        return sum(not entry.users for entry in self._entries.values())

    async def reserve(self, count: int = 1) -> None:
        """Keep room for `count` sessions that are about to be added or given up.

        Raises:
            SandboxBusy: there is no room, and no session has been unused for long enough.
        """
        now = time.monotonic()
        while len(self._entries) + self._reserved + count > self._room:
            entry = next((entry for entry in self._entries.values() if not entry.users), None)
            if entry is None or now - entry.used_at < self._grace_s:
                raise SandboxBusy(f"{len(self._entries)} sessions are open, as many as may be", 1.0)
            await self._evict(entry, "room", f"it was unused for {now - entry.used_at:.0f} s and room was needed")
        self._reserved += count

    def release(self, count: int = 1) -> None:
        """Give up room that was reserved."""
        self._reserved -= count

    def add(self, session: LocalSession, options: SessionOptions) -> Entry:
        """Hand out an id, using room that was reserved."""
        self._reserved -= 1
        now = time.monotonic()
        entry = Entry(secrets.token_hex(16), session, options, now, now)
        self._entries[entry.id] = entry
        return entry

    def find(self, id: str) -> Entry:
        """The session of an id.

        Raises:
            EvictedSessionError: the server ended it.
            UnknownSessionError: there never was one, or its owner closed it.
        """
        entry = self._entries.get(id)
        if entry is not None:
            return entry
        reason = self._evicted.get(id)
        if reason is not None:
            raise EvictedSessionError(f"session lost: {reason}")
        raise UnknownSessionError("there is no such session")

    def take(self, id: str) -> Entry:
        """The session of an id, kept from eviction until it is given back."""
        entry = self.find(id)
        entry.users += 1
        return entry

    def give_back(self, entry: Entry) -> None:
        """The counterpart of `take`: it was used just now."""
        entry.users -= 1
        entry.used_at = time.monotonic()
        if entry.id in self._entries:
            self._entries.move_to_end(entry.id)

    async def close(self, id: str) -> None:
        """End a session; a call in flight fails.

        Raises:
            UnknownSessionError: there is none.
            EvictedSessionError: the server ended it already.
        """
        entry = self.find(id)
        del self._entries[id]
        await entry.session.close()

    async def close_all(self) -> None:
        """End every session."""
        entries, self._entries = list(self._entries.values()), OrderedDict()
        for entry in entries:
            await entry.session.close()

    async def sweep(self) -> None:
        """End the sessions that idled too long."""
        now = time.monotonic()
        for entry in [e for e in self._entries.values() if not e.users and now - e.used_at > self._idle_s]:
            await self._evict(entry, "idle", f"it was unused for {now - entry.used_at:.0f} s")

    async def _evict(self, entry: Entry, kind: str, reason: str) -> None:
        if self._entries.pop(entry.id, None) is None:
            return
        self.evictions[kind] += 1
        self._evicted[entry.id] = reason
        while len(self._evicted) > _REMEMBERED:
            self._evicted.popitem(last=False)
        await entry.session.close()
