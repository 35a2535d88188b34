"""Lay out groups of responses that share a prompt as flat tokens, each prompt once. Training only: it keeps no cache.

A group's prompt stands once, followed by its responses; every response attends to the whole prompt of its group and
causally to itself, so logits and gradients are those of the unshared sequences at a fraction of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """B groups of one prompt and G_b responses, S responses in all, flat in N tokens.

    The responses' tokens that predict or are predicted are M = sum of their lengths, in order of group, then response.
    """

    token_ids: Tensor
    """[N] prompt of group 0, its responses, prompt of group 1, …"""
    positions: Tensor
    """[N] responses continue where their prompt ended."""
    response_index: Tensor
    """[M] the flat index of the token whose logits predict each response token."""
    response_targets: Tensor
    """[M] the response tokens."""
    response_lengths: tuple[int, ...]
    """[S] tokens of each response; splits [M] by response."""
    _prompt_rows: Tensor
    """[B, P] flat index of each prompt token; padding repeats the last."""
    _prompt_unpad: Tensor
    """[sum of P_b] indices into [B * P] of the prompt tokens that are not padding."""
    _own_rows: Tensor
    """[S, R] flat index of each response token; padding repeats the last."""
    _own_unpad: Tensor
    """[M] indices into [S * R] of the response tokens that are not padding."""
    _group_of: Tensor
    """[S] the group of each response."""
    _unflatten: Tensor
    """[N] where each flat token is in the prompts' tokens followed by the responses' tokens."""
    _group_rows: Tensor
    """[B, Q] flat index of each response token of a group, Q being the most of any; padding repeats the last."""
    _group_unpad: Tensor
    """[M] indices into [B * Q] of the response tokens that are not padding."""
    _prompt_mask: Tensor | None
    """[B, 1, 1, P] 0 on a prompt, -inf on its padding, float32; None where all prompts are of one length."""

    @classmethod
    def build(
        cls,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[Sequence[int]]],
        device: torch.device | str = "cpu",
    ) -> "GroupLayout":
        """Lay out `prompts` [B] and `responses` [B][G_b]; all of them must hold a token.

        Raises:
            ValueError: no group, an empty prompt or response, or lists that do not match.
        """
        if len(prompts) != len(responses) or not prompts or not all(responses):
            raise ValueError(f"{len(prompts)} prompts with {len(responses)} lists of responses, none may be empty")
        tokens: list[int] = []
        positions: list[int] = []
        predictors: list[int] = []
        targets: list[int] = []
        prompt_starts: list[int] = []
        own_starts: list[int] = []
        group_of: list[int] = []
        for group, (prompt, members) in enumerate(zip(prompts, responses, strict=True)):
            if not prompt or not all(members):
                raise ValueError(f"group {group} has an empty prompt or response")
            prompt_starts.append(len(tokens))
            tokens += prompt
            positions += range(len(prompt))
            last = len(tokens) - 1
            for member in members:
                start = len(tokens)
                own_starts.append(start)
                group_of.append(group)
                predictors += (last, *range(start, start + len(member) - 1))
                targets += member
                tokens += member
                positions += range(len(prompt), len(prompt) + len(member))
        lengths = tuple(len(member) for members in responses for member in members)
        prompt_rows, prompt_unpad, prompt_valid = padded(prompt_starts, [len(prompt) for prompt in prompts])
        own_rows, own_unpad, _ = padded(own_starts, lengths)
        # The responses of a group stand side by side after its prompt, so together they are one run.
        group_starts = [start + len(prompt) for start, prompt in zip(prompt_starts, prompts, strict=True)]
        group_rows, group_unpad, _ = padded(group_starts, [sum(map(len, members)) for members in responses])
        flat = torch.cat((prompt_rows.flatten()[prompt_unpad], own_rows.flatten()[own_unpad]))
        mask = torch.zeros(prompt_valid.shape).masked_fill_(~prompt_valid, float("-inf"))[:, None, None]
        return cls(
            token_ids=torch.tensor(tokens, device=device),
            positions=torch.tensor(positions, device=device),
            response_index=torch.tensor(predictors, device=device),
            response_targets=torch.tensor(targets, device=device),
            response_lengths=lengths,
            _prompt_rows=prompt_rows.to(device),
            _prompt_unpad=prompt_unpad.to(device),
            _own_rows=own_rows.to(device),
            _own_unpad=own_unpad.to(device),
            _group_of=torch.tensor(group_of, device=device),
            _unflatten=flat.argsort().to(device),
            _group_rows=group_rows.to(device),
            _group_unpad=group_unpad.to(device),
            _prompt_mask=None if prompt_valid.all() else mask.to(device),
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """An `Attend` for `Decoder.forward`; differentiable."""
        q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast only what leaves a linear layer is narrow
        prompt_q, prompt_k, prompt_v = (x[self._prompt_rows].transpose(1, 2) for x in (q, k, v))
        of_prompts = F.scaled_dot_product_attention(prompt_q, prompt_k, prompt_v, is_causal=True, enable_gqa=True)
        if q.device.type == "cpu":
            of_responses: Tensor = _ResponseAttention.apply(q, k, v, self)  # type: ignore[no-untyped-call]
        else:
            of_responses = self._attend_responses(q, k, v, prompt_k, prompt_v)
        return torch.cat((of_prompts.transpose(1, 2).flatten(0, 1)[self._prompt_unpad], of_responses))[self._unflatten]

    def _attend_responses(self, q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor) -> Tensor:
        """[M, H, D] by any kernel of torch's, with the keys and values of the prompt copied for each response."""
        own_q, own_k, own_v = (x[self._own_rows].transpose(1, 2) for x in (q, k, v))
        width = own_q.shape[2]
        causal = torch.full((width, width), float("-inf"), device=q.device).triu_(1)
        of_prompt = (
            q.new_zeros(len(prompt_k), 1, 1, prompt_k.shape[2]) if self._prompt_mask is None else self._prompt_mask
        )
        mask = torch.cat(
            (
                of_prompt.to(q.dtype)[self._group_of].expand(-1, -1, width, -1),
                causal.to(q.dtype).expand(len(own_q), 1, -1, -1),
            ),
            -1,
        )
        out = F.scaled_dot_product_attention(
            own_q,
            torch.cat((prompt_k[self._group_of], own_k), 2),
            torch.cat((prompt_v[self._group_of], own_v), 2),
            attn_mask=mask,
            enable_gqa=True,
        )
        return out.transpose(1, 2).flatten(0, 1)[self._own_unpad]


