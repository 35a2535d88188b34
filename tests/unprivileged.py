"""Runs a Python program as an unprivileged user, with user namespaces or as a container's default profile refuses them.

`command` gives the command line. Run as a program, this file gives up root, refuses itself namespaces where it is told
to, and becomes the program. Where the interpreter or the checkout lie below a directory that is closed to others (such
as `/root`), they are first made reachable in a mount namespace of its own.
"""

import ctypes
import functools
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

NOBODY = 65534
_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET and TIME: what `clone` and `unshare` must not be asked for."""
_NUMBERS = {"x86_64": (0xC000003E, 56, 272, 308, 165), "aarch64": (0xC00000B7, 220, 97, 268, 40)}
"""By machine: its name in a filter; the numbers of clone, unshare, setns and mount."""
_CLONE3 = 435
_EPERM, _ENOSYS = 1, 38
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def command(program: str | Path, *arguments: str, namespaces: bool) -> list[str]:
    """What to start so that `program` runs unprivileged: as nobody where this process is root, else as it is.

    Args:
        program: a Python file.
        arguments: its own.
        namespaces: whether it may have user namespaces, should the host give them to it.
    """
    return [sys.executable, __file__, "yes" if namespaces else "no", str(program), *arguments]


@functools.cache
def refusal(*, namespaces: bool) -> str | None:
    """Why a program cannot be run so on this host, or None where it can. With `namespaces`, it must really get them."""
    if platform.machine() not in _NUMBERS:
        return f"no filter is written for {platform.machine()}"
    check = "import ctypes, os\nassert os.geteuid() != 0\n"
    if namespaces:
        check += "assert ctypes.CDLL(None).unshare(0x10000000) == 0, 'no user namespaces'\n"
    done = subprocess.run([*command("-c", check, namespaces=namespaces)], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    _checked(_libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), data), f"mounting {target}")


def _closed_above(path: str) -> str | None:
    """The topmost directory above `path` that others may not pass."""
    parts = path.split("/")
    above = ["/".join(parts[:end]) for end in range(2, len(parts) + 1)]
    return next((directory for directory in above if not os.stat(directory).st_mode & 0o001), None)


def _needed() -> Iterator[str]:
    for path in (sys.base_prefix, sys.prefix, str(Path(__file__).parents[1]), *sys.path):
        if path and os.path.exists(path):
            yield os.path.realpath(path)


def uncover(paths: Sequence[str]) -> None:
    """Make `paths` readable to any uid, in a mount namespace of this process's own; needs root."""
    hidden = {path: closed for path in paths if (closed := _closed_above(path)) is not None}
    if not hidden:
        return
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in hidden}
    for closed in set(hidden.values()):
        _mount("none", closed, b"tmpfs", 0, b"size=1m,mode=755")
    for path, fd in kept.items():
        if os.path.exists(path):
            continue
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.makedirs(path)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).touch()
        _mount(f"/proc/self/fd/{fd}", path, None, _MS_BIND | _MS_REC)
        _mount("none", path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    for fd in kept.values():
        os.close(fd)


def refuse_namespaces() -> None:
    """Have the kernel refuse namespaces to this process and all that it starts, as a container's filter does."""
    arch, clone, unshare, setns, mount = _NUMBERS[platform.machine()]
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    refused, missing, allowed = 10, 11, 12
    # Each step: what to do, with which number, and the steps to go on with when it is true and when not.
    steps = [
        (load, 4, 1, 1),
        (equal, arch, 2, allowed),
        (load, 0, 3, 3),
        (equal, unshare, refused, 4),
        (equal, setns, refused, 5),
        (equal, mount, refused, 6),
        (equal, _CLONE3, missing, 7),
        (equal, clone, 8, allowed),
        (load, 16, 9, 9),
        (any_bit, _NAMESPACES, refused, allowed),
        (give, 0x50000 | _EPERM, 11, 11),
        (give, 0x50000 | _ENOSYS, 12, 12),
        (give, 0x7FFF0000, 13, 13),
    ]
    code = b"".join(
        struct.pack("=HBBI", what, true - place - 1, false - place - 1, number)
        for place, (what, number, true, false) in enumerate(steps)
    )
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))

    filter_ = Program(len(steps), ctypes.cast(buffer, ctypes.c_void_p))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(_libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_), 0, 0), "the filter")


def main() -> None:
    """Give up what there is to give up, and become the program."""
    namespaces, *program = sys.argv[1:]
    if os.geteuid() == 0:
        uncover(list(dict.fromkeys(_needed())))
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if namespaces == "no":
        refuse_namespaces()
    os.execv(sys.executable, [sys.executable, *program])


if __name__ == "__main__":
    main()
