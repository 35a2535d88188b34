"""Notes what generated code does that a pure function of its seed does not: files, sockets, programs, clocks, chance.

It is evidence, not a wall: the sandbox refuses these things whether they are noted or not.
"""

import random
import sys
from types import FrameType
from typing import Any

_NOTED: list[str] = []
_IO = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.", "shutil.", "urllib.")
_OPENS = ("open", "os.listdir", "os.scandir", "os.remove", "os.mkdir", "os.rename")
_CLOCKS = ("now", "today", "utcnow", "localtime", "gmtime", "time", "time_ns", "monotonic", "perf_counter", "ctime")
_LIBRARY = tuple(path for path in sys.path if path)


def _noted(what: str) -> None:
    if what not in _NOTED and len(_NOTED) < 20:
        _NOTED.append(what)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_IO):
        _noted(f"{event} was used")
    elif event == "builtins.input":
        _noted("input() was called")
    elif event in _OPENS and not (arguments and str(arguments[0]).startswith(_LIBRARY)):
        # The library is read when a module is imported late, which is no reading of files by the code itself.
        _noted(f"{event}({str(arguments[0])[:60]!r}) was called" if arguments else f"{event} was called")


def _profile(frame: FrameType, event: str, argument: Any) -> None:
    if event == "call":
        code = frame.f_code
        if code.co_name == "seed" and code.co_filename.endswith("random.py") and frame.f_locals.get("a") is None:
            _noted("a random generator without a seed was made")
        return
    if event != "c_call":
        return
    name, owner = getattr(argument, "__name__", ""), getattr(argument, "__self__", None)
    module = getattr(owner, "__name__", "")
    if name in _CLOCKS and module in ("time", "datetime", "date"):
        _noted(f"the clock was read by {module}.{name}")
    elif name in ("urandom", "getrandom"):
        _noted("entropy of the system was read")
    elif owner is getattr(random, "_inst", None) and owner is not None:
        _noted(f"random.{name} of the module was used, not a generator made of the seed")


def _noticed() -> list[str]:
    """What was noted so far."""
    return _NOTED


sys.addaudithook(_audit)
sys.setprofile(_profile)
