"""Marks around text of anybody's on its way through a chat template, so that it is known again in what comes out.

A chat template is a program: it trims texts, writes them as JSON, cuts them at tags. So texts go in with a mark before
and after them, and these come out where the text did. Marks are noncharacters of Unicode, which no text may hold: those
that one holds become U+FFFD, like lone surrogates.
"""

import re
from collections.abc import Mapping
from typing import Any

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Around a text."""
SPLIT = "\ufdd2"
"""Within a text: no token may reach across."""
WORD = "\ufdd4"
"""Behind a word that is anybody's: it does not change where templates sort the word to, as one before it would."""
HOLE = "\ufdd3"
"""Stands in for what a policy has sampled."""

_REFUSED = re.compile("[\ud800-\udfff\ufdd0-\ufdd4]")
_MARK = re.compile("[\ufdd0-\ufdd2\ufdd4]")
_TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))
_WORD = re.compile(r"[A-Za-z0-9_.\-]*")
_LAST_WORD = re.compile(r"[A-Za-z0-9_.\-]*\Z")


def clean(text: str) -> str:
    """The text without what no text may hold."""
    if not _REFUSED.search(text):
        return text
    return _REFUSED.sub("\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def marked(text: str) -> str:
    """The text between marks, the space around it left outside so that a template may trim it."""
    text = clean(text)
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{OPEN}{core}{CLOSE}{text[start + len(core) :]}"


def unmarked(text: str) -> tuple[str, list[tuple[int, int]], list[int]]:
    """What a template wrote, without the marks.

    Returns:
        The text; the spans of it that are anybody's, in order; and the places that no token may reach across.
    """
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    splits: list[int] = []
    length, began, position = 0, -1, 0
    for mark in _MARK.finditer(text):
        parts.append(text[position : mark.start()])
        length += mark.start() - position
        position = mark.end()
        if mark[0] == WORD and began < 0 and (word := _LAST_WORD.search(parts[-1])):
            spans.append((length - len(word[0]), length))
        elif mark[0] == SPLIT:
            splits.append(length)
        elif mark[0] == OPEN and began < 0:
            began = length
        elif mark[0] == CLOSE and began >= 0:
            spans.append((began, length))
            began = -1
    parts.append(text[position:])
    length += len(text) - position
    if began >= 0:  # a template that cut the text cut its closing mark off: all that follows is taken for the text
        spans.append((began, length))
    return "".join(parts), spans, splits


class Marker:
    """Marks what goes into chat templates for one vocabulary of control tokens."""

    def __init__(self, control_texts: frozenset[str]) -> None:
        self._all = "\0".join(control_texts)
        longest_first = sorted((text for text in control_texts if len(text) > 1), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def word(self, text: str) -> str:
        """A name or another short text that a template may compare or sort by, marked only where it could be a part of
        a control token.
        """
        if not _WORD.fullmatch(text):
            return marked(text)
        return text + WORD if text and text in self._all else text

    def tree(self, value: Any, key: str = "") -> Any:
        """A JSON value with its keys and texts marked; the names of JSON's types, which templates compare, are not."""
        if isinstance(value, str):
            return value if key == "type" and value in _TYPES else self.word(value)
        if isinstance(value, Mapping):
            return {self.word(str(name)): self.tree(item, str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item, key) for item in value]
        return value

    def split(self, text: str, kept: frozenset[str] = frozenset()) -> str:
        """A text that templates cut at its tags: control tokens that it spells are broken, those of `kept` are not."""
        return self._spelled.sub(lambda m: m[0] if m[0] in kept else m[0][0] + SPLIT + m[0][1:], clean(text))
