"""One episode played without a model: the task's reference program, or a call of every tool, in the renderer's words.

What is said goes through the renderer and the parser, and calls run where the run's will, so a rehearsal comes to what
a policy that knows the way would.
"""

import json
from collections.abc import Generator, Sequence

from recall.doctor.dialogue import Writer, example_call
from recall.environment import Environment, Limits
from recall.policy.scripted import reference_script
from recall.rollout import rollout
from recall.tool_calls import format_calls, format_results, parse_turn
from recall.types import AssistantTurn, Completion, Message, Sampling, Step, Task, ToolCall, ToolSpec, Trajectory

Script = Generator[str, str, None]

WRONG_ANSWER = "none of the above 7041"
"""What no task accepts."""


def example_script(task: Task, most_calls: int) -> Script:
    """Calls each tool of the task once, as far as calls reach, and gives an accepted answer."""
    for tool in task.tools[:most_calls]:
        yield format_calls([example_call(tool)])
    yield f"\\boxed{{{task.ground_truth[0] if task.ground_truth else 'done'}}}"


def wrong_script() -> Script:
    """Gives an answer that no task accepts."""
    yield f"\\boxed{{{WRONG_ANSWER}}}"


class Rehearsal:
    """Plays a script: the policy of an episode, and its environment, so that results are read as they are."""

    def __init__(self, env: Environment, renderer: Writer, script: Script) -> None:
        self._env, self._renderer, self._script = env, renderer, script
        self._results: list[str] | None = None
        self._last = ""
        self.completions: list[Completion] = []
        """What was written, in order."""

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """Of the episode."""
        return self._env.tools

    async def start(self) -> Sequence[Message]:
        """See `Environment`."""
        return await self._env.start()

    async def step(self, turn: AssistantTurn) -> Step:
        """See `Environment`; results are kept for the script."""
        step = await self._env.step(turn)
        self._results = [message.content for message in step.messages if message.role == "tool"]
        return step

    async def close(self) -> None:
        """See `Environment`."""
        self._script.close()
        await self._env.close()

    def begin(self, episode_id: str) -> None:
        """See `Policy`."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """The next turn of the script, cut where the sampling says."""
        try:
            text = next(self._script) if self._results is None else self._script.send(format_results(self._results))
        except StopIteration:
            text = self._last  # a user who has more to say hears the same again
        self._last = text
        calls = [call for call in parse_turn(text).calls if isinstance(call, ToolCall)]
        ids = tuple(self._renderer.call_turn(calls) if calls else self._renderer.turn(text))
        written = ids[: sampling.max_tokens]
        whole = len(written) == len(ids)
        completion = Completion(written, (0.0,) * len(written), "stop" if whole else "length")
        self.completions.append(completion)
        return completion

    def end(self, episode_id: str) -> None:
        """See `Policy`."""


async def rehearse(
    task: Task, env: Environment, renderer: Writer, limits: Limits, script: Script | None = None
) -> tuple[Trajectory, list[Completion]]:
    """Play a task by its reference program, or else by calling each tool once; or by a script of the caller's.

    Returns:
        The trajectory, and what was written in it.

    Raises:
        ConfigError: the prompt is too long, or the dialect has no words for the task.
    """
    if script is None:
        most = max(0, min(limits.max_calls, limits.max_turns - 1))
        script = reference_script(task)("") if task.reference else example_script(task, most)
    played = Rehearsal(env, renderer, script)
    trajectory = await rollout(
        played,
        played,
        renderer,
        task_id=task.id,
        episode_id=f"rehearsal/{task.id}",
        sampling=Sampling(max_tokens=limits.max_turn_tokens),
        limits=limits,
    )
    return trajectory, played.completions


def said(trajectory: Trajectory) -> str:
    """The calls of an episode in a line, for people."""
    return "; ".join(
        f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in trajectory.calls
    )
