"""Tasks in which the user speaks more than once: what is said next follows a turn of the policy that makes no call."""

from collections.abc import Callable, Sequence

from recall.environment import Environment
from recall.types import AssistantTurn, Message, Step, Task, ToolSpec

LATER = "later_turns"
"""Where a task keeps what the user says after the question, in `extra`."""


class DialogueEnvironment:
    """An environment whose user has more to say; the last turn is that of the environment itself."""

    def __init__(self, environment: Environment, later: Sequence[str]) -> None:
        """Take the environment of the task, and what the user says after the question."""
        self._environment, self._later = environment, list(later)

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """What the policy is told of the tools."""
        return self._environment.tools

    async def start(self) -> Sequence[Message]:
        """The question."""
        return await self._environment.start()

    async def step(self, turn: AssistantTurn) -> Step:
        """Run the calls of a turn, or go on to what the user says next."""
        if turn.calls or not self._later:
            return await self._environment.step(turn)
        return Step((Message("user", self._later.pop(0)),))

    async def close(self) -> None:
        """End the environment."""
        await self._environment.close()


def with_dialogue(environments: Callable[[Task], Environment]) -> Callable[[Task], Environment]:
    """The same environments, but dialogues for tasks in which the user speaks more than once."""

    def environment(task: Task) -> Environment:
        made = environments(task)
        later = task.extra.get(LATER, ())
        return DialogueEnvironment(made, later) if later else made

    return environment
