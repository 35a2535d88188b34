"""How long work tells what it has done, without knowing who shows it."""

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in all."""


def silent(doing: str, done: int, total: int) -> None:
    """Tell nobody."""
