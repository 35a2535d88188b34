"""The learner: an update of the weights from groups of trajectories, in plain torch.

What the trajectories of a group begin with in common is computed once, and only the tokens that the policy sampled
enter the loss. It plays no episodes and writes no files.
"""

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from recall.advantage import ADVANTAGES, group_advantages
from recall.errors import ConfigError
from recall.policy.torch.decoder import Decoder, decoder_for
from recall.policy.torch.layout import GroupLayout, common
from recall.policy.torch.logprobs import token_logprobs
from recall.trainers.algorithms import Algorithm, surrogate, token_weights, whitened
from recall.trainers.recipe import LearnerSettings
from recall.trainers.seen import Seen
from recall.types import Group, Trajectory

__all__ = ["Learner", "LearnerSettings", "batch_credits", "credits", "varies"]

GAPS = ("policy/logprob_gap_max", "policy/logprob_gap_mean")
"""Metrics of how far the sampler's log-probabilities are from the learner's, nats."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """One trajectory as the learner sees it."""

    trajectory: Trajectory
    prompt: tuple[int, ...]
    response: list[int]
    mask: list[bool]
    """[R] True where the policy wrote the token."""
    logprobs: list[float]
    """[R] the sampler's, 0.0 where the environment wrote."""
    advantage: float

    @property
    def sampled(self) -> int:
        return sum(self.mask)


def batch_credits(groups: Sequence[Group], algorithm: Algorithm) -> list[list[float]]:
    """By group, [G] the advantage of each trajectory, whitened over the batch where the algorithm says so.

    It is 0.0 for a fault of ours, which counts neither in its group nor in the batch.
    """
    found = [credits(group, algorithm) for group in groups]
    if not algorithm.whiten:
        return found
    places = [
        (row, column, sum(trajectory.mask))
        for row, group in enumerate(groups)
        for column, trajectory in enumerate(group.trajectories)
        if trajectory.fault is None
    ]
    values = whitened([found[row][column] for row, column, _ in places], [length for _, _, length in places])
    for (row, column, _), value in zip(places, values, strict=True):
        found[row][column] = value
    return found


def credits(group: Group, algorithm: Algorithm) -> list[float]:
    """[G] the advantage of each trajectory within its group; 0.0 for a fault of ours, which does not count in it."""
    sound = [number for number, trajectory in enumerate(group.trajectories) if trajectory.fault is None]
    advantages = [0.0] * len(group.trajectories)
    if sound:
        values = ADVANTAGES[algorithm.advantage]([group.rewards[number].score for number in sound])
        for number, value in zip(sound, values, strict=True):
            advantages[number] = value
    return advantages


def varies(group: Group) -> bool:
    """Whether the rewards of a group differ, those of trajectories with a fault of ours left out."""
    scores = [
        reward.score
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
        if trajectory.fault is None
    ]
    return bool(scores) and any(group_advantages(scores))


