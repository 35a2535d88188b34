"""The dialect `research`, which ReSearch-style checkpoints were trained in."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.renderer.chatml import END, START, require_chatml
from recall.renderer.encoder import TextEncoder
from recall.renderer.templates import QUESTION, own_text
from recall.tool_calls import SEARCH, SEARCH_END, format_search, format_search_results, parse_search_turn
from recall.types import AssistantTurn, Message, ToolCall, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


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
        template = own_text("research_prompt.txt") if template is None else template
        if template.count(QUESTION) > 1:
            raise ConfigError(f"template: {QUESTION} stands in it more than once")
        vocabulary = tokenizer.get_vocab()
        self._tokens = TextEncoder(tokenizer)
        self._head = ""
        self._before, whole, self._after = template.partition(QUESTION)
        if not whole:
            require_chatml(vocabulary)
            self._head = f"{START}system\n"
            self._before += f"{END}\n{START}user\n"
            self._after = f"{END}\n{START}assistant\n"
        ends = {tokenizer.eos_token_id, vocabulary.get(END)} - {None}
        if not ends:
            raise ConfigError(f"tokenizer: no end-of-text token and no {END}, so no turn would end")
        self.stop_token_ids = frozenset(int(end) for end in ends)
        self._end_id = vocabulary[END] if not whole else int(tokenizer.eos_token_id or vocabulary[END])
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

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that says `text` and searches; see `turn`.

        Raises:
            ValueError: there is more than one call, or it is no search; the dialect has no words for it.
        """
        if len(calls) != 1 or calls[0].name != SEARCH:
            raise ValueError("a turn of the dialect 'research' makes one search and no other call")
        return self.turn(text + format_search(str(calls[0].arguments.get("query", ""))))
