"""What the kernel takes away from the zygote and its children, layer by layer.

Every layer is tried in a throw-away process, never guessed from a version number, and those that took hold are reported
by the names of `isolation`. `prepare` confines the zygote itself and lays out what is left to do; `Confinement.enter`
does that in each child. Runs in the zygote, so it imports nothing of `recall` beyond its neighbours.
"""

import errno
import functools
import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

from . import kernel, landlock
from .kernel import CLONE_NEWNS, CLONE_NEWPID, Call, prctl, unshare, works
from .root import ABOVE_SCRATCH, SCRATCH, standard_paths
from .seccomp import Loaded, Needs, build, machine
from .spaces import take_spaces
from .wire import CHANNEL

_UIDS_PER_ZYGOTE = 4096
_UID_RANGES = ((2_000_000_000, 32768), (50_000, 3))
"""The first uid and the number of ranges to choose one from: above all that systemd and the container engines hand out
and below 2**31; then inside what a container has."""
_CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 5, 6, 7, 21
_DIE_WITH_PARENT = kernel.laid_out_prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
_NOT_DUMPABLE = kernel.laid_out_prctl(kernel.PR_SET_DUMPABLE, 0)
_COPIES = 128
"""Processes of a session that copies itself, with all its copies, where its uid tells them from others."""
_NEED_ADMIN = {"pid", "scratch"}
"""The layers that a child brings about with a capability that the zygote keeps for it."""
_STACK_BYTES = 8 << 20
_BYTES_PER_INODE = 32 << 10

Step = tuple[Callable[..., object], tuple[object, ...]]
"""A function that raises OSError where it fails, and its arguments."""


