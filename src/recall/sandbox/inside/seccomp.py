"""A filter of system calls: an allow-list, as the program that the kernel runs before each call.

What is not listed fails with EPERM, which Python shows as `PermissionError`. No call that is allowed can name a foreign
process, open a socket, start a program or arm a timer, unless the profile is for that. Built by an assembler of our own
in the zygote, with nothing but the standard library; a child only writes its pid into it and hands it to the kernel.
"""

import ctypes
import os
import struct
import sys
from dataclasses import dataclass

_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALL_BITS = 0xFFFFFFFF

OWN_PID = -1
"""Stands for the pid of the process that installs the filter."""

_MACHINES = {"x86_64": (0, 0xC000003E, 0x40000000), "aarch64": (1, 0xC00000B7, None)}
"""Column of its numbers below; its name in the kernel's audit interface; where the numbers of a second interface (x32),
which no 64-bit program uses, begin."""

# Each: the name, its number on x86_64, its number on aarch64.

_PLAIN = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, close_range 436 436,
lseek 8 62, fadvise64 221 223, open 2 -, openat 257 56, stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79,
statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents 78 -,
getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, umask 95 166, pipe 22 -, pipe2 293 59, dup 32 23,
dup2 33 -, dup3 292 24, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19, mmap 9 222,
munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133, rt_sigtimedwait 128 137,
sigaltstack 131 132, pause 34 -, getpid 39 172, getppid 110 173, gettid 186 178, getpgrp 111 -, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
time 201 -, times 100 153, getrusage 98 165, getrlimit 97 163, getcpu 309 168, sched_yield 24 124,
getrandom 318 278, sysinfo 99 179, uname 63 160, set_robust_list 273 99, rseq 334 293, set_tid_address 218 96,
restart_syscall 219 128, exit 60 93, exit_group 231 94
"""
"""Calls that concern nothing but the caller and the files it may open, whatever their arguments."""

_CHECKED = """
fcntl 72 25, ioctl 16 29, futex 202 98, prlimit64 302 261, sched_getaffinity 204 123, tgkill 234 131, clone 56 220,
clone3 435 435, recvmsg 47 212
"""
"""Calls whose arguments decide."""

_COPIES = """
wait4 61 260, waitid 247 95, fork 57 -
"""
"""To make copies of oneself and to wait for them."""

_PROGRAMS = """
vfork 58 -, execve 59 221, arch_prctl 158 -, kill 62 129
"""
"""To run programs and to end them."""

_SCRATCH = """
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
renameat2 316 276, symlink 88 -, symlinkat 266 36, truncate 76 45, ftruncate 77 46, fallocate 285 47, fsync 74 82,
fdatasync 75 83, chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88
"""
"""To change a file system, where there is one that can be changed."""

Check = tuple[int, int, int]
"""Passes where an argument, counted from 0, is equal to a value in the bits of a mask. The upper half of an argument is
not looked at: each one that is checked below is an `int` to the kernel, or has no meaning there."""

_CLONE_THREAD, _CLONE_VM, _CLONE_VFORK, _SIGCHLD = 0x10000, 0x100, 0x4000, 17
# Namespaces, a tracer, a pidfd, another parent: never.
_CLONE_NEVER = 0x7E020000 | 0x2000 | 0x800000 | 0x1000 | 0x8000
_CLONE_OF_THREAD: Check = (0, _CLONE_NEVER | _CLONE_VFORK | _CLONE_THREAD, _CLONE_THREAD)
_CLONE_OF_COPY: Check = (0, _CLONE_NEVER | _CLONE_THREAD | _CLONE_VFORK | _CLONE_VM | 0xE00 | 0xFF, _SIGCHLD)
_CLONE_OF_PROGRAM: Check = (0, _CLONE_NEVER | _CLONE_THREAD | 0xE00 | 0xFF, _SIGCHLD)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no lock, lease, owner or seal.
_FCNTL = (0, 1, 2, 3, 4, 1030)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Wait, wake and requeue, with a private key and a clock of either kind: no inheritance of priority, which no thread of
# Python needs and which has let people into the kernel before.
_FUTEX, _FUTEX_MASK = (0, 1, 3, 4, 5, 9, 10), _ALL_BITS & ~(128 | 256)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a profile needs beyond computing."""

    threads: bool = False
    """Further threads."""
    copies: bool = False
    """Copies of the process, and a descriptor for each over descriptor 3."""
    programs: bool = False
    """Programs, to wait for them and to signal whatever the kernel lets it signal otherwise."""
    scratch: bool = False
    """Changes to files and directories, where the file system allows them."""