class Learner:
    """Holds the optimizer of a model and updates the model's parameters in place."""

    def __init__(
        self,
        model: nn.Module,
        settings: LearnerSettings,
        *,
        temperature: float = 1.0,
        dtype: torch.dtype = torch.float32,
        reference: nn.Module | None = None,
    ) -> None:
        """A learner of the parameters of `model` that require a gradient.

        Args:
            model: a causal language model of `transformers`, adapters included.
            settings: how to learn.
            temperature: that of sampling, so that both compute the same probabilities.
            dtype: what the forward and backward pass compute in; parameters and optimizer keep their own type.
            reference: with a KL coefficient, the weights to stay near to; None takes a copy of `model` as it is now.

        Raises:
            ConfigError: unknown algorithm, or greedy sampling.
        """
        if temperature <= 0:
            raise ConfigError("rollout.temperature: must be above 0 to learn from what was sampled")
        self.settings, self.algorithm, self._temperature = settings, settings.chosen(), temperature
        self.seen = Seen()
        """What the last update computed of each sampled token."""
        self._dtype = dtype
        self.model = model
        """What is trained."""
        self._decoder: Decoder = decoder_for(model)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._reference: Decoder | None = None
        self._kl = settings.kl
        if self._kl:
            self._reference = decoder_for((reference or copy.deepcopy(model)).requires_grad_(False))

    def update(self, groups: Sequence[Group], *, step: int, total_steps: int, seed: int) -> dict[str, float]:
        """Learn from one batch of groups.

        Args:
            groups: as they were played; groups without variance teach nothing and are passed over, and trajectories
                with a fault of ours are left out.
            step: from 0; with `total_steps` it decides the learning rate.
            total_steps: of the run.
            seed: decides the order of minibatches.

        Returns:
            Metrics by name; without any `groups/used` nothing was changed.

        Raises:
            ConfigError: a trajectory came from an engine that returns text only.
        """
        if any(trajectory.from_text for group in groups for trajectory in group.trajectories):
            raise ConfigError(
                "policy: an engine that returns text only cannot be trained on: what it sampled is not known; take "
                "one that returns token ids"
            )
        rate = self.settings.rate(step, total_steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        batch = zip(groups, batch_credits(groups, self.algorithm), strict=True)
        rows = [_samples(group, advantages) for group, advantages in batch if any(advantages)]
        rows = [row for row in rows if row]
        self.seen = Seen()
        metrics = {
            "groups/used": float(len(rows)),
            "groups/zero_variance": float(len(groups) - len(rows)),
            "learner/learning_rate": rate,
        }
        if not rows:
            return metrics
        corrections = self._corrections(rows) if self.settings.importance_cap is not None else None
        sums: dict[str, float] = {}
        updates = 0
        for epoch in range(self.settings.epochs):
            order = list(range(len(rows)))
            random.Random(f"learner/{seed}/{step}/{epoch}").shuffle(order)
            for part in _split(order, self.settings.minibatches):
                seen = self._step([rows[number] for number in part], corrections)
                if not updates:
                    # Later the weights are no longer those that sampled, so the gap would not be the engine's.
                    metrics |= {name: seen[name] for name in GAPS}
                for name in GAPS:
                    del seen[name]
                sums = {name: sums.get(name, 0.0) + value for name, value in seen.items()}
                updates += 1
        return metrics | {name: value / updates for name, value in sums.items()}

    def _step(self, groups: Sequence[Sequence[_Sample]], corrections: Mapping[int, Tensor] | None) -> dict[str, float]:
        """One optimizer step on some groups; gradients are those of the whole, however it is cut into passes."""
        samples = [sample for group in groups for sample in group]
        lengths = torch.tensor([sample.sampled for sample in samples], dtype=torch.float32)
        weights = token_weights(lengths, self.algorithm, self.settings.constant_length).tolist()
        weight_of = dict(zip(map(id, samples), weights, strict=True))
        total = float(lengths.sum())
        sums: dict[str, Tensor] = {}
        for passed in _passes(groups, self.settings.micro_tokens):
            loss, seen = self._loss(passed, weight_of, total, corrections)
            loss.backward()  # type: ignore[no-untyped-call]
            for name, value in seen.items():
                if name.endswith("_max"):
                    sums[name] = torch.maximum(sums[name], value) if name in sums else value
                else:
                    sums[name] = sums[name] + value if name in sums else value
        norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        if math.isfinite(float(norm)):
            self.optimizer.step()
            for parameter in self._parameters:
                # The fused optimizer writes without a trace, and the engine copies weights anew by this counter.
                torch.autograd.graph.increment_version(parameter)
        self.optimizer.zero_grad(set_to_none=True)
        metrics = {name: float(value) for name, value in sums.items()}
        return metrics | {"policy/grad_norm": float(norm), "policy/skipped": float(not math.isfinite(float(norm)))}

    def _loss(
        self,
        groups: Sequence[Sequence[_Sample]],
        weight_of: Mapping[int, float],
        total: float,
        corrections: Mapping[int, Tensor] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        samples = [sample for group in groups for sample in group]
        layout, own = self._layout(groups)
        logprobs, entropy = self._logprobs(self._decoder, layout, own)
        self.seen.take([sample.trajectory for sample in samples], logprobs, entropy)
        flat = [
            (value, sample.advantage, weight_of[id(sample)], number)
            for number, sample in enumerate(samples)
            for value, own in zip(sample.logprobs, sample.mask, strict=True)
            if own
        ]
        old, advantages, weights = (
            torch.tensor([row[column] for row in flat], dtype=torch.float32, device=self._device) for column in range(3)
        )
        sequence = torch.tensor([row[3] for row in flat], device=self._device)
        engine_gap = (logprobs.detach() - old).abs()
        averages = weights
        if corrections is not None:
            mine = torch.cat([corrections[id(sample)] for sample in samples])
            weights = weights * (mine - old).exp().clamp(max=self.settings.importance_cap)
            old = mine
        terms = surrogate(logprobs, old, advantages, sequence, self.algorithm)
        objective = (terms.objective * weights).sum()
        loss = -objective
        share = 1.0 / total
        change = logprobs.detach() - old
        seen = {
            "policy/loss": loss.detach(),
            "policy/entropy": entropy.detach().sum() * share,
            "policy/clip_fraction": terms.clipped.sum() * share,
            "policy/ratio_mean": terms.ratio.sum() * share,
            "policy/kl_old": (change.exp() - 1 - change).sum() * share,
            "policy/logprob_gap_max": engine_gap.max(),
            "policy/logprob_gap_mean": engine_gap.sum() * share,
        }
        if self.settings.entropy_coefficient:
            loss = loss - self.settings.entropy_coefficient * entropy.sum() * share
        if self._reference is not None:
            with torch.no_grad():
                reference, _ = self._logprobs(self._reference, layout, own)
            difference = reference - logprobs
            kl = difference.exp() - 1 - difference
            # Averaged as the objective is, as other trainers do.
            loss = loss + self._kl * (kl * averages).sum()
            seen["policy/kl_reference"] = kl.detach().sum() * share
        return loss, seen

    def _layout(self, groups: Sequence[Sequence[_Sample]]) -> tuple[GroupLayout, Tensor]:
        """The flat layout of some groups, and which of its response tokens the policy sampled."""
        layout = GroupLayout.build(
            [group[0].prompt for group in groups],
            [[sample.response for sample in group] for group in groups],
            self._device,
        )
        own = torch.tensor(
            [own for group in groups for sample in group for own in sample.mask], device=self._device
        ).nonzero()[:, 0]
        return layout, own

    def _logprobs(self, decoder: Decoder, layout: GroupLayout, own: Tensor) -> tuple[Tensor, Tensor]:
        """[M] log-probabilities of the sampled tokens and [M] entropies, nats, at the sampling temperature."""
        used, rows = torch.unique(layout.response_rows[own], return_inverse=True)
        logits = self._logits(decoder, layout, layout.predictors[used])
        if self._temperature != 1:
            logits = logits / self._temperature
        return token_logprobs(logits, rows, layout.response_targets[own])

    def _logits(self, decoder: Decoder, layout: GroupLayout, index: Tensor) -> Tensor:
        """[P, V] in float32, at some places of a layout."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            return decoder.forward(layout.token_ids, layout.positions, layout.attend, logits_at=index).float()

    @torch.no_grad()
    def score(self, token_ids: Sequence[int]) -> list[float]:
        """[n - 1] log-probabilities of the tokens after the first under the weights of now, nats at temperature 1."""
        layout = GroupLayout.build([tuple(token_ids[:1])], [[list(token_ids[1:])]], self._device)
        logits = self._logits(self._decoder, layout, layout.predictors)
        values: list[float] = token_logprobs(logits, layout.response_rows, layout.response_targets)[0].tolist()
        return values

    @torch.no_grad()
    def _corrections(self, rows: Sequence[Sequence[_Sample]]) -> dict[int, Tensor]:
        """By sample: [sampled] log-probabilities under the weights before the update."""
        found: dict[int, Tensor] = {}
        for passed in _passes(rows, self.settings.micro_tokens):
            logprobs, _ = self._logprobs(self._decoder, *self._layout(passed))
            samples = [sample for group in passed for sample in group]
            parts = torch.split(logprobs, [sample.sampled for sample in samples])
            found |= {id(sample): part for sample, part in zip(samples, parts, strict=True)}
        return found


def _samples(group: Group, advantages: Sequence[float]) -> list[_Sample]:
    """The trajectories of a group that count: without a fault of ours, and with a token of the policy's.

    One whose advantage happens to be 0.0 moves nothing by itself, but averages are over it too.
    """
    return [
        _sample(trajectory, advantage)
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True)
        if trajectory.fault is None and any(trajectory.mask)
    ]


def _sample(trajectory: Trajectory, advantage: float) -> _Sample:
    start = len(trajectory.prompt_ids)
    return _Sample(
        trajectory,
        trajectory.prompt_ids,
        trajectory.token_ids[start:],
        trajectory.mask[start:],
        trajectory.logprobs[start:],
        advantage,
    )


def _passes(groups: Sequence[Sequence[_Sample]], budget: int) -> Iterator[list[list[_Sample]]]:
    """Cut groups into passes of at most `budget` tokens; a trajectory is never cut.

    What trajectories of a group begin with in common counts once, as it is computed once. Groups of like length go
    together, which saves padding in attention. A group that no pass can hold is cut by trajectories, and what the
    parts share is computed once a part.
    """
    current: list[list[_Sample]] = []
    used = 0
    for group in sorted(groups, key=lambda group: max(len(sample.response) for sample in group)):
        # In this order each shares most with the one before it.
        alike = sorted(group, key=lambda sample: sample.response)
        new = [len(alike[0].prompt) + len(alike[0].response)]
        new += [len(b.response) - common(a.response, b.response) for a, b in pairwise(alike)]
        if used and sum(new) <= budget < used + sum(new):
            yield current
            current, used = [], 0
        part: list[_Sample] = []
        for sample, cost in zip(alike, new, strict=True):
            if used and used + cost > budget:
                if part:
                    current.append(part)
                yield current
                current, part, used = [], [], 0
                cost = len(sample.prompt) + len(sample.response)
            part.append(sample)
            used += cost
        current.append(part)
    if current:
        yield current


def _split(order: Sequence[int], parts: int) -> list[list[int]]:
    """`order` in at most `parts` runs of nearly equal length, none empty."""
    parts = min(parts, len(order))
    bounds = [len(order) * number // parts for number in range(parts + 1)]
    return [list(order[start:stop]) for start, stop in pairwise(bounds)]
