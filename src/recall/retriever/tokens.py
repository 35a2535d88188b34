"""The words that a sparse index knows a text by. The settings are kept with the index, and queries go through the same.

The steps are those of `bm25s.tokenize`: lower case, words by a pattern, stop words out, stems. FlashRAG's server stems
its corpus but not its queries, which costs 9 to 13 points of recall@5; here there is one function for both.
"""

import re
import threading
from collections.abc import Callable
from typing import Any, Literal

from pydantic import field_validator

from recall.config import Settings

_REMEMBERED = 1 << 20
"""Words whose stems are remembered, so that odd queries cannot fill the memory."""

StopWords = Literal["english", "none"] | tuple[str, ...]
"""Words that say nothing: bm25s's English ones, none, or a list."""


def written_out(stopwords: StopWords) -> tuple[str, ...]:
    """Stop words as a list."""
    if not isinstance(stopwords, str):
        return stopwords
    from bm25s.stopwords import STOPWORDS_EN

    return tuple(STOPWORDS_EN) if stopwords == "english" else ()


class TokenizerSettings(Settings):
    """How a text is cut into words."""

    pattern: str = r"(?u)\b\w\w+\b"
    """A regular expression of what a word is."""
    lower: bool = True
    """Whether case is ignored."""
    stopwords: StopWords = "english"
    """Words that are left out: bm25s's English ones, none, or a list."""
    stemmer: str = "english"
    """A Snowball stemmer of PyStemmer, such as english, german, french; or none."""

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups:
            raise ValueError("groups are not accepted; write (?:…) for (…)")
        return pattern

    def resolved(self) -> "TokenizerSettings":
        """The same with its stop words written out, so that another version of bm25s changes nothing.

        Raises:
            ConfigError: there is no such stemmer.
        """
        _stemmer(self.stemmer)
        return self.model_copy(update={"stopwords": written_out(self.stopwords)})


class Tokenizer:
    """Cuts texts into stems; safe to use from many threads."""

    def __init__(self, settings: TokenizerSettings) -> None:
        """Take settings that are `resolved`."""
        self.settings = settings
        """How it cuts."""
        self._find = re.compile(settings.pattern).findall
        self._stems = _Stems(_stemmer(settings.stemmer))
        self._stems.update(dict.fromkeys(settings.stopwords, ""))

    def words(self, text: str) -> list[str]:
        """The stems of a text, in order, repeated as they are repeated."""
        found = self._find(text.lower() if self.settings.lower else text)
        return list(filter(None, map(self._stems.__getitem__, found)))


class _Stems(dict[str, str]):
    """The stems of words, each made once; those that are left out have an empty one."""

    def __init__(self, stem: Callable[[str], str]) -> None:
        self._stem = stem
        self._lock = threading.Lock()  # a PyStemmer object serves one thread at a time

    def __missing__(self, word: str) -> str:
        with self._lock:
            stem = self._stem(word)
        if len(self) < _REMEMBERED:
            self[word] = stem
        return stem


def _stemmer(name: str) -> Any:
    if name == "none":
        return str
    import Stemmer

    from recall.errors import ConfigError

    if name not in Stemmer.algorithms():
        raise ConfigError(
            f"--tokenizer.stemmer: {name!r} is no stemmer; accepted: none, {', '.join(Stemmer.algorithms())}"
        )
    return Stemmer.Stemmer(name).stemWord
