"""Values as Python and as Gemma's format write them, in place of JSON: read by hand, so that nothing is ever evaluated.

Python's strings have either quote and backslashes; Gemma's stand between two marks and have no escapes. Objects are
`{key: value}`, keys bare or as strings; lists and tuples are lists; `true` and `True` are the same.
"""

import re
from typing import Any

from recall.tool_calls.values import MAX_DEPTH, finite, integer

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:_\d+)*)?(?:\.\d*)?(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_STRING = re.compile(r"'((?:[^'\\]|\\.)*+)'|\"((?:[^\"\\]|\\.)*+)\"", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_MEANT = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "0": "\0", "b": "\b", "f": "\f", "\n": ""}
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class NotAValueError(ValueError):
    """What stands there is no value; the message says why."""


class Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, at: int = 0, *, quote: str = "") -> None:
        """Begin at a place of a text.

        Args:
            text: what to read.
            at: where.
            quote: the mark on both sides of a string; without one, strings are Python's.
        """
        self.text, self.at, self._quote = text, at, quote

    def found(self, mark: str) -> bool:
        """Whether `mark` comes next, after white space; it is then read."""
        self.at = self._past_space()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def word(self) -> str:
        """The word that comes next, or "" where none does."""
        self.at = self._past_space()
        found = _WORD.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def members(self, close: str, equals: str, depth: int = 0) -> dict[str, Any]:
        """The keys and values up to `close`, each pair held together by `equals`.

        Raises:
            NotAValueError: they cannot be read.
        """
        found: dict[str, Any] = {}
        while not self.found(close):
            key = self._string() if self._string_is_next() else self.word()
            if not key or not self.found(equals):
                raise self._wrong(f"a name and {equals!r} were expected")
            if key in found:
                raise NotAValueError(f'"{key}" is written twice')
            found[key] = self.value(depth + 1)
            if not self.found(","):
                if self.found(close):
                    break
                raise self._wrong(f"',' or {close!r} was expected")
        return found

    def value(self, depth: int = 0) -> Any:
        """The value that comes next.

        Raises:
            NotAValueError: none does, or it is nested too deep.
        """
        if depth > MAX_DEPTH:
            raise NotAValueError(f"nested deeper than {MAX_DEPTH} levels")
        if self._string_is_next():
            return self._string()
        if self.found("{"):
            return self.members("}", ":", depth)
        if self.found("["):
            return self._items("]", depth)
        if not self._quote and self.found("("):
            return self._items(")", depth)
        if word := self.word():
            if word not in _WORDS:
                raise NotAValueError(f"{word!r} is no value; is it a text without its quotes?")
            return _WORDS[word]
        return self._number()

    def _items(self, close: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self.found(close):
            items.append(self.value(depth + 1))
            if not self.found(","):
                if self.found(close):
                    break
                raise self._wrong(f"',' or {close!r} was expected")
        return items

    def _number(self) -> int | float:
        found = _NUMBER.match(self.text, self.at)
        digits = found[0].replace("_", "") if found else ""
        try:
            number = integer(digits) if digits.lstrip("+-").isdigit() else finite(digits)
        except ValueError as fault:
            if any(character.isdigit() for character in digits):
                raise NotAValueError(str(fault)) from None
            raise self._wrong("a value was expected") from None
        self.at += len(found[0]) if found else 0
        return number

    def _string_is_next(self) -> bool:
        self.at = self._past_space()
        return self.text.startswith(self._quote if self._quote else ("'", '"'), self.at)

    def _string(self) -> str:
        if self._quote:
            start = self.at + len(self._quote)
            end = self.text.find(self._quote, start)
            if end < 0:
                raise self._wrong("a text is not closed")
            self.at = end + len(self._quote)
            return self.text[start:end]
        found = _STRING.match(self.text, self.at)
        if found is None:
            raise self._wrong("a text is not closed")
        self.at = found.end()
        return _ESCAPE.sub(_unescaped, found[1] if found[1] is not None else found[2])

    def _past_space(self) -> int:
        space = _SPACE.match(self.text, self.at)
        return space.end() if space else self.at

    def _wrong(self, problem: str) -> NotAValueError:
        return NotAValueError(f"{problem} at character {self.at}")


def _unescaped(found: "re.Match[str]") -> str:
    code = found[1]
    if len(code) > 1:
        return chr(int(code[1:], 16))
    return _MEANT.get(code, found[0])