@dataclass(frozen=True)
class Confinement:
    """What `enter` needs to confine a child, laid out once by `prepare` so that a child has little to do.

    Functions come with their arguments, found and made beforehand: what a child looks up or makes, it touches.
    """

    begin: tuple[Step, ...]
    """What a child does first."""
    limits: dict[bool, tuple[Step, ...]]
    """What limits its resources, without and with copies."""
    first_uid: int | None
    """The uid of slot 0; None where the zygote is not root."""
    identity: tuple[Callable[[int, int, int], None], ...]
    """What takes its uid as gid and as uid: real, effective and saved. Its groups are those of the zygote, none."""
    scratch: str | None
    """The options of a session's own /tmp, without its owner; None where it has none."""
    pid_namespace: bool
    """Whether a session is alone with its own processes."""
    last: tuple[Call, ...]
    """What it gives up after its uid, whose change would undo some of it."""
    restriction: tuple[Call, ...]
    """Landlock, where it is there."""
    filters: dict[bool, Loaded]
    """The filter of system calls, without and with copies; empty where there is none."""
    guard_filter: Loaded | None
    """That of the process that waits for a session in a pid namespace."""
    null: int
    """A descriptor of /dev/null."""
    descriptors: tuple[Step, ...]
    """What puts that in the place of the standard descriptors."""
    close: tuple[Step, ...]
    """What closes all but those and the channel."""

    def enter(self, slot: int, zygote_pid: int, channel: int, *, forks: bool) -> None:
        """Confine the calling process, a fresh child, for good.

        Afterwards `channel` is descriptor 3, descriptors 0 to 2 are /dev/null, and no other is open. In a pid namespace
        it is a child of the caller that comes back from here; the caller waits for it, and ends as it ended.

        Args:
            slot: which of the zygote's children it is, from 0 to 4095. Those that live at once have different ones.
            zygote_pid: its parent; a child that has another one by now ends.
            channel: the descriptor of its end of the session.
            forks: whether it may make copies of itself.

        Raises:
            OSError: a layer that took hold in the probe was refused now, or copies cannot be contained here.
        """
        if forks and (self.pid_namespace or not self.filters):
            raise OSError(errno.EPERM, "a session that runs programs, or that no filter contains, cannot copy itself")
        for function, arguments in self.begin:
            function(*arguments)
        if self.pid_namespace or self.scratch is not None:
            self._separate(slot)
        guarded = os.fork() if self.pid_namespace else 0
        self.give_up(slot, forks)
        if os.getppid() != (0 if self.pid_namespace and not guarded else zygote_pid):
            os._exit(0)
        if guarded:
            self._guard(guarded)
        for call in self.restriction:
            call()
        for function, arguments in self.descriptors:
            function(*arguments)
        if channel != CHANNEL:
            os.dup2(channel, CHANNEL, False)  # `inheritable`; by its name, it would take a parser of names
        for function, arguments in self.close:
            function(*arguments)
        if self.filters:
            self.filters[forks].install()

    def rehearse(self) -> None:
        """Go through `enter` without doing anything: what Python looks up there, children then find looked up."""
        idle = replace(
            self, begin=(), limits={False: ()}, identity=(), scratch=None, pid_namespace=False, last=(), restriction=(),
            descriptors=(), close=(), filters={},
        )  # fmt: skip
        for _ in range(3):
            idle.enter(0, os.getppid(), CHANNEL, forks=False)

    def _separate(self, slot: int) -> None:
        """Namespaces of the session's own."""
        unshare((CLONE_NEWPID if self.pid_namespace else 0) | (CLONE_NEWNS if self.scratch is not None else 0))
        if self.scratch is not None:
            uid, gid = self._owner(slot)
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("scratch", SCRATCH, "tmpfs", flags, f"{self.scratch},uid={uid},gid={gid}")

    def _owner(self, slot: int) -> tuple[int, int]:
        if self.first_uid is None:
            return os.getuid(), os.getgid()
        return self.first_uid + slot, self.first_uid + slot

    def give_up(self, slot: int, forks: bool) -> None:
        """Limits, identity, capabilities."""
        for function, arguments in self.limits[forks]:
            function(*arguments)
        if self.first_uid is not None:
            uid = self.first_uid + slot
            for become in self.identity:
                become(uid, uid, uid)
        for call in self.last:
            call()

    def _guard(self, pid: int) -> NoReturn:
        """Wait for the session `pid` and end as it ended, passing on what it is told to do."""
        signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGALRM))
        os.closerange(0, kernel.MOST_DESCRIPTORS)
        if self.guard_filter is not None:
            self.guard_filter.install()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status < 0:
            if -status not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(status)


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
    cgroup: str | None = None,
) -> tuple[Confinement, set[str]]:
    """Take from the calling zygote, for itself and all its children, what it can spare; lay out the rest.

    Afterwards the zygote may see another root: what it is to import it has imported.

    Args:
        cpu_s: CPU seconds of a child's whole life.
        memory_bytes: its address space.
        file_bytes: the size of a file that it may write.
        nofile: its open descriptors.
        threads: further threads that it may start; none where system calls cannot be filtered.
        processes: further processes that it may start, programs included.
        scratch_bytes: the size of a /tmp of its own; 0 for none.
        readable: files and directories of packages that it may read besides the standard library.
        max_sessions: children alive at once.
        cgroup: the directory of a cgroup to move into, whose limits then hold for all children together.

    Returns:
        The rest of the confinement, and which layers hold, of those that `isolation.LAYERS` names.

    Raises:
        OSError: the cgroup cannot be entered; or `processes` are wanted where nothing keeps them from others'.
    """
    layers = set()
    # When the host runs out of memory, the tools go first, the largest of them before the zygote.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if cgroup is not None:
        with open(f"{cgroup}/cgroup.procs", "w") as file:
            file.write("0")
        layers.add("cgroup")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    programs = processes > 0
    standard = standard_paths(programs=programs)
    layers |= take_spaces(standard, readable, scratch=scratch_bytes > 0)
    prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    _limit(memory_bytes, file_bytes)
    first_uid = _first_uid() if os.geteuid() == 0 else None
    if first_uid is not None:
        os.setgroups([])  # children inherit that
        layers.add("uid")
    layers |= {"scratch"} if scratch_bytes and "root" in layers else set()
    # Landlock does not know of modes and times: what changes them is allowed only where a private root is read-only.
    filters, guard_filter = _filters(threads=threads > 0, programs=programs, scratch="scratch" in layers)
    layers |= {"seccomp"} if filters else set()
    layers |= {"pid"} if programs and works(lambda: unshare(CLONE_NEWPID)) else set()
    if programs and not (filters and layers & {"pid", "uid"}):
        raise OSError(
            errno.EPERM, "`processes` needs seccomp, and a pid namespace or a uid of its own for each session"
        )
    rights = _rights(standard, readable, layers, programs=programs)
    restriction, held = _landlock(rights)
    layers |= held
    own_uid = first_uid is not None
    further = (threads + processes + programs) if filters else 0
    own_limits = functools.partial(_own_limits, cpu_s, nofile)
    drop = [kernel.laid_out_drop()] if not own_uid and layers & _NEED_ADMIN else []
    inodes = max(64, scratch_bytes // _BYTES_PER_INODE)
    confinement = Confinement(
        # Not a session of its own: the kernel's autogroup would make that the dearest step by far.
        begin=((os.setpgid, (0, 0)),),
        limits={
            forks: own_limits(_process_limit(further, max_sessions, layers, forks=forks)) for forks in (False, True)
        },
        first_uid=first_uid,
        identity=(os.setresgid, os.setresuid) if own_uid else (),
        scratch=f"size={scratch_bytes},nr_inodes={inodes},mode=700" if "scratch" in layers else None,
        pid_namespace="pid" in layers,
        last=(*drop, _NOT_DUMPABLE, _DIE_WITH_PARENT),
        restriction=() if restriction is None else (restriction,),
        filters=filters,
        guard_filter=guard_filter,
        null=null,
        descriptors=tuple((os.dup2, (null, standard)) for standard in range(3)),
        close=((os.closerange, (CHANNEL + 1, kernel.MOST_DESCRIPTORS)),),
    )
    _keep_only(layers)
    return confinement, layers | _probed(confinement, programs=programs)


def _limit(memory_bytes: int, file_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_STACK, _STACK_BYTES),
        (resource.RLIMIT_NOFILE, kernel.MOST_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NICE, 0),
        (resource.RLIMIT_RTPRIO, 0),
    ):
        value = kernel.within(limit, value)
        resource.setrlimit(limit, (value, value))


