"""Log-probabilities of chosen tokens, and entropies, from logits [M, V], of which one copy is kept for the gradient.

Composed of torch's own operations they hold five such tensors at their peak, and take four passes over them where two
will do. It knows nothing of losses.
"""

from typing import Any

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the softmax of `logits` says of `targets`; differentiable once.

    Args:
        logits: [P, V].
        rows: [M] int64, the row of each target; several may have one.
        targets: [M] int64.

    Returns:
        [M] log-probabilities of the targets, and [M] entropies of their rows, nats.
    """
    logprobs, entropy = _TokenLogprobs.apply(logits, rows, targets)  # type: ignore[no-untyped-call]
    return logprobs, entropy


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        normal = logits.log_softmax(-1)
        entropy = -torch.cat([_expected(part) for part in torch.split(normal, _ROWS)])
        ctx.save_for_backward(normal, rows, targets, entropy)
        return normal[rows, targets], entropy[rows]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        """With p the softmax, H its entropy and t a target: d log p_t = [t] - p, and dH = -p * (log p + H)."""
        of_logprob, of_entropy = grads
        normal, rows, targets, entropy = ctx.saved_tensors
        if of_logprob is None and of_entropy is None:
            return None, None, None

        def of_rows(values: Tensor) -> Tensor:
            return torch.zeros_like(entropy).index_add_(0, rows, values)

        grad: Tensor = normal.exp()
        rest = torch.zeros_like(entropy) if of_logprob is None else of_rows(of_logprob)
        if of_entropy is None:
            grad.mul_(-rest[:, None])
        else:
            for part, logs, h, to_h, to_logprob in zip(
                *(torch.split(x, _ROWS) for x in (grad, normal, entropy, of_rows(of_entropy), rest)), strict=True
            ):
                part.mul_((logs + h[:, None]).mul_(to_h[:, None]).add_(to_logprob[:, None]).neg_())
        if of_logprob is not None:
            grad.index_put_((rows, targets), of_logprob, accumulate=True)
        return grad, None, None


def _expected(normal: Tensor) -> Tensor:
    """[rows] the sum of p log p; 0 where p is 0."""
    return normal.exp().mul_(normal.clamp_min(torch.finfo(normal.dtype).min)).sum(-1)


_ROWS = 256
"""Rows of the temporary tensors."""
