"""Text of a model or a tool made safe to show: no control character reaches a terminal or a page."""

import html
import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Write out every control character, bidirectional override and lone surrogate of `text`.

    New lines and tabs stay, and CR LF becomes LF. C0 controls become their Unicode pictures (ESC is `␛`), the others
    their escape, as in `\u202e`.
    """
    return _HIDDEN.sub(_picture, text.replace("\r\n", "\n"))


def escape(text: object) -> str:
    """`text` as HTML text or a quoted attribute: visible, and with nothing in it that is markup."""
    return html.escape(visible(str(text)))


def _picture(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}"
