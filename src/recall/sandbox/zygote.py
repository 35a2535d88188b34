"""The zygote: a small warm interpreter that forks one confined child per session.

It is started by `recall.sandbox.local` as a process of its own, with an empty environment, and is told what to do in
fixed-size messages on descriptor 3: fork a child around the descriptor that comes along, kill a child. It answers with
how each child ended. It never reads a byte that a tool wrote. It imports nothing outside this directory but the
standard library, because whatever it touches, every fork copies.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from array import array
from contextlib import suppress
from typing import Any, NoReturn

from .child import ReplyLimits, Tools, run
from .confine import Confinement, prepare
from .wire import CHANNEL, LAYERS, MESSAGE

_CONTROL = 3
_WARM_SOURCE = """
import json
from dataclasses import dataclass
@dataclass
class Item:
    name: str
    count: int = 0
items = {"a": Item("a", 1)}
def add(name: str, count: int = 1) -> dict:
    \"\"\"Add.\"\"\"
    item = items.setdefault(name, Item(name))
    item.count += count
    print(name, round(item.count / 3, 2))
    return {"name": item.name, "count": [i.count for i in sorted(items.values(), key=lambda i: i.name)]}
def fail(reason):
    raise ValueError(f"no: {reason}")
"""


class Zygote:
    """The loop of the zygote: messages in, children out, ends reported."""

    def __init__(self, control: socket.socket, parent: int, confinement: Confinement, limits: ReplyLimits) -> None:
        self._control = control
        self._confinement = confinement
        # Made here rather than in the child, which then shares it.
        self._tools = Tools(limits)
        self._pid = os.getpid()
        self._sessions: dict[int, tuple[int, int]] = {}
        self._pids: dict[int, int] = {}
        self._slots: list[int] = []
        self._slot_count = 0
        self._unsent: list[bytes] = []
        self._parent_fd = os.pidfd_open(parent)
        if os.getppid() != parent:
            os._exit(0)
        self._woken_fd, wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Serve until the parent hangs up or dies; then end every child."""
        poll = select.poll()
        for fd in (self._parent_fd, self._woken_fd):
            poll.register(fd, select.POLLIN)
        control = self._control.fileno()
        while True:
            poll.register(control, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = dict(poll.poll())
            if self._parent_fd in ready or (control in ready and not self._obey()):
                self._end()
            if self._woken_fd in ready:
                self._reap()
            self._flush()

    def _obey(self) -> bool:
        """Do what the next message asks; False when the parent hung up."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(MESSAGE.size, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        kind, session, _ = MESSAGE.unpack(data)
        if kind == b"F":
            self._fork(session, array("i", ancillary[0][2])[0])
        elif session in self._pids:
            self._kill(self._pids[session])
        return True

    def _fork(self, session: int, channel: int) -> None:
        if self._slots:
            slot = self._slots.pop()
        else:
            slot = self._slot_count
            self._slot_count += 1
        try:
            pid = os.fork()
        except OSError:
            os.close(channel)
            self._slots.append(slot)
            self._report(b"E", session, 0)
            return
        if pid == 0:
            self._become_child(channel, slot)
        os.close(channel)
        self._sessions[pid] = session, slot
        self._pids[session] = pid

    def _become_child(self, channel: int, slot: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            self._confinement.enter(slot, self._pid)
            # The zygote's own limit on descriptors is that of its children, so none lies beyond it.
            os.dup2(channel, CHANNEL, inheritable=False)
            os.closerange(CHANNEL + 1, 256)
            gc.enable()
            run(self._tools)
        finally:
            # Never back into the zygote's loop, whatever went wrong.
            os._exit(70)

    def _kill(self, pid: int) -> None:
        for kill in (os.kill, os.killpg):
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken_fd, 4096)
        while self._sessions:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            session, slot = self._sessions.pop(pid)
            del self._pids[session]
            self._slots.append(slot)
            self._report(b"X", session, os.waitstatus_to_exitcode(status))

    def _report(self, kind: bytes, session: int, value: int) -> None:
        self._unsent.append(MESSAGE.pack(kind, session, value))

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._control.send(self._unsent[0], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except ConnectionError:
                self._end()
            del self._unsent[0]

    def ready(self, layers: set[str]) -> None:
        """Tell the parent that sessions can be had, and which layers hold."""
        # Until here, what goes wrong shows on the launcher's standard error.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        self._report(b"R", 0, sum(1 << bit for bit, layer in enumerate(LAYERS) if layer in layers))
        self._flush()

    def _end(self) -> NoReturn:
        for pid in self._sessions:
            self._kill(pid)
        for pid in self._sessions:
            os.waitpid(pid, 0)
        os._exit(0)


def _warm(limits: ReplyLimits) -> None:
    """Do once what every child does, so that the pages it touches first are already there to share."""
    stdout = sys.stdout
    for _ in range(3):
        tools = Tools(limits)
        tools.load(_WARM_SOURCE)
        for name, arguments in (("add", '{"name": "b", "count": 2}'), ("fail", '{"reason": "x"}'), ("none", "{}")):
            json.loads(tools.call(name, json.loads(arguments)))
    del sys.modules["tools"]
    sys.stdout = stdout


def _forget_origin() -> None:
    """Leave nothing of the launcher for a tool to read, nor a descriptor for it to write to."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _CONTROL:
            try:
                os.close(int(name))
            except OSError:
                continue
    os.environ.clear()
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]
    os.chdir("/")
    os.umask(0o022)


def main(text: str) -> NoReturn:
    """Run the zygote with the settings in the JSON `text`. Never returns."""
    settings: dict[str, Any] = json.loads(text)
    _forget_origin()
    # One heap for all threads: each further one reserves 64 MiB of the address space that is limited.
    ctypes.CDLL(None).mallopt(-8, 1)
    for name in settings["preload"]:
        importlib.import_module(name)
    limits = ReplyLimits(**settings["reply"])
    gc.disable()
    _warm(limits)
    confinement, layers = prepare(**settings["confinement"])
    zygote = Zygote(socket.socket(fileno=_CONTROL), settings["parent"], confinement, limits)
    gc.collect()
    gc.freeze()
    zygote.ready(layers)
    zygote.serve()
