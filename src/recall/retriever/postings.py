"""Builds a BM25 index in the files of bm25s, a shard of the corpus at a time.

bm25s's own builder holds the words of the whole corpus as Python lists, counts them in Python, and has to begin again
when it is interrupted. This one keeps each shard's counts in a file, so it goes on where it stopped, and writes the
scores straight into the memory-mapped arrays that `bm25s.BM25.load` opens.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from recall.retriever.corpus import Corpus
from recall.retriever.progress import Report
from recall.retriever.tokens import Tokenizer
from recall.store import write_atomic

Array = np.ndarray[Any, np.dtype[Any]]
SHARD_ROWS = 50_000


def build(corpus: Corpus, into: Path, tokenizer: Tokenizer, k1: float, b: float, report: Report) -> None:
    """Write the index of `corpus` into the directory `into`; shards that are there already are taken as they are."""
    import bm25s

    shards = into / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    vocabulary = _count(corpus, shards, tokenizer, report)
    _merge(shards, into, len(corpus), len(vocabulary), k1, b, report)
    _write_json(into / "vocab.index.json", vocabulary)
    parameters = {"k1": k1, "b": b, "delta": 0.5, "method": "lucene", "idf_method": "lucene", "dtype": "float32"}
    parameters |= {"int_dtype": "int32", "num_docs": len(corpus), "version": bm25s.__version__, "backend": "numpy"}
    _write_json(into / "params.index.json", parameters)
    shutil.rmtree(shards)


def _count(corpus: Corpus, shards: Path, tokenizer: Tokenizer, report: Report) -> dict[str, int]:
    """Write the word counts of each shard; return the ids of all words."""
    vocabulary = _Numbers()
    for start in range(0, len(corpus), SHARD_ROWS):
        path, stop = shards / f"{start:010d}.npz", min(start + SHARD_ROWS, len(corpus))
        if path.exists():
            with np.load(path) as shard:
                words = json.loads(shard["words"].tobytes())
            vocabulary.update(zip(words, range(len(vocabulary), len(vocabulary) + len(words)), strict=True))
        else:
            known = len(vocabulary)
            arrays = _shard(corpus.contents(start, stop), tokenizer, vocabulary)
            new = list(islice(vocabulary, known, None))
            arrays["words"] = np.frombuffer(json.dumps(new).encode(), np.uint8)
            _save(path, arrays)
        report("counting words", stop, len(corpus))
    return vocabulary


class _Numbers(dict[str, int]):
    """Numbers of words, given in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def _shard(texts: Iterable[str], tokenizer: Tokenizer, vocabulary: _Numbers) -> dict[str, Array]:
    """Count the words of some passages; new words are given the next ids.

    Returns:
        `tokens`, `rows` (within the shard) and `counts` by token, then row; `lengths` in words, by row.
    """
    ids: list[int] = []
    lengths: list[int] = []
    for text in texts:
        words = tokenizer.words(text)
        lengths.append(len(words))
        ids.extend(map(vocabulary.__getitem__, words))
    rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    keys, counts = np.unique((np.array(ids, np.int64) << 32) | rows, return_counts=True)
    return {
        "tokens": (keys >> 32).astype(np.int32),
        "rows": (keys & 0xFFFFFFFF).astype(np.int32),
        "counts": counts.astype(np.int32),
        "lengths": np.array(lengths, np.int32),
    }


def _merge(shards: Path, into: Path, rows: int, words: int, k1: float, b: float, report: Report) -> None:
    """Write the scores of all shards, by token, then row.

    Source: BM25 as Lucene scores it, Kamphuis et al. 2020, "Which BM25 Do You Mean?", the variant `lucene`.
    """
    frequencies = np.zeros(words, np.int64)
    length = 0
    for _, shard in _shards(shards):
        frequencies += np.bincount(shard["tokens"], minlength=words)
        length += int(shard["lengths"].sum())
    pointers = np.concatenate([[0], np.cumsum(frequencies)])
    rarity = np.log(1 + (rows - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    mean = max(length / rows, 1e-9)
    data = _array(into / "data.csc.index.npy", np.float32, int(pointers[-1]))
    indices = _array(into / "indices.csc.index.npy", np.int32, int(pointers[-1]))
    free = pointers[:-1].copy()
    for start, shard in _shards(shards):
        tokens, counts = shard["tokens"], shard["counts"].astype(np.float32)
        here = np.bincount(tokens, minlength=words)
        first = np.concatenate([[0], np.cumsum(here)[:-1]])
        places = free[tokens] + np.arange(len(tokens)) - first[tokens]
        norms = (k1 * (1 - b + b * shard["lengths"] / mean)).astype(np.float32)
        data[places] = rarity[tokens] * counts / (norms[shard["rows"]] + counts)
        indices[places] = shard["rows"] + start
        free += here
        report("writing the index", start + len(shard["lengths"]), rows)
    for array in (data, indices):
        if isinstance(array, np.memmap):
            array.flush()
    np.save(into / "indptr.csc.index.npy", pointers)


def _shards(shards: Path) -> Iterator[tuple[int, dict[str, Array]]]:
    for path in sorted(shards.glob("*.npz")):
        with np.load(path) as shard:
            yield int(path.stem), {name: shard[name] for name in ("tokens", "rows", "counts", "lengths")}


def _save(path: Path, arrays: dict[str, Array]) -> None:
    write_atomic(path, lambda file: np.savez(file, **cast(Any, arrays)))


def _array(path: Path, dtype: type, size: int) -> Array:
    """A new array in a file; numpy maps no empty ones."""
    if size == 0:
        np.save(path, np.zeros(0, dtype))
        return np.zeros(0, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    write_atomic(path, lambda file: file.write(text.encode()))
