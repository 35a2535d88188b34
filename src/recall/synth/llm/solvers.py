"""Asks models whether a task is what it seems: not answerable without tools, understood alike by another, solvable.

The cheap questions come first, and the first that goes wrong ends the matter.
"""

from pydantic import Field

from recall import answers
from recall.config import Settings
from recall.environment import CHANGES, Limits, ToolEnvironment
from recall.errors import RolloutError
from recall.renderer import schema_line
from recall.rewards import solved
from recall.rewards.state import same_changes
from recall.rollout import rollout
from recall.sandbox.base import Sandbox
from recall.synth.llm import lint
from recall.synth.llm.author import Log
from recall.synth.llm.certify import answer_text
from recall.synth.llm.chat_policy import ChatPolicy, TextRenderer
from recall.synth.llm.client import Ask, ChatClient, Reply
from recall.synth.llm.errors import RefusedError, RejectedError
from recall.synth.llm.prompts import prompt
from recall.synth.llm.questions import form_in_words
from recall.synth.llm.replies import code_in, visible
from recall.synth.llm.together import together
from recall.types import CallStatus, Sampling, StopReason, Task, Trajectory

_TURN_CHARS = 32_768
_SOLVE = "solve"


class SolverSettings(Settings):
    """How models are asked about a task."""

    guesses: int = Field(default=8, ge=0, le=64)
    """Answers without tools, none of which may be right."""
    guess_tokens: int = Field(default=512, ge=16)
    """The longest of them."""
    programs: bool = True
    """Whether a second model writes a program of its own, whose answer must be the same."""
    program_tokens: int = Field(default=4096, ge=64)
    """The longest of these programs."""
    solvers: int = Field(default=4, ge=0, le=64)
    """Episodes with tools, at least one of which must solve the task."""
    most_solved: int = Field(default=3, ge=1, le=64)
    """How many of them may solve it at most; as many as there are episodes lets easy tasks in."""
    turn_tokens: int = Field(default=2048, ge=64)
    """The longest turn of an episode."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Of guesses and episodes."""


class Solvers:
    """The models that are asked, and the sandbox that their calls and programs run in."""

    def __init__(self, client: ChatClient, second: ChatClient, sandbox: Sandbox, settings: SolverSettings) -> None:
        """Take the models.

        Args:
            client: guesses, and plays with tools.
            second: writes a program of its own.
            sandbox: where tools and programs run.
            settings: how they are asked.
        """
        self._client, self._second, self._sandbox, self._settings = client, second, sandbox, settings

    async def judge(self, task: Task, log: Log) -> None:
        """Ask about a task.

        Args:
            task: with its question.
            log: is told what was found.

        Raises:
            RejectedError: the task is not what it should be.
        """
        await self._guess(task, log)
        if self._settings.programs:
            await self.agree(task, log)
        await self._solve(task, log)

    async def agree(self, task: Task, log: Log) -> None:
        """Have a second model write a program from the question and the tools, and compare what it comes to.

        Raises:
            RejectedError: it comes to something else, or to nothing.
        """
        modules = ", ".join(sorted(lint.MODULES))
        tools = "\n".join(map(schema_line, task.tools))
        form = form_in_words(task.answer_type.kind if task.ground_truth else "none")
        text = prompt("program", tools=tools, question=task.question, form=form, modules=modules)
        reply = await _asked(self._second, Ask(_user(text), 0.0, self._settings.program_tokens, step="program"))
        code = code_in(reply.text)
        lint.check(code, defines=frozenset({_SOLVE}), taken=lint.names_of(task.env))
        session = await self._sandbox.open(f"{task.env}\n\n{code}")
        try:
            done = await session.call(_SOLVE, {})
            changes = await session.call(CHANGES, {}) if task.changes is not None else None
        finally:
            await session.close()
        if done.status is not CallStatus.OK:
            raise RejectedError("agreement", "another program fails", f"{done.status.value}: {done.error}")
        answer = answer_text(done.result) or ""
        right = not task.ground_truth or answers.equal(answer, task.ground_truth, task.answer_type)
        if changes is not None and task.changes is not None:
            found = changes.result if isinstance(changes.result, dict) else {}
            right = right and same_changes(found, task.changes)
        if not right:
            raise RejectedError("agreement", "another program comes to something else", f"{answer[:200]!r}")
        log.accept("program", reply.key, task=task.id)

    async def _guess(self, task: Task, log: Log) -> None:
        """Answers without tools. A task that asks for a change alone cannot be guessed."""
        if not task.ground_truth or not self._settings.guesses:
            return
        text = prompt("guess", question=task.question)
        asks = [
            Ask(_user(text), self._settings.temperature, self._settings.guess_tokens, number, "guess")
            for number in range(self._settings.guesses)
        ]
        replies = await together(_asked(self._client, ask) for ask in asks)
        said = [answers.extract_boxed(visible(reply.text)) or "" for reply in replies]
        right = [answer for answer in said if answers.equal(answer, task.ground_truth, task.answer_type)]
        if right:
            raise RejectedError("leak", "answered without tools", f"{len(right)} of {len(said)} say {right[0]!r}")
        log.accept("guess", replies[0].key, task=task.id, guesses=len(said))

    async def _solve(self, task: Task, log: Log) -> None:
        """Episodes with tools, through the loop of training and evaluation."""
        if not self._settings.solvers:
            return
        played = await together(self._episode(task, number) for number in range(self._settings.solvers))
        count = sum(solved(task, trajectory) for trajectory in played)
        facts = {
            "task": task.id,
            "solved": count,
            "of": len(played),
            "calls": [len(trajectory.calls) for trajectory in played],
            "answers": [trajectory.answer for trajectory in played],
            "stops": [trajectory.stop_reason.value for trajectory in played],
        }
        log.accept("solve", "", **facts)
        if count == 0:
            shown = "; ".join(sorted({str(trajectory.answer)[:60] for trajectory in played}))
            raise RejectedError("solvers", "solved by none", f"{len(played)} episodes answer {shown}")
        if count > self._settings.most_solved:
            raise RejectedError("solvers", "solved by too many", f"{count} of {len(played)}")

    async def _episode(self, task: Task, number: int) -> Trajectory:
        depth = max(1, task.depth)
        limits = Limits(
            max_turns=2 * depth + 4,
            max_calls=4 * depth + 8,
            max_tokens=64 * _TURN_CHARS,
            max_turn_tokens=_TURN_CHARS,
        )
        try:
            trajectory = await rollout(
                ToolEnvironment(task, self._sandbox, limits),
                ChatPolicy(self._client, max_tokens=self._settings.turn_tokens, step="solve"),
                TextRenderer(),
                task_id=task.id,
                episode_id=f"{task.id}/{number}",
                sampling=Sampling(temperature=self._settings.temperature, max_tokens=_TURN_CHARS, seed=number),
                limits=limits,
            )
        except RefusedError as refusal:
            raise RejectedError("endpoint", "refused", str(refusal)) from None
        if trajectory.stop_reason is StopReason.FAULT:
            raise RolloutError(trajectory.fault)
        return trajectory


async def _asked(client: ChatClient, ask: Ask) -> Reply:
    try:
        return await client.ask(ask)
    except RefusedError as refusal:
        raise RejectedError("endpoint", "refused", str(refusal)) from None


def _user(text: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": text},)
