"""The policy behind verl's servers: token ids in, token ids and log-probabilities out, and which weights sampled them.

verl balances the load, and keeps an episode on the server that has its prefix in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recall.errors import PolicyError, boundary
from recall.types import Completion, Sampling


class TokenOutput(Protocol):
    """What verl's servers answer."""

    token_ids: Sequence[int]
    """[n] what was sampled, the stop token included."""
    log_probs: Sequence[float] | None
    """[n] nats at the sampling temperature."""
    extra_fields: Mapping[str, Any]
    """`min_global_steps` and `max_global_steps`: the versions of the weights that sampled it."""


class Servers(Protocol):
    """verl's `LLMServerClient`."""

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> TokenOutput:
        """Sample after `prompt_ids`; requests of one id go to one server."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the weights that sampled an episode, by number of updates."""

    oldest: int
    newest: int

    def joined(self, other: "Versions") -> "Versions":
        """Those of two runs of tokens."""
        return Versions(min(self.oldest, other.oldest), max(self.newest, other.newest))


class ServerPolicy:
    """Samples turns of one process's episodes on verl's servers."""

    def __init__(
        self, servers: Servers, *, stop_token_ids: Sequence[int], faults: tuple[type[Exception], ...] = ()
    ) -> None:
        """Take the servers.

        Args:
            servers: verl's client of them.
            stop_token_ids: tokens that end a turn.
            faults: what the client raises when a server, not the request, is to blame.
        """
        self._servers, self._stops, self._faults = servers, list(stop_token_ids), faults
        self._versions: dict[str, Versions | None] = {}

    def begin(self, episode_id: str) -> None:
        """Announce an episode."""
        self._versions[episode_id] = None

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy`. The seed is not passed on: what a server samples depends on its batch anyway.

        Raises:
            PolicyError: the server failed, was told to drop the request, or answered what cannot be trained on.
        """
        asked = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "logprobs": True,
            "max_tokens": sampling.max_tokens,
            "stop_token_ids": self._stops,
        }
        with boundary(PolicyError, "sampling on a server of verl", *self._faults):
            output = await self._servers.generate(episode_id, prompt_ids=list(prompt_ids), sampling_params=asked)
        ids = tuple(output.token_ids)
        if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
            raise PolicyError(f"a server of verl answered {len(ids)} tokens without a log-probability of each")
        versions = _versions(output.extra_fields)
        before = self._versions.get(episode_id)
        self._versions[episode_id] = versions if before is None else before.joined(versions)
        # The servers say "completed" of both; the last token tells.
        finish = "stop" if ids[-1] in self._stops else "length"
        if finish == "length" and len(ids) < sampling.max_tokens:
            raise PolicyError(f"a server of verl broke off after {len(ids)} of {sampling.max_tokens} tokens")
        return Completion(ids, tuple(map(float, output.log_probs)), finish, versions.newest)  # type: ignore[arg-type]

    def end(self, episode_id: str) -> None:
        """See `Policy`; what `versions` says of the episode is kept until it is asked for."""

    def versions(self, episode_id: str) -> Versions:
        """The versions that sampled an episode, once; 0 to 0 where nothing was sampled."""
        return self._versions.pop(episode_id, None) or Versions(0, 0)


def _versions(fields: Mapping[str, Any]) -> Versions:
    newest = fields.get("max_global_steps")
    oldest = fields.get("min_global_steps")
    newest = 0 if newest is None else int(newest)
    return Versions(newest if oldest is None else int(oldest), newest)
