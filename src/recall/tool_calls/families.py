"""The formats in which families of models write calls, and how a chat template shows which one it is."""

from collections.abc import Callable
from dataclasses import dataclass

from recall.tool_calls import deepseek, gemma, harmony, llama, mistral, xml
from recall.tool_calls.recall import parse_turn
from recall.types import AssistantTurn


@dataclass(frozen=True, slots=True)
class Family:
    """One way to write calls."""

    name: str
    """What recipes call it."""
    models: str
    """Who writes it, for people."""
    marks: tuple[str, ...]
    """A chat template that spells one of them is of this family, unless one before it is found first."""
    parse: Callable[[str], AssistantTurn]
    """What a turn says, decoded without its stop token. Never raises."""
    ends: tuple[str, ...]
    """The tokens that end a turn, so far as the tokenizer has them; the first that it has ends a turn with calls."""
    replaced: tuple[str, ...] = ()
    """Tokens that a template writes at the end of a turn in the place of the one that was sampled."""


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("deepseek", "DeepSeek V3, R1, V3.1", (deepseek.CALLS,), deepseek.parse, (deepseek.END,)),
        Family(
            "harmony",
            "GPT-OSS",
            ("<|channel|>",),
            harmony.parse,
            ("<|call|>", "<|return|>"),
            ("<|end|>",),
        ),
        Family("mistral", "Mistral, Magistral, Devstral", (mistral.CALLS,), mistral.parse, ("</s>",)),
        Family(
            "gemma",
            "FunctionGemma, Gemma 4",
            ("<start_function_call>", "<|tool_call>"),
            gemma.parse,
            ("<start_function_response>", "<|tool_response>", "<end_of_turn>", "<turn|>"),
        ),
        Family("qwen3_coder", "Qwen3-Coder, Qwen3.5", ("<function=",), xml.parse, ("<|im_end|>", "<|endoftext|>")),
        Family(
            "llama",
            "Llama 3.1, 3.2, 3.3",
            ("<|python_tag|>", "<|eot_id|>"),
            llama.parse,
            ("<|eom_id|>", "<|eot_id|>", "<|end_of_text|>"),
        ),
        Family("hermes", "Qwen2.5, Qwen3, QwQ, Hermes", ("<tool_call>",), parse_turn, ("<|im_end|>", "<|endoftext|>")),
    )
}
"""By name. The order is that in which a chat template is asked for their marks."""


def family_of(template: str) -> Family | None:
    """The family whose marks the chat template spells; None where there is none."""
    return next((family for family in FAMILIES.values() if any(mark in template for mark in family.marks)), None)
