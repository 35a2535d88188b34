"""The seam to an engine: something that samples a turn, token ids in and token ids out."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Streams(Protocol):
    """A policy that can be heard while it samples."""

    def listen(self, episode_id: str, heard: Callable[[str], None]) -> None:
        """Pass on each piece of text of the episode's turns as it is sampled, until the episode ends.

        Args:
            episode_id: of an episode that has begun.
            heard: called in the event loop; it must not block.
        """
