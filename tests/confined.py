"""A program that confines itself as a zygote does and runs each given snippet in a confined child of its own.

Its argument is the JSON of `[settings of prepare, {name: snippet}]`. It prints the JSON of the layers and of what each
snippet came to: `{"value": …}`, `{"error": type, "errno": …}`, or `{"ended": …}`, the exit status or minus the signal,
where there was no answer. A snippet is the body of a function; `forks` as its first line lets it copy itself. It finds
`raw(number, *arguments)`, which makes a system call and returns its result, or minus errno.
"""

import ctypes
import json
import os
import sys
import textwrap
from typing import Any

from recall.sandbox.inside.confine import Confinement, prepare

_libc = ctypes.CDLL(None, use_errno=True)


def raw(number: int, *arguments: Any) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *values))
    return -ctypes.get_errno() if result == -1 else result


def _outcome(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {"raw": raw, "os": os, "sys": sys, "ctypes": ctypes}
    try:
        exec(f"def snippet():\n{textwrap.indent(snippet, '    ')}", names)
        return {"value": names["snippet"]()}
    except BaseException as error:  # noqa: BLE001  # whatever a snippet raises is its outcome
        return {"error": type(error).__name__, "errno": getattr(error, "errno", None), "words": str(error)}


def run(confinement: Confinement, slot: int, snippet: str) -> dict[str, Any]:
    """What `snippet` comes to in a fresh child."""
    import socket

    ours, theirs = socket.socketpair()
    parent, forks = os.getpid(), snippet.startswith("forks\n")
    pid = os.fork()
    if pid == 0:
        try:
            confinement.enter(slot, parent, theirs.fileno(), forks=forks)
            os.write(3, json.dumps(_outcome(snippet.removeprefix("forks\n"))).encode())
        except OSError as error:
            os.write(theirs.fileno(), json.dumps({"refused": str(error)}).encode())
        finally:
            os._exit(0)
    theirs.close()
    answer = b""
    while data := ours.recv(1 << 16):
        answer += data
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ours.close()
    return json.loads(answer) if answer else {"ended": ended}


def main() -> None:
    settings, snippets = json.loads(sys.argv[1])
    try:
        confinement, layers = prepare(**settings)
    except OSError as error:
        print(json.dumps({"refused": str(error)}))
        return
    outcomes = {name: run(confinement, slot, snippet) for slot, (name, snippet) in enumerate(snippets.items())}
    print(json.dumps({"layers": sorted(layers), "outcomes": outcomes}))


if __name__ == "__main__":
    main()
