"""The parent's end of a session's socket: frames out without blocking, frames in as they come. It judges none."""

import asyncio
import os
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct

from recall.sandbox.inside.wire import HEADER

_READ_BYTES = 1 << 16


_CREDENTIALS = Struct("3i")
SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)
"""Bytes of ancillary data that a message with credentials brings."""


class FrameError(Exception):
    """What was received cannot be a frame."""


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` of a body; a header that promises more is refused before anything is kept for it."""
        self._most_bytes = most_bytes
        self._received = bytearray()

    def __len__(self) -> int:
        """Bytes that belong to no whole frame yet."""
        return len(self._received)

    def take(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        """The number and the body of each frame that `data` completes.

        Raises:
            FrameError: a frame is too long; everything before it has been returned.
        """
        if not self._received and len(data) >= HEADER.size:
            length, number = HEADER.unpack_from(data)
            if HEADER.size + length == len(data) and length <= self._most_bytes:
                return ((number, data[HEADER.size :]),)  # what nearly every call brings
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        received = self._received
        received += data
        while len(received) >= HEADER.size:
            length, number = HEADER.unpack_from(received)
            if length > self._most_bytes:
                raise FrameError(f"a frame of {length} bytes, the limit is {self._most_bytes}")
            end = HEADER.size + length
            if len(received) < end:
                return
            body = bytes(received[HEADER.size : end])
            del received[:end]
            yield number, body


def sender_of(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The pid in the credentials that came with a message, if any did.

    Raises:
        FrameError: descriptors came with it; they are closed.
    """
    pid, foreign = None, array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            foreign.frombytes(data[: len(data) - len(data) % foreign.itemsize])
    for descriptor in foreign:
        os.close(descriptor)
    if foreign:
        raise FrameError("descriptors came with a frame")
    return pid


def name_senders(ours: socket.socket) -> None:
    """Have the kernel say with each message that is sent from now on which process sent it."""
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


class Channel:
    """A non-blocking stream socket, served by whichever loop it is attached to."""

    def __init__(self, ours: socket.socket, on_readable: Callable[[], object], *, from_whom: bool = False) -> None:
        """With `from_whom`, the kernel is asked to say with each message which process sent it."""
        ours.setblocking(False)
        if from_whom:
            name_senders(ours)
        self._from_whom = from_whom
        self._socket: socket.socket | None = ours
        self._on_readable = on_readable
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent = bytearray()

    @property
    def open(self) -> bool:
        """Whether it can still be read from."""
        return self._socket is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be served by `loop` from now on."""
        self._loop = loop
        if self._socket is not None:
            loop.add_reader(self._socket.fileno(), self._on_readable)
            if self._unsent:
                loop.add_writer(self._socket.fileno(), self._writable)

    def send(self, number: int, body: bytes) -> None:
        """Send a frame, now or as soon as there is room."""
        frame = HEADER.pack(len(body), number) + body
        if not self._unsent:
            frame = frame[self._sent(frame) :]
        if frame:
            self._unsent += frame
            if self._socket is not None and self._loop is not None:
                self._loop.add_writer(self._socket.fileno(), self._writable)

    def pass_on(self, descriptor: int) -> None:
        """Send one byte that carries a descriptor.

        Raises:
            OSError: it could not be sent at once.
        """
        if self._socket is None or self._unsent:
            raise BrokenPipeError("the channel is not free")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
        self._socket.sendmsg([b"\0"], rights)

    def receive(self) -> tuple[bytes, int | None] | None:
        """What has arrived, and the pid of its sender where the channel asks for it.

        Returns:
            None where there is nothing, b"" at the end of the stream.

        Raises:
            FrameError: descriptors came along, which nobody asked for; they are closed.
        """
        if self._socket is None:
            return None
        try:
            if not self._from_whom:
                # Without room for ancillary data, descriptors that a tool sends are dropped by the kernel.
                return self._socket.recv(_READ_BYTES), None
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, SPACE, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError:
            return b"", None
        return data, sender_of(ancillary)

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        if self._socket is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def _sent(self, data: bytes | bytearray) -> int:
        """Send what there is room for now; how many bytes need not be sent any more."""
        if self._socket is None:
            return len(data)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # the process is gone; reading finds that out, and why

    def _writable(self) -> None:
        del self._unsent[: self._sent(self._unsent)]
        if not self._unsent and self._socket is not None and self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())
