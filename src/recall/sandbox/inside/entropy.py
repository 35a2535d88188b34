"""Random numbers of a session's own, drawn by the zygote ahead of the child that will use them."""

import os
import sys


def import_random() -> None:
    """Import `random` so that it does not seed itself anew after every fork, which would take a child 0.2 ms.

    The zygote does it, by `renew`, when nobody waits. A program that imports `random` later is not concerned.
    """
    register = os.register_at_fork
    os.register_at_fork = lambda **_: None
    try:
        import random  # noqa: F401
    finally:
        os.register_at_fork = register


def renew(seed: int | None = None) -> None:
    """Begin another sequence of random numbers, of `random` and of numpy; None draws it by chance."""
    if seed is not None or "random" in sys.modules:
        import random

        random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(None if seed is None else seed % 2**32)
