"""Turns that end at a text, such as `</search>`, for engines that only know how to end at a token.

The engine is asked for a few tokens at a time, and what it sampled beyond the token that completes the text is dropped,
so no more is ever wasted than the rest of a piece. What is kept is kept as it was sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from recall.policy.base import Policy
from recall.types import Completion, Sampling


class StopAtText:
    """A policy whose turns also end with the token that completes one of some texts."""

    def __init__(
        self,
        policy: Policy,
        decode: Callable[[Sequence[int]], str],
        texts: Sequence[str],
        *,
        piece_tokens: int | None = 32,
    ) -> None:
        """Wrap a policy.

        Args:
            policy: does the sampling.
            decode: the text of any ids, of the policy's model.
            texts: what ends a turn.
            piece_tokens: tokens asked for at once; None asks for the whole turn, where the engine ends it by itself.
        """
        self._policy, self._decode, self._texts = policy, decode, tuple(texts)
        self._piece_tokens = piece_tokens

    def begin(self, episode_id: str) -> None:
        """Announce an episode."""
        self._policy.begin(episode_id)

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`. The seed of a piece is made of the turn's seed and its number."""
        ids: list[int] = []
        logprobs: list[float] = []
        for number in range(sampling.max_tokens):
            room = sampling.max_tokens - len(ids)
            asked = sampling.within(min(room, self._piece_tokens or room), turn=number)
            piece = await self._policy.sample([*prompt_ids, *ids], asked, episode_id=episode_id)
            begin = len(ids)
            ids += piece.token_ids
            logprobs += piece.logprobs
            end = self._end(ids, begin)
            if end is not None:
                return Completion(
                    tuple(ids[:end]), tuple(logprobs[:end]), "stop", piece.policy_version, piece.from_text
                )
            # A piece shorter than asked for is the engine's own limit: its context is full.
            if (
                piece.finish_reason == "stop"
                or len(piece.token_ids) < asked.max_tokens
                or len(ids) >= sampling.max_tokens
            ):
                return replace(piece, token_ids=tuple(ids), logprobs=tuple(logprobs))
        raise AssertionError("each piece has a token at least")

    def end(self, episode_id: str) -> None:
        """Forget the episode."""
        self._policy.end(episode_id)

    def _end(self, ids: Sequence[int], begin: int) -> int | None:
        """How many of `ids` there are up to a text that one of those from `begin` on completes; None without one."""
        for text in self._texts:
            # A token that is part of the text gives it a byte at least, so none of it can lie further back than this.
            start = max(0, begin - len(text.encode()))
            if text not in self._decode(ids[start:]):
                continue
            for end in range(begin + 1, len(ids) + 1):
                if text in self._decode(ids[start:end]):
                    return end
        return None
