"""Muon, the optimizer of nano's matrices: momentum whose every step is made nearly orthogonal.

`torch.optim.Muon` does the same in bfloat16 whatever the device. A CPU without bfloat16 instructions multiplies such
matrices fifteen times slower than float32 ones, and the optimizer then takes more than half of a step of pretraining;
this one computes in float32 on the CPU, and takes the matrices of one shape together.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """[N, A, B] the matrices with singular values near 1 (between 0.5 and 1.5), by five Newton-Schulz iterations.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the quintic's coefficients
    are theirs.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, each step orthogonalised and scaled by `sqrt(max(1, A / B))` for a matrix [A, B]."""

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, momentum: float = 0.95) -> None:
        """Take parameters with two dimensions."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes matrices only")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every matrix that has a gradient. A closure is not taken."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for (rows, columns), matrices in by_shape.items():
                steps = orthogonalised(torch.stack([self._direction(m, group["momentum"]) for m in matrices]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                torch._foreach_add_(matrices, list(steps.unbind()), alpha=-rate)
        return None

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        state: dict[str, Any] = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        gradient: Any = matrix.grad
        state["momentum"].lerp_(gradient, 1 - momentum)
        direction: Tensor = gradient.lerp(state["momentum"], momentum)
        return direction
