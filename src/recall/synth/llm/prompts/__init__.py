"""The prompts, one file each; `{{name}}` in one is filled in. Their first line says which step they ask for."""

import re
from functools import lru_cache
from importlib import resources

_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


def prompt(step: str, **values: str) -> str:
    """The prompt of a step.

    Raises:
        KeyError: a value is missing.
    """
    return _PLACE.sub(lambda place: values[place[1]], _text(step))


@lru_cache
def _text(step: str) -> str:
    return resources.files("recall.synth.llm.prompts").joinpath(f"{step}.txt").read_text(encoding="utf-8").strip()
