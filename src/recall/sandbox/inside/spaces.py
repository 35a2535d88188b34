"""The namespaces of a zygote, which its children share: an empty network, IPC and host name of its own, a private root.

They need root, or a user namespace, which an unprivileged user is given on most hosts and in few containers.
"""

import os
from collections.abc import Sequence

from .kernel import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, unshare, works
from .root import replace_root

_SPACES = {
    "root": CLONE_NEWNS,
    "network": CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
}
"""The namespaces of each layer."""


def take_spaces(standard: Sequence[str], packages: Sequence[str], *, scratch: bool) -> set[str]:
    """Move into namespaces, and to a private root, as far as the host allows; the layers that this brought."""
    root = os.geteuid() == 0
    identity = os.getuid(), os.getgid()

    def take(wanted: Sequence[str]) -> None:
        flags = sum(_SPACES[layer] for layer in wanted)
        unshare(flags if root else flags | CLONE_NEWUSER)
        # A process that cannot map its own uid into a user namespace has nothing from it.
        if not root:
            _map_identity(*identity)
        if "root" in wanted:
            replace_root(standard, packages, scratch=scratch)

    for wanted in (("root", "network"), ("network",), ("root",)):
        if works(lambda wanted=wanted: take(wanted)):  # type: ignore[misc]
            take(wanted)
            return set(wanted)
    return set()


def _map_identity(uid: int, gid: int) -> None:
    """Keep uid and gid inside a fresh user namespace."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
