"""The seam to an engine: something that samples a turn, token ids in and token ids out."""

from collections.abc import Sequence
from typing import Protocol

from recall.types import Completion, Sampling


class Policy(Protocol):
    """Samples turns for many episodes at once."""

    def begin(self, episode_id: str) -> None:
        """Announce an episode. An engine may wait for announced episodes when it forms a batch."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn after `prompt_ids`, the whole context of the episode so far.

        Raises:
            PolicyError: the engine failed; the episode is recorded as ours to blame.
        """

    def end(self, episode_id: str) -> None:
        """Forget the episode and free what was kept for it. Called exactly once, however the episode ended."""
