"""Lay out groups of sequences as flat tokens, what they begin with in common once. Training only: it keeps no cache.

The responses to a prompt form a tree: they part where a sample was another, or a tool said something else. Each token
of the tree stands once and attends to the tokens before it on its way from the root, so logits and gradients are those
of the unshared sequences at a fraction of the work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_LIKE = 0.6
"""Runs are padded to one length where the shortest is at least this part of the longest."""


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """Groups of a prompt and its responses, S responses in all, flat in N tokens.

    The responses' tokens that predict or are predicted are M = sum of their lengths, in order of group, then response.
    """

    token_ids: Tensor
    """[N] the tree of each group."""
    positions: Tensor
    """[N] of each token in its sequences."""
    predictors: Tensor
    """[P] the flat indices of the tokens that predict a token of a response, ascending."""
    response_rows: Tensor
    """[M] for each response token, which of `predictors` predicts it; responses that agree so far share one."""
    response_targets: Tensor
    """[M] the response tokens."""
    response_lengths: tuple[int, ...]
    """[S] tokens of each response; splits [M] by response."""
    _blocks: "tuple[_Block, ...]"
    _back: Tensor
    """[N] where each flat token is among the queries of all blocks."""

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
        tree = _Tree()
        rows: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        for group, (prompt, members) in enumerate(zip(prompts, responses, strict=True)):
            if not prompt or not all(members):
                raise ValueError(f"group {group} has an empty prompt or response")
            for path, member in zip(tree.grow([(*prompt, *member) for member in members]), members, strict=True):
                rows += path[len(prompt) - 1 : -1]
                targets += member
                lengths.append(len(member))
        alike = [*_alike(tree.runs)]
        blocks = [_Block.build(runs, device) for runs in alike]
        order = torch.tensor([row for runs in alike for run in runs for row in run.own])
        starts = [sum(block.queries.numel() for block in blocks[:number]) for number in range(len(blocks))]
        places = torch.cat([start + block.unpad for start, block in zip(starts, blocks, strict=True)])
        predictors, inverse = torch.unique(torch.tensor(rows, device=device), return_inverse=True)
        return cls(
            token_ids=torch.tensor(tree.tokens, device=device),
            positions=torch.tensor(tree.positions, device=device),
            predictors=predictors,
            response_rows=inverse,
            response_targets=torch.tensor(targets, device=device),
            response_lengths=tuple(lengths),
            _blocks=tuple(blocks),
            _back=places[order.argsort()].to(device),
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """An `Attend` for `Decoder.forward`; differentiable."""
        q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast only what leaves a linear layer is narrow
        return torch.cat([block.attend(q, k, v) for block in self._blocks]).index_select(0, self._back)


class _Run(NamedTuple):
    """Tokens one after another, of one sequence."""

    before: list[int]
    """The flat indices of the tokens that lead to it from the root."""
    own: list[int]
    """Its flat indices."""


class _Tree:
    """Sequences in flat tokens. A run may leave another at any of its tokens."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.runs: list[_Run] = []

    def grow(self, sequences: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Add a tree; returns the flat indices of each sequence's tokens."""
        paths: list[list[int]] = [[] for _ in sequences]
        before: Sequence[int] = ()
        path: list[int] = []
        # In this order a sequence shares most with the one before it.
        for number in sorted(range(len(sequences)), key=lambda at: sequences[at]):
            sequence = sequences[number]
            shared = common(before, sequence)
            start, new = len(self.tokens), len(sequence) - shared
            own = [*range(start, start + new)]
            if new:
                self.runs.append(_Run(path[:shared], own))
            self.tokens += sequence[shared:]
            self.positions += range(shared, len(sequence))
            path = paths[number] = path[:shared] + own
            before = sequence
        return paths


class _Block(NamedTuple):
    """R runs of like length, padded to L tokens, after up to B tokens before them."""

    queries: Tensor
    """[R, L] flat index of each token; padding repeats the last."""
    keys: Tensor
    """[R, B + L] flat index of the tokens before the run, then of its own."""
    unpad: Tensor
    """Indices into [R * L] of the tokens that are not padding."""
    mask: Tensor | None
    """[R, 1, L, B + L] 0 where a token attends to another, else -inf, float32; None where B is 0."""

    @classmethod
    def build(cls, runs: Sequence[_Run], device: torch.device | str) -> "_Block":
        length, most = max(len(run.own) for run in runs), max(len(run.before) for run in runs)
        own = [run.own + run.own[-1:] * (length - len(run.own)) for run in runs]
        # What fills up is hidden, so it may be any token.
        keys = [run.before + run.own[:1] * (most - len(run.before)) + row for run, row in zip(runs, own, strict=True)]
        valid = torch.arange(length) < torch.tensor([len(run.own) for run in runs])[:, None]
        mask = None
        if most:
            known = torch.arange(most) < torch.tensor([len(run.before) for run in runs])[:, None]
            causal = torch.ones(length, length, dtype=torch.bool).tril()
            seen = torch.cat((known[:, None].expand(-1, length, -1), causal.expand(len(runs), -1, -1)), -1)
            mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None].to(device)
        return cls(
            torch.tensor(own, device=device), torch.tensor(keys, device=device), valid.flatten().nonzero()[:, 0], mask
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[R * L, H, D] from q [N, H, D], k and v [N, KV, D]."""
        q, k, v = _picked(q, self.queries), _picked(k, self.keys), _picked(v, self.keys)
        mask = None if self.mask is None else self.mask.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """[R, heads, L, D] from [N, heads, D]. With `index_select`, whose gradient is faster than that of indexing."""
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)


def _alike(runs: Sequence[_Run]) -> Iterator[list[_Run]]:
    """Runs of like length, those that begin at the root apart, as they need no mask."""
    for at_root in (True, False):
        chosen: list[_Run] = []
        for run in sorted((run for run in runs if (not run.before) == at_root), key=lambda run: -len(run.own)):
            if chosen and len(run.own) < _LIKE * len(chosen[0].own):
                yield chosen
                chosen = []
            chosen.append(run)
        if chosen:
            yield chosen


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
