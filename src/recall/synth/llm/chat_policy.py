"""A chat endpoint behind the seams of a policy and a renderer, so that it plays episodes through the same `rollout()`.

A chat endpoint takes and gives text, so there are no token ids and no log-probabilities. Here an id is a character, and
the log-probabilities are 0.0, as those of a scripted policy: such trajectories measure tasks, and are never trained on.
The text is that of the dialect `recall`, tools and results in it, so nothing is needed of the endpoint but chat; limits
in tokens are limits in characters here.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from recall.renderer import PLACEHOLDER, default_template, schema_line
from recall.synth.llm.client import Ask, ChatClient, ChatMessage
from recall.tool_calls import format_results, parse_turn
from recall.types import AssistantTurn, Completion, Message, Sampling, ToolSpec

_FIRST = 0x110000
"""Ids from here on are no characters."""
_ROLES = ("system", "user", "assistant")
_OPENING = {role: _FIRST + number for number, role in enumerate(_ROLES)}
_ROLE = {number: role for role, number in _OPENING.items()}
_END = _FIRST + len(_ROLES)
_INVENTED, _, _ = format_results(["\0"]).partition("\n")
"""What a model would write next that goes on to invent the results of its calls."""
_SEEDS = 2**31
"""Endpoints take seeds of 32 bits."""


class TextRenderer:
    """Renders the dialect `recall` with characters as ids; messages begin and end with ids that no text can spell."""

    stop_token_ids = frozenset({_END})
    stop_texts: tuple[str, ...] = ()

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """[n] the system message with the schemas, the other messages, and the opening of a turn."""
        schemas = "\n".join(map(schema_line, tools))
        system = [message.content for message in messages if message.role == "system"]
        head = "\n\n".join([*system, default_template().replace(PLACEHOLDER, schemas)])
        return _said("system", head) + self.reply([m for m in messages if m.role != "system"])

    def reply(self, messages: Sequence[Message]) -> list[int]:
        """[n] results and messages as user turns, and the opening of a turn."""
        ids: list[int] = []
        for role, group in groupby(messages, key=lambda message: message.role):
            texts = [message.content for message in group]
            for text in [format_results(texts)] if role == "tool" else texts:
                ids += _said("user", text)
        return [*ids, _OPENING["assistant"]]

    def parse(self, token_ids: Sequence[int]) -> AssistantTurn:
        """What a turn says."""
        return parse_turn("".join(chr(i) for i in token_ids if i < _FIRST))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text, with the beginnings and ends of messages shown."""
        return "".join(chr(i) if i < _FIRST else f"<|{_ROLE.get(i, 'end')}|>" for i in token_ids)

    def turn(self, text: str) -> list[int]:
        """[n] ids of a turn that says `text`."""
        return [*map(ord, text), _END]


class ChatPolicy:
    """Has a chat endpoint write the turns of episodes."""

    def __init__(self, client: ChatClient, *, max_tokens: int, step: str) -> None:
        """Take the endpoint.

        Args:
            client: asks it.
            max_tokens: of one turn, in the endpoint's own tokens.
            step: what the requests are for, in the file of replies.
        """
        self._client, self._max_tokens, self._step = client, max_tokens, step

    def begin(self, episode_id: str) -> None:
        """Nothing is kept for an episode."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """The next turn, cut to `sampling.max_tokens` characters.

        Raises:
            EndpointError: the endpoint failed.
            RefusedError: it refuses the conversation.
            SpentError: the budget does not cover it.
        """
        seed = (sampling.seed or 0) % _SEEDS
        messages = tuple(_messages(prompt_ids))
        ask = Ask(messages, sampling.temperature, self._max_tokens, seed, self._step, stop=(_INVENTED,))
        reply = await self._client.ask(ask)
        ids = [*map(ord, reply.text), _END]
        cut = reply.finish_reason == "length" or len(ids) > sampling.max_tokens
        ids = ids[: sampling.max_tokens]
        return Completion(tuple(ids), (0.0,) * len(ids), "length" if cut else "stop")

    def end(self, episode_id: str) -> None:
        """Nothing was kept."""


def _said(role: str, text: str) -> list[int]:
    return [_OPENING[role], *map(ord, text), _END]


def _messages(token_ids: Sequence[int]) -> list[ChatMessage]:
    """The messages that ids say; a last one that was only opened is left out."""
    messages: list[Mapping[str, str]] = []
    role, text = "", ""
    for i in token_ids:
        if i in _ROLE:
            role, text = _ROLE[i], ""
        elif i == _END:
            messages.append({"role": role, "content": text})
        else:
            text += chr(i)
    return messages
