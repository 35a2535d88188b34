"""A child process that does not outlive the process that started it."""

import ctypes
import signal
from collections.abc import Callable


def die_with_parent() -> Callable[[], None]:
    """What a child runs first, so that it is told to end when its parent is gone (prctl(2), PR_SET_PDEATHSIG)."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, int(signal.SIGTERM))
