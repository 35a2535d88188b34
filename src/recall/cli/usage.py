"""What `recall COMMAND --help` prints: every setting with its default and the first sentence of its docstring."""

import ast
import inspect
import json
import re
import shutil
import textwrap
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from recall.config import REQUIRED, Key, Settings, keys, takes_many


def usage(name: str, model: type[Settings]) -> str:
    """The help of the command `name`, wrapped to the terminal."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    defined = list(keys(model))
    positional = [key for key in defined if key.positional]
    words = [_positional(key) for key in positional] + (["[RECIPE.toml]"] if model.takes_recipe else [])
    lines = [" ".join(["usage: recall", name, *words, "[--key value ...]"]), ""]
    lines += textwrap.wrap(inspect.cleandoc(model.__doc__ or ""), width)
    if model.takes_recipe:
        recipe = "RECIPE.toml holds settings by the names below; flags go over it. The text none stands for no value."
        lines += ["", *textwrap.wrap(recipe, width)]
    table = None
    for key in [*positional, *(key for key in defined if not key.positional)]:
        if table is None or key.name.rpartition(".")[0] != table:
            table = key.name.rpartition(".")[0]
            lines.append("")
        lines += _entry(key, width)
    return "\n".join(lines)


def documents(owner: type) -> dict[str, str]:
    """The docstrings under the fields of a class, its bases' included, by the fields' names."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        if not base.__module__.startswith(("pydantic", "typing")):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, doc in zip(body.body, body.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    text = doc.value if isinstance(doc, ast.Expr) else None
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        found[field.target.id] = inspect.cleandoc(text.value)
    return found


def _entry(key: Key, width: int) -> list[str]:
    text = documents(key.owner).get(key.attribute, "").replace("\n", " ")
    doc = re.match(r".*?[.:;](?=\s|$)|.*", text)
    sentence = doc.group().rstrip(".:; ") if doc else ""
    default = "required" if key.default is REQUIRED else f"default {_shown(key.default)}"
    head = f"  {_positional(key)}" if key.positional else f"  --{key.name}"
    note = f"{sentence}. " if sentence else ""
    return [
        head,
        *textwrap.wrap(
            f"{note}Takes {key.accepts}; {default}.", width - 8, initial_indent=" " * 6, subsequent_indent=" " * 6
        ),
    ]


def _positional(key: Key) -> str:
    word = key.name.upper() + (" ..." if takes_many(key.annotation) else "")
    return word if key.default is REQUIRED else f"[{word}]"


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    try:
        text = json.dumps(to_jsonable_python(default, inf_nan_mode="constants"), ensure_ascii=False)
    except PydanticSerializationError:
        text = repr(default)
    return text if len(text) <= 60 else f"{text[:57]}..."
