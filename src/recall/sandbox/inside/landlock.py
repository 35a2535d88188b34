"""Landlock: a process takes from itself, for good, what it may do with files, TCP, signals and abstract sockets."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .kernel import Call, libc, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_LOG_SAME_EXEC_OFF, _LOG_SUBDOMAINS_OFF = 1, 4
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14
"""What a rule for a single file may allow: the above, and to truncate it."""
CHANGE = (1 << 15) - 1 & ~(EXECUTE | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11)
"""To read, write, make and remove files and directories, but no device, socket or pipe."""
_FILES_BY_ABI = ((5, 16), (3, 15), (2, 14), (1, 13))
"""From which version of the interface on how many rights to files exist."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's interface; 0 where there is none. Later ones than are known here only add to it."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def layers(abi: int) -> set[str]:
    """The layers that a ruleset brings, by the version of the interface."""
    since = {"landlock:fs": 1, "landlock:tcp": 4, "landlock:scope": 6}
    return {layer for layer, first in since.items() if abi >= first}


def ruleset(abi: int, allowed: Mapping[str, int]) -> int:
    """A descriptor of a ruleset that denies everything it can deny but what is allowed.

    Args:
        abi: the version of the interface, at least 1.
        allowed: by path, the rights to it and to all that lies beneath. Paths that do not exist are left out.

    Raises:
        OSError: the kernel refused it.
    """
    files = (1 << next(count for first, count in _FILES_BY_ABI if abi >= first)) - 1
    attributes = _RulesetAttributes(files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    descriptor = syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    for path, access in allowed.items():
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            _allow(descriptor, path, access & files)
    return descriptor


def _allow(descriptor: int, path: str, access: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(access if os.path.isdir(path) else access & _OF_FILES, beneath)
        syscall(_ADD_RULE, descriptor, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(beneath)


def quiet(abi: int) -> int:
    """The flags that keep what a tool is denied out of the host's audit log, which it could flood."""
    return _LOG_SAME_EXEC_OFF | _LOG_SUBDOMAINS_OFF if abi >= 7 else 0


def restriction(descriptor: int, flags: int) -> Call:
    """What puts the calling process, and whatever it starts, under the ruleset for good. Needs no_new_privs."""
    return Call("Landlock", libc.syscall, _RESTRICT_SELF, descriptor, flags)


def readable(paths: Sequence[str], *, execute: bool) -> dict[str, int]:
    """The rights to read `paths` and to use the devices that every program expects."""
    access = READ_FILE | READ_DIR | (EXECUTE if execute else 0)
    return dict.fromkeys(paths, access) | {"/dev/null": READ_FILE | WRITE_FILE, "/dev/urandom": READ_FILE}