class _ResponseAttention(torch.autograd.Function):
    """Attention of responses to their prompt, read once a group, and causally to themselves; on the CPU.

    Both parts go through torch's fused kernel and are merged by their log-sum-exp. Its backward pass gives the exact
    gradient of a part when it is told the merged output and log-sum-exp in place of the part's own (Liu et al. 2023,
    "Ring Attention with Blockwise Transformers", arXiv:2310.01889).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: GroupLayout) -> Tensor:
        """Q [N, H, D], k and v [N, KV, D] -> [M, H, D]."""
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        own, own_sum = flash(*_rows(layout._own_rows, q, k, v), is_causal=True)
        (grouped,), prompts = _rows(layout._group_rows, q), _rows(layout._prompt_rows, k, v)
        of_prompt, prompt_sum = flash(grouped, *prompts, attn_mask=_mask(layout, q))
        own, own_sum = _unpadded(own, layout._own_unpad), _unpadded(own_sum[..., None], layout._own_unpad)
        of_prompt = _unpadded(of_prompt, layout._group_unpad)
        prompt_sum = _unpadded(prompt_sum[..., None], layout._group_unpad)
        total = torch.logaddexp(own_sum, prompt_sum)
        out = (own * (own_sum - total).exp() + of_prompt * (prompt_sum - total).exp()).to(q.dtype)
        ctx.layout = layout
        ctx.save_for_backward(q, k, v, out, total)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of q, k and v."""
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        layout: GroupLayout = ctx.layout
        q, k, v, out, total = ctx.saved_tensors

        def laid_out(rows: Tensor, unpad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            # Where the sum is infinite no weight is left, and a zero gradient goes in: padding teaches nothing.
            values = (grads[0], 0.0), (out, 0.0), (total, float("inf"))
            grad, whole, lse = (
                x.new_full((rows.numel(), *x.shape[1:]), fill).index_copy_(0, unpad, x).view(*rows.shape, *x.shape[1:])
                for x, fill in values
            )
            return grad.transpose(1, 2), whole.transpose(1, 2), lse[..., 0].transpose(1, 2).contiguous()

        grad, whole, lse = laid_out(layout._own_rows, layout._own_unpad)
        own = backward(grad, *_rows(layout._own_rows, q, k, v), whole, lse, 0.0, True)
        grad, whole, lse = laid_out(layout._group_rows, layout._group_unpad)
        (grouped,), prompts = _rows(layout._group_rows, q), _rows(layout._prompt_rows, k, v)
        of_prompt = backward(grad, grouped, *prompts, whole, lse, 0.0, False, attn_mask=_mask(layout, q))
        own_q, own_k, own_v = (_unpadded(x, layout._own_unpad) for x in own)
        grouped_q = _unpadded(of_prompt[0], layout._group_unpad)
        prompt_k, prompt_v = (_unpadded(x, layout._prompt_unpad) for x in of_prompt[1:])
        return (
            torch.cat((own_q.new_zeros(len(prompt_k), *own_q.shape[1:]), own_q + grouped_q))[layout._unflatten],
            torch.cat((prompt_k, own_k))[layout._unflatten],
            torch.cat((prompt_v, own_v))[layout._unflatten],
            None,
        )


def _rows(rows: Tensor, *flat: Tensor) -> list[Tensor]:
    """[R, heads, L, D] each, from [N, heads, D] and `rows` [R, L]."""
    return [x[rows].transpose(1, 2) for x in flat]


def _unpadded(x: Tensor, unpad: Tensor) -> Tensor:
    """[M, heads, D] from [R, heads, L, D]."""
    return x.transpose(1, 2).flatten(0, 1)[unpad]


def _mask(layout: GroupLayout, q: Tensor) -> Tensor | None:
    return None if layout._prompt_mask is None else layout._prompt_mask.to(q.dtype)


def padded(starts: Sequence[int] | None, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """For runs of flat tokens, laid out as [S, longest].

    Args:
        starts: [S] where each run begins; None where they stand one after another.
        lengths: [S] tokens of each.

    Returns:
        [S, longest] the flat index of each token, padding repeating the run's last; the indices into S * longest of
        what is not padding; and [S, longest] whether it is not.
    """
    length = torch.tensor(lengths)
    steps = torch.arange(max(lengths))
    valid = steps < length[:, None]
    start = length.cumsum(0) - length if starts is None else torch.tensor(starts)
    rows = start[:, None] + torch.minimum(steps, length[:, None] - 1)
    return rows, valid.flatten().nonzero()[:, 0], valid
