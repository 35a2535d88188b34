"""What runs inside bubblewrap: gives up what is left to give up, then serves one session.

Bubblewrap has made the namespaces and the root. This process still has the capabilities to change its uid, where the
sandbox was started by root, and no filter of system calls. It imports nothing outside this directory but the standard
library and what the profile names.
"""

import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

from .child import Child
from .kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, keep_one_heap, prctl, set_capabilities, within
from .namespace import Tools
from .replies import ReplyLimits
from .seccomp import Loaded, Needs, build, machine
from .wire import CHANNEL

_MOST_DESCRIPTORS = 1 << 16
_LIMITS = {
    "memory_bytes": resource.RLIMIT_AS,
    "file_bytes": resource.RLIMIT_FSIZE,
    "nofile": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}
_NONE = (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE)


def main(text: str) -> NoReturn:
    """Serve the session on descriptor 3, with the settings in the JSON `text`. Never returns."""
    settings: dict[str, Any] = json.loads(text)
    keep_one_heap()
    sys.path += settings["path"]
    for name in settings["preload"]:
        importlib.import_module(name)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=CHANNEL)
    child = Child(Tools(ReplyLimits(**settings["reply"])), channel)
    child.heed()
    _give_up(settings)
    child.run()


def _give_up(settings: dict[str, Any]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(CHANNEL + 1, _MOST_DESCRIPTORS)
    os.environ.clear()
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]
    os.chdir("/")
    os.umask(0o022)
    limits = settings["limits"]
    # The soft limit would kill with SIGXCPU, but not the first process of a namespace; the hard one does.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 1))
    for name, limit in _LIMITS.items():
        value = within(limit, limits[name])
        resource.setrlimit(limit, (value, value))
    for limit in _NONE:
        resource.setrlimit(limit, (0, 0))
    uid = settings["uid"]
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After the change of uid, which clears it.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    set_capabilities(0)
    prctl(PR_SET_DUMPABLE, 0)
    if (known := machine()) is not None:
        needs = Needs(threads=settings["threads"], scratch=settings["scratch"])
        Loaded(build(known, needs)).install()
