"""Exact search: every vector is compared. Straight over the memory-mapped vectors, so that there is no copy of them.

faiss does it where it is installed. Without it numpy does, for small corpora. On a GPU torch does, in float16 and a
block at a time: faiss would need its own copy and room beside it, which is how flat indexes run out of GPU memory.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recall.errors import ConfigError
from recall.retriever.finder import Hits, best

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]
NUMPY_ROWS = 200_000
"""Up to how many vectors numpy is quick enough."""
_BLOCK = 1 << 16
_QUERIES = 256


class FaissFlat:
    """Exact search by faiss on the CPU; float16 is converted a block at a time."""

    def __init__(self, vectors: Array) -> None:
        self._vectors = vectors

    def nearest(self, queries: Array, k: int) -> list[Hits]:
        """The rows with the highest inner products."""
        import faiss

        if self._vectors.dtype == np.float32:
            scores, rows = faiss.knn(queries, self._vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
            return [best(r, s, k) for r, s in zip(rows, scores, strict=True)]
        found: list[Any] = []
        for start in range(0, len(self._vectors), _BLOCK):
            block = self._vectors[start : start + _BLOCK].astype(np.float32)
            scores, rows = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            found.append((rows + start, scores))
        return _merged(found, k)


class NumpyFlat:
    """Exact search by numpy."""

    def __init__(self, vectors: Array) -> None:
        if len(vectors) > NUMPY_ROWS:
            raise ConfigError(
                f"a flat index of {len(vectors):,} passages needs faiss: pip install 'recall[retriever]'"
                f" (numpy alone serves up to {NUMPY_ROWS:,})"
            )
        self._vectors = vectors

    def nearest(self, queries: Array, k: int) -> list[Hits]:
        """The rows with the highest inner products."""
        found: list[Hits] = []
        rows = np.arange(len(self._vectors))
        matrix = self._vectors.astype(np.float32, copy=False).T
        for start in range(0, len(queries), _QUERIES):
            found += [best(rows, scores, k) for scores in queries[start : start + _QUERIES] @ matrix]
        return found


class TorchFlat:
    """Exact search by torch, with the vectors on its device: float16 on a GPU, float32 elsewhere."""

    def __init__(self, vectors: Array, device: "torch.device") -> None:
        import torch

        half = device.type == "cuda"
        self._vectors = torch.empty(vectors.shape, dtype=torch.float16 if half else torch.float32, device=device)
        for start in range(0, len(vectors), _BLOCK):
            self._vectors[start : start + _BLOCK] = torch.from_numpy(np.array(vectors[start : start + _BLOCK]))

    def nearest(self, queries: Array, k: int) -> list[Hits]:
        """The rows with the highest inner products."""
        import torch

        hits: list[Hits] = []
        with torch.inference_mode():
            for first in range(0, len(queries), _QUERIES):
                asked = torch.from_numpy(queries[first : first + _QUERIES]).to(self._vectors)
                found = []
                for start in range(0, len(self._vectors), _BLOCK):
                    scores = (asked @ self._vectors[start : start + _BLOCK].T).float()
                    top = scores.topk(min(k, scores.shape[1]), dim=1)
                    found.append((top.indices.cpu().numpy() + start, top.values.cpu().numpy()))
                hits += _merged(found, k)
        return hits


def exact(vectors: Array, device: str) -> "FaissFlat | NumpyFlat | TorchFlat":
    """The best exact search here.

    Args:
        vectors: [rows, dim] float32 or float16.
        device: `cpu`, or a CUDA device for torch.

    Raises:
        ConfigError: there is no faiss, and too many vectors for numpy.
    """
    if device != "cpu":
        import torch

        return TorchFlat(vectors, torch.device(device))
    try:
        import faiss  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        return NumpyFlat(vectors)
    return FaissFlat(vectors)


def _merged(found: Sequence[tuple[Array, Array]], k: int) -> list[Hits]:
    """The best of several blocks, each [Q, <= k] rows and scores."""
    rows, scores = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    return [best(r, s, k) for r, s in zip(rows, scores, strict=True)]
