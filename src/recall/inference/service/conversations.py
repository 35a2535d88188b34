"""Episodes whose caller runs some of the tools: they wait, between two requests, for what the caller returns.

The protocol is stateless: a caller sends the whole conversation each time. Yet an episode must go on as it was, with
the tokens as they were sampled and its own tools as they are. So a call of the caller's tool is a future that waits
here, the request ends with the call handed back, and the request that brings the result finds the episode by the id of
the call. One that never comes is given up after a while. A conversation that is not known (another server began it, or
it was given up) is read from its messages instead.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recall.inference.agent import ReCall
from recall.inference.events import EpisodeDone, Event, TurnDone, TurnText
from recall.inference.service.bodies import Asked
from recall.sandbox.base import CallResult
from recall.tools.base import Marks, Tool, Toolbox
from recall.types import AssistantTurn, CallStatus, Sampling, ToolSpec, Trajectory

_NEVER_S = 1e9
"""A caller may take as long as it likes; how long an episode waits for it is decided here."""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """A call that the caller is to make."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(eq=False)
class Episode:
    """One episode, over as many requests as it takes."""

    events: "asyncio.Queue[Event | HandedBack | BaseException | None]" = field(default_factory=asyncio.Queue)
    """What happens, for the request that listens; None ends the episode, an exception is what it raised."""
    waiting: dict[str, "asyncio.Future[str]"] = field(default_factory=dict)
    """By id, the calls that the caller makes."""
    playing: "asyncio.Task[None] | None" = None
    expiry: asyncio.TimerHandle | None = None
    said: AssistantTurn | None = None
    """The last turn that is whole."""
    trajectory: Trajectory | None = None
    """The episode, once it is over."""


class Conversations:
    """The episodes of one agent that run or wait."""

    def __init__(self, agent: ReCall, *, wait_s: float, at_once: int) -> None:
        """Take the agent.

        Args:
            agent: plays the episodes.
            wait_s: seconds for which an episode waits for its caller.
            at_once: episodes that run or wait at the same time.
        """
        self._agent, self._wait_s, self.at_once = agent, wait_s, at_once
        self._by_call: dict[str, Episode] = {}
        self.alive: set[Episode] = set()
        """The episodes that run or wait."""
        self.given_up = 0
        """Episodes whose caller did not come back."""

    @property
    def waiting(self) -> int:
        """How many episodes wait for their caller."""
        return sum(bool(episode.waiting) for episode in self.alive)

    def find(self, asked: Asked) -> Episode | None:
        """The episode that waits for the results that a request brings."""
        results = asked.results
        episodes = {self._by_call[id] for id in results if id in self._by_call}
        if len(episodes) != 1:
            return None
        (episode,) = episodes
        return episode if episode.waiting.keys() <= results.keys() else None

    def resume(self, episode: Episode, results: Mapping[str, str]) -> None:
        """Let an episode go on with what its caller returned."""
        if episode.expiry is not None:
            episode.expiry.cancel()
        for id, waiting in episode.waiting.items():
            del self._by_call[id]
            waiting.set_result(results[id])
        episode.waiting = {}

    def begin(self, asked: Asked) -> Episode:
        """Begin an episode on a conversation as its messages tell it."""
        episode = Episode()
        self.alive.add(episode)
        episode.playing = asyncio.create_task(self._play(episode, asked))
        return episode

    def wait(self, episode: Episode) -> None:
        """Keep an episode for its caller to come back to."""
        episode.expiry = asyncio.get_running_loop().call_later(self._wait_s, self._give_up, episode)

    def drop(self, episode: Episode) -> None:
        """End an episode whose caller is gone."""
        for id in episode.waiting:
            self._by_call.pop(id, None)
        if episode.playing is not None:
            episode.playing.cancel()

    async def close(self) -> None:
        """End all episodes."""
        tasks = [episode.playing for episode in self.alive if episode.playing is not None]
        for episode in tuple(self.alive):
            self.drop(episode)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self, episode: Episode) -> None:
        self.given_up += 1
        self.drop(episode)

    async def _play(self, episode: Episode, asked: Asked) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, TurnDone):
                episode.said = event.said
            if isinstance(event, EpisodeDone):
                episode.trajectory = event.trajectory
            elif not isinstance(event, TurnText) or event.text:
                episode.events.put_nowait(event)

        tools = [*self._agent.sources, *([_CallersTools(self, episode, asked.tools)] if asked.tools else [])]
        try:
            limits = (await self._agent.model()).limits if self._agent.limits is None else self._agent.limits
            sampling = Sampling(
                temperature=asked.temperature or 0.0,
                top_p=asked.top_p or 1.0,
                max_tokens=min(asked.max_tokens or limits.max_turn_tokens, limits.max_turn_tokens),
                seed=asked.seed,
            )
            await self._agent.ask(asked.messages, tools=tools, limits=limits, sampling=sampling, observe=observe)
        except Exception as error:  # noqa: BLE001 - raised again by the request that listens
            episode.events.put_nowait(error)
        finally:
            episode.events.put_nowait(None)
            self.alive.discard(episode)

    def hand_back(self, episode: Episode, name: str, arguments: Mapping[str, Any]) -> "asyncio.Future[str]":
        """Hand a call to the caller; what it returns will be the result of the future."""
        id = f"call_{secrets.token_hex(12)}"
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        episode.waiting[id], self._by_call[id] = waiting, episode
        episode.events.put_nowait(HandedBack(id, name, arguments))
        return waiting


class _CallersTools:
    """The caller's tools as a source; a call of one waits for the caller."""

    def __init__(self, conversations: Conversations, episode: Episode, specs: Sequence[ToolSpec]) -> None:
        self._conversations, self._episode = conversations, episode
        self.tools = tuple(Tool(spec, Marks(timeout_s=_NEVER_S)) for spec in specs)

    async def open(self) -> Toolbox:
        return Toolbox(self.tools, self)

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        text = await self._conversations.hand_back(self._episode, name, arguments)
        return CallResult(CallStatus.OK, text)

    async def close(self) -> None:
        """Nothing to do."""
