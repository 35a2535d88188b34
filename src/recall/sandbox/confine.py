"""What the kernel takes away from the zygote and its children: limits, identity, network, file system.

Every layer is tried, never guessed from a version number, and the ones that took hold are reported by name. It does not
filter system calls and gives a child no namespaces of its own. Runs in the zygote, so it imports little and nothing of
`recall`.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SIGKILL = 9
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1

# Above every range that systemd and the container engines hand out, below 2**31.
_FIRST_UID = 2_000_000_000
_UIDS_PER_ZYGOTE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: object) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *values)), f"system call {number}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), data), "mount")


def works(attempt: Callable[[], object]) -> bool:
    """Whether `attempt` succeeds in a process that is thrown away."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


@dataclass(frozen=True)
class Confinement:
    """What `enter` needs to confine a child, prepared once by `prepare`."""

    cpu_s: int
    """CPU seconds of a child's whole life."""
    first_uid: int | None
    """The uid of slot 0; None where the zygote is not root."""
    scope_fd: int | None
    """A Landlock ruleset that each child adds to itself; None where the uid already keeps children apart."""

    nofile: int
    """Open descriptors."""

    def enter(self, slot: int, zygote_pid: int, channel: int, *, forks: bool) -> None:
        """Confine the calling process, a fresh child, for good; then `channel` is descriptor 3, and nothing follows it.

        Args:
            slot: which of the zygote's children it is, from 0.
            zygote_pid: its parent; a child that has another one by now ends.
            channel: the descriptor of its end of the session.
            forks: whether it may make copies of itself.

        Raises:
            OSError: a layer that took hold in the probe was refused now.
        """
        # Not a session of its own: the kernel's autogroup would make that the dearest step by far.
        os.setpgid(0, 0)
        if self.scope_fd is not None:
            _syscall(_LANDLOCK_RESTRICT_SELF, self.scope_fd, 0)
        # The soft limit kills with SIGXCPU, which tells why; the hard one is for a tool that ignores the signal.
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s + 1))
        processes = 256 if forks else 0
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        if self.first_uid is not None:
            identity = self.first_uid + slot
            os.setgroups([])
            os.setresgid(identity, identity, identity)
            os.setresuid(identity, identity, identity)
        else:
            _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        # After the change of uid, which clears it.
        _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != zygote_pid:
            os._exit(0)
        os.dup2(channel, 3, inheritable=False)
        os.closerange(4, self.nofile)


def prepare(
    *,
    cpu_s: int,
    memory_bytes: int,
    file_bytes: int,
    nofile: int,
    threads: int,
    processes: int,
    scratch_bytes: int,
    readable: list[str],
    max_sessions: int,
) -> tuple[Confinement, set[str]]:
    """Take from the zygote, for itself and all its children, what it can spare; return what a child is to do itself.

    Returns:
        The rest of the confinement, and which layers hold, of those that `wire.LAYERS` names.
    """
    layers = set()
    # When the host runs out of memory, the tools go first, the largest of them before the zygote.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    root = os.geteuid() == 0
    if root:
        _uncover_prefix()
    spaces = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS

    def own_network() -> None:
        _unshare(spaces if root else spaces | _CLONE_NEWUSER)

    # A user namespace is refused to a process that cannot map its own uid into it, so the mapping is part of the probe.
    identity = (os.getuid(), os.getgid())

    def own_network_and_identity() -> None:
        own_network()
        if not root:
            _map_identity(*identity)

    if works(own_network_and_identity):
        own_network_and_identity()
        layers.add("network")
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, nofile),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    first_uid = _first_uid() if root else None
    if first_uid is not None:
        layers.add("uid")
    scope_fd, landlock = _landlock(readable, per_child=first_uid is None)
    confinement = Confinement(cpu_s, first_uid, scope_fd, nofile)
    if works(lambda: _cannot_fork(confinement)):
        layers.add("processes")
    return confinement, layers | landlock


def _cannot_fork(confinement: Confinement) -> None:
    confinement.enter(0, os.getppid(), os.open(os.devnull, os.O_RDWR), forks=False)
    try:
        pid = os.fork()
    except BlockingIOError:
        return
    os._exit(0 if pid == 0 else 1)


def _first_uid() -> int | None:
    """A range of uids of this zygote's own, or None where root may not change its uid."""
    for first in (_FIRST_UID + os.getpid() % 32768 * _UIDS_PER_ZYGOTE, 50_000):
        if works(lambda first=first: os.setresuid(first, first, first)):  # type: ignore[misc]
            return first
    return None


def _map_identity(uid: int, gid: int) -> None:
    """Keep uid and gid inside a fresh user namespace, and give up the capabilities that it brought."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    header = _CapHeader(0x20080522, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())), "capset")


def _uncover_prefix() -> None:
    """Make the standard library readable to any uid, where a directory above it is closed to others (such as /root).

    In a mount namespace of the zygote's own, the closed directory is replaced by an empty one that holds only the
    Python prefix. Where that is refused, tools can import only what the zygote preloaded.
    """
    prefix = os.path.realpath(sys.base_prefix)
    parts = prefix.split("/")
    above = ["/".join(parts[:end]) for end in range(2, len(parts))]
    closed = next((path for path in above if not os.stat(path).st_mode & 0o001), None)
    if closed is None:
        return

    def replace() -> None:
        _unshare(_CLONE_NEWNS)
        _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
        kept = os.open(prefix, os.O_PATH | os.O_DIRECTORY)
        _mount(b"none", closed.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=64k,mode=755")
        os.makedirs(prefix)
        _mount(f"/proc/self/fd/{kept}".encode(), prefix.encode(), None, _MS_BIND)
        _mount(b"none", prefix.encode(), None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
        os.close(kept)

    if works(replace):
        replace()


def _landlock(extra: list[str], *, per_child: bool) -> tuple[int | None, set[str]]:
    """Deny all of the file system but the standard library, the system's shared libraries and time zones.

    Args:
        per_child: leave it to each child. A domain of its own is what keeps children of one uid from signalling each
            other; children of different uids share the zygote's, which costs a fork nothing.
        extra: further paths that may be read.

    Returns:
        The ruleset for the child to enter, and the layers that hold.
    """
    try:
        abi = _syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    except OSError:
        return None, set()
    accesses = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    attr = _RulesetAttr(accesses, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(attr), ctypes.sizeof(attr), 0)
    readable = [*sys.path, *extra, f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    readable += [
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/etc/localtime",
        "/etc/ld.so.cache",
        "/dev/urandom",
        "/dev/null",
    ]
    for path in dict.fromkeys(readable):
        try:
            fd = os.open(path, os.O_PATH)
        except OSError:
            continue
        access = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0) | (_WRITE_FILE if path == "/dev/null" else 0)
        rule = _PathBeneath(access, fd)
        _syscall(_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
        os.close(fd)
    layers = {"landlock:fs"} | ({"landlock:tcp"} if abi >= 4 else set()) | ({"landlock:scope"} if abi >= 6 else set())
    if not works(lambda: _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)):
        os.close(ruleset)
        return None, set()
    if per_child:
        return ruleset, layers
    _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return None, layers
