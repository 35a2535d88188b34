"""Runs a source and calls its functions in an interpreter of its own; says hashes of what came out.

It is the program of a fresh process, whose order of sets differs: it reads its job from standard input and writes one
line of JSON.
"""

import contextlib
import hashlib
import json
import sys
from typing import Any


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()


def _run(job: dict[str, Any]) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "tools"}
    try:
        exec(compile(job["source"], "tools.py", "exec"), namespace)
        # Hashed at once: later calls may change what earlier ones returned.
        hashes = [_sha256(namespace["WORLD"])]
        hashes += [_sha256(namespace[name](**arguments)) for name, arguments in job["calls"]]
    except Exception as error:  # noqa: BLE001 - whatever generated code raises is what is reported
        return {"problem": f"{type(error).__name__}: {error}"}
    return {"hashes": hashes}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        outcome = _run(json.loads(sys.stdin.read()))
    print(json.dumps(outcome))