def _rows(*tables: str) -> list[list[str]]:
    return [row.split() for table in tables for row in table.split(",")]


def known(machine: str) -> dict[str, int]:
    """The number of each system call that some filter for `machine` allows or answers."""
    column = _MACHINES[machine][0]
    rows = _rows(_PLAIN, _CHECKED, _COPIES, _PROGRAMS, _SCRATCH)
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def rules(needs: Needs) -> dict[str, tuple[Check, ...]]:
    """What is allowed: by system call, the checks of which one must pass; none at all means always."""
    tables = [_PLAIN]
    tables += [_COPIES] * (needs.copies or needs.programs) + [_PROGRAMS] * needs.programs + [_SCRATCH] * needs.scratch
    allowed: dict[str, tuple[Check, ...]] = {row[0]: () for row in _rows(*tables)}
    allowed["fcntl"] = tuple((1, _ALL_BITS, command) for command in _FCNTL)
    allowed["ioctl"] = tuple((1, _ALL_BITS, request) for request in _IOCTL)
    allowed["futex"] = tuple((1, _FUTEX_MASK, operation) for operation in _FUTEX)
    allowed["prlimit64"] = allowed["sched_getaffinity"] = ((0, _ALL_BITS, 0),)
    allowed["tgkill"] = () if needs.programs else ((0, _ALL_BITS, OWN_PID),)
    if needs.copies:
        allowed["recvmsg"] = ((0, _ALL_BITS, 3),)
    clone = [_CLONE_OF_THREAD] * needs.threads + [_CLONE_OF_COPY] * needs.copies + [_CLONE_OF_PROGRAM] * needs.programs
    if clone:
        allowed["clone"] = tuple(clone)
    return allowed


@dataclass(frozen=True, slots=True)
class Filter:
    """A program for the kernel."""

    code: bytes
    """Its instructions, eight bytes each."""
    pid_at: int | None
    """Where in `code` the 32 bits of the own pid belong, in the machine's byte order; None where it needs none."""


class _Assembler:
    """Writes a program from its end to its beginning: jumps only go forward, to what is already written.

    A place is the number of instructions from there to the end.
    """

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._returns: dict[int, int] = {}
        self._own_pid: int | None = None

    def finish(self) -> Filter:
        """The program, which begins at the place written last."""
        pid_at = None if self._own_pid is None else 8 * (len(self._code) - self._own_pid) + 4
        return Filter(b"".join(reversed(self._code)), pid_at)

    def answer(self, value: int) -> int:
        """End with `value`; an earlier such end is used again."""
        place = self._returns.get(value)
        if place is None or len(self._code) - place > 200:
            place = self._returns[value] = self._add(_RETURN, value)
        return place

    def load(self, offset: int, mask: int = _ALL_BITS) -> int:
        """Fetch 32 bits of the call, take `mask` of them and go on with what was written last."""
        if mask != _ALL_BITS:
            self._add(_AND, mask)
        return self._add(_LOAD, offset)

    def branch(self, test: int, value: int, yes: int, no: int) -> int:
        """Go on at `yes` or `no`."""
        yes = self._within_reach(yes)
        no = self._within_reach(no)
        here = len(self._code)
        place = self._add(test, value % (1 << 32), here - yes, here - no)
        if value == OWN_PID:
            self._own_pid = place
        return place

    def _within_reach(self, place: int) -> int:
        distance = len(self._code) - place
        return place if distance < 255 else self._add(_JUMP, distance)

    def _add(self, what: int, value: int, yes: int = 0, no: int = 0) -> int:
        self._code.append(struct.pack("=HBBI", what, yes, no, value))
        return len(self._code)


