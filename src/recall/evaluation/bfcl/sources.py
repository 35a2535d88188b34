"""Values as source text of Java and JavaScript, as the leaderboard reads the arguments of functions of these languages.

Only what its ground truths hold: what a policy writes is judged as it is.
"""

import json
from collections.abc import Mapping
from typing import Any


def in_source(value: Any, schema: Mapping[str, Any], language: str) -> str:
    """A value of the ground truth as the text that stands for it.

    Args:
        value: as the leaderboard has it.
        schema: of its parameter, with the leaderboard's names of types.
        language: `java` or `javascript`.
    """
    if isinstance(value, str):
        return value  # a text, or a variable's name where another type is wanted
    return _java(value, schema) if language == "java" else _javascript(value, schema)


def _java(value: Any, schema: Mapping[str, Any]) -> str:
    kind = schema["type"]
    if kind == "ArrayList":
        inner = {"type": schema.get("items", {}).get("type", "any")}
        return f"new ArrayList<>(Arrays.asList({', '.join(_java_item(item, inner) for item in value)}))"
    if kind == "Array":
        inner = {"type": schema.get("items", {}).get("type", "any")}
        return f"new Object[]{{{', '.join(_java_item(item, inner, quoted=False) for item in value)}}}"
    if kind == "HashMap":
        puts = " ".join(f'put("{key}", {_java_item(item, {"type": "any"})});' for key, item in value.items())
        return f"new HashMap<>() {{{{ {puts} }}}}"
    return _number(value, {"long": "L", "float": "f"}.get(kind, ""))


def _java_item(value: Any, schema: Mapping[str, Any], *, quoted: bool = True) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if quoted else value
    return _number(value, {"long": "L", "float": "f"}.get(schema["type"], ""))


def _javascript(value: Any, schema: Mapping[str, Any]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_javascript_item(item, schema.get('items', {})) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_javascript_item(item, {})}' for key, item in value.items())}}}"
    return _number(value, "n" if schema.get("type") == "Bigint" else "")


def _javascript_item(value: Any, schema: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _javascript(value, schema)


def _number(value: Any, suffix: str) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}{suffix}"
