"""A sandbox and a retriever on servers that come and go: they are asked for by name, and asked again when one is gone.

Who knows the names is passed in as a function, so nothing here knows of Ray.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from recall.errors import RetrieverBusy, RetrieverError, SandboxBusy, SandboxError
from recall.retriever.base import Card, Passage
from recall.retriever.client import RemoteRetriever
from recall.sandbox.base import DEFAULT_OPTIONS, Session, SessionOptions
from recall.sandbox.client import RemoteSandbox

Lookup = Callable[[], Awaitable[Sequence[str]]]
"""The addresses of the servers that are there now; empty while none is."""

FRESH_S = 15.0
"""Seconds for which what was looked up is taken to be so."""


class _Addresses:
    """What a lookup said, for as long as it holds."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._until = 0.0
        self.urls: tuple[str, ...] = ()

    async def fresh(self, *, now: bool = False) -> bool:
        """Look again where that is due, or at once; whether the addresses are other ones than before."""
        if time.monotonic() < self._until and not now:
            return False
        found = tuple(sorted(await self._lookup()))
        self._until = time.monotonic() + FRESH_S
        if not found or found == self.urls:  # while none is there, the old ones may come back
            return False
        self.urls = found
        return True


class NamedSandbox:
    """A `Sandbox` over the servers that a lookup names. Sessions stay where they were opened."""

    def __init__(self, lookup: Lookup, *, wait_s: float = 60.0) -> None:
        """Take the lookup; nothing is asked yet.

        Args:
            lookup: who knows the addresses.
            wait_s: seconds that a call or a new session may wait for room, or for a server that cannot be reached,
                before the addresses are looked up again.
        """
        self._addresses, self._wait_s = _Addresses(lookup), wait_s
        self._clients: list[RemoteSandbox] = []
        """The last one is of the servers that are there now; sessions of the others live on."""

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        """Open a session; see `recall.sandbox.base.Sandbox.open`. Where no server can be reached, look again once.

        Raises:
            SandboxError: there is no server, or none that can be reached.
        """
        await self._renew()
        try:
            return await self._client().open(source, options)
        except SandboxBusy:
            raise
        except SandboxError:
            if not await self._renew(now=True):
                raise
        return await self._client().open(source, options)

    async def close(self) -> None:
        """End every session."""
        for client in self._clients:
            await client.close()

    async def _renew(self, *, now: bool = False) -> bool:
        changed = await self._addresses.fresh(now=now)
        if changed:
            self._clients.append(RemoteSandbox(self._addresses.urls, queue_timeout_s=self._wait_s))
        return changed

    def _client(self) -> RemoteSandbox:
        if not self._clients:
            raise SandboxError("no sandbox server is there by its name")
        return self._clients[-1]


class NamedRetriever:
    """A `Retriever` over the servers that a lookup names."""

    def __init__(self, lookup: Lookup) -> None:
        self._addresses = _Addresses(lookup)
        self._client: RemoteRetriever | None = None

    @property
    def card(self) -> Card:
        """What it is, as far as is known without asking."""
        return self._client.card if self._client is not None else Card("named", "service", 0)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages; see `Retriever.search`. Where no server answers, look again once.

        Raises:
            RetrieverError: there is no server, or none that answers.
        """
        await self._renew()
        if self._client is None:
            raise RetrieverError("no retriever is there by its name")
        try:
            return await self._client.search(queries, k)
        except RetrieverBusy:
            raise
        except RetrieverError:
            if not await self._renew(now=True):
                raise
        return await self._client.search(queries, k)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.close()

    async def _renew(self, *, now: bool = False) -> bool:
        changed = await self._addresses.fresh(now=now)
        if changed:
            if self._client is not None:
                await self._client.close()
            # A search is cheap to ask again elsewhere, so no server is waited for as long as a lone one would be.
            self._client = RemoteRetriever(self._addresses.urls, patience_s=20.0)
        return changed
