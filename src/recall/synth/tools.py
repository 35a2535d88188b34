"""The tools of a world: a Python function and a schema for each relation, attribute and operator.

Names, parameters and the form of results vary from tool to tool, so that a policy has to read the schemas.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.synth.vocabulary import (
    ENTITY_PARAMETERS,
    NAMING_STYLES,
    NUMBER_PARAMETERS,
    OUTPUT_STYLES,
    Attribute,
    Operator,
)
from recall.synth.world import Word, World, held_out
from recall.types import ToolSpec


@dataclass(frozen=True, slots=True)
class WorldTool:
    """One function over a world."""

    word: Word
    """The relation, attribute or operator that it computes."""
    spec: ToolSpec
    """What the policy is told."""
    result_key: str
    """The key of the returned object that holds the value; empty when the value is returned bare."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, in order."""
        return tuple(self.spec.parameters["properties"])

    def reference(self, *values: Any) -> dict[str, Any]:
        """The call of a reference program with these values or references."""
        return {"name": self.spec.name, "arguments": dict(zip(self.parameters, values, strict=True))}

    def result_of(self, call: int) -> dict[str, Any]:
        """A reference to the value that this tool returned in the call numbered `call`."""
        return {"$ref": call, **({"path": self.result_key} if self.result_key else {})}

    def value(self, result: Any) -> Any:
        """The value in what the tool returned."""
        return result[self.result_key] if self.result_key else result


def draw_tool(
    rng: random.Random, word: Word, *, from_held_out: bool, styles: Sequence[str] = NAMING_STYLES
) -> WorldTool:
    """A tool for `word` in one of `styles`, its pair of naming style and parameters held out or of the others."""
    while True:
        style = rng.choice(styles)
        parameters = rng.choice(NUMBER_PARAMETERS) if isinstance(word, Operator) else (rng.choice(ENTITY_PARAMETERS),)
        if held_out("tool", style, *parameters) is from_held_out:
            break
    kind = "integer" if isinstance(word, Operator) else "string"
    spec = ToolSpec(
        name=style.format(word=word.word),
        description=f"{word.word} of two numbers" if isinstance(word, Operator) else f"{word.word} of a {word.domain}",
        parameters={
            "type": "object",
            "properties": {parameter: {"type": kind} for parameter in parameters},
            "required": list(parameters),
        },
    )
    return WorldTool(word, spec, rng.choice(OUTPUT_STYLES).format(word=word.word))


def styles_of(*, from_held_out: bool) -> list[str]:
    """The naming styles that a tool of either sort can be drawn in, with a held-out pair or with another.

    Args:
        from_held_out: which of the two.
    """
    sorts = ([(parameter,) for parameter in ENTITY_PARAMETERS], NUMBER_PARAMETERS)
    return [
        style
        for style in NAMING_STYLES
        if all(any(held_out("tool", style, *pair) is from_held_out for pair in sort) for sort in sorts)
    ]


def source_of(tools: Sequence[WorldTool], world: World) -> str:
    """Python source that defines the tools over the world's tables."""
    parts = [_function(tool, world.tables) for tool in tools]
    return "\n\n".join(parts) + "\n"


def _function(tool: WorldTool, tables: Mapping[str, Mapping[str, Any]]) -> str:
    name, parameters = tool.spec.name, ", ".join(tool.parameters)
    if isinstance(tool.word, Operator):
        a, b = tool.parameters
        value = tool.word.expression.format(a=a, b=b)
        body = []
    else:
        (key,) = tool.parameters
        table = json.dumps(tables[tool.word.word])
        value = f"table[{key}]"
        body = [f"table = {table}", f"if {key} not in table:", f'    raise ValueError("unknown {tool.word.domain}")']
    returned = f'{{"{tool.result_key}": {value}}}' if tool.result_key else value
    return "\n    ".join([f"def {name}({parameters}):", *body, f"return {returned}"])


def is_number(word: Word) -> bool:
    """Whether the tool for `word` returns a number rather than a name."""
    return isinstance(word, Attribute | Operator)


def by_word(tools: Iterable[WorldTool]) -> dict[str, WorldTool]:
    """The tools by the word that they compute."""
    return {tool.word.word: tool for tool in tools}
