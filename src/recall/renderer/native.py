"""The dialect `native`: the model's own chat template, and calls in the format that the model was trained on.

The template is run for what is new only. A prompt is rendered once; what comes after a sampled turn is rendered as the
end of a conversation in which a hole stands for that turn, and taken from behind the token that ended it. What was
sampled stays as it is, so no template can rewrite it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError
from recall.renderer.encoder import TextEncoder
from recall.renderer.marks import HOLE, Marker, marked, unmarked
from recall.renderer.templates import PLACEHOLDER
from recall.tool_calls import FAMILIES, Family, family_of
from recall.types import AssistantTurn, Message, ToolCall, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_THINK = frozenset(("<think>", "</think>", "[THINK]", "[/THINK]"))
"""Tags at which templates cut an assistant's message of a history; a history may hold them."""
_PROBE = ToolSpec(
    "probe_tool",
    "Probes.",
    {"type": "object", "properties": {"word": {"type": "string", "description": "A word."}}, "required": ["word"]},
)
_HOLE_ARGUMENTS = {"probe": HOLE}
_PROBE_CALL = ToolCall("probe_tool", {"word": "probe word"})


class NativeRenderer:
    """Renders with the chat template of the model; see `recall.tool_calls.FAMILIES` for the formats of calls."""

    stop_texts: tuple[str, ...] = ()

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        family: str | None = None,
        template: str | None = None,
        system: str = "",
        options: Mapping[str, Any] | None = None,
        verify: bool = True,
    ) -> None:
        """Find out how the template writes a conversation with tools.

        Args:
            tokenizer: a fast tokenizer.
            family: how calls are written; None finds it in the template.
            template: a chat template in the place of the tokenizer's own.
            system: a system message in front of those of every conversation. With `{func_schemas}` in it the schemas
                stand there, and the template is not told of the tools.
            options: what the template takes beside the conversation, such as `enable_thinking`.
            verify: refuse a template that does not do what the renderer needs of it. Without it, faults show later.

        Raises:
            ConfigError: there is no chat template, no known format in it, or it does not show tools, calls or results.
        """
        self._tokenizer = tokenizer
        self._template = template or _own_template(tokenizer)
        found = family_of(self._template) if family is None else FAMILIES.get(family)
        if found is None:
            known = ", ".join(f"{one.name} ({one.models})" for one in FAMILIES.values())
            what = "the chat template writes calls in no known format" if family is None else f"no family {family!r}"
            raise ConfigError(f"dialect 'native': {what}; known: {known}. The dialect 'recall' needs none")
        self.family: Family = found
        self._system, self._options = system, dict(options or {})
        self._tokens = TextEncoder(tokenizer)
        self._marker = Marker(self._tokens.control_texts)
        self._ids = lru_cache(2048)(self._encode)
        self._arguments_as_text = False
        vocabulary = tokenizer.get_vocab()
        self._ends = [token for token in self.family.ends if token in vocabulary]
        first = self._ends[0] if self._ends else ""
        if closing := self._end_of_answer():
            self._ends = list(dict.fromkeys([*self._ends, closing]))
        if not self._ends:
            raise ConfigError("dialect 'native': the chat template ends an assistant's message in no control token")
        self._cuts = [*self._ends, *(token for token in self.family.replaced if token in vocabulary)]
        self._end_id = vocabulary[closing or self._ends[0]]
        self._call_end = first or self._ends[0]
        eos = tokenizer.eos_token_id
        self.stop_token_ids = frozenset(
            {vocabulary[token] for token in self._ends} | (set() if eos is None else {int(eos)})
        )
        self._arguments_as_text = not self._calls_round_trip()
        if verify:
            self._verify()

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] ids of the conversation and the generation prompt; histories with an assistant's messages too."""
        return list(self._ids(self._render(messages, tools)))

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] ids of what follows a sampled turn: results and messages as the template writes them.

        Raises:
            ConfigError: the template refuses them, or writes nothing that could end the turn before them.
        """
        text = self._after_a_hole(messages)
        after = text[text.rfind(HOLE) + 1 :]
        ends = [(at, cut) for cut in self._cuts if (at := after.find(cut)) >= 0]
        if HOLE not in text or not ends:
            raise ConfigError("dialect 'native': the chat template ends no turn before the messages that follow it")
        at, cut = min(ends)
        return list(self._ids(after[at + len(cut) :]))

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a sampled turn says; the stop token at its end is no part of the text."""
        if token_ids and token_ids[-1] in self.stop_token_ids:
            token_ids = token_ids[:-1]
        return self.family.parse(self.decode(token_ids))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids, control tokens shown."""
        return self._tokens.decode(token_ids)

    def turn(self, text: str) -> list[int]:
        """[n] ids of an assistant's turn that is `text`, control tokens and all, stop token included.

        For scripts and demonstrations whose text is ours; what a policy sampled is never encoded again.
        """
        return [*self._tokens.encode(text), self._end_id]

    def call_turn(self, calls: Sequence[ToolCall], text: str = "") -> list[int]:
        """[n] ids of a turn that says `text` and makes the calls, as the template writes it, stop token included.

        Raises:
            ConfigError: the template refuses it, as some do with more than one call.
        """
        question = Message("user", "?")
        prompt = self._render([question], (_PROBE,))
        whole = self._render([question, Message("assistant", text, calls=tuple(calls))], (_PROBE,), generation=False)
        opening = _common(prompt, whole)
        if len(opening) < len(prompt):  # the prompt opens thinking that a history does not show: back to its border
            opening = opening[: max(opening.rfind("\n"), opening.rfind(">"), opening.rfind("]")) + 1]
        written = whole[len(opening) :]
        ends = [(at + len(cut), cut) for cut in self._ends if (at := written.rfind(cut)) >= 0]
        written = written[: max(ends)[0]] if ends else written.rstrip("\n") + (self._call_end if calls else "")
        return list(self._ids(written))

    def _after_a_hole(self, messages: Sequence[Message]) -> str:
        """A conversation that ends in the messages, with a hole for the turn before them.

        Some templates write a single call a turn and any number of results, and some take only ids of their own kind;
        whatever the calls were, they stand in the hole.
        """
        options = []
        for shown in (messages, [replace(message, call_id="") for message in messages]):
            numbered = [replace(m, call_id=self._id(m.call_id, n)) for n, m in enumerate(shown)]
            calls = [ToolCall(m.name or "tool", _HOLE_ARGUMENTS, m.call_id) for m in numbered if m.role == "tool"]
            options.append((calls, numbered))
        options.append((options[1][0][:1], options[1][1]))
        refusal: ConfigError | None = None
        for calls, numbered in options:
            before = Message("assistant", "" if calls else HOLE, calls=tuple(calls))
            try:
                return self._render([Message("user", "?"), before, *numbered], (), bare=True)
            except ConfigError as error:
                refusal = error
        raise refusal or AssertionError

    def _encode(self, text: str) -> tuple[int, ...]:
        plain, spans, splits = unmarked(text)
        ids: list[int] = []
        for start, end in pairwise([0, *splits, len(plain)]):
            inside = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
            ids += self._tokens.mixed(plain[start:end], inside)
        return tuple(ids)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        *,
        generation: bool = True,
        bare: bool = False,
    ) -> str:
        """What the template writes, with marks; `bare` leaves the renderer's own system message out."""
        import jinja2

        if PLACEHOLDER in self._system:
            system, tools = [self._system_with(tools)], ()
        else:
            system = [self._system] if self._system else []
        system = [] if bare else system
        system += [marked(message.content) for message in messages if message.role == "system"]
        said: list[dict[str, Any]] = [{"role": "system", "content": "\n\n".join(system)}] if system else []
        said += [self._message(message) for message in messages if message.role != "system"]
        try:
            text: Any = self._tokenizer.apply_chat_template(
                said,
                tools=[self._schema(tool) for tool in tools] or None,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=generation,
                **self._options,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as fault:
            raise ConfigError(f"dialect 'native': the chat template refuses the conversation: {fault}") from fault
        return str(text)

    def _message(self, message: Message) -> dict[str, Any]:
        if message.role == "assistant":
            content = self._marker.split(message.content, _THINK) if message.content != HOLE else HOLE
            shown: dict[str, Any] = {"role": "assistant", "content": content}
            if message.calls:
                shown["tool_calls"] = [self._called(call, number) for number, call in enumerate(message.calls)]
            return shown
        shown = {"role": message.role, "content": marked(message.content)}
        if message.role == "tool":
            shown["name"] = self._marker.word(message.name or "tool")
            shown["tool_call_id"] = self._id(message.call_id, 0)
        return shown

    def _called(self, call: ToolCall, number: int) -> dict[str, Any]:
        arguments: Any = call.arguments if call.arguments is _HOLE_ARGUMENTS else self._marker.tree(call.arguments)
        if self._arguments_as_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": self._marker.word(call.name), "arguments": arguments}
        return {"type": "function", "id": self._id(call.id, number), "function": function}

    def _id(self, written: str, number: int) -> str:
        """An id that is safe to show; where there is none, of nine characters, which Mistral's templates ask for."""
        return written if written and self._marker.word(written) == written else f"call{number:05d}"

    def _schema(self, tool: ToolSpec) -> dict[str, Any]:
        function = {
            "name": self._marker.word(tool.name),
            "description": marked(tool.description),
            "parameters": self._marker.tree(tool.parameters),
        }
        return {"type": "function", "function": function}

    def _system_with(self, tools: Sequence[ToolSpec]) -> str:
        lines = "\n".join(json.dumps(self._schema(tool), ensure_ascii=False) for tool in tools)
        return self._system.replace(PLACEHOLDER, lines)

    def _end_of_answer(self) -> str:
        """The control token that the template ends an assistant's message with, or ""."""
        conversation = [Message("user", "?"), Message("assistant", HOLE)]
        after = self._render(conversation, (), generation=False).rpartition(HOLE)[2]
        found = [(at, -len(text), text) for text in self._tokens.control_texts if (at := after.find(text)) >= 0]
        return min(found)[2] if found else ""

    def _calls_round_trip(self) -> bool:
        try:
            return self.parse(self.call_turn([_PROBE_CALL])).calls == (_PROBE_CALL,)
        except ConfigError:
            return False

    def _verify(self) -> None:
        """Raises ConfigError where the template does not do what the dialect needs."""
        prompt = self.decode(self.prompt([Message("user", "the probe question")], (_PROBE,)))
        if "the probe question" not in prompt or _PROBE.name not in prompt:
            missing = "the question" if "the probe question" not in prompt else "the tools"
            raise ConfigError(
                f"dialect 'native': the chat template does not show {missing}; bring a template that does, or a system "
                f"prompt with {PLACEHOLDER}, or use the dialect 'recall'"
            )
        if not self._calls_round_trip():
            written = self.decode(self.call_turn([_PROBE_CALL]))
            raise ConfigError(
                f"dialect 'native': the chat template writes a call as {written!r}, which the parser of the family "
                f"{self.family.name!r} does not read"
            )
        results = [Message("tool", f"probe result {n}", name=_PROBE.name) for n in "12"]
        for shown in (results[:1], results):
            text = self.decode(self.reply(shown))
            places = [text.find(message.content) for message in shown]
            if -1 in places or places != sorted(places):
                raise ConfigError(f"dialect 'native': the chat template does not show results of tools: {text!r}")


def _common(one: str, other: str) -> str:
    """What two texts begin with."""
    length = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[:length] if length is not None else min(one, other, key=len)


def _own_template(tokenizer: "PreTrainedTokenizerFast") -> str:
    template: Any = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("tool_use") or template.get("default")
    if not template:
        raise ConfigError(
            "dialect 'native': the tokenizer has no chat template; bring one (.jinja), or use the dialect 'recall'"
        )
    return str(template)
