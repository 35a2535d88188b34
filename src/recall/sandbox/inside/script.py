"""Run a program of its own, as a file given to the interpreter would be: output, errors, exit status, files.

Child's side, for code that is no tool: it has no function to call and no result but what it prints.
"""

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .replies import Output
from .root import SCRATCH

_NAME = "main.py"
_MOST_FILE_BYTES = 1 << 20


def run_script(
    code: str, *, stdin: str, files: Mapping[str, str], fetch: Sequence[str], output_chars: int
) -> Mapping[str, Any]:
    """Run `code` as `__main__` in a directory of its own.

    Args:
        code: the program.
        stdin: what it reads from standard input.
        files: written there before it runs; contents in base64.
        fetch: names of files to read back afterwards; those that are not there are left out.
        output_chars: the most that is kept of each of its outputs.

    Returns:
        `return_code`, `stdout`, `stderr`, and `files` in base64.
    """
    if os.path.isdir(SCRATCH):
        os.chdir(SCRATCH)
    for name, content in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(base64.b64decode(content))
    out, errors = Output(output_chars), Output(output_chars)
    sys.stdout, sys.stderr, sys.stdin = out, errors, _text_of(stdin)
    sys.argv[:] = [_NAME]
    sys.path.insert(0, "")
    status = _run(code)
    return {
        "return_code": status,
        "stdout": out.take(),
        "stderr": errors.take(),
        "files": {name: found for name in fetch if (found := _read(name)) is not None},
    }


def _text_of(stdin: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "replace")), encoding="utf-8", errors="replace")


def _run(code: str) -> int:
    import traceback

    module = sys.modules["__main__"].__dict__
    module.clear()
    module.update({"__name__": "__main__", "__file__": _NAME, "__builtins__": __builtins__})
    try:
        exec(compile(code, _NAME, "exec", dont_inherit=True), module)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001  # whatever a program raises ends it, with a traceback
        below = error.__traceback__.tb_next if error.__traceback__ is not None else None
        traceback.print_exception(type(error), error, below)
        return 1
    return 0


def _read(name: str) -> str | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        return base64.b64encode(file.read(_MOST_FILE_BYTES)).decode()
