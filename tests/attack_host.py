"""What an attack is to harm, and how it is seen that nothing was: canaries, processes, descriptors, limits, memory."""

import ctypes
import json
import os
import resource
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.sandbox.base import CallResult

SYSV_KEY = 0x52434C00 | os.getpid() % 255 + 1
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_SIGPENDING, resource.RLIMIT_CORE)
_libc = ctypes.CDLL(None, use_errno=True)


def fields_of(pid: int) -> list[str]:
    """State, parent, … of a process, as in `/proc/PID/stat` after the name; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants() -> set[int]:
    """All processes below this one, orphans included: this process adopts them."""
    parents = {int(entry): fields_of(int(entry))[1:2] for entry in os.listdir("/proc") if entry.isdigit()}
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        if parent:
            children.setdefault(int(parent[0]), []).append(pid)
    found, queue = set(), [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(), ()):
            found.add(pid)
            queue.append(pid)
    return found


def cpu_ticks(pid: int) -> int:
    """CPU time of a process so far, in clock ticks; 0 when it is gone."""
    fields = fields_of(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _adopt_orphans() -> None:
    _libc.prctl(36, 1, 0, 0, 0)


class Host:
    """The canaries of one run. What it cannot see on this host it leaves out."""

    def __init__(self, project: Path) -> None:
        _adopt_orphans()
        self.secret = secrets.token_hex(16)
        os.environ["RECALL_SECRET"] = self.secret
        self.directory = Path(tempfile.mkdtemp(prefix="recall-canary-"))
        self.directory.chmod(0o777)
        self.canary = self.directory / "canary"
        self.canary.write_text(self.secret)
        self.canary.chmod(0o666)
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unix.bind(str(self.directory / "socket"))
        (self.directory / "socket").chmod(0o777)
        self._abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = f"recall-attack-{os.getpid()}"
        self._abstract.bind("\0" + name)
        for server in (self._unix, self._abstract):
            server.listen(8)
        self._sockets = (self._tcp, self._udp, self._unix, self._abstract)
        for each in self._sockets:
            each.setblocking(False)
        self._sysv = _libc.shmget(SYSV_KEY, 4096, 0o1666)
        self._watched = [self.canary, self.directory, Path(os.__file__), Path(os.__file__).parent, project]
        self._clock = time.time() - time.monotonic()
        self.targets: dict[str, Any] = {
            "canary": str(self.canary),
            "directory": str(self.directory),
            "project": str(project),
            "python": os.path.realpath(sys.executable),
            "tcp": self._tcp.getsockname()[1],
            "udp": self._udp.getsockname()[1],
            "unix": str(self.directory / "socket"),
            "abstract": name,
            "sysv": SYSV_KEY,
            "runner": os.getpid(),
            "zygote": 0,
            "victim": 0,
        }
        self._pids: tuple[int, ...] = (os.getpid(),)
        self._before: dict[str, object] = {}

    def begin(self, zygote: int, victim: int) -> None:
        """Remember how things stand, once the sandbox serves."""
        self.targets["zygote"], self.targets["victim"] = zygote, victim
        self._pids = (os.getpid(), zygote, victim)
        self._before = self._state()

    def close(self) -> None:
        """Take the canaries away."""
        for each in self._sockets:
            each.close()
        if self._sysv >= 0:
            _libc.shmctl(self._sysv, 0, None)
        shutil.rmtree(self.directory)

    def harmed(self) -> list[str]:
        """What is not as it was at `begin`, in words."""
        now = self._state()
        return [f"{name}: {self._before[name]} is now {now[name]}" for name in now if now[name] != self._before[name]]

    def told(self, result: CallResult) -> list[str]:
        """What a result shows that it must not, or is that it must not be."""
        faults = []
        try:
            text = json.dumps([result.result, result.output, result.error], ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError as error:
            return [f"the result is no JSON value: {error}"]
        if self.secret in text:
            faults.append("the secret was read")
        if "ESCAPED" in text:
            faults.append(text[text.index("ESCAPED") :][:500])
        return faults

    def _state(self) -> dict[str, object]:
        state: dict[str, object] = {
            "environment": os.environ.get("RECALL_SECRET") == self.secret,
            "canary": self.canary.read_text() == self.secret if self.canary.exists() else None,
            "directory": sorted(os.listdir(self.directory)),
            "connections": [self._called(each) for each in self._sockets],
            "name of the host": os.uname().nodename,
            "clock": abs(time.time() - time.monotonic() - self._clock) < 60,
            "working directory": os.getcwd(),
            "System V objects": self._sysv_objects(),
            "shared memory": [name for name in os.listdir("/dev/shm") if "recall-attack" in name],
            "priority": os.getpriority(os.PRIO_PROCESS, 0),
        }
        for path in self._watched:
            status = path.stat()
            state[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
        for pid in self._pids:
            state[f"limits of {pid}"] = self._limits_of(pid)
            state[f"scheduling of {pid}"] = self._scheduling_of(pid)
        return state

    def _called(self, server: socket.socket) -> bool:
        try:
            if server is self._udp:
                server.recv(16)
            else:
                server.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def _sysv_objects(self) -> int:
        """Objects whose key an attack would choose."""
        keys = ("0x52454341", str(0x52454341))
        names = ("shm", "msg", "sem")
        return sum(key in Path(f"/proc/sysvipc/{name}").read_text().split() for name in names for key in keys)

    def _limits_of(self, pid: int) -> object:
        try:
            return [resource.prlimit(pid, limit) for limit in _LIMITS]
        except OSError:
            return None

    def _scheduling_of(self, pid: int) -> object:
        try:
            return os.sched_getaffinity(pid), os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid)
        except OSError:
            return None


def arguments_for(targets: Mapping[str, Any], request: int, *, copies: bool) -> dict[str, Any]:
    """The arguments of `attack`, the `request`-th call of a session that makes copies of itself or not."""
    return {"t": {**targets, "request": request, "copies": copies}}
