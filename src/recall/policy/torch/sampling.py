"""Draw tokens from logits, each row from its own counter-based random stream. It knows nothing of batches or caches."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Draw(NamedTuple):
    """How each of N rows samples; a part that no row needs is None, and costs nothing."""

    temperature: Tensor | None
    """[N] divides the logits; 1 for a greedy row."""
    top_p: Tensor | None
    """[N] size of the nucleus, 1 where all tokens are allowed."""
    greedy: Tensor | None
    """[N] bool, rows that take the most likely token."""

    @classmethod
    def build(cls, temperatures: list[float], top_ps: list[float], device: torch.device) -> "Draw":
        """Leave out what every row has at its neutral value."""
        greedy = [value == 0 for value in temperatures]
        divisors = [value or 1.0 for value in temperatures]
        return cls(
            torch.tensor(divisors, device=device) if any(value != 1 for value in divisors) else None,
            torch.tensor(top_ps, device=device) if any(value < 1 for value in top_ps) else None,
            torch.tensor(greedy, device=device) if any(greedy) else None,
        )

    def select(self, rows: Tensor) -> "Draw":
        """The same for some of the rows."""
        return Draw(*(None if part is None else part[rows] for part in self))

    def __call__(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Sample by inverting the cumulative distribution.

        Args:
            logits: [N, V] in any floating type; narrow types are widened to float32.
            uniforms: [N, K] float64 in [0, 1), one for each token to draw from a row.

        Returns:
            [N, K] int64 ids, and [N, K] their float32 nats at the temperature, before top-p.
        """
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        if self.temperature is not None:
            logits = logits / self.temperature[:, None].to(logits.dtype)
        logprobs = logits.log_softmax(-1)
        if self.top_p is None:
            ids = _invert(logprobs.exp(), uniforms)
        else:
            nucleus = self.top_p < 1
            ids = _invert(logprobs.exp(), uniforms)
            ids[nucleus] = _from_nucleus(logprobs[nucleus].exp(), self.top_p[nucleus], uniforms[nucleus])
        if self.greedy is not None:
            ids = torch.where(self.greedy[:, None], logprobs.argmax(-1, keepdim=True), ids)
        return ids, logprobs.gather(1, ids).float()


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """[N, K] the first index at which the running sum of `weights` [N, V] exceeds u of the total, never one of 0."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(sums, uniforms * sums[:, -1:], right=True)
    return ids.clamp_max_(weights.shape[1] - 1)


def _from_nucleus(probabilities: Tensor, top_p: Tensor, uniforms: Tensor) -> Tensor:
    """[N, K] sampled from the smallest set of most likely tokens whose mass reaches `top_p`."""
    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    kept = ordered.masked_fill(before >= top_p[:, None], 0.0)
    return order.gather(1, _invert(kept, uniforms))


def uniforms(seeds: list[int], starts: list[int], count: int) -> Tensor:
    """[count, N] float64 in [0, 1): element (i, n) depends on seed n and on token number starts[n] + i only.

    Source: splitmix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators". The seed is mixed
    first, so that neighbouring seeds do not share a stream. 32 bits are kept, so that u * total < total in float64.
    """
    with np.errstate(over="ignore"):
        streams = _splitmix(np.array([seed & (2**64 - 1) for seed in seeds], dtype=np.uint64))
        index = np.array(starts, dtype=np.uint64) + np.arange(count, dtype=np.uint64)[:, None]
        words = _splitmix(streams + index * np.uint64(0x9E3779B97F4A7C15))
    return torch.from_numpy((words >> np.uint64(32)).astype(np.float64) * 2.0**-32)


def _splitmix(state: "npt.NDArray[np.uint64]") -> "npt.NDArray[np.uint64]":
    mixed = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
