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
from recall.renderer.research import ResearchRenderer
from recall.renderer.templates import PLACEHOLDER, QUESTION, default_template, read_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "PLACEHOLDER",
    "QUESTION",
    "ChatMLRenderer",
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
        dialect: `recall` or `research`; further ones are entries of `_DIALECTS`.
        template_path: a file that replaces ReCall's own system message. For `recall` it holds `{func_schemas}`; for
            `research` it may hold `{question}`, and is then the whole prompt.

    Raises:
        ConfigError: the dialect is unknown, or the tokenizer or the template will not do.
    """
    make = _DIALECTS.get(dialect)
    if make is None:
        soon = " is coming and not there yet" if dialect in _COMING else " is unknown"
        raise ConfigError(f"renderer.dialect: {dialect!r}{soon}; accepted: {', '.join(map(repr, sorted(_DIALECTS)))}")
    return make(tokenizer, template_path)


def _recall(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    template = None if template_path is None else read_template(template_path)
    if template is not None and PLACEHOLDER not in template:
        raise ConfigError(f"template {template_path}: no {PLACEHOLDER} in it, so the model would not see its tools")
    return ChatMLRenderer(tokenizer, template=template)


def _research(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    return ResearchRenderer(tokenizer, template=None if template_path is None else read_template(template_path))


_DIALECTS: Mapping[str, Callable[["PreTrainedTokenizerFast", Path | None], Renderer]] = {
    "recall": _recall,
    "research": _research,
}
_COMING = ("native",)
