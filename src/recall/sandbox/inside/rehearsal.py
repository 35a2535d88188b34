"""What every child does, done before: memory that is touched, caches that are filled, code that Python has specialised.

Done in the zygote, its forks find it so; done in a child of the pool, the session that is given it later does.
"""

import json
import os
import socket
import sys
from typing import TextIO

from .child import Child
from .namespace import Tools
from .replies import ReplyLimits
from .wire import CHANNEL, CODE, HEADER

_SOURCE = """
import json
from dataclasses import dataclass
@dataclass
class Item:
    name: str
    count: int = 0
items = {"a": Item("a", 1)}
def add(name: str, count: int = 1) -> dict:
    \"\"\"Add.\"\"\"
    item = items.setdefault(name, Item(name))
    item.count += count
    print(name, round(item.count / 3, 2))
    return {"name": item.name, "count": [i.count for i in sorted(items.values(), key=lambda i: i.name)]}
def fail(reason):
    raise ValueError(f"no: {reason}")
"""
_CALLS: tuple[tuple[str, dict[str, object]], ...] = (
    ("add", {"name": "b", "count": 2}),
    ("fail", {"reason": "x"}),
    ("none", {}),
)
_ROUNDS = 3


def rehearse(limits: ReplyLimits) -> None:
    """Serve a few sessions, over a channel that is descriptor 3 for as long as that takes."""
    stdout, kept = sys.stdout, os.dup(CHANNEL)
    ours, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), CHANNEL)
    code: str | None = None
    for _ in range(_ROUNDS):
        load = ["load", _SOURCE if code is None else None, False, None, code, code is None]
        requests = [load, *(["call", name, arguments] for name, arguments in _CALLS)]
        bodies = [json.dumps(request).encode() for request in requests]
        child = Child(Tools(limits), theirs)
        for number, body in enumerate(bodies):
            ours.send(HEADER.pack(len(body), number) + body)
            child.serve()
            said = ours.recv(1 << 16)
            if number == 0 and code is None:
                length, _ = HEADER.unpack_from(said)
                code = said[HEADER.size + len(CODE) : HEADER.size + length].decode()
    os.dup2(kept, CHANNEL, inheritable=False)
    os.close(kept)
    ours.close()
    theirs.close()
    _forget(stdout)


def warm(limits: ReplyLimits) -> None:
    """Run such a session once, without a channel."""
    stdout, tools = sys.stdout, Tools(limits)
    tools.load(_SOURCE)
    for name, arguments in _CALLS:
        tools.call(name, arguments)
    _forget(stdout)


def _forget(stdout: TextIO) -> None:
    del sys.modules["tools"]
    sys.stdout = stdout
