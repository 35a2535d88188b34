r"""What an answer is and when two are the same: `\boxed{}` extraction, SQuAD normalisation, EM, F1, typed equality.

Everything here takes any string and never raises. `normalize`, `exact_match` and `f1` are the measures of the question
answering literature, kept exactly so that numbers compare; `equal` is the stricter, typed comparison that ReCall's own
rewards and success rates use. Nothing here judges by meaning: "NYC" is not "New York City".
"""

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import date
from decimal import Context, Decimal

from recall.types import AnswerKind, AnswerType

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX_OPEN = re.compile(r"\\boxed\s*\{")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})


def extract_boxed(text: str) -> str | None:
    r"""The content, stripped, of the last `\boxed{…}`; None when there is none or its braces do not close.

    Braces nest, and an escaped brace (`\{`) is a character. Of boxes within boxes the innermost last one counts.
    """
    position = len(text)
    while (position := text.rfind("\\boxed", 0, position)) >= 0:
        opening = _BOX_OPEN.match(text, position)
        if opening is None:
            continue
        depth = 1
        for brace in _BRACE.finditer(text, opening.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                return text[opening.end() : brace.start()].strip()
        return None
    return None


def normalize(text: str) -> str:
    """Lower-case, drop ASCII punctuation and the articles a, an, the, and collapse white space.

    Source: SQuAD's evaluation, Rajpurkar et al. 2016, arXiv:1606.05250.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, accepted: Sequence[str]) -> bool:
    """Whether the normalised prediction is one of the normalised accepted answers.

    Source: SQuAD, arXiv:1606.05250.
    """
    return normalize(prediction) in {normalize(answer) for answer in accepted}


def f1(prediction: str, accepted: Sequence[str]) -> float:
    """Token F1 of the normalised prediction against the accepted answer that it matches best, in [0, 1].

    A `yes`, `no` or `noanswer` on either side earns nothing unless both sides are the same: it has no parts.

    Source: SQuAD, arXiv:1606.05250; the closed answers: HotpotQA, Yang et al. 2018, arXiv:1809.09600.
    """
    return max((token_f1(normalize(prediction), normalize(answer)) for answer in accepted), default=0.0)


def token_f1(prediction: str, answer: str) -> float:
    """Token F1 of two texts that are normalised already, in [0, 1]; a closed answer has no parts."""
    if prediction != answer and (prediction in _CLOSED_ANSWERS or answer in _CLOSED_ANSWERS):
        return 0.0
    predicted, wanted = prediction.split(), answer.split()
    common = (Counter(predicted) & Counter(wanted)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def equal(prediction: str, accepted: Sequence[str], kind: AnswerType) -> bool:
    """Whether the prediction has the value of one of the accepted answers; see `value_of` for what is read as what."""
    value = value_of(prediction, kind.kind)
    if value is None:
        return False
    for answer in accepted:
        wanted = value_of(answer, kind.kind)
        if wanted is None:
            continue
        if isinstance(value, Decimal) and isinstance(wanted, Decimal) and kind.kind == "number" and kind.tolerance > 0:
            if abs(_EXACT.subtract(value, wanted)) <= Decimal(repr(kind.tolerance)):
                return True
        elif value == wanted:
            return True
    return False


Item = str | Decimal
"""What the items of a list, set or sequence are compared by."""

Value = Item | bool | date | Counter[Item] | frozenset[Item] | tuple[Item, ...]
"""What answers are compared by; the type depends on the kind, and values of two kinds are never compared."""


def value_of(text: str, kind: AnswerKind) -> Value | None:
    r"""The value that a text says when read as `kind`; None when it says none. A LaTeX wrapper is taken off first.

    - `text`: Unicode NFKC, case folded, without punctuation, articles and extra space; a point, colon, slash or hyphen
      between digits and the minus of a number stay. When nothing is left ("The The", "?"), only case and space are
      folded. Text that reads as a `number` is that number, unless it starts with a needless 0, as codes do.
    - `number`: sign, currency sign ($ € £ ¥ ₹), digits with or without proper thousands commas, fraction, exponent,
      `%`. A per cent sign is decoration: "50%" is 50, never 0.5. No units, words, ranges or fractions such as 1/2.
    - `integer`: a `number` with an integral value; "3.0" is 3.
    - `boolean`: true, yes, false, no.
    - `date`: a day, as 2003-07-12, 2003/7/12, 12 July 2003, 12th of July 2003, July 12, 2003, with English month names
      of three letters or in full. Forms in which day and month can be confused (12/07/2003) are not read.
    - `entity`: a name or a code, letter by letter, never a number: "007" is not "7". Unicode NFKC, folded case, single
      spaces, one form of dash and apostrophe. Invisible characters, the backslash in `\_` and one pair of quotes around
      the whole are left out; other punctuation stays, as part of the code.
    - `list`: a JSON array, or items separated by line breaks, by semicolons, or by commas, brackets and quotes around
      them left out. Order is free, repeats count. Items are numbers where they read as such, else `text`.
    - `set`: written like a `list`. Order is free, and an item counts once however often it is written.
    - `sequence`: written like a `list`. Order and repeats count.
    """
    plain = unwrap(text)
    if kind == "text":
        return _text(plain)
    if kind == "number":
        return _number(plain)
    if kind == "integer":
        number = _number(plain)
        return number if number is not None and number == number.to_integral_value() else None
    if kind == "boolean":
        return _BOOLEANS.get(plain.rstrip(".!").lower())
    if kind == "date":
        return _date(plain)
    if kind == "entity":
        return _entity(plain)
    items = _list(plain)
    if items is None:
        return None
    return Counter(items) if kind == "list" else frozenset(items) if kind == "set" else tuple(items)


def unwrap(text: str) -> str:
    r"""The text without the LaTeX wrappers around the whole of it: `$…$`, `\(…\)`, `\text{…}`, `\mathbf{…}` …"""
    text = text.strip()
    while match := _WRAPPER.fullmatch(text):
        inner = next(group for group in match.groups() if group is not None)
        if not _balanced(inner):
            break
        text = inner.strip()
    return text


_WRAPPER = re.compile(
    r"\$([^$]+)\$|\\\((.*)\\\)|\\\[(.*)\\\]|\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox)\s*\{(.*)\}", re.DOTALL
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*(?:\\?[$€£¥₹]\s*)?(?P<minus>-?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][+-]?[0-9]{1,3})?\s*(?:\\?%)?"
)
_CODE = re.compile(r"[^0-9.]*0[0-9]")
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
_TYPOGRAPHY = _DASHES | dict.fromkeys((0x2018, 0x2019), "'") | dict.fromkeys((0x201C, 0x201D), '"')
_ESCAPED = re.compile(r"\\([_#&%$])")
_VALUED = re.compile(r"((?<=\d)[.:/-](?=\d)|(?<!\w)-(?=\d))")
_MAX_NUMBER_CHARS = 200
_EXACT = Context(prec=2 * _MAX_NUMBER_CHARS)
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
_MONTH_NAMES = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTHS = {name: n for n, full in enumerate(_MONTH_NAMES, start=1) for name in (full, full[:3])} | {"sept": 9}
_DATES = (
    re.compile(r"(?P<year>[0-9]{4})([-/])(?P<month>[0-9]{1,2})\2(?P<day>[0-9]{1,2})"),
    re.compile(r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>[a-z]+)\.?,?\s+(?P<year>[0-9]{4})"),
    re.compile(r"(?P<month>[a-z]+)\.?\s+(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?,?\s+(?P<year>[0-9]{4})"),
)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_ITEMS = json.JSONDecoder(parse_int=str, parse_float=str)


def _text(text: str) -> Item | None:
    number = _number(text)
    if number is not None and not _CODE.match(text):
        return number
    folded = unicodedata.normalize("NFKC", text.translate(_DASHES)).casefold()
    # Odd parts are the punctuation that carries a value: without it 3.14 would equal 314, and -3 would equal 3.
    parts = _VALUED.split(folded)
    parts[::2] = ["".join(char for char in part if not _is_punctuation(char)) for part in parts[::2]]
    return " ".join(_ARTICLES.sub(" ", "".join(parts)).split()) or " ".join(folded.split()) or None


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _number(text: str) -> Decimal | None:
    text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["minus"]):
        return None
    digits = match["whole"].replace(",", "") + (match["fraction"] or "")
    if not any(char.isdigit() for char in digits):
        return None
    return Decimal(match["sign"] + match["minus"] + digits + (match["exponent"] or ""))


def _date(text: str) -> date | None:
    text = text.strip(" .").lower()
    for form in _DATES:
        if match := form.fullmatch(text):
            month = int(match["month"]) if match["month"].isdigit() else _MONTHS.get(match["month"], 0)
            try:
                return date(int(match["year"]), month, int(match["day"]))
            except ValueError:
                return None
    return None


def _entity(text: str) -> str | None:
    # Typography before NFKC, which would turn U+2011 into U+2010, and after, for what it takes apart.
    folded = unicodedata.normalize("NFKC", _ESCAPED.sub(r"\1", text)).translate(_TYPOGRAPHY)
    # Case folding can undo the normal form, and the normal form the folding, so that both are done twice.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", folded.casefold()).casefold())
    folded = " ".join("".join(char for char in folded if unicodedata.category(char) != "Cf").split())
    return _unquoted(folded).strip() or folded or None


def _list(text: str) -> list[Item] | None:
    try:
        items = _ITEMS.decode(text)
        keys = [_item(item) for item in (items if isinstance(items, list) else _written_items(text))]
    except (ValueError, RecursionError):
        keys = [_item(item) for item in _written_items(text)]
    return None if None in keys else [key for key in keys if key is not None]


def _written_items(text: str) -> list[str]:
    """The items of a list that is not JSON."""
    text = text.replace("\\{", "{").replace("\\}", "}").strip()
    if text and _BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
        if not text:
            return []
    # A comma that a space follows separates; only where there is none does every comma ("1,000, 2" has two items).
    for separator in ("\n", ";", ", ", ","):
        if separator in text:
            break
    items = [item.strip() for item in text.rstrip("\n;,").split(separator)]
    if len(items) > 1 and items[-1].lower().startswith("and "):
        items[-1] = items[-1][4:]
    return [_unquoted(item) for item in items]


def _unquoted(text: str) -> str:
    """The text without one pair of straight quotes around the whole."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _item(item: object) -> Item | None:
    if not isinstance(item, str):
        return json.dumps(item, sort_keys=True)
    return _text(unwrap(item))


def _balanced(text: str) -> bool:
    depth = 0
    for brace in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth < 0:
            return False
    return depth == 0
