"""`POST /run_code` in the shape of SandboxFusion, for Python. What it cannot do it refuses by name; it ignores nothing.

The answer is 200 whatever the script did. `status` is `Success` for a script that ended with 0, `Failed` for one that
did not or ran out of time, and `SandboxError` for a request that is refused and for faults of ours.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.sandbox.local import CodeResult
from recall.sandbox.service.bodies import MAX_TIMEOUT_S, BodyError

_RUN_STATUS = {"finished": "Finished", "timeout": "TimeLimitExceeded", "error": "Error"}
_FIELDS = (
    "code", "language", "stdin", "compile_timeout", "run_timeout", "memory_limit_MB", "files", "fetch_files",
)  # fmt: skip
_LANGUAGES = ("python",)


class RefusedError(Exception):
    """A request that is well formed, but asks for what is not offered."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script to run."""

    code: str
    """The program."""
    stdin: str
    """What it reads from standard input."""
    files: Mapping[str, bytes]
    """Files that it finds in its directory."""
    fetch: Sequence[str]
    """Files that are read back."""
    timeout_s: float
    """Seconds that it may take."""


def read(value: Any, *, memory_mb: int) -> Script:
    """The script that a request asks for.

    Args:
        value: the JSON value of the body.
        memory_mb: MiB that a script has; a request may ask for no more.

    Raises:
        BodyError: it is no object, or `code` or `language` is missing or not text.
        RefusedError: it asks for something that is not offered.
    """
    if not isinstance(value, dict):
        raise BodyError("dict_type", "Input should be an object")
    for name in ("code", "language"):
        if name not in value:
            raise BodyError("missing", "Field required", name)
        if not isinstance(value[name], str):
            raise BodyError("string_type", "Input should be a string", name)
    if unknown := sorted(value.keys() - set(_FIELDS)):
        raise RefusedError(f"unsupported field {unknown[0][:100]!r}; supported: {', '.join(_FIELDS)}")
    if value["language"] not in _LANGUAGES:
        raise RefusedError(f"unsupported language {value['language'][:100]!r}; supported: {', '.join(_LANGUAGES)}")
    stdin = value.get("stdin")
    if not isinstance(stdin, str | None):
        raise BodyError("string_type", "Input should be a string", "stdin")
    _seconds(value, "compile_timeout")
    memory = value.get("memory_limit_MB", -1)
    if not isinstance(memory, int) or isinstance(memory, bool):
        raise BodyError("int_type", "Input should be an integer", "memory_limit_MB")
    if memory not in (-1, memory_mb):
        raise RefusedError(
            f"unsupported memory_limit_MB {memory}: scripts have {memory_mb} here, which -1 asks for too"
        )
    return Script(
        value["code"],
        stdin or "",
        _files(value.get("files")),
        _names(value.get("fetch_files")),
        _seconds(value, "run_timeout"),
    )


def answer(result: CodeResult) -> dict[str, Any]:
    """The body that says what came of a script."""
    done = result.status == "finished" and result.return_code == 0
    run = {
        "status": _RUN_STATUS[result.status],
        "execution_time": result.duration_s,
        "return_code": result.return_code,
        "stdout": result.stdout,
        "stderr": result.stderr,
    }
    files = {name: base64.b64encode(data).decode() for name, data in result.files.items()}
    return _body("Success" if done else "Failed", "", run, files)


def refusal(message: str) -> dict[str, Any]:
    """The body that says why nothing was run."""
    return _body("SandboxError", message, None, {})


def _body(status: str, message: str, run: dict[str, Any] | None, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": None,
        "run_result": run,
        "executor_pod_name": None,
        "files": files,
    }


def _seconds(value: Mapping[str, Any], name: str) -> float:
    seconds = value.get(name, 10)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise BodyError("float_type", "Input should be a number of seconds", name)
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise BodyError("float_range", f"Input should be above 0 and at most {MAX_TIMEOUT_S:g}", name)
    return float(seconds)


def _files(value: Any) -> dict[str, bytes]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BodyError("dict_type", "Input should be an object", "files")
    files = {}
    for name, text in value.items():
        if text is None:
            continue  # as SandboxFusion does
        if not isinstance(text, str):
            raise BodyError("string_type", "Input should be base64 text", "files", name[:100])
        try:
            files[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise BodyError("base64", "Input should be base64 text", "files", name[:100]) from None
    return files


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BodyError("list_type", "Input should be an array of strings", "fetch_files")
    return value
