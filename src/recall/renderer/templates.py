"""Prompt templates: ReCall's own, and those that a user brings as a file."""

from importlib import resources
from pathlib import Path

from recall.errors import ConfigError

PLACEHOLDER = "{func_schemas}"
"""Where a template wants the tool schemas."""
QUESTION = "{question}"
"""Where a template of the dialect `research` that is a whole prompt wants the question."""


def default_template() -> str:
    """ReCall's own system message, with `{func_schemas}` in it."""
    return own_text("prompt.txt")


def own_text(name: str) -> str:
    """A text that comes with ReCall, without its last line break."""
    return resources.files("recall").joinpath(name).read_text(encoding="utf-8").removesuffix("\n")


def read_template(path: Path) -> str:
    """A template of the user's, without its last line break.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"template {path}: cannot be read: {error}") from error
