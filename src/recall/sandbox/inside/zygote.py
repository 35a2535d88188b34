"""The zygote: a small warm interpreter that forks one confined child per session.

It is started by `recall.sandbox.local` as a process of its own, with an empty environment, and is told what to do in
fixed-size messages on descriptor 3: fork a child around the descriptor that comes along, kill a child. It answers with
how each child ended. It never reads a byte that a tool wrote. It imports nothing outside this directory but the
standard library, because whatever it touches, every fork copies.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from .child import Child
from .confine import Confinement, prepare
from .entropy import import_random, renew
from .heap import settle
from .isolation import LAYERS
from .kernel import PR_SET_CHILD_SUBREAPER, keep_one_heap, prctl
from .namespace import Tools
from .rehearsal import rehearse, warm
from .replies import ReplyLimits
from .wire import CHANNEL, FORKS, MESSAGE, WARM

_CONTROL = 3


@dataclass(slots=True)
class _Family:
    """A child and the copies of itself that it made: they share a process group, a slot and so a uid."""

    session: int
    slot: int
    ended: int | None = None
    """The exit status of the child itself, once it is known."""


class Zygote:
    """The loop of the zygote: messages in, children out, ends reported."""

    def __init__(
        self, control: socket.socket, parent_fd: int, confinement: Confinement, child: Child, limits: ReplyLimits
    ) -> None:
        """Take what every child shares: `child`, made here so that forks only inherit it, and `confinement`."""
        self._control = control
        self._confinement = confinement
        self._child, self._limits = child, limits
        self._pid = os.getpid()
        self._families: dict[int, _Family] = {}
        """By the pid of the child, which is the number of its process group."""
        self._pids: dict[int, int] = {}
        """The pid of the child of each session."""
        self._ending: list[int] = []
        """Children that have ended and may have copies left."""
        self._slots: list[int] = []
        self._slot_count = 0
        self._unsent: list[bytes] = []
        self._filling: object = None
        self._parent_fd = parent_fd
        self._woken_fd, wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _wake)
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
        kind, session, value = MESSAGE.unpack(data)
        if kind == b"F":
            self._fork(session, int.from_bytes(ancillary[0][2], sys.byteorder), value)
        elif session in self._pids:
            self._signal(kind, self._pids[session])
        return True

    def _signal(self, kind: bytes, pid: int) -> None:
        with suppress(ProcessLookupError):
            if kind == b"I":
                os.kill(pid, signal.SIGALRM)
            elif kind == b"S":
                os.killpg(pid, signal.SIGSTOP)
            elif kind == b"C":
                os.killpg(pid, signal.SIGCONT)
            else:
                self._kill(pid)

    def _fork(self, session: int, channel: int, kind: int) -> None:
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
            self._become_child(channel, slot, kind)
        os.close(channel)
        self._families[pid] = _Family(session, slot)
        self._pids[session] = pid
        renew()  # for the next one

    def _become_child(self, channel: int, slot: int, kind: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            self._confinement.enter(slot, self._pid, channel, forks=bool(kind & FORKS))
            if kind & WARM:
                warm(self._limits)
            self._child.run()
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
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._families:
                self._families[pid].ended = os.waitstatus_to_exitcode(status)
                self._ending.append(pid)
        self._ending = [pid for pid in self._ending if not self._settled(pid)]

    def _settled(self, pid: int) -> bool:
        """Report a child that has ended, once none of its copies is left; a copy's own end brings us here again."""
        with suppress(ProcessLookupError):
            os.killpg(pid, 0)
            return False
        family = self._families.pop(pid)
        del self._pids[family.session]
        self._slots.append(family.slot)
        self._report(b"X", family.session, family.ended or 0)
        return True

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
        self._filling = settle()
        gc.enable()
        # Until here, what goes wrong shows on the launcher's standard error.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        self._report(b"R", 0, sum(1 << bit for bit, layer in enumerate(LAYERS) if layer in layers))
        self._flush()

    def _end(self) -> NoReturn:
        for pid in self._families:
            self._kill(pid)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        os._exit(0)


def _wake(*_: object) -> None:
    """A handler of signals whose arrival is all that matters."""


def _forget_origin(*, keep: int) -> None:
    """Leave nothing of the launcher for a tool to read, nor a descriptor for it to write to."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _CONTROL and int(name) != keep:
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
    # Before anything else: in a namespace of its own the zygote could not see its parent any more.
    parent_fd = os.pidfd_open(settings["parent"])
    if os.getppid() != settings["parent"]:
        os._exit(0)
    keep_one_heap()
    # Copies that outlive the session that made them come back here, to be counted and killed.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    sys.path += settings["path"]
    import_random()
    for name in settings["preload"]:
        importlib.import_module(name)
    _forget_origin(keep=parent_fd)
    limits = ReplyLimits(**settings["reply"])
    gc.disable()
    rehearse(limits)
    confinement, layers = prepare(**settings["confinement"])
    confinement.rehearse()
    # Its kind is said, so that nothing is asked of the descriptor: in a child it is another one, under this number.
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=CHANNEL)
    child = Child(Tools(limits), channel)
    if settings["confinement"]["scratch_bytes"]:
        from . import script  # noqa: F401  # what runs programs, which need files as a rule
    if settings["web"]:
        from .web import install

        install(child.ask)
    child.heed()
    zygote = Zygote(socket.socket(fileno=_CONTROL), parent_fd, confinement, child, limits)
    zygote.ready(layers)
    zygote.serve()
