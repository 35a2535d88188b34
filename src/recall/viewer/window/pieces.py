"""The text of each token of a trajectory, by the tokenizer that the run keeps with its checkpoints."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

Batch = Callable[[Sequence[Sequence[int]]], list[str]]


def find_tokenizer(run: Path) -> Path | None:
    """The tokenizer of a run; None where it keeps none, or the package that reads it is not installed."""
    if find_spec("tokenizers") is None:
        return None
    found = [path for depth in ("", "*/", "*/*/") for path in sorted(run.glob(f"{depth}tokenizer.json"))]
    return found[-1] if found else None


@lru_cache(maxsize=4)
def decoder(path: Path, mtime: int) -> Batch:
    """Decodes many lists of ids at once.

    Args:
        path: a `tokenizer.json`.
        mtime: its time in nanoseconds, so that a changed file is read again.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def decode(ids: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = tokenizer.decode_batch([list(each) for each in ids], skip_special_tokens=False)
        return texts

    return decode


def pieces(segment: dict[str, Any], decode: Batch | None) -> list[str] | None:
    """[n] the text of each token of a segment; None where it cannot be told apart.

    A token that is a part of a character only is shown as the decoder shows it, as `�`.
    """
    ids, text = segment.get("token_ids") or [], segment.get("text") or ""
    if decode is None:
        return list(text) if len(text) == len(ids) else None
    try:
        parts = decode([[token] for token in ids])
        if not text.startswith("".join(parts)) and len(ids) > 1:
            # Some decoders drop the space before a first token, so each token is decoded behind the one before it.
            pairs = decode([[before, token] for before, token in pairwise(ids)])
            behind = [pair.removeprefix(alone) for pair, alone in zip(pairs, parts, strict=False)]
            parts = parts[:1] + behind
    except (OverflowError, TypeError):  # ids that are no ids of this tokenizer
        return None
    return parts
