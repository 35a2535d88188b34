"""A private root: a file system that holds what tools need and nothing else, read-only, without /proc.

It is built once, in the zygote's own mount namespace, out of read-only binds of the host's directories at their usual
paths; then the host's root is let go. A Python that lies below a closed directory (such as `/root`) is in reach there.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from . import kernel
from .kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, mount

SCRATCH, ABOVE_SCRATCH = "/private/tmp", "/private"
"""Where a session's own directory is mounted, if it has one, and the directory above: Landlock looks a file's rights up
in the directories that it lies in, but not in one that is mounted over. `/tmp` is a link there."""

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_DEVICES = ("/dev/null", "/dev/urandom")
_OLD, _EMPTY = "/.old", "/.empty"
# What `statvfs` calls them and what `mount` calls them: the flags that a remount may have to repeat.
_KEPT_FLAGS = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def standard_paths(*, programs: bool) -> list[str]:
    """What tools need besides packages: standard library, shared libraries, time zones; for programs, theirs too."""
    library = os.path.dirname(os.__file__)
    # The second one is that of this file: the stand-ins for web libraries are imported from it when a tool wants them.
    paths = [
        library,
        os.path.dirname(os.path.abspath(__file__)),
        *(path for path in sys.path if path.endswith(("lib-dynload", ".zip"))),
    ]
    if sys.base_prefix not in ("/usr", "/usr/local"):
        paths.append(f"{sys.base_prefix}/lib")
    paths += [*_library_directories(), *_mapped_libraries()]
    paths += ["/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime"]
    if programs:
        paths += ["/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", f"{sys.base_prefix}/bin", sys.executable]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def _library_directories() -> Iterator[str]:
    """Where the dynamic loader finds the shared libraries of extension modules."""
    triplet = getattr(sys.implementation, "_multiarch", "")
    separate = [f"{parent}/{triplet}" for parent in ("/lib", "/usr/lib") if triplet]
    if any(map(os.path.isdir, separate)):
        # /lib64 then holds the loader alone.
        yield from (*separate, "/lib64")
    else:
        yield from ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


def _mapped_libraries() -> Iterator[str]:
    """Those that this process has mapped, wherever they lie, such as libpython itself."""
    with suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if ".so" in os.path.basename(path):
                yield f"/{path}"


def _package_directories(path: str) -> Iterator[str]:
    """Directories of installed packages below `path`, a directory of a Python installation or of libraries."""
    for base in (path, f"{path}/lib", f"{path}/local/lib"):
        with suppress(OSError):
            for name in ("", *(name for name in os.listdir(base) if name.startswith("python"))):
                yield from (f"{base}/{name}/{kind}-packages".replace("//", "/") for kind in ("site", "dist"))


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)


def replace_root(standard: Sequence[str], packages: Sequence[str], *, scratch: bool) -> None:
    """Give the calling process, which is alone in a mount namespace of its own, a root with these paths only.

    Args:
        standard: as `standard_paths` gives them; directories of installed packages below them are shown empty.
        packages: files and directories of packages.
        scratch: whether to make the directory `SCRATCH` and the link to it.

    Raises:
        OSError: it could not be done; the calling process is then in no state to go on.
    """
    listed = {path: os.path.realpath(path) for path in packages if os.path.exists(path)}
    within = list(listed.values())
    # A library that a package brought and this process has mapped is shown with the package.
    shown = {path: real for path in standard if not _below(real := os.path.realpath(path), within)}
    trees = _outermost(shown.values())
    hidden = [path for tree in trees for path in _package_directories(tree) if os.path.isdir(path)]
    hidden = _outermost(os.path.realpath(path) for path in hidden)
    whole = _can_seal_whole_trees()
    _pivot()
    bound = [*trees]
    for path in trees:
        _bind(path, whole=whole)
    for number, path in enumerate(path for path in hidden if _below(path, trees)):
        os.makedirs(empty := f"{_EMPTY}/{number}")
        mount(empty, path, None, MS_BIND)
    for path in _outermost(listed.values()):
        if not _below(path, trees) or _below(path, hidden):
            _bind(path, whole=whole)
            bound.append(path)
    for path, real in (shown | listed).items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(real, path)
    for path in _DEVICES:
        _bind(path, whole=whole)
    if scratch:
        os.makedirs(SCRATCH)
        # Where Python itself lies below /tmp, that is shown there, and the scratch space goes by its own name only.
        if not os.path.lexists("/tmp"):
            os.symlink(SCRATCH, "/tmp")
    kernel.unmount(_OLD)
    os.rmdir(_OLD)
    for path in bound:
        _seal(path, MS_NODEV, whole=whole)
    for path in _DEVICES:
        _seal(path, MS_NOEXEC, whole=whole)
    # The superblock, and with it the directories that stand in for hidden ones.
    mount("none", "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=755")


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those that lie below no other."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not _below(path, found):
            found.append(path)
    return found


def _pivot() -> None:
    """Go over to an empty root, with the host's at `_OLD`."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    place = next(path for path in ("/tmp", "/usr", "/proc", "/dev") if os.path.isdir(path))
    mount("tools", place, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=4096,mode=755")
    os.chdir(place)
    os.mkdir(_OLD[1:])
    kernel.syscall(_PIVOT_ROOT[os.uname().machine], ctypes.c_char_p(b"."), ctypes.c_char_p(_OLD[1:].encode()))
    os.chdir("/")


def _bind(path: str, *, whole: bool) -> None:
    """Show what the host has at `path`; with `whole`, and what it has mounted below."""
    source = f"{_OLD}{path}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    mount(source, path, None, MS_BIND | (MS_REC if whole else 0))


def _can_seal_whole_trees() -> bool:
    kernel.libc.syscall(ctypes.c_long(_MOUNT_SETATTR), ctypes.c_long(-1), None, 0, None, ctypes.c_long(0))
    return ctypes.get_errno() != errno.ENOSYS


def _seal(path: str, flags: int, *, whole: bool) -> None:
    """Make what is bound at `path` read-only, with `flags` besides; with `whole`, and what is mounted below."""
    flags |= MS_RDONLY | MS_NOSUID
    if whole:
        # These flags have the same numbers there.
        attributes = _MountAttributes(flags, 0, 0, 0)
        place, size = ctypes.c_char_p(path.encode()), ctypes.sizeof(attributes)
        kernel.syscall(_MOUNT_SETATTR, _AT_FDCWD, place, _AT_RECURSIVE, ctypes.byref(attributes), size)
        return
    held = os.statvfs(path).f_flag
    kept = sum(ours for theirs, ours in _KEPT_FLAGS.items() if held & theirs)
    mount("none", path, None, MS_REMOUNT | MS_BIND | flags | kept)
