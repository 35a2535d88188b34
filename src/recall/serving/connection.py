"""A client's connection: what uvicorn does, and bounds on the head of a request, which it leaves open.

Without them, a client that never finishes its head holds a connection for ever, and one that never ends its head fills
the memory, both before any token is looked at.
"""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 << 10
"""Bytes of a request's line and headers."""


def connection_class(head_timeout_s: float) -> "type[HttpToolsProtocol]":
    """The class of connections; `head_timeout_s` is counted from the connection, or from the head's first byte, on."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Connection(HttpToolsProtocol):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Wait for the first head."""
            super().connection_made(transport)
            self._timer = self.loop.call_later(head_timeout_s, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            """Wait no more."""
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Take bytes in, unless the head that they belong to is too long."""
            if self._timer is not None:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES + len(data):
                    self.transport.abort()
                    return
            super().data_received(data)

        def on_message_begin(self) -> None:
            """The first byte of a head."""
            self._stop()
            self._head_bytes = 0
            self._timer = self.loop.call_later(head_timeout_s, self.transport.close)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """The head is there."""
            self._stop()
            super().on_headers_complete()

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
