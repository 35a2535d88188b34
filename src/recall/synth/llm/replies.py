"""Finds in what a model wrote the part that was asked for: a block of code, or JSON."""

import json
import re
from typing import Any

from recall.synth.llm.errors import RejectedError

GATE = "reply"
"""The gate at which replies without the part that was asked for are rejected."""

_THINKING = re.compile(r"\A\s*(?:<think>)?.*?</think>", re.DOTALL)
_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def visible(text: str) -> str:
    """What a model said after it had thought."""
    return str(_THINKING.sub("", text, count=1)).strip()


def code_in(text: str) -> str:
    """The largest block of Python.

    Raises:
        RejectedError: there is none.
    """
    blocks = [body for language, body in _BLOCK.findall(visible(text)) if language.lower() in ("python", "py", "")]
    if not blocks:
        raise RejectedError(GATE, "no code", "there is no ```python block, or it does not end")
    return str(max(blocks, key=len)).strip("\n") + "\n"


def json_in(text: str, kind: type) -> Any:
    """The JSON value of a kind (dict or list): the last block that is one, or the whole reply.

    Raises:
        RejectedError: there is none.
    """
    said = visible(text)
    candidates = [body for language, body in _BLOCK.findall(said) if language.lower() in ("json", "")]
    problem = f"there is no JSON {'object' if kind is dict else 'list'}"
    for candidate in (*reversed(candidates), said):
        try:
            value = json.loads(candidate)
        except ValueError as fault:
            problem = str(fault) if candidates else problem
            continue
        except RecursionError:
            problem = "nested too deeply"
            continue
        if isinstance(value, kind):
            return value
    raise RejectedError(GATE, "not JSON", problem)