def _own_limits(cpu_s: int, nofile: int, processes: int | None) -> tuple[Step, ...]:
    """The limits of a child; None for its processes leaves these as they are."""
    # The soft limit kills with SIGXCPU, which tells why; the hard one is for a tool that ignores the signal.
    cpu_s = kernel.within(resource.RLIMIT_CPU, cpu_s + 1) - 1
    nofile = kernel.within(resource.RLIMIT_NOFILE, nofile)
    limits = {resource.RLIMIT_CPU: (cpu_s, cpu_s + 1), resource.RLIMIT_NOFILE: (nofile, nofile)}
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes, processes
    return tuple((resource.setrlimit, each) for each in limits.items())


def _first_uid() -> int | None:
    """A range of uids of this zygote's own, or None where root may not change its uid."""

    def become(uid: int) -> None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    for lowest, ranges in _UID_RANGES:
        # By chance, because two containers would choose the same by their pids.
        first = lowest + int.from_bytes(os.urandom(4)) % ranges * _UIDS_PER_ZYGOTE
        if works(lambda first=first: become(first + _UIDS_PER_ZYGOTE - 1)):  # type: ignore[misc]
            return first
    return None


def _process_limit(further: int, max_sessions: int, layers: set[str], *, forks: bool) -> int | None:
    """How many processes and threads the kernel may count for a child's uid; None where it counts others' there too.

    Args:
        further: those that a session may start.
        max_sessions: sessions that share a uid, where each has none of its own.
        layers: those that hold.
        forks: whether the session may copy itself.
    """
    copies = _COPIES if forks else 0
    if "uid" in layers:
        return kernel.within(resource.RLIMIT_NPROC, 1 + further + copies)
    if not further and not forks:
        # One more is one too many, however many there are.
        return 0
    if os.geteuid() != 0 and layers & {"root", "network"}:
        # Counted for the sessions of this zygote alone, all together, because they have a user namespace.
        return kernel.within(resource.RLIMIT_NPROC, 1 + (1 + further) * max_sessions + copies)
    return None


