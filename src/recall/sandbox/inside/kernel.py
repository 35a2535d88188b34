"""The few system calls that Python 3.11 has no function for, and a throw-away process to try things in."""

import ctypes
import os
import resource
from collections.abc import Callable
from contextlib import suppress

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_SET_CHILD_SUBREAPER = 36
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
_M_ARENA_MAX = -8
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION = 0x20080522
_LAST_CAPABILITY = 63
MOST_DESCRIPTORS = 4096
"""Beyond any that a zygote may open."""

libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Call:
    """A call of a C function, laid out by the zygote so that a child that makes it touches few pages of memory."""

    __slots__ = ("_arguments", "_function", "_what")

    def __init__(self, what: str, function: Callable[..., int], *arguments: object) -> None:
        """`what` it does, for the message; an int among `arguments` becomes a C long."""
        self._what, self._function = what, function
        self._arguments = tuple(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)

    def __call__(self) -> None:
        """Make it.

        Raises:
            OSError: it failed.
        """
        if self._function(*self._arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{self._what}: {os.strerror(number)}")


def laid_out_prctl(option: int, value: int) -> Call:
    """What `prctl` does, to be done later."""
    return Call(f"prctl {option}", libc.prctl, option, value, 0, 0, 0)


def check(result: int, what: str) -> int:
    """`result`, unless it says that `what` failed.

    Raises:
        OSError: it does, for the reason in errno.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number.

    Raises:
        OSError: it failed.
    """
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return check(int(libc.syscall(ctypes.c_long(number), *values)), f"system call {number}")


def prctl(option: int, value: int = 0) -> int:
    """Change something about the calling process.

    Raises:
        OSError: it failed.
    """
    zero = ctypes.c_ulong(0)
    return check(int(libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero)), f"prctl {option}")


def unshare(flags: int) -> None:
    """Give the calling process namespaces of its own.

    Raises:
        OSError: it is not allowed to have them.
    """
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount something at `target`.

    Raises:
        OSError: it failed.
    """
    texts = [None if text is None else text.encode() for text in (kind, data)]
    check(libc.mount(source.encode(), target.encode(), texts[0], ctypes.c_ulong(flags), texts[1]), f"mount {target}")


def unmount(target: str) -> None:
    """Detach what is mounted at `target`.

    Raises:
        OSError: it failed.
    """
    check(libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def _capability_call(kept: int) -> Call:
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    return Call("capset", libc.capset, ctypes.byref(header), ctypes.byref(data))


def laid_out_drop() -> Call:
    """What gives up all capabilities, to be done later."""
    return _capability_call(0)


def set_capabilities(kept: int) -> None:
    """Keep the capabilities whose bits are set in `kept`, of those that are held, and pass on none.

    Raises:
        OSError: one of them is not held.
    """
    _capability_call(kept)()


def capabilities() -> int:
    """The bits of all capabilities that are effective, permitted or inheritable."""
    data = (ctypes.c_uint32 * 6)()
    check(libc.capget(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION, 0)), ctypes.byref(data)), "capget")
    return data[0] | data[1] | data[2] | (data[3] | data[4] | data[5]) << 32


def bound_capabilities() -> None:
    """Let no program that is started from here gain a capability, as far as the caller may decide that."""
    for capability in range(_LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)


def works(attempt: Callable[[], object]) -> bool:
    """Whether `attempt` succeeds in a process that is thrown away."""
    return failure(attempt) is None


def failure(attempt: Callable[[], object]) -> str | None:
    """Why `attempt` fails in a process that is thrown away, or None where it succeeds there."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        words, status = "", 1
        try:
            attempt()
            status = 0
        except OSError as error:
            words = str(error)
        finally:
            # Whatever it raised: never back into the caller's code.
            with suppress(OSError):
                os.write(writer, words.encode())
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read(1000).decode("utf-8", "replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if status == 0 else told or f"exit status {status}"


def within(limit: int, value: int) -> int:
    """`value`, or what this process may have of it."""
    hard = resource.getrlimit(limit)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def keep_one_heap() -> None:
    """Have all threads share one heap: each further one reserves 64 MiB of the address space that is limited."""
    libc.mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give free memory back, so that forks need not share it."""
    libc.malloc_trim(0)
