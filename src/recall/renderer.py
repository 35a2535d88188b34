"""Messages to token ids and back, for one dialect of one family of chat models: `recall` and `research` in ChatML.

A renderer only ever appends: the ids of a prompt and of a reply are made once, from text that never changes again, and
what the policy sampled is never encoded. Two kinds of text go in. Trusted text is ours (the template, the tags) and may
hold control tokens. Untrusted text is everybody else's (questions, schemas, results) and never becomes one, whatever it
spells. Which tags mark a call or a result is the business of `recall.tool_calls`.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recall.errors import ConfigError
from recall.tool_calls import (
    SEARCH,
    SEARCH_END,
    format_results,
    format_search_results,
    parse_search_turn,
    parse_turn,
)
from recall.types import AssistantTurn, Message, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PLACEHOLDER = "{func_schemas}"
"""Where a template wants the tool schemas."""
QUESTION = "{question}"
"""Where a template of the dialect `research` that is a whole prompt wants the question."""

_START = "<|im_start|>"
_END = "<|im_end|>"
_REMEMBERED = 2048
"""Texts and runs of ids whose counterpart is remembered."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Renderer(Protocol):
    """Between messages and the token ids of one model."""

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """The tokens that end a sampled turn; a policy stops after any of them."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end a sampled turn as well, with the token that completes one; `policy/stopping.py` sees to it."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] what the policy reads before its first turn, generation prompt included."""

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] what goes after a sampled turn that ended in a stop token, generation prompt included."""

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a sampled turn says; never raises, whatever was sampled."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids, control tokens shown, for people and rewards."""

    def turn(self, text: str) -> list[int]:
        """[n] ids of a turn that says `text`, as a policy would sample it; for texts of ours only."""


