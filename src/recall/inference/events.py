"""What happens in an episode, as it happens.

The loop knows nothing of this: its policy and its environment are wrapped, and tell what passes through them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recall.environment import Environment
from recall.policy.base import Policy, Streams
from recall.renderer import Renderer
from recall.types import AssistantTurn, CallRecord, Completion, Message, Sampling, Step, ToolSpec, Trajectory


@dataclass(frozen=True, slots=True)
class EpisodeStarted:
    """The tools are there, and the policy is about to read the messages."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]


@dataclass(frozen=True, slots=True)
class TurnText:
    """A piece of a turn as it is sampled; the whole turn at once where the engine does not stream."""

    turn: int
    """The number of the turn, from 0."""
    text: str
    """The piece, control tokens shown."""


@dataclass(frozen=True, slots=True)
class TurnDone:
    """A turn is whole; its calls are about to run."""

    turn: int
    said: AssistantTurn


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call came to its end; those of one turn end in any order."""

    index: int
    """Its place among the calls of its turn."""
    record: CallRecord


@dataclass(frozen=True, slots=True)
class EpisodeDone:
    """The last event of every episode that was not cancelled."""

    trajectory: Trajectory


Event = EpisodeStarted | TurnText | TurnDone | CallDone | EpisodeDone
Observe = Callable[[Event], None]
"""Told of each event, in the event loop of the episode; it must not block."""


class ObservedPolicy:
    """A policy of one episode that tells what it samples."""

    def __init__(self, policy: Policy, renderer: Renderer, observe: Observe) -> None:
        self._policy, self._renderer, self._observe = policy, renderer, observe
        self._turn = 0
        self._heard = False

    def begin(self, episode_id: str) -> None:
        """Announce the episode, and listen to it where the engine streams."""
        self._policy.begin(episode_id)
        if isinstance(self._policy, Streams):
            self._policy.listen(episode_id, self._hear)

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`."""
        self._heard = False
        completion = await self._policy.sample(prompt_ids, sampling, episode_id=episode_id)
        if not self._heard:
            self._hear(self._renderer.decode(completion.token_ids))
        self._turn += 1
        return completion

    def end(self, episode_id: str) -> None:
        """Forget the episode."""
        self._policy.end(episode_id)

    def _hear(self, text: str) -> None:
        self._heard = True
        self._observe(TurnText(self._turn, text))


class ObservedEnvironment:
    """An environment that tells of its start and of each turn; each call is told of where it runs."""

    def __init__(self, env: Environment, observe: Observe) -> None:
        self._env, self._observe = env, observe
        self._turn = 0

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What the policy is told of the tools."""
        return self._env.tools

    async def start(self) -> Sequence[Message]:
        """The messages before the first turn."""
        messages = await self._env.start()
        self._observe(EpisodeStarted(tuple(messages), tuple(self._env.tools)))
        return messages

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of a turn."""
        self._observe(TurnDone(self._turn, turn))
        self._turn += 1
        return await self._env.step(turn)

    async def close(self) -> None:
        """Throw the state of the episode away."""
        await self._env.close()
