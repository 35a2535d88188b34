"""The dialect `research`: one tool, whose query stands between `<search>` tags, with results in `<result>` tags."""

import re
from collections.abc import Sequence

from recall.answers import extract_boxed
from recall.types import AssistantTurn, MalformedCall, ToolCall

SEARCH = "wikipedia_search"
"""The tool that the dialect `research` calls; its argument is `query`."""
SEARCH_END = "</search>"
"""Ends a turn of the dialect `research`: the result follows within the same message."""

_THINK = re.compile(r"<think>|</think>")
_SEARCH_TAG = re.compile(r"<(?=\s*/?\s*(?:think|search|result|answer)\b)", re.IGNORECASE)


def parse_search_turn(text: str) -> AssistantTurn:
    r"""Parse one sampled turn of the dialect `research`. Never raises.

    The first `</search>` ends the turn, within thinking too: what stands between it and the `<search>` before it is the
    query, and whatever follows is ignored. A turn without one ends the episode, and its answer is the last `\boxed{}`
    outside thinking. Thinking lasts to the end where `</think>` is missing; where only `<think>` is missing, because it
    stands before an earlier search, the text before `</think>` is thinking.

    Args:
        text: the decoded turn without its stop token.
    """
    before, end, _ = text.partition(SEARCH_END)
    thinking, visible = _thoughts(before)
    if not end:
        return AssistantTurn(text=text, thinking=thinking, answer=extract_boxed(visible), content=visible.strip())
    _, start, query = before.rpartition("<search>")
    call: ToolCall | MalformedCall
    if not start:
        call = MalformedCall(before.strip(), "there is no <search> before </search>")
    elif not query.strip():
        call = MalformedCall("", "empty: write what to look for between <search> and </search>")
    else:
        call = ToolCall(SEARCH, {"query": query.strip()})
    return AssistantTurn(text=text, thinking=thinking, calls=(call,))


def format_search(query: str) -> str:
    """Write a search as a model should write it; `parse_search_turn` reads the same query back."""
    return f"<search> {query} {SEARCH_END}"


def format_search_results(results: Sequence[str]) -> str:
    """Write the results of one turn. No text in them is a tag of the dialect: the `<` of one becomes `&lt;`."""
    return "".join(f" <result>\n{_SEARCH_TAG.sub('&lt;', result)}\n</result>" for result in results)


def _thoughts(text: str) -> tuple[str, str]:
    """What is thought in a turn of the dialect `research`, and what is said outside of it."""
    thoughts: list[str] = []
    visible: list[str] = []
    position, thinking = 0, False
    for tag in _THINK.finditer(text):
        part = text[position : tag.start()]
        if tag[0] == "<think>" and not thinking:
            visible.append(part)
            thinking = True
        elif tag[0] == "</think>" and not thinking and not thoughts:
            thoughts += [*visible, part]
            visible.clear()
        elif tag[0] == "</think>" and not thinking:
            visible.append(part)
        else:
            thoughts.append(part)
            thinking = tag[0] == "<think>"
        position = tag.end()
    (thoughts if thinking else visible).append(text[position:])
    return "\n".join(thought.strip() for thought in thoughts if thought.strip()), "\n".join(visible)
