"""Keep what samples in step with what learns, and measure how far apart the two are.

An engine on the trainer's own weights is in step by itself. vLLM has a copy: it rests while the update runs, takes the
new weights, and is then asked for the log-probabilities of known tokens, which have to be the trainer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recall.errors import PolicyError
from recall.policy.torch import TorchPolicy
from recall.policy.vllm import VllmPolicy
from recall.trainers.learner import Learner
from recall.types import Group

PROBES = 4
"""Sequences that are compared after a sync."""
PATIENCE = 3
"""So many syncs in a row beyond the tolerance end a run."""
FAR = 10.0
"""So many times the tolerance ends it at once."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the engine's log-probabilities are from the trainer's, nats."""

    mean: float
    largest: float


class DriftWatch:
    """Counts syncs after which engine and trainer were too far apart."""

    def __init__(self, tolerance: float, *, float32: bool) -> None:
        """A watch that has seen nothing.

        Args:
            tolerance: nats that are accepted.
            float32: whether the largest difference counts; in bfloat16 single tokens are far off and the mean counts.
        """
        self._tolerance, self._float32, self._beyond = tolerance, float32, 0

    def saw(self, drift: Drift) -> dict[str, float]:
        """The metrics of a sync.

        Raises:
            PolicyError: the two are so far apart, or have been for so long, that what is learned is not to be trusted.
        """
        value = drift.largest if self._float32 else drift.mean
        self._beyond = self._beyond + 1 if not value <= self._tolerance else 0
        if self._beyond >= PATIENCE or not value <= FAR * self._tolerance:
            raise PolicyError(
                f"the engine's log-probabilities are {value:.2g} nats from the trainer's after a sync, where "
                f"policy.vllm.tolerance is {self._tolerance:g}; its weights are not the trainer's"
            )
        return {
            "engine/drift_mean": drift.mean,
            "engine/drift_max": drift.largest,
            "engine/drifted": float(self._beyond > 0),
        }


class Following:
    """The engine of a run, as its trainer moves it along."""

    def __init__(self, policy: TorchPolicy | VllmPolicy, learner: Learner, watch: DriftWatch) -> None:
        self._policy, self._learner, self._watch = policy, learner, watch

    async def start(self, probes: Sequence[Sequence[int]]) -> None:
        """Make sure that the engine, which is running, begins in step; `probes` as for `follow`.

        Raises:
            PolicyError: it does not have the trainer's weights.
        """
        if isinstance(self._policy, VllmPolicy):
            self._watch.saw(await self.drift(probes[:PROBES]))

    async def rest(self) -> None:
        """Make room for an update; nothing samples until `follow`."""
        if isinstance(self._policy, VllmPolicy):
            await self._policy.rest()

    async def follow(self, version: int, probes: Sequence[Sequence[int]]) -> dict[str, float]:
        """Sample with the trainer's weights from now on.

        Args:
            version: the number of updates behind them.
            probes: token ids of some sequences, each of at least two; the first of them are compared.

        Returns:
            Metrics of how far apart engine and trainer are; none where they share their weights.

        Raises:
            PolicyError: the weights did not arrive, or are not the trainer's.
        """
        if isinstance(self._policy, TorchPolicy):
            self._policy.version = version
            return {}
        await self._policy.follow(self._learner.model, version)
        return self._watch.saw(await self.drift(probes[:PROBES]))

    async def drift(self, probes: Sequence[Sequence[int]]) -> Drift:
        """How far apart engine and trainer are on some sequences."""
        assert isinstance(self._policy, VllmPolicy)
        gaps: list[float] = []
        for ids in probes:
            mine = self._learner.score(ids)
            gaps += [abs(a - b) for a, b in zip(mine, await self._policy.score(ids), strict=True)]
        return Drift(sum(gaps) / len(gaps), max(gaps))


def probes_of(groups: Sequence[Group]) -> list[list[int]]:
    """Sequences to compare engine and trainer on: a trajectory of each of the first groups.

    Each but for its last token, because an engine that scores a sequence wants room for one more.
    """
    whole = [next((t.token_ids[:-1] for t in group.trajectories if t.fault is None), []) for group in groups]
    return [ids for ids in whole if len(ids) > 1][:PROBES]
