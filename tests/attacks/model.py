"""What an attack is: the source of a tool, and what may come of calling it."""

from dataclasses import dataclass, replace
from typing import Any

PRELUDE = '''
import os, sys

def syscall(number, *arguments):
    """A system call by its number on x86-64."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *values)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()) + f" (system call {number})")
    return result

def every(attempts):
    """Make all attempts; raise what the last came to if all were refused, else say which were not."""
    won, refusal = [], OSError("nothing was tried")
    for name, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            refusal = error
        else:
            won.append(name)
    if won:
        return "ESCAPED: " + ", ".join(map(str, won))
    raise refusal

request = 0
def frame(body, offset=0):
    """A frame as the sandbox's own code writes it, in answer to the request in flight or to one `offset` later."""
    return len(body).to_bytes(4, "big") + (request + offset).to_bytes(4, "big") + body

count = 0
def bump():
    global count
    count += 1
    return count
'''
"""Stands before the source of every attack."""

REFUSED = (
    "PermissionError",
    "FileNotFoundError",
    "BlockingIOError",
    "ProcessLookupError",
    "ConnectionRefusedError",
    "OSError",
)
"""What a refusal by the kernel looks like; an attack that fails in another way has a bug of its own."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A tool that means harm. It defines `attack(t)`, where `t` names what it is to harm."""

    name: str
    items: tuple[int, ...]
    """Its numbers on the list of 85 of the design; empty for those found since."""
    body: str
    """Of the function `attack(t)`."""
    statuses: frozenset[str]
    """The statuses that a call may come to. An attack that returns has status `ok`: it did what it wanted to."""
    needs: tuple[str, ...] = ()
    """Layers of isolation, any of which makes the statuses above a promise; without one, only the rest is checked: the
    sandbox serves, the victim is well, nothing is left behind."""
    errors: tuple[str, ...] = REFUSED
    """The types of exception that count as refused."""
    group: str = ""
    load: str = ""
    """Source that runs when the tools are loaded."""
    profile: str = "default"
    timeout_s: float = 20.0
    """Wall seconds of a call; short where the attack is to run into it."""
    forks: bool = False
    """Whether it makes processes, which a session that can copy itself may: there, any status is allowed."""
    bare: bool = False
    """Whether it is harmless enough to show that it works in a plain interpreter."""
    idle: bool = False
    """Whether the session must use no CPU after the call."""

    @property
    def source(self) -> str:
        """The whole source of the tools."""
        body = "".join(f"    {line}\n" for line in self.body.strip("\n").splitlines())
        return f"{PRELUDE}\n{self.load}\ndef attack(t):\n    global request\n    request = t['request']\n{body}"

    @property
    def slow(self) -> bool:
        """Whether it only costs time, so that it can run beside others."""
        return self.timeout_s < 1


def refused(name: str, items: tuple[int, ...], body: str, needs: tuple[str, ...] = (), **more: Any) -> Attack:
    """An attack that the kernel, or the interpreter, must refuse."""
    return Attack(name, items, body, frozenset({"exception"}), needs, **more)


def stopped(name: str, items: tuple[int, ...], body: str, statuses: str = "timeout", **more: Any) -> Attack:
    """An attack that runs into its time-out."""
    return Attack(name, items, body, frozenset(statuses.split()), **{"timeout_s": 0.4, **more})


def contained(name: str, items: tuple[int, ...], body: str, statuses: str, **more: Any) -> Attack:
    """An attack that comes to one of `statuses` by itself and reaches nothing but its own session."""
    return Attack(name, items, body, frozenset(statuses.split()), **more)


def group(name: str, *attacks: Attack) -> tuple[Attack, ...]:
    """The attacks as members of a group."""
    return tuple(replace(attack, group=name) for attack in attacks)