class TextEncoder:
    """Encodes trusted and untrusted text with one tokenizer.

    A control token is an added token that is marked special or whose text holds a `<`, such as `<tool_call>`, which
    Qwen adds without marking it. Other added tokens are plain abbreviations, and free for everyone to use.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._backend = tokenizer.backend_tokenizer
        self._trusted: dict[str, list[int]] = {}
        # Episodes of a group share their prompt and often their first turns and replies.
        self._remembered_ids = lru_cache(_REMEMBERED)(self._encode_untrusted)
        self._remembered_text = lru_cache(_REMEMBERED)(self._decode)
        added = self._backend.get_added_tokens_decoder()
        self.control_ids = frozenset(i for i, token in added.items() if token.special or "<" in token.content)
        for i in sorted(self.control_ids):
            self.untrusted(added[i].content)  # a control token that cannot be split is found here, not in mid-run

    def encode(self, text: str) -> list[int]:
        """[n] ids of text of ours, control tokens and all."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def trusted(self, text: str) -> list[int]:
        """`encode`, remembered, so only for text from a fixed set; not to be changed."""
        ids = self._trusted.get(text)
        if ids is None:
            ids = self._trusted[text] = self.encode(text)
        return ids

    def untrusted(self, text: str) -> list[int]:
        """[n] ids of anybody's text, never a control token; the ids decode to the same text.

        A lone surrogate, which JSON can smuggle in and UTF-8 cannot hold, becomes U+FFFD.
        """
        return list(self._remembered_ids(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, control tokens shown."""
        return self._remembered_text(tuple(token_ids))

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=False)
        return text

    def _encode_untrusted(self, text: str) -> tuple[int, ...]:
        if _SURROGATE.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return tuple(self._without_control(text))

    def _without_control(self, text: str) -> list[int]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self.control_ids.isdisjoint(ids):
            return ids
        # Cut every occurrence after its first character. What is left of it can spell a control token of its own (one
        # that lost the match to a longer one), so each piece goes through the same gate.
        spans = [span for i, span in zip(ids, encoding.offsets, strict=True) if i in self.control_ids]
        if any(end - start < 2 for start, end in spans):
            raise ConfigError(f"tokenizer: a control token in {text!r} is a single character and cannot be kept out")
        cuts = [0, *(start + 1 for start, _ in spans), len(text)]
        return [i for start, end in pairwise(cuts) for i in self._without_control(text[start:end])]


class ChatMLRenderer:
    r"""Renders the `recall` dialect for ChatML models such as Qwen.

    Schemas stand in the system message, calls are `<tool_call>` JSON, results `<tool_response>` blocks of a user turn,
    and the answer is in `\boxed{}`.
    """

    stop_texts: tuple[str, ...] = ()

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", *, dialect: str = "recall", template: str | None = None
    ) -> None:
        """Prepare the fixed text.

        Args:
            tokenizer: a fast tokenizer with `<|im_start|>` and `<|im_end|>` in its vocabulary.
            dialect: only `recall`.
            template: the system message, with `{func_schemas}` where the schemas go; None takes ReCall's own.

        Raises:
            ConfigError: the dialect, the tokenizer or the template will not do.
        """
        if dialect != "recall":
            raise ConfigError(f"renderer: ChatMLRenderer writes the dialect 'recall', not {dialect!r}")
        vocabulary = tokenizer.get_vocab()
        _require_chatml(vocabulary)
        self._tokens = TextEncoder(tokenizer)
        template = default_template() if template is None else template
        if PLACEHOLDER not in template:
            raise ConfigError(f"template: no {PLACEHOLDER} in it, so the model would not see its tools")
        self._template = template.split(PLACEHOLDER)
        self._end_id = vocabulary[_END]
        eos = tokenizer.eos_token_id
        self.stop_token_ids = frozenset({self._end_id} if eos is None else {self._end_id, int(eos)})
        # The formatter owns the tags; its output around a marker shows them.
        self._results_open, between, self._results_close = format_results(["\0", "\0"]).split("\0")
        self._results_between = between
        self._heads: OrderedDict[int, tuple[Sequence[ToolSpec], list[int]]] = OrderedDict()
        probe = f"{_START}user\n{self._results_open} é{_END}"
        if self.decode(self._tokens.trusted(probe)) != probe:
            raise ConfigError("tokenizer: text does not survive encoding and decoding; a byte-level one is needed")

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] ids of the system message with the schemas, the user messages, and the generation prompt.

        System messages go before the template, each followed by a blank line.
        """
        system = [message.content for message in messages if message.role == "system"]
        rest = [message for message in messages if message.role != "system"]
        return self._head(system, tools) + self._turns(rest, opening=f"{_END}\n")

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] ids of what follows a sampled turn: results and messages as user turns, and the next opening."""
        return self._turns(messages, opening="\n")

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a sampled turn says; the stop token at its end is no part of the text."""
        if token_ids and token_ids[-1] in self.stop_token_ids:
            token_ids = token_ids[:-1]
        return parse_turn(self.decode(token_ids))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids, control tokens shown."""
        return self._tokens.decode(token_ids)

    def turn(self, text: str) -> list[int]:
        """[n] ids of an assistant turn that says `text`, stop token included, as a policy would sample it.

        For scripts and demonstrations whose text is ours; what a policy sampled is never encoded again.
        """
        return [*self._tokens.encode(text), self._end_id]

    def _head(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> list[int]:
        """Everything up to the end of the system message's text; remembered for a tuple of tools that comes again."""
        if system or not isinstance(tools, tuple):
            return self._encode_head(system, tools)
        known = self._heads.get(id(tools))
        if known is not None and known[0] is tools:
            self._heads.move_to_end(id(tools))
            return known[1]
        ids = self._encode_head(system, tools)
        self._heads[id(tools)] = (tools, ids)  # holding the tuple keeps its id from being used again
        if len(self._heads) > 256:
            self._heads.popitem(last=False)
        return ids

    def _encode_head(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> list[int]:
        schemas = self._tokens.untrusted("\n".join(map(schema_line, tools)))
        glue = f"{_START}system\n"
        ids: list[int] = []
        for text in system:
            ids += self._tokens.trusted(glue) + self._tokens.untrusted(text)
            glue = "\n\n"
        ids += self._tokens.trusted(glue + self._template[0])
        for part in self._template[1:]:
            ids += schemas + (self._tokens.trusted(part) if part else [])
        return ids

    def _turns(self, messages: Sequence[Message], opening: str) -> list[int]:
        """Messages as user turns after `opening`, trusted text between them merged into single runs."""
        ids: list[int] = []
        glue = opening
        for role, group in groupby(messages, key=lambda message: message.role):
            if role not in ("user", "tool"):
                raise ValueError(f"a message of role {role!r} cannot be rendered here; user and tool messages can")
            before, between, after = (
                (self._results_open, self._results_between, self._results_close)
                if role == "tool"
                else ("", f"{_END}\n{_START}user\n", "")
            )
            glue += f"{_START}user\n{before}"
            for message in group:
                ids += self._tokens.trusted(glue) + self._tokens.untrusted(message.content)
                glue = between
            glue = f"{after}{_END}\n"
        return ids + self._tokens.trusted(f"{glue}{_START}assistant\n")


class ResearchRenderer:
    r"""Renders the `research` dialect, which ReSearch-style checkpoints were trained in.

    The policy writes a query between `<search>` tags, its passages follow between `<result>` tags within the same
    message, and the answer is in `\boxed{}`. There is one tool, `wikipedia_search`. The tags are plain text to most
    tokenizers, so those that a result spells are written in a way that is none.
    """

    stop_texts = (SEARCH_END,)

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", *, template: str | None = None) -> None:
        """Prepare the fixed text.

        Args:
            tokenizer: a fast tokenizer, with ChatML's tokens unless the template is a whole prompt.
            template: the system message, or, with `{question}` in it, the whole prompt of a base model, which is then
                given without ChatML; None takes ReCall's own system message.

        Raises:
            ConfigError: the tokenizer or the template will not do.
        """
        template = _own_text("research_prompt.txt") if template is None else template
        if template.count(QUESTION) > 1:
            raise ConfigError(f"template: {QUESTION} stands in it more than once")
        vocabulary = tokenizer.get_vocab()
        self._tokens = TextEncoder(tokenizer)
        self._head = ""
        self._before, whole, self._after = template.partition(QUESTION)
        if not whole:
            _require_chatml(vocabulary)
            self._head = f"{_START}system\n"
            self._before += f"{_END}\n{_START}user\n"
            self._after = f"{_END}\n{_START}assistant\n"
        ends = {tokenizer.eos_token_id, vocabulary.get(_END)} - {None}
        if not ends:
            raise ConfigError(f"tokenizer: no end-of-text token and no {_END}, so no turn would end")
        self.stop_token_ids = frozenset(int(end) for end in ends)
        self._end_id = vocabulary[_END] if not whole else int(tokenizer.eos_token_id or vocabulary[_END])
        # Where the tags are tokens of their own they must be written as trusted text; where they are not, a reply is
        # encoded as a whole, as the published training did, so that `.` and a line break may share a token.
        self._tags_are_tokens = not self._tokens.control_ids.isdisjoint(
            self._tokens.encode(format_search_results([""]))
        )

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] ids of the instruction and the question.

        Raises:
            ConfigError: the task has other tools than the search, or more than a question; the dialect has no words
                for it.
        """
        if others := [tool.name for tool in tools if tool.name != SEARCH]:
            raise ConfigError(f"dialect 'research': has one tool, {SEARCH}; this task has {', '.join(others)}")
        system = "".join(f"{message.content}\n\n" for message in messages if message.role == "system")
        questions = [message.content for message in messages if message.role == "user"]
        if len(questions) != 1 or (system and not self._head):
            raise ConfigError("dialect 'research': takes one question, and a system message only in ChatML")
        glue = [self._head, self._before] if system else [self._head + self._before, ""]
        return [
            *self._tokens.trusted(glue[0]),
            *self._tokens.untrusted(system),
            *self._tokens.trusted(glue[1]),
            *self._tokens.untrusted(questions[0]),
            *self._tokens.trusted(self._after),
        ]

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] ids of the results, which follow a search within the same message."""
        if any(message.role != "tool" for message in messages):
            raise ValueError("only results of tools can be rendered here: an episode of this dialect has one question")
        if not self._tags_are_tokens:
            return self._tokens.untrusted(format_search_results([message.content for message in messages]))
        ids: list[int] = []
        for message in messages:
            # The formatter owns the tags; its output around a marker shows them.
            opening, closing = format_search_results(["\0"]).split("\0")
            content = format_search_results([message.content]).removeprefix(opening).removesuffix(closing)
            ids += self._tokens.trusted(opening) + self._tokens.untrusted(content) + self._tokens.trusted(closing)
        return ids

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a sampled turn says; the stop token at its end is no part of the text."""
        if token_ids and token_ids[-1] in self.stop_token_ids:
            token_ids = token_ids[:-1]
        return parse_search_turn(self.decode(token_ids))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids, control tokens shown."""
        return self._tokens.decode(token_ids)

    def turn(self, text: str) -> list[int]:
        """[n] ids of a turn that says `text`, as a policy would sample it: a search ends with its tag, all else with
        the stop token. For scripts and demonstrations whose text is ours.
        """
        ids = self._tokens.encode(text)
        return ids if text.endswith(SEARCH_END) else [*ids, self._end_id]


def _require_chatml(vocabulary: Mapping[str, int]) -> None:
    missing = [token for token in (_START, _END) if token not in vocabulary]
    if missing:
        raise ConfigError(f"tokenizer: no {' and no '.join(missing)} in the vocabulary; a ChatML tokenizer is needed")


def schema_line(tool: ToolSpec) -> str:
    """One tool's schema as the line of JSON that the model reads."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


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
    template = None if template_path is None else _read_template(template_path)
    if template is not None and PLACEHOLDER not in template:
        raise ConfigError(f"template {template_path}: no {PLACEHOLDER} in it, so the model would not see its tools")
    return ChatMLRenderer(tokenizer, template=template)


def _research(tokenizer: "PreTrainedTokenizerFast", template_path: Path | None) -> Renderer:
    return ResearchRenderer(tokenizer, template=None if template_path is None else _read_template(template_path))


_DIALECTS: Mapping[str, Callable[["PreTrainedTokenizerFast", Path | None], Renderer]] = {
    "recall": _recall,
    "research": _research,
}
_COMING = ("native",)


def default_template() -> str:
    """ReCall's own system message, with `{func_schemas}` in it."""
    return _own_text("prompt.txt")


def _own_text(name: str) -> str:
    return resources.files("recall").joinpath(name).read_text(encoding="utf-8").removesuffix("\n")


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"template {path}: cannot be read: {error}") from error
