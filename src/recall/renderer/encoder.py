"""Encodes text with one tokenizer, and keeps untrusted text from ever becoming a control token."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from recall.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 2048
"""Texts and runs of ids whose counterpart is remembered."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class TextEncoder:
    """Encodes trusted and untrusted text with one tokenizer.

    A control token is an added token that is marked special or whose text holds a `<`, such as `<tool_call>`, which
    Qwen adds without marking it. Other added tokens are plain abbreviations, and free for everyone to use.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._backend = tokenizer.backend_tokenizer
        self._trusted: dict[str, list[int]] = {}
        # Episodes of a group share their prompt and often their first turns and replies.
        self._remembered_ids = lru_cache(_REMEMBERED)(self._encode_untrusted)
        self._remembered_text = lru_cache(_REMEMBERED)(self._decode)
        added = self._backend.get_added_tokens_decoder()
        self.control_ids = frozenset(i for i, token in added.items() if token.special or "<" in token.content)
        self._contents = {i: added[i].content for i in self.control_ids}
        self.control_texts = frozenset(self._contents.values())
        for i in sorted(self.control_ids):
            self.untrusted(added[i].content)  # a control token that cannot be split is found here, not in mid-run

    def encode(self, text: str) -> list[int]:
        """[n] ids of text of ours, control tokens and all."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def trusted(self, text: str) -> list[int]:
        """`encode`, remembered, so only for text from a fixed set; not to be changed."""
        ids = self._trusted.get(text)
        if ids is None:
            ids = self._trusted[text] = self.encode(text)
        return ids

    def untrusted(self, text: str) -> list[int]:
        """[n] ids of anybody's text, never a control token; the ids decode to the same text.

        A lone surrogate, which JSON can smuggle in and UTF-8 cannot hold, becomes U+FFFD.
        """
        return list(self._remembered_ids(text))

    def mixed(self, text: str, untrusted: Sequence[tuple[int, int]]) -> list[int]:
        """[n] ids of text of ours with anybody's in it; no control token has a character of anybody's.

        Where nothing in it spells one, these are the ids of the whole text, as the model's own chat template gives.

        Args:
            text: the whole.
            untrusted: the spans of anybody's text, in order, as characters from and to.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self.control_ids.isdisjoint(ids) or not untrusted:
            return ids
        ends = [end for _, end in untrusted]
        cuts = [0]
        for i, (start, end) in zip(ids, encoding.offsets, strict=True):
            if i not in self.control_ids:
                continue
            # A token that takes the space around it along is judged by what it spells.
            content = self._contents[i]
            begin = max(start, text.find(content, start, end))
            first = bisect_right(ends, begin)
            if first < len(untrusted) and untrusted[first][0] < begin + len(content):
                cuts.append(begin + 1)
        if len(cuts) == 1:
            return ids
        cuts.append(len(text))
        pieces = []
        for start, end in pairwise(cuts):
            spans = [(max(a, start) - start, min(b, end) - start) for a, b in untrusted if a < end and b > start]
            pieces.append(self.mixed(text[start:end], spans))
        return [i for piece in pieces for i in piece]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, control tokens shown."""
        return self._remembered_text(tuple(token_ids))

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=False)
        return text

    def _encode_untrusted(self, text: str) -> tuple[int, ...]:
        if _SURROGATE.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return tuple(self._without_control(text))

    def _without_control(self, text: str) -> list[int]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if self.control_ids.isdisjoint(ids):
            return ids
        # Cut every occurrence after its first character. What is left of it can spell a control token of its own (one
        # that lost the match to a longer one), so each piece goes through the same gate.
        spans = [span for i, span in zip(ids, encoding.offsets, strict=True) if i in self.control_ids]
        if any(end - start < 2 for start, end in spans):
            raise ConfigError(f"tokenizer: a control token in {text!r} is a single character and cannot be kept out")
        cuts = [0, *(start + 1 for start, _ in spans), len(text)]
        return [i for start, end in pairwise(cuts) for i in self._without_control(text[start:end])]
