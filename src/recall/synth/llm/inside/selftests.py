"""Counts, for each self-test, which tools it called and which of them refused."""

import functools
from collections.abc import Callable
from typing import Any

_CALLED: list[tuple[str, bool]] = []


def _counted(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, with each call of it noted: its name, and whether it raised."""

    @functools.wraps(tool)
    def counted(*arguments: Any, **named: Any) -> Any:
        try:
            result = tool(*arguments, **named)
        except Exception:
            _CALLED.append((tool.__name__, True))
            raise
        _CALLED.append((tool.__name__, False))
        return result

    return counted


def raises(tool: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether a call raises; for self-tests of what a tool refuses."""
    try:
        tool(*arguments, **named)
    except Exception:  # noqa: BLE001 - any refusal of a tool is a refusal
        return True
    return False
