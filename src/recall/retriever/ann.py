"""Approximate indexes by faiss: HNSW, and inverted lists with 8-bit or product-quantised codes.

They are built from the vectors of the corpus and stored in faiss files, which are memory-mapped, so all processes on a
machine share one copy. What was quantised can be looked at again in the exact vectors (`rescore`): a few rows from
disk for each query.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever.finder import Hits, best
from recall.retriever.progress import Report
from recall.retriever.vectors import blocks, read_faiss

Array = np.ndarray[Any, np.dtype[Any]]
AnnKind = Literal["hnsw", "ivf-sq8", "ivf-pq"]
_BLOCK = 1 << 15
_LEAST_FOR_PQ = 256


class AnnSettings(Settings):
    """The shape of an approximate index. 0 chooses by the number of passages."""

    lists: int = Field(default=0, ge=0)
    """Inverted lists; 0 means the power of two nearest to twice the root of the rows."""
    probes: int = Field(default=0, ge=0)
    """Lists that a query looks into; 0 means 64."""
    code_bytes: int = Field(default=0, ge=0)
    """Bytes of a product-quantised vector, a divisor of its length; 0 means an eighth of it."""
    rescore: int = Field(default=-1, ge=-1)
    """How many times k candidates are compared exactly, with the vectors on disk; 0 is none, and -1 means 8 for ivf-pq
    and none for the others."""
    links: int = Field(default=32, ge=4, le=256)
    """Neighbours of a node of HNSW."""
    ef_build: int = Field(default=120, ge=8)
    """Candidates while HNSW is built."""
    ef_search: int = Field(default=128, ge=1)
    """Candidates while HNSW is searched."""

    def resolved(self, kind: AnnKind, rows: int, dim: int) -> "AnnSettings":
        """The same with what depends on the corpus chosen.

        Raises:
            ConfigError: the corpus is too small for the kind, or a number does not fit.
        """
        if kind == "ivf-pq" and rows < _LEAST_FOR_PQ:
            raise ConfigError(f"--kind ivf-pq needs at least {_LEAST_FOR_PQ} passages, and there are {rows}; take flat")
        most = max(1, rows // 39)  # faiss wants 39 vectors to place a list
        lists = self.lists or min(1 << max(0, round(math.log2(2 * math.sqrt(rows)))), most)
        if lists > rows:
            raise ConfigError(f"--ann.lists: {lists} is more than the {rows} passages")
        code_bytes = self.code_bytes or next(size for size in range(max(1, dim // 8), 0, -1) if dim % size == 0)
        if dim % code_bytes:
            raise ConfigError(f"--ann.code_bytes: {code_bytes} does not divide the {dim} numbers of a vector")
        return self.model_copy(
            update={
                "lists": lists,
                "probes": min(self.probes or 64, lists),
                "code_bytes": code_bytes,
                "rescore": self.rescore if self.rescore >= 0 else 8 if kind == "ivf-pq" else 0,
            }
        )


def build(kind: AnnKind, vectors: Array, path: Path, settings: AnnSettings, report: Report) -> None:
    """Write the index of some vectors.

    Args:
        kind: which.
        vectors: [rows, dim] float32 or float16.
        path: the faiss file.
        settings: `resolved`.
        report: told of rows.
    """
    import faiss

    rows, dim = vectors.shape
    names = {
        "hnsw": f"HNSW{settings.links},Flat",
        "ivf-sq8": f"IVF{settings.lists},SQ8",
        # np: without training for comparisons of codes by Hamming distance, which take minutes and are not used here
        "ivf-pq": f"IVF{settings.lists},PQ{settings.code_bytes}np",
    }
    index: Any = faiss.index_factory(dim, names[kind], faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = settings.ef_build
    else:
        report("placing the lists", 0, 1)
        for clustering in (index.cp, index.pq.cp) if kind == "ivf-pq" else (index.cp,):
            clustering.min_points_per_centroid = 1  # the numbers were chosen with the size of the corpus in mind
        index.train(_sample(vectors, max(64 * settings.lists, 1 << 16)))
    for block in blocks(vectors, _BLOCK, report, f"indexing ({kind})"):
        index.add(block)
    report("writing the index", rows, rows)
    faiss.write_index(index, str(path))


class Ann:
    """Searches a faiss file."""

    def __init__(self, path: Path, settings: AnnSettings, vectors: Array | None = None) -> None:
        """Open it.

        Args:
            path: the faiss file, which is mapped and stays where it is.
            settings: how it is searched: `probes`, `ef_search`, `rescore`.
            vectors: the exact ones; needed to rescore.

        Raises:
            ConfigError: the file is damaged.
        """
        import faiss

        self._index: Any = read_faiss(path)
        self._rescore = settings.rescore if vectors is not None else 0
        self._vectors = vectors
        inner = (
            faiss.downcast_index(self._index.index) if isinstance(self._index, faiss.IndexPreTransform) else self._index
        )
        if isinstance(inner, faiss.IndexIVF):
            inner.nprobe = settings.probes
        elif isinstance(inner, faiss.IndexHNSW):
            inner.hnsw.efSearch = settings.ef_search

    @property
    def rows(self) -> int:
        """How many vectors it has."""
        return int(self._index.ntotal)

    def nearest(self, queries: Array, k: int) -> list[Hits]:
        """The rows with the highest inner products, of those that it looks at."""
        wanted = min(k * max(1, self._rescore), self.rows)
        scores, rows = self._index.search(queries, wanted)
        if not self._rescore:
            return [best(r, s, k) for r, s in zip(rows, scores, strict=True)]
        return [self._rescored(query, r[r >= 0], k) for query, r in zip(queries, rows, strict=True)]

    def _rescored(self, query: Array, rows: Array, k: int) -> Hits:
        assert self._vectors is not None, "it rescores only with vectors"
        rows = np.sort(rows)  # the file is read from front to back
        return best(rows, self._vectors[rows].astype(np.float32) @ query, k)


def _sample(vectors: Array, most: int) -> Array:
    """Some of the vectors, always the same ones."""
    if len(vectors) <= most:
        return np.ascontiguousarray(vectors, np.float32)
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), most, replace=False))
    return np.ascontiguousarray(vectors[rows], np.float32)


def can_reconstruct(index: Any) -> bool:
    """Whether a vector can be had back from a faiss index by its row, at least about."""
    import faiss

    return isinstance(index, (faiss.IndexFlat, faiss.IndexFlatCodes, faiss.IndexHNSW))


def names_of(path: Path) -> Sequence[str]:
    """What a faiss file holds, outermost first, for people."""
    import faiss

    index: Any = read_faiss(path)
    names = [type(index).__name__]
    if isinstance(index, faiss.IndexPreTransform):
        names.append(type(faiss.downcast_index(index.index)).__name__)
    return names