def _checks(assembler: _Assembler, checks: tuple[Check, ...]) -> int:
    """Allow the call where one of `checks` passes."""
    loaded: tuple[int, int] | None = None
    place = assembler.answer(_FAIL | _EPERM)
    for argument, mask, value in reversed(checks):
        if loaded is not None and loaded != (argument, mask):
            place = assembler.load(_ARGUMENTS_AT + 8 * loaded[0], loaded[1])
        loaded = argument, mask
        place = assembler.branch(_IF_EQUAL, value, assembler.answer(_ALLOW), place)
    if loaded is not None:
        place = assembler.load(_ARGUMENTS_AT + 8 * loaded[0], loaded[1])
    return place


def _tree(assembler: _Assembler, runs: list[tuple[int, int | tuple[Check, ...]]]) -> int:
    """Find the run of numbers that the call's number lies in, by halving; each starts at its first element."""
    if len(runs) > 1:
        middle = len(runs) // 2
        above = _tree(assembler, runs[middle:])
        below = _tree(assembler, runs[:middle])
        return assembler.branch(_IF_AT_LEAST, runs[middle][0], above, below)
    outcome = runs[0][1]
    return assembler.answer(outcome) if isinstance(outcome, int) else _checks(assembler, outcome)


def build(machine: str, needs: Needs) -> Filter:
    """The filter for a machine, as `os.uname` names it.

    Raises:
        ValueError: no table is kept for it.
    """
    if machine not in _MACHINES:
        raise ValueError(f"no table of system calls for {machine!r}: {', '.join(_MACHINES)}")
    _, audit, second = _MACHINES[machine]
    numbers = known(machine)
    outcomes: dict[int, int | tuple[Check, ...]] = {
        numbers[name]: checks or _ALLOW for name, checks in rules(needs).items() if name in numbers
    }
    # The C library then goes back to `clone`, whose flags are an argument rather than in memory.
    outcomes[numbers["clone3"]] = _FAIL | _ENOSYS
    refused = _FAIL | _EPERM
    runs: list[tuple[int, int | tuple[Check, ...]]] = []
    for number in range(max(outcomes) + 2):
        outcome = outcomes.get(number, refused)
        if not runs or runs[-1][1] != outcome:
            runs.append((number, outcome))
    assembler = _Assembler()
    place = _tree(assembler, runs)
    if second is not None:
        assembler.branch(_IF_AT_LEAST, second, assembler.answer(_KILL), place)
    place = assembler.load(_NUMBER_AT)
    assembler.branch(_IF_EQUAL, audit, place, assembler.answer(_KILL))
    assembler.load(_MACHINE_AT)
    return assembler.finish()


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))


class Loaded:
    """A filter laid out for the kernel, by the zygote, so that a child has little to do."""

    def __init__(self, filter_: Filter) -> None:
        self._buffer = ctypes.create_string_buffer(filter_.code, len(filter_.code))
        at = filter_.pid_at
        self._pid = None if at is None else ctypes.c_uint32.from_buffer(self._buffer, at)
        self._program = _Program(len(filter_.code) // 8, ctypes.addressof(self._buffer))
        self._arguments = (
            ctypes.c_int(_PR_SET_SECCOMP),
            ctypes.c_ulong(_MODE_FILTER),
            ctypes.byref(self._program),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        )
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def install(self) -> None:
        """Put the calling process, and whatever it starts, under the filter for good. Needs no_new_privs.

        Raises:
            OSError: the kernel refused it.
        """
        if self._pid is not None:
            self._pid.value = os.getpid()
        if self._prctl(*self._arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp: {os.strerror(number)}")


def machine() -> str | None:
    """What machine a filter can be built for: the one that this interpreter runs on, or None."""
    name = os.uname().machine
    return name if name in _MACHINES and sys.maxsize > 1 << 32 else None
