"""The child's side of a session: answers one request after another on descriptor 3, confined before it gets here.

A frame is two big-endian 32-bit numbers, the length of the body and the number of the request that it belongs to, and
the body. The first call may come right behind the source; it is made if that could be loaded. A request is the JSON of
a list that begins with its kind:

- `["load", source, transactional, seed, code, tell]`: the first, number 0, and only once. With a code, which is what an
  earlier child told of the same source, the source is null. With `tell`, what the source compiled to is sent as text in
  a frame of its own before a line of it runs;
- `["call", name, arguments]`: a function of the source; `["eval", expression]`: in its namespace;
- `["script", code, settings]`: a program of its own;
- `["fork"]`: a copy of the session, on the descriptor that comes with the byte after the answer.

A reply is the JSON of `[status, result, output, error]`, and of a fifth element, true, where threads of the tools are
still running. An empty frame says that a process has begun and waits. The code that it runs may do anything to this
process; nothing here is relied on for safety.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from .entropy import renew
from .namespace import Tools
from .replies import encode
from .wire import ASK, CHANNEL, CODE, CODE_BYTES, HEADER

_READ_BYTES = 8192
_BEGUN = b""
# Bound here, before any tool can put something else in its place.
_decode = json.JSONDecoder().raw_decode


class Child:
    """The loop of a session's process."""

    def __init__(self, tools: Tools, channel: socket.socket) -> None:
        """Take `tools`, and a socket object of descriptor 3 through which descriptors are received."""
        self._tools = tools
        self._channel = channel
        self._transactional = self._seeded = False
        self._number = 0
        self._received = b""
        """What was read beyond the end of a frame."""
        self._early: list[tuple[int, bytes]] = []
        """Requests that came while something else was waited for."""
        self._asking = -1
        """The request in which an answer of the web is waited for."""

    def heed(self) -> None:
        """Have SIGALRM interrupt the call in progress, here and in every fork."""
        signal.signal(signal.SIGALRM, self._tools.interrupt)

    def run(self) -> NoReturn:
        """Serve until the other side closes."""
        _send(0, _BEGUN)
        while True:
            self.serve()

    def serve(self) -> None:
        """Answer the next request."""
        number, body = self._early.pop() if self._early else self._receive()
        if number & ASK:
            return  # an answer that an interrupted call did not wait for
        self._number = number
        request, _ = _decode(str(body, "utf-8"))
        kind = request[0]
        if kind == "load":
            self._transactional, self._seeded = request[2], request[3] is not None
            _, source, _, seed, code, tell = request
            _send(number, self._tools.load(source, seed, code=code, tell=self._tell if tell else None))
        elif not self._tools.loaded:
            return  # nobody waits for an answer any more
        elif kind == "fork":
            self._fork(number)
        elif self._transactional:
            self._in_a_copy(number, request)
        elif kind == "call":
            _send(number, self._tools.call(request[1], request[2]))
        else:
            _send(number, self._answer(request))

    def ask(self, body: bytes) -> bytes:
        """Have the other side perform a web request, in the midst of a call.

        Raises:
            TimeoutError: the call was interrupted while it waited for an earlier answer, which may still come.
        """
        if self._asking == self._number:
            raise TimeoutError("the call took too long")
        self._asking = self._number
        _send(ASK | self._number, body)
        while True:
            number, answer = self._receive()
            if number == ASK | self._number:
                self._asking = -1
                return answer
            if not number & ASK:
                self._early.append((number, answer))

    def _tell(self, code: bytes) -> None:
        _send(self._number, CODE + (code if len(code) <= CODE_BYTES else b""))

    def _answer(self, request: list[Any]) -> bytes:
        tools = self._tools
        if request[0] == "call":
            return tools.call(request[1], request[2])
        if request[0] == "eval":
            return tools.evaluate(request[1])
        from .script import run_script

        outcome = run_script(request[1], output_chars=tools.limits.output_chars, **request[2])
        return tools.reply("ok", encode(outcome))

    def _fork(self, number: int) -> None:
        """Become two: the copy serves on the descriptor that follows the answer."""
        _send(number, self._tools.reply("ok"))
        _, ancillary, _, _ = self._channel.recvmsg(1, socket.CMSG_SPACE(4))
        descriptor = int.from_bytes(ancillary[0][2], sys.byteorder)
        _reap()
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # the copy's channel closes, which says it
        if pid == 0:
            os.dup2(descriptor, CHANNEL, inheritable=False)
        os.close(descriptor)
        if pid == 0:
            if not self._seeded:
                renew()
            _send(0, _BEGUN)

    def _in_a_copy(self, number: int, request: list[Any]) -> None:
        """Answer in a copy that goes on as the session, unless it dies: then this process goes on as if not asked."""
        read, write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(read)
            os.close(write)
            return _send(number, self._tools.reply("exception", error=f"no copy of the session could be made: {error}"))
        if pid == 0:
            os.close(read)
            _send(number, _BEGUN)
            _send(number, self._answer(request))
            os.write(write, b"k")
            return os.close(write)
        os.close(write)
        if os.read(read, 1):
            os._exit(0)
        os.close(read)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return _send(number, f'["rolled_back",{status},"",null]'.encode())

    def _receive(self, read: Callable[[int, int], bytes] = os.read) -> tuple[int, bytes]:
        data = self._received or read(CHANNEL, _READ_BYTES)
        while len(data) < HEADER.size:
            more = read(CHANNEL, _READ_BYTES)
            if not more:
                os._exit(0)
            data += more
        length, number = HEADER.unpack_from(data)
        end = HEADER.size + length
        if len(data) < end:
            data = _whole(data, end, read)
        self._received = data[end:]
        return number, data[HEADER.size : end]


def _whole(data: bytes, end: int, read: Callable[[int, int], bytes]) -> bytes:
    """`data` and what follows it, up to `end` bytes."""
    received = bytearray(data)
    while len(received) < end:
        more = read(CHANNEL, min(end - len(received), 1 << 16))
        if not more:
            os._exit(0)
        received += more
    return bytes(received)


def _reap() -> None:
    """Let go of copies that have ended; each of them still counts as a process until then."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _send(number: int, body: bytes, write: Callable[[int, bytes], int] = os.write) -> None:
    data = HEADER.pack(len(body), number) + body
    sent = write(CHANNEL, data)
    while sent < len(data):
        sent += write(CHANNEL, data[sent : sent + (1 << 16)])
