"""Log-probabilities of chosen tokens, and entropies, from logits [M, V], of which one copy is kept for the gradient.

Composed of torch's own operations they hold five such tensors at their peak, and take four passes over them where two
will do. It knows nothing of losses.
"""

from typing import Any

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the softmax of `logits` says of `targets`; differentiable once.

    Args:
        logits: [M, V].
        targets: [M] int64.

    Returns:
        [M] log-probabilities of the targets, and [M] entropies, nats.
    """
    logprobs, entropy = _TokenLogprobs.apply(logits, targets)  # type: ignore[no-untyped-call]
    return logprobs, entropy


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        normal = logits.log_softmax(-1)
        entropy = -torch.cat([_expected(rows) for rows in torch.split(normal, _ROWS)])
        ctx.save_for_backward(normal, targets, entropy)
        return normal.gather(-1, targets[:, None])[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        """With p the softmax, H its entropy and t the target: d log p_t = [t] - p, and dH = -p * (log p + H)."""
        of_logprob, of_entropy = grads
        normal, targets, entropy = ctx.saved_tensors
        if of_logprob is None and of_entropy is None:
            return None, None
        rest = torch.zeros_like(entropy) if of_logprob is None else of_logprob
        grad: Tensor = normal.exp()
        if of_entropy is None:
            grad.mul_(-rest[:, None])
        else:
            for part, rows, h, to_h, to_logprob in zip(
                *(torch.split(x, _ROWS) for x in (grad, normal, entropy, of_entropy, rest)), strict=True
            ):
                part.mul_((rows + h[:, None]).mul_(to_h[:, None]).add_(to_logprob[:, None]).neg_())
        return grad.scatter_add_(-1, targets[:, None], rest[:, None]), None


def _expected(normal: Tensor) -> Tensor:
    """[rows] the sum of p log p; 0 where p is 0."""
    return normal.exp().mul_(normal.clamp_min(torch.finfo(normal.dtype).min)).sum(-1)


_ROWS = 256
"""Rows of the temporary tensors."""
