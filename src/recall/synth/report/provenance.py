"""Where an argument of a reference program comes from: the question, an earlier observation, or the tool's own schema.

Values are compared as a model would copy them: numbers by value, days in any of their spellings, and everything else
word for word, whatever the case, the punctuation, and whether words are joined by spaces, hyphens or underscores.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from recall import answers

Source = Literal["given", "schema", "nowhere"]

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?")
_ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_WRITTEN_DAY = re.compile(
    r"\d{1,2}(?:st|nd|rd|th)? (?:of )?[A-Za-z]{3,9}\.?,? \d{4}|[A-Za-z]{3,9}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4}"
)
_JOINTS = re.compile(r"[^\w.]+|_|\.(?!\d)|(?<!\d)\.")


class Known:
    """What a policy has read so far."""

    def __init__(self, question: str) -> None:
        self._words = " "
        self._numbers: set[Decimal] = set()
        self._days: set[str] = set()
        self.read(question)

    def read(self, text: str) -> None:
        """Add what was just read."""
        self._words += f"{_folded(text)} "
        self._numbers.update(_numbers(text))
        self._days.update(_ISO_DAY.findall(text))
        self._days.update(str(day) for found in _WRITTEN_DAY.findall(text) if (day := answers.value_of(found, "date")))

    def holds(self, value: Any) -> bool:
        """Whether a literal could have been copied from what was read."""
        if isinstance(value, bool) or value is None:
            return f" {json.dumps(value)} " in self._words
        if isinstance(value, int | float):
            return Decimal(str(value)) in self._numbers
        text = str(value)
        if _ISO_DAY.fullmatch(text):
            return text in self._days
        number = list(_numbers(text)) if _NUMBER.fullmatch(text) else []
        return f" {_folded(text)} " in self._words or bool(number and number[0] in self._numbers)


def source_of(value: Any, known: Known, schema: Any) -> Source:
    """Where a literal comes from.

    Args:
        value: a JSON scalar.
        known: what was read before the call.
        schema: of the parameter that it is passed for.
    """
    if known.holds(value):
        return "given"
    if value is None or isinstance(value, bool) or any(value == offered for offered in _offered(schema)):
        return "schema"  # whether to set a switch is said in words that no copy of the value shows
    return "nowhere"


def _offered(schema: Any) -> Iterator[Any]:
    """The values that a schema names itself, at any depth."""
    if isinstance(schema, Mapping):
        yield from schema.get("enum", ())
        yield from schema.get("examples", ())
        yield from (schema[key] for key in ("const", "default", "minimum", "maximum") if key in schema)
        for key in ("items", "anyOf", "oneOf", "allOf"):
            yield from _offered(schema.get(key))
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for option in schema:
            yield from _offered(option)


def _numbers(text: str) -> Iterator[Decimal]:
    for found in _NUMBER.findall(text):
        try:
            yield Decimal(found.replace(",", ""))
        except InvalidOperation:
            continue


def _folded(text: str) -> str:
    return " ".join(_JOINTS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).split())
