"""Tokenizers with the control tokens of families of models, and chat templates in their formats.

No hub can be reached from the tests. The templates in `chat_templates/` are written for them: each lays out a
conversation as the family's own does, tag by tag, and makes the same demands of it, in other words.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from fakes import byte_tokenizer, wrapped

TEMPLATES = Path(__file__).parent / "chat_templates"
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
RESULTS = ("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]")
BAR = "\uff5c"
DEEPSEEK = tuple(
    f"<{BAR}{name}{BAR}>"
    for name in (
        "begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant", "tool▁sep", "tool▁calls▁begin", "tool▁calls▁end",
        "tool▁call▁begin", "tool▁call▁end", "tool▁outputs▁begin", "tool▁outputs▁end", "tool▁output▁begin",
        "tool▁output▁end",
    )
)  # fmt: skip
HARMONY = tuple(f"<|{name}|>" for name in ("start", "end", "message", "channel", "constrain", "return", "call"))


def gemma(opening: str, closing: str, *names: str) -> tuple[str, ...]:
    return tuple(mark.format(name) for name in names for mark in (opening, closing))


@dataclass(frozen=True)
class Model:
    """What stands in for a model of one family."""

    family: str
    special: tuple[str, ...]
    eos: str
    bos: str = ""
    added: tuple[str, ...] = ()
    parallel: bool = True
    """Whether its template writes several calls in one turn."""


MODELS = {
    "qwen2_5": Model("hermes", CHATML, "<|im_end|>", added=TAGS[:4]),
    "qwen3": Model("hermes", CHATML, "<|im_end|>", added=TAGS),
    "qwen3_coder": Model("qwen3_coder", CHATML, "<|im_end|>", added=TAGS),
    "llama3": Model("llama", (*LLAMA, "<|python_tag|>"), "<|eot_id|>", "<|begin_of_text|>", parallel=False),
    "llama3_python": Model("llama", (*LLAMA, "<|python_tag|>"), "<|eot_id|>", "<|begin_of_text|>", parallel=False),
    "mistral_v3": Model("mistral", (*MISTRAL, *RESULTS[:2]), "</s>", "<s>"),
    "mistral_v11": Model("mistral", (*MISTRAL, *RESULTS), "</s>", "<s>"),
    "function_gemma": Model(
        "gemma",
        (
            "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<escape>",
            *gemma("<start_{}>", "<end_{}>", "function_call", "function_response", "function_declaration"),
        ),
        "<eos>",
        "<bos>",
    ),
    "gemma4": Model(
        "gemma",
        ("<bos>", "<eos>", '<|"|>', *gemma("<|{}>", "<{}|>", "turn", "tool_call", "tool_response", "tool", "channel")),
        "<eos>",
        "<bos>",
    ),
    "deepseek_v3": Model("deepseek", DEEPSEEK, DEEPSEEK[1], DEEPSEEK[0], added=("<think>", "</think>")),
    "deepseek_v3_1": Model("deepseek", DEEPSEEK, DEEPSEEK[1], DEEPSEEK[0], added=("<think>", "</think>")),
    "gpt_oss": Model("harmony", HARMONY, "<|return|>", parallel=False),
}  # fmt: skip
"""By the name of the template."""


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's control tokens and its chat template."""
    model = MODELS[name]
    added = [AddedToken(text, special=False, normalized=False) for text in model.added]
    tokens = {"eos_token": model.eos} | ({"bos_token": model.bos} if model.bos else {})
    made = wrapped(byte_tokenizer(model.special, added), **tokens)
    made.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")
    return made
