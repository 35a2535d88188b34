"""One point of the cost curves: a kind of index over so many generated passages or vectors, in a process of its own.

    python benchmarks/parts/retrieval_curve.py build|search KIND ROWS DIRECTORY

Prints one JSON object. Passages are made-up words with the frequencies of a language (Zipf's law, falling faster
beyond the 8,000 most common words, which gives as many words as the closed corpus has: 70,000 in 1.4 million), 100 a
passage, the most frequent ones English stop words; vectors have 384 numbers and lie around topics in a
space of 64 dimensions. Those of a smaller size are the first of a larger one. Embedding is not part of the curves: its
rate is measured with the real encoder, and does not depend on the size.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from parts.memory import own_mb
from recall.retriever import ann
from recall.retriever.ann import Ann, AnnKind, AnnSettings
from recall.retriever.build import BuildSettings, build
from recall.retriever.flat import exact
from recall.retriever.open import OpenSettings, open_index
from recall.retriever.progress import silent

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 384
SPARSE = ("bm25", "tantivy")
DENSE = ("flat", "hnsw", "ivf-sq8", "ivf-pq")
QUERIES = 100
K = 5
_BLOCK = 10_000
_WORDS = 2_000_000
_COMMON = 8_000
_LENGTH = 100


def words() -> Array:
    """A vocabulary, the most frequent words first."""
    from bm25s.stopwords import STOPWORDS_EN

    letters = "etaoinshrdlucmfw"
    made = ["".join(letters[(i >> 4 * part) & 15] for part in range(6)) for i in range(_WORDS)]
    return np.array([*STOPWORDS_EN, *made])


def chances() -> Array:
    """How often each word comes, summed up."""
    rank = np.arange(1.0, _WORDS + 34)
    weight = 1 / (rank + 0.4)
    weight[_COMMON:] = weight[_COMMON - 1] * (_COMMON / rank[_COMMON:]) ** 1.75
    summed: Array = np.cumsum(weight) / weight.sum()
    return summed


def passages(rows: int) -> Iterator[str]:
    """The contents of generated passages."""
    vocabulary, cumulated = words(), chances()
    for start in range(0, rows, _BLOCK):
        drawn = np.random.default_rng(start).random((_BLOCK, _LENGTH))
        block = vocabulary[np.searchsorted(cumulated, drawn)]
        for row, text in enumerate(block[: rows - start], start):
            yield f'"Passage {row}"\n' + " ".join(text)


def write_passages(directory: Path, rows: int) -> Path:
    """A corpus of generated passages, made once."""
    path = directory / f"passages-{rows}.jsonl"
    if not path.exists():
        with open(path.with_suffix(".partial"), "w", encoding="utf-8") as file:
            for row, contents in enumerate(passages(rows)):
                file.write(json.dumps({"id": str(row), "contents": contents}) + "\n")
        os.replace(path.with_suffix(".partial"), path)
    return path


def vectors(directory: Path, rows: int) -> Array:
    """Generated vectors, made once, memory-mapped."""
    path = directory / f"vectors-{rows}.bin"
    if not path.exists():
        random = np.random.default_rng(7)
        topics, spread = random.normal(size=(2000, 64)), random.normal(size=(64, DIM)) / 8
        with open(path.with_suffix(".partial"), "wb") as file:
            for start in range(0, rows, _BLOCK):
                block = np.random.default_rng(start + 1)
                latent = topics[block.integers(2000, size=_BLOCK)] + block.normal(size=(_BLOCK, 64))
                made = latent @ spread + 0.2 * block.normal(size=(_BLOCK, DIM))
                made /= np.linalg.norm(made, axis=1, keepdims=True)
                file.write(made[: rows - start].astype(np.float32).tobytes())
        os.replace(path.with_suffix(".partial"), path)
    return np.memmap(path, np.float32, "r", shape=(rows, DIM))


def questions(corpus: Path, rows: int) -> list[str]:
    """Queries: of a passage the four rarest words, as names in questions are, four others, and words of questions."""
    random, wanted = np.random.default_rng(11), {}
    ranks = {word: rank for rank, word in enumerate(words().tolist())}
    picked = set(random.choice(rows, QUERIES, replace=False).tolist())
    with open(corpus, encoding="utf-8") as file:
        for row, line in enumerate(file):
            if row in picked:
                text = sorted(json.loads(line)["contents"].split()[2:], key=lambda word: -ranks[word])
                picked_words = [*text[:4], *random.choice(text[4:], 4, replace=False)]
                wanted[row] = f"which is the {' '.join(picked_words)} of that"
    return [wanted[row] for row in sorted(wanted)]


def asked_vectors(stored: Array) -> Array:
    """Queries near to stored vectors, but not the same."""
    random = np.random.default_rng(11)
    near = stored[np.sort(random.choice(len(stored), QUERIES, replace=False))]
    moved = near + 0.03 * random.normal(size=near.shape)
    unit: Array = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit.astype(np.float32)


def timed(search: Callable[[int], object], batch: Callable[[], object]) -> dict[str, float]:
    """Latencies of single queries, after ten that warm up, their processor time, and the rate of all at once."""
    for query in range(10):
        search(query)
    seconds, spent = [], time.process_time()
    for query in range(QUERIES):
        began = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - began)
    spent = time.process_time() - spent
    began = time.perf_counter()
    batch()
    rate = QUERIES / (time.perf_counter() - began)
    return {
        "p50_ms": statistics.median(seconds) * 1000,
        "p99_ms": sorted(seconds)[int(0.99 * QUERIES) - 1] * 1000,
        "cpu_ms": spent / QUERIES * 1000,
        "batch_per_s": rate,
    }


def build_point(kind: str, rows: int, directory: Path) -> dict[str, float]:
    """Build, and say what it took; the corpus or the vectors are there before the clocks start."""
    if kind in SPARSE:
        corpus = write_passages(directory, rows)
        stages: dict[str, float] = {}
        began, spent = time.perf_counter(), time.process_time()
        index = directory / f"index-{rows}"
        made = build(BuildSettings(corpus=corpus, index=index, kind=cast(Any, kind)))
        stages["build_s"] = made.indexes[cast(Any, kind)].seconds
        stages["corpus_s"] = time.perf_counter() - began - stages["build_s"]
        files = [path for path in (index / kind).rglob("*") if path.is_file()]
    else:
        stored = vectors(directory, rows)
        files = [directory / f"vectors-{rows}.bin"]
        began, spent = time.perf_counter(), time.process_time()
        if kind != "flat":
            shape = AnnSettings().resolved(cast(AnnKind, kind), rows, DIM)
            files = [directory / f"{kind}-{rows}.faiss"]
            ann.build(cast(AnnKind, kind), stored, files[0], shape, silent)
        stages = {"build_s": time.perf_counter() - began}
    stages["cpu_s"] = time.process_time() - spent
    disk = sum(path.stat().st_size for path in files) / 1e6
    return {**stages, "build_peak_mb": own_mb("VmHWM"), "disk_mb": disk}


def search_point(kind: str, rows: int, directory: Path) -> dict[str, float]:
    """Open, search, and say what it took."""
    asked = questions(directory / f"passages-{rows}.jsonl", rows) if kind in SPARSE else []
    before, began = own_mb("RssAnon"), time.perf_counter()
    if kind in SPARSE:
        retriever = open_index(directory / f"index-{rows}", OpenSettings(kind=cast(Any, kind)))
        opened = time.perf_counter() - began
        speed = timed(lambda query: retriever.find([asked[query]], K), lambda: retriever.find(asked, K))
        found: dict[str, float] = {}
    else:
        stored = vectors(directory, rows)
        near = asked_vectors(stored)
        flat = exact(stored, "cpu")
        index: Any = flat
        if kind != "flat":
            shape = AnnSettings().resolved(cast(AnnKind, kind), rows, DIM)
            index = Ann(directory / f"{kind}-{rows}.faiss", shape, stored if shape.rescore else None)
        opened = time.perf_counter() - began
        speed = timed(lambda query: index.nearest(near[query : query + 1], K), lambda: index.nearest(near, K))
        found = {"private_mb": own_mb("RssAnon") - before, "mapped_mb": own_mb("RssFile")}
        truth, about = flat.nearest(near, K), index.nearest(near, K)
        shared = [len({row for row, _ in a} & {row for row, _ in b}) / K for a, b in zip(truth, about, strict=True)]
        found["recall"] = statistics.fmean(shared)
    memory = {"private_mb": own_mb("RssAnon") - before, "mapped_mb": own_mb("RssFile")}
    return {"open_s": opened, **speed, **memory, **found}


def main() -> None:
    """Measure one point."""
    import faiss

    faiss.omp_set_num_threads(1)  # so that a time is that of one core, however many are free
    doing, kind, rows, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    print(json.dumps((build_point if doing == "build" else search_point)(kind, rows, directory)))


if __name__ == "__main__":
    main()
