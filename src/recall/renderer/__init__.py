"""Messages to token ids and back, for one dialect of one family of chat models.

A renderer only ever appends: the ids of a prompt and of a reply are made once, from text that never changes again, and
what the policy sampled is never encoded. Two kinds of text go in. Trusted text is ours (the template, the tags) and may
hold control tokens. Untrusted text is everybody else's (questions, schemas, results) and never becomes one, whatever it
spells. Which tags mark a call or a result is the business of `recall.tool_calls`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.renderer.base import Renderer
from recall.renderer.chatml import ChatMLRenderer, schema_line
from recall.renderer.encoder import TextEncoder
from recall.renderer.native import NativeRenderer
from recall.renderer.research import ResearchRenderer
from recall.renderer.templates import PLACEHOLDER, QUESTION, default_template, read_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "DIALECTS",
    "PLACEHOLDER",
    "QUESTION",
    "ChatMLRenderer",
    "NativeRenderer",
    "Renderer",
    "ResearchRenderer",
    "TextEncoder",
    "build",
    "default_template",
    "schema_line",
]


def build(tokenizer: "PreTrainedTokenizerFast", dialect: str = "recall", template_path: Path | None = None) -> Renderer:
    """The renderer of `dialect` for `tokenizer`.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        dialect: `recall`, `research` or `native`; further ones are entries of `_DIALECTS`.
        template_path: a file in the place of a text of ReCall's or the model's. For `recall` it is the system message
            and holds `{func_schemas}`; for `research` it may hold `{question}`, and is then the whole prompt; for
            `native` it is a chat template where its name ends in `.jinja`, and else a system message.

    Raises:
        ConfigError: the dialect is unknown, or the tokenizer or the template will not do.
    """
    make = _DIALECTS.get(dialect)
    if make is None:
        raise ConfigError(f"renderer.dialect: {dialect!r} is unknown; accepted: {', '.join(map(repr, DIALECTS))}")
    return make(tokenizer, template_path)


def _recall(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    template = None if template_path is None else read_template(template_path)
    if template is not None and PLACEHOLDER not in template:
        raise ConfigError(f"template {template_path}: no {PLACEHOLDER} in it, so the model would not see its tools")
    return ChatMLRenderer(tokenizer, template=template)


def _research(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    return ResearchRenderer(tokenizer, template=None if template_path is None else read_template(template_path))


def _native(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    if template_path is None:
        return NativeRenderer(tokenizer)
    text = read_template(template_path)
    if template_path.suffix in (".jinja", ".jinja2"):
        return NativeRenderer(tokenizer, template=text)
    return NativeRenderer(tokenizer, system=text)


_DIALECTS: Mapping[str, Callable[["PreTrainedTokenizerFast", Path | None], Renderer]] = {
    "native": _native,
    "recall": _recall,
    "research": _research,
}

DIALECTS = tuple(_DIALECTS)
"""The names of the dialects."""
