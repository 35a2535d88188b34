"""Lay out groups of responses that share a prompt as flat tokens, each prompt once. Training only: it keeps no cache.

A group's prompt stands once, followed by its responses; every response attends to the whole prompt of its group and
causally to itself, so logits and gradients are those of the unshared sequences at a fraction of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    _mask: Tensor
    """[S, 1, R, P + R] 0 where a response may look, -inf elsewhere, float32."""

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
        prompt_rows, prompt_unpad, prompt_valid = _padded(prompt_starts, [len(prompt) for prompt in prompts])
        own_rows, own_unpad, _ = _padded(own_starts, lengths)
        groups = torch.tensor(group_of)
        flat = torch.cat((prompt_rows.flatten()[prompt_unpad], own_rows.flatten()[own_unpad]))
        visible = torch.cat(
            (
                prompt_valid[groups][:, None].expand(-1, own_rows.shape[1], -1),
                torch.ones(own_rows.shape[1], own_rows.shape[1], dtype=torch.bool).tril().expand(len(groups), -1, -1),
            ),
            -1,
        )
        mask = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))[:, None]
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
            _group_of=groups.to(device),
            _unflatten=flat.argsort().to(device),
            _mask=mask.to(device),
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """An `Attend` for `Decoder.forward`; differentiable."""
        prompt_q, prompt_k, prompt_v = (x[self._prompt_rows].transpose(1, 2) for x in (q, k, v))
        own_q, own_k, own_v = (x[self._own_rows].transpose(1, 2) for x in (q, k, v))
        of_prompts = F.scaled_dot_product_attention(prompt_q, prompt_k, prompt_v, is_causal=True, enable_gqa=True)
        of_responses = F.scaled_dot_product_attention(
            own_q,
            torch.cat((prompt_k[self._group_of], own_k), 2),
            torch.cat((prompt_v[self._group_of], own_v), 2),
            attn_mask=self._mask.to(q.dtype),
            enable_gqa=True,
        )
        parts = (
            of_prompts.transpose(1, 2).flatten(0, 1)[self._prompt_unpad],
            of_responses.transpose(1, 2).flatten(0, 1)[self._own_unpad],
        )
        return torch.cat(parts)[self._unflatten]


def _padded(starts: Sequence[int], lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices [S, longest] of runs, indices of what is not padding, and [S, longest] whether it is not."""
    length = torch.tensor(lengths)
    steps = torch.arange(max(lengths))
    valid = steps < length[:, None]
    rows = torch.tensor(starts)[:, None] + torch.minimum(steps, length[:, None] - 1)
    return rows, valid.flatten().nonzero()[:, 0], valid
