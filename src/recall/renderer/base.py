"""The seam between messages and the token ids of one model."""

from collections.abc import Sequence
from typing import Protocol

from recall.types import AssistantTurn, Message, ToolSpec


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
