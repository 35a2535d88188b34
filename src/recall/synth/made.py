"""What a generator hands to the writer of sets: tasks that passed their certificates, and attempts that did not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from recall.types import Task


@dataclass(frozen=True, slots=True)
class Made:
    """One attempt at a task."""

    index: int
    """The task's number in its split. Several attempts may have one number, of which the last alone has a task."""
    task: Task | None
    """The task; None where the attempt was thrown away."""
    gate: str = ""
    """The certificate that it failed."""
    reason: str = ""
    """Why, in a few words that many attempts share; they are counted."""


Stream = Callable[[str, int], Iterable[Made]]
"""The attempts at the tasks of a split from a number on, in order of their numbers. It may end early."""

Make = Callable[[range], Sequence[Made]]
"""The attempts at the tasks of these numbers, in order: a pure function that can be pickled, so a function of a module
or a `functools.partial` of one."""
