"""The update as it is commonly done: every trajectory a row of its own, prompt copied, padded to the longest.

The loss is the learner's, term by term, and so are optimizer, clipping and the tokens of one pass; what differs is the
layout. Rows are padded on the right, where the causal mask alone keeps padding out, so attention takes its fastest way,
and logits are computed only where a response may stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recall.trainers.algorithms import surrogate, token_weights
from recall.trainers.learner import LearnerSettings, credits
from recall.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory with what it weighs."""

    trajectory: Trajectory
    advantage: float
    weight: float
    """Of each sampled token in the loss."""


class PaddedLearner:
    """Updates a model of `transformers` in place, through its own forward."""

    def __init__(self, model: Any, settings: LearnerSettings) -> None:
        """Of `settings`, algorithm, learning rate, clipping and tokens of a pass are honoured; one step a batch."""
        self.model, self.settings, self.algorithm = model, settings, settings.chosen()
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def update(self, groups: Sequence[Group]) -> dict[str, float]:
        """One optimizer step on all groups; returns loss and mean entropy."""
        pairs = [
            (trajectory, advantage)
            for group in groups
            for trajectory, advantage in zip(group.trajectories, credits(group, self.algorithm), strict=True)
            if advantage
        ]
        lengths = torch.tensor([sum(trajectory.mask) for trajectory, _ in pairs], dtype=torch.float32)
        weights = token_weights(lengths, self.algorithm, self.settings.constant_length).tolist()
        rows = [Row(*pair, weight) for pair, weight in zip(pairs, weights, strict=True)]
        longest = max(len(row.trajectory.token_ids) for row in rows)
        size = max(1, self.settings.micro_tokens // longest)
        loss, entropy = 0.0, 0.0
        for start in range(0, len(rows), size):
            part, part_entropy = self._backward(rows[start : start + size], longest)
            loss, entropy = loss + part, entropy + part_entropy
        nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"policy/loss": loss, "policy/entropy": entropy / float(lengths.sum())}

    def _backward(self, rows: Sequence[Row], longest: int) -> tuple[float, float]:
        normal, tokens, learned = log_distributions(self.model, [row.trajectory for row in rows], longest)
        logprobs = normal.gather(-1, tokens[learned][:, None])[:, 0]
        number = learned.nonzero()[:, 0]
        old = torch.tensor([p for row in rows for s in row.trajectory.segments for p in s.logprobs or ()])
        advantages = torch.tensor([row.advantage for row in rows])[number]
        weights = torch.tensor([row.weight for row in rows])[number]
        terms = surrogate(logprobs, old, advantages, number, self.algorithm)
        loss = -(terms.objective * weights).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            entropy = -(normal.exp() * normal).sum()
        return loss.item(), entropy.item()


def log_distributions(model: Any, trajectories: Sequence[Trajectory], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """[M, V] log-probabilities where the M sampled tokens were drawn, [B, R] tokens, and [B, R] where these M are."""
    first = min(len(trajectory.prompt_ids) for trajectory in trajectories)
    tokens = torch.zeros(len(trajectories), longest, dtype=torch.long)
    learned = torch.zeros(len(trajectories), longest, dtype=torch.bool)
    for row, trajectory in enumerate(trajectories):
        tokens[row, : len(trajectory.token_ids)] = torch.tensor(trajectory.token_ids)
        learned[row, : len(trajectory.mask)] = torch.tensor(trajectory.mask)
    logits = model(input_ids=tokens, use_cache=False, logits_to_keep=torch.arange(first - 1, longest - 1)).logits
    tokens, learned = tokens[:, first:], learned[:, first:]
    return torch.log_softmax(logits[learned].float(), -1), tokens, learned
