"""What an endpoint may cost: tokens and requests, counted over all runs on one directory and never overdrawn.

A request sets aside the most that it can cost before it is sent; what it did cost is booked when its answer is there.
An endpoint that says nothing of its use is booked by an estimate from the length of the texts.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from recall.synth.llm.errors import SpentError

_CHARS_PER_TOKEN = 3
"""Few for English, so that an estimate is rather too high."""
_TOKENS_PER_MESSAGE = 8


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request cost."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    """Whether the endpoint did not say, so that these are guesses from the length of the texts."""

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


class Charge:
    """What was set aside for one request."""

    def __init__(self, most: int) -> None:
        self.tokens = most
        """What it costs; at first the most that it can."""


class Budget:
    """Counts what was spent and refuses what would go beyond."""

    def __init__(self, max_tokens: int | None = None, max_requests: int | None = None) -> None:
        """Take the limits; None sets none."""
        self.max_tokens, self.max_requests = max_tokens, max_requests
        self.tokens = 0
        """Tokens spent, prompts included."""
        self.requests = 0
        """Requests sent, failed ones included."""
        self._aside = 0
        self._waiting: list[asyncio.Future[None]] = []

    def spent_before(self, tokens: int, requests: int) -> None:
        """Book what earlier runs have spent."""
        self.tokens += tokens
        self.requests += requests

    @asynccontextmanager
    async def set_aside(self, most: int) -> AsyncIterator[Charge]:
        """Set `most` tokens aside; on leaving, book `Charge.tokens` in their place, or nothing if there was no answer.

        Waits for requests under way where their end may leave room.

        Raises:
            SpentError: there is not so much left.
        """
        while not self._covers(most):
            if not self._aside:
                raise SpentError(f"{self.tokens} of {self.max_tokens} tokens are spent; the next may take {most}")
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            await room
        self._aside += most
        charge = Charge(most)
        answered = False
        try:
            yield charge
            answered = True
        finally:
            self._aside -= most
            self.tokens += charge.tokens if answered else 0
            waiting, self._waiting = self._waiting, []
            for room in waiting:
                if not room.done():
                    room.set_result(None)

    def count_request(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            SpentError: no more may be sent.
        """
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise SpentError(f"{self.requests} of {self.max_requests} requests are sent")
        self.requests += 1

    def _covers(self, most: int) -> bool:
        return self.max_tokens is None or self.tokens + self._aside + most <= self.max_tokens


def estimate(texts: Sequence[str]) -> int:
    """Tokens of messages with these texts, rather too many than too few."""
    return sum(-(-len(text) // _CHARS_PER_TOKEN) + _TOKENS_PER_MESSAGE for text in texts)


def usage_of(answer: Mapping[str, object], prompt: Sequence[str], text: str) -> Usage:
    """What an answer says that it cost, or an estimate."""
    match answer.get("usage"):
        case {"prompt_tokens": int(read), "completion_tokens": int(written)} if read >= 0 and written >= 0:
            return Usage(read, written)
    return Usage(estimate(prompt), estimate([text]), estimated=True)
