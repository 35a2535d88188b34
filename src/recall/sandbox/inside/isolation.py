"""The layers of isolation by name: what each one does, what it needs, and which of them a promise rests on.

It enforces nothing, and it imports nothing but the standard library: the zygote, its parent and the service read it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing that the kernel takes away."""

    does: str
    """What a session cannot do, or what it can at most do, because of it."""
    needs: str
    """What the host must give."""


LAYER: Mapping[str, Layer] = MappingProxyType(
    {
        "processes": Layer(
            "starts no process, and no thread where none was promised; with `processes`, no more than that",
            "seccomp, or a uid of its own",
        ),
        "uid": Layer("runs under a uid of its own and in no group", "root with CAP_SETUID and CAP_SETGID"),
        "network": Layer(
            "lies in a network without interfaces, and shares no System V IPC, message queue or host name",
            "root with CAP_SYS_ADMIN, or user namespaces",
        ),
        "landlock:fs": Layer(
            "reads only the standard library, listed packages, shared libraries and time zones; writes nothing "
            "outside its own /tmp",
            "Linux 5.13",
        ),
        "landlock:tcp": Layer("binds and connects no TCP socket", "Linux 6.7"),
        "landlock:scope": Layer("signals no process outside, and connects to no abstract socket there", "Linux 6.12"),
        "root": Layer(
            "finds a file system of only what tools need, read-only, without /proc and devices",
            "root with CAP_SYS_ADMIN, or user namespaces",
        ),
        "capabilities": Layer("holds no capability and can gain none by starting a program", "always there"),
        "seccomp": Layer(
            "makes only the system calls that Python needs for computing; every other one is refused",
            "Linux 4.14 on x86_64 or aarch64",
        ),
        "pid": Layer(
            "with `processes`: sees no process but its own, and all of them end with it",
            "root with CAP_SYS_ADMIN, or user namespaces",
        ),
        "scratch": Layer(
            "with `scratch_bytes`: has a /tmp of its own, limited in size, gone with it", "what `root` needs"
        ),
        "cgroup": Layer(
            "shares the limits of one cgroup with all other sessions, so that the host survives a thousand of them",
            "a cgroup with limits that the operator made and named, and that the service may enter",
        ),
    }
)
"""Each layer that a host may lack. `pid` and `scratch` hold only in profiles that ask for what they confine."""

LAYERS: tuple[str, ...] = tuple(LAYER)
"""Their names, in the order of the bits of the mask that the zygote reports."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One promise, and the ways in which it can be kept."""

    promise: str
    """What a session cannot do."""
    ways: tuple[frozenset[str], ...]
    """Sets of layers; any one of them suffices."""


def _ways(*ways: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(way.split("+")) for way in ways)


REQUIREMENTS: Mapping[str, Requirement] = MappingProxyType(
    {
        # A private root shows nothing worth hiding; Landlock hides what the host's root shows.
        "fs": Requirement(
            "reads nothing of the host but what tools need, and writes nothing there", _ways("root", "landlock:fs")
        ),
        # The filter allows no socket of any kind. Landlock alone would leave UDP, and an empty network alone the local
        # sockets that the host's root shows.
        "net": Requirement("reaches nothing by any kind of socket", _ways("seccomp", "network+root")),
        # The filter lets no system call name a foreign process. What it cannot see is a path: /proc/PID/mem of a
        # process of the same user is a file like others, so something must keep /proc away, or give another uid.
        "proc": Requirement(
            "reads, signals, traces and limits no process but its own",
            _ways("seccomp+uid", "seccomp+root", "seccomp+landlock:fs"),
        ),
    }
)
"""What can be required of a host before anything runs on it."""

ELSEWHERE = (
    "the local sandbox needs Linux; on macOS and Windows run it in a Linux container or virtual machine and give the "
    "trainer its address"
)
"""For a platform that has none of the layers."""


def unmet(layers: Collection[str], require: Iterable[str]) -> tuple[str, ...]:
    """What of `require` does not hold, each in words that begin with its name; empty where all of it does.

    Args:
        layers: those that hold.
        require: names of `REQUIREMENTS`, or of single layers.

    Raises:
        ValueError: a name is neither.
    """
    held, lacking = set(layers), list[str]()
    for name in require:
        if name in REQUIREMENTS:
            requirement = REQUIREMENTS[name]
            if not any(way <= held for way in requirement.ways):
                ways = ", or ".join(" and ".join(sorted(way)) for way in requirement.ways)
                lacking.append(f"{name} (that a tool {requirement.promise}) needs {ways}")
        elif name in LAYER:
            if name not in held:
                lacking.append(f"{name} (that a tool {LAYER[name].does}) needs {LAYER[name].needs}")
        else:
            raise ValueError(f"{name!r} is no requirement: accepted are {', '.join((*REQUIREMENTS, *LAYERS))}")
    return tuple(lacking)
