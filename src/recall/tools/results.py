"""What a model is shown of a tool's result: the value as it is, cut in the middle where it is too long."""

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def show(result: Any, limit_chars: int) -> str:
    """The text of a result.

    Args:
        result: a JSON value. A string is shown as it is, any other value as JSON; `0`, `false`, `[]`, `""` and `null`
            are results like all others.
        limit_chars: the longest text that is shown whole.

    Raises:
        TypeError, ValueError: `result` is no JSON value.
    """
    return cut(_encodable(as_text(result)), limit_chars)


def as_text(result: Any) -> str:
    """A string as it is, any other JSON value as JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def cut(text: str, limit_chars: int) -> str:
    """`text` with its middle replaced by a note of how much is gone, where it is longer than `limit_chars`.

    The note itself is not counted, so the outcome can exceed the limit by the length of the note.
    """
    gone = len(text) - limit_chars
    if gone <= 0:
        return text
    head = (limit_chars + 1) // 2
    tail = limit_chars - head
    return f"{text[:head]}[… {gone} characters cut …]{text[len(text) - tail :]}"


def _encodable(text: str) -> str:
    """`text` with lone surrogates, which JSON can spell and no file or tokenizer can hold, as U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