def _filters(*, threads: bool, programs: bool, scratch: bool) -> tuple[dict[bool, Loaded], Loaded | None]:
    """Filters of system calls without and with copies, and that of a guard; nothing where there can be none."""
    name = machine()
    if name is None:
        return {}, None

    def loaded(*, copies: bool) -> Loaded:
        return Loaded(build(name, Needs(threads=threads, copies=copies, programs=programs, scratch=scratch)))

    filters = {copies: loaded(copies=copies) for copies in (False, True)}

    def refuses() -> None:
        filters[False].install()
        with suppress(PermissionError):
            os.setsid()
            raise OSError("a call that the filter refuses was made")

    if not works(refuses):
        return {}, None
    return filters, Loaded(build(name, Needs(programs=True))) if programs else None


def _landlock(rights: dict[str, int]) -> tuple[Call | None, set[str]]:
    """What puts a child under Landlock, allowing it `rights`, and the layers that this brings."""
    abi = landlock.version()
    if not abi:
        return None, set()
    restriction = landlock.restriction(landlock.ruleset(abi, rights), landlock.quiet(abi))
    return (restriction, landlock.layers(abi)) if works(restriction) else (None, set())


def _rights(standard: Sequence[str], packages: Sequence[str], layers: set[str], *, programs: bool) -> dict[str, int]:
    """What a session may do with files."""
    if "root" in layers:
        rights = landlock.readable(["/"], execute=programs)
    else:
        rights = landlock.readable([*standard, *packages], execute=programs)
        # Python lists the directory of packages to find those that may be read.
        rights |= {os.path.dirname(path): landlock.READ_DIR for path in packages} | rights
    return rights | ({ABOVE_SCRATCH: landlock.CHANGE} if "scratch" in layers else {})


def _keep_only(layers: set[str]) -> None:
    """Give up the capabilities that neither the zygote nor the first moments of a child need."""
    needed = [_CAP_SETGID, _CAP_SETUID, _CAP_KILL] if "uid" in layers else []
    needed += [_CAP_SYS_ADMIN] if layers & _NEED_ADMIN else []
    kernel.bound_capabilities()
    kernel.set_capabilities(sum(1 << each for each in needed) & kernel.capabilities())
    _NOT_DUMPABLE()


def _probed(confinement: Confinement, *, programs: bool) -> set[str]:
    """The layers that show in a child with all of them on.

    Raises:
        OSError: they cannot be had together.
    """
    zygote_pid = os.getpid()

    def enter() -> None:
        confinement.enter(0, zygote_pid, confinement.null, forks=False)

    def has_no_capability() -> None:
        confinement.give_up(0, forks=False)
        if kernel.capabilities():
            raise OSError("a capability is left")

    def cannot_fork() -> None:
        enter()
        with suppress(PermissionError, BlockingIOError):
            if os.fork() == 0:
                os._exit(0)
            raise OSError("a process was started")

    if (reason := kernel.failure(enter)) is not None:
        raise OSError(f"the layers of the sandbox hold one by one, but not together: {reason}")
    layers = {"capabilities"} if works(has_no_capability) else set()
    return layers | ({"processes"} if programs or works(cannot_fork) else set())
