"""What every model's own format has in common: thinking before the rest, and the turn that comes of its parts."""

from collections.abc import Sequence

from recall.answers import extract_boxed
from recall.types import AssistantTurn, MalformedCall, ToolCall


def without_thinking(text: str, call_mark: str, tags: tuple[str, str] = ("<think>", "</think>")) -> tuple[str, str]:
    """What is thought at the beginning of a turn, and the rest.

    Thinking lasts to the end where its closing tag is missing; where only the opening one is missing (a chat template
    may have written it), the text before the closing one is thinking unless a call came first.
    """
    opening, closing = tags
    start = text.lstrip()
    if start.startswith(opening):
        thought, _, rest = start.removeprefix(opening).partition(closing)
        return thought.strip(), rest
    thought, closed, rest = text.partition(closing)
    if closed and call_mark not in thought:
        return thought.strip(), rest
    return "", text


def turn_of(text: str, thinking: str, said: Sequence[str], calls: Sequence[ToolCall | MalformedCall]) -> AssistantTurn:
    """The turn of its parts; parts of what is said are joined by a line break, so that no two grow together."""
    content = "\n".join(part.strip() for part in said if part.strip())
    return AssistantTurn(text, thinking, tuple(calls), extract_boxed(content), content)


def made(call: ToolCall | str, source: str) -> ToolCall | MalformedCall:
    """The call, or `source` as a malformed one with the problem that stands in its place."""
    return call if isinstance(call, ToolCall) else MalformedCall(source.strip(), call)
