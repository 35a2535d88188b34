"""ReCall trains language models to reason with tool calls by reinforcement learning, from outcome rewards alone."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recall.inference.agent import ReCall as ReCall
    from recall.tools.base import tool as tool

__version__ = "0.1.0.dev0"

_PUBLIC = {"ReCall": "recall.inference.agent", "tool": "recall.tools.base"}
"""The names that are imported from `recall`, and where they live; `import recall` loads none of them."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'recall' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
