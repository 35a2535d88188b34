"""The dialect `recall` for ChatML models such as Qwen."""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.renderer.encoder import TextEncoder
from recall.renderer.templates import PLACEHOLDER, default_template
from recall.tool_calls import format_call, format_calls, format_results, parse_turn
from recall.types import AssistantTurn, Message, ToolCall, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

START = "<|im_start|>"
END = "<|im_end|>"


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
        require_chatml(vocabulary)
        self._tokens = TextEncoder(tokenizer)
        template = default_template() if template is None else template
        if PLACEHOLDER not in template:
            raise ConfigError(f"template: no {PLACEHOLDER} in it, so the model would not see its tools")
        self._template = template.split(PLACEHOLDER)
        self._end_id = vocabulary[END]
        eos = tokenizer.eos_token_id
        self.stop_token_ids = frozenset({self._end_id} if eos is None else {self._end_id, int(eos)})
        # The formatter owns the tags; its output around a marker shows them.
        self._results_open, between, self._results_close = format_results(["\0", "\0"]).split("\0")
        self._results_between = between
        opened, closed = format_call(ToolCall("\0", {})).split(json.dumps({"name": "\0", "arguments": {}}))
        self._call_tags = (opened, closed)
        self._heads: OrderedDict[int, tuple[Sequence[ToolSpec], list[int]]] = OrderedDict()
        probe = f"{START}user\n{self._results_open} é{END}"
        if self.decode(self._tokens.trusted(probe)) != probe:
            raise ConfigError("tokenizer: text does not survive encoding and decoding; a byte-level one is needed")

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] ids of the system message with the schemas, the user messages, and the generation prompt.

        System messages go before the template, each followed by a blank line.
        """
        system = [message.content for message in messages if message.role == "system"]
        rest = [message for message in messages if message.role != "system"]
        return self._head(system, tools) + self._turns(rest, opening=f"{END}\n")

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

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that says `text` and makes the calls, stop token included; see `turn`."""
        return self.turn("\n".join(part for part in (text, format_calls(calls)) if part))

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
        glue = f"{START}system\n"
        ids: list[int] = []
        for text in system:
            ids += self._tokens.trusted(glue) + self._tokens.untrusted(text)
            glue = "\n\n"
        ids += self._tokens.trusted(glue + self._template[0])
        for part in self._template[1:]:
            ids += schemas + (self._tokens.trusted(part) if part else [])
        return ids

    def _turns(self, messages: Sequence[Message], opening: str) -> list[int]:
        """Messages as turns after `opening`, trusted text between them merged into single runs.

        What an assistant said before, in a history that came from outside, is a turn of its own, with its calls.
        """
        ids: list[int] = []
        glue = opening
        for role, group in groupby(messages, key=lambda message: message.role):
            if role not in ("user", "tool", "assistant"):
                raise ValueError(f"a message of role {role!r} cannot be rendered here")
            speaker = "user" if role == "tool" else role
            before, between, after = (
                (self._results_open, self._results_between, self._results_close)
                if role == "tool"
                else ("", f"{END}\n{START}{speaker}\n", "")
            )
            glue += f"{START}{speaker}\n{before}"
            for message in group:
                ids += self._tokens.trusted(glue) + self._tokens.untrusted(message.content)
                for call in message.calls:
                    opened, closed = self._call_tags
                    body = format_call(call).removeprefix(opened).removesuffix(closed)
                    ids += self._tokens.trusted("\n" + opened) + self._tokens.untrusted(body)
                    ids += self._tokens.trusted(closed)
                glue = between
            glue = f"{after}{END}\n"
        return ids + self._tokens.trusted(f"{glue}{START}assistant\n")


def require_chatml(vocabulary: Mapping[str, int]) -> None:
    """Raises ConfigError where a token of ChatML is missing."""
    missing = [token for token in (START, END) if token not in vocabulary]
    if missing:
        raise ConfigError(f"tokenizer: no {' and no '.join(missing)} in the vocabulary; a ChatML tokenizer is needed")


def schema_line(tool: ToolSpec) -> str:
    """One tool's schema as the line of JSON that the model reads."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)
