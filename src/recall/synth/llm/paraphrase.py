"""Says the questions of tasks in other words, by an endpoint, and keeps only those that still say the same.

What a reference program needs of the question must stand in its paraphrase letter for letter, nothing may be added that
looks like a value, and the answer must not appear. Where a solver is given, a second model's program, written from the
paraphrase alone, must come to the same answer.
"""

import asyncio
import dataclasses
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from recall.errors import ConfigError
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.author import Log
from recall.synth.llm.budget import Budget
from recall.synth.llm.certify import occurs, program_literals
from recall.synth.llm.client import Ask, ChatClient, EndpointSettings, Replies
from recall.synth.llm.errors import RefusedError, RejectedError, SpentError
from recall.synth.llm.prompts import prompt
from recall.synth.llm.replies import visible
from recall.synth.llm.solvers import Solvers, SolverSettings
from recall.synth.made import Made
from recall.types import Task

GATE = "paraphrase"
"""The gate at which paraphrases are rejected."""

_VALUE = re.compile(r'"[^"]+"|“[^”]+”|`[^`]+`|(?<!\w)(?:[\w-]*\d[\w.,:/-]*|[A-Z]{2}[A-Z-]*)(?<![.,:/-])(?!\w)')
"""What looks like a value: a quotation, a word with a digit in it, a word of capitals such as a form of dates."""
_LEAST_SHARE, _MOST_SHARE = 0.4, 3.0


@dataclass(frozen=True, slots=True)
class ParaphraseSettings:
    """How paraphrases are asked for."""

    attempts: int = 3
    """How often a task is tried before its own question is kept."""
    temperature: float = 1.0
    """Of the sampling."""
    max_tokens: int = 1024
    """The longest reply."""
    at_once: int = 16
    """Tasks under way at once."""


async def paraphrase(
    tasks: Iterable[Task],
    client: ChatClient,
    settings: ParaphraseSettings | None = None,
    solvers: Solvers | None = None,
) -> AsyncGenerator[Made, None]:
    """The tasks in order, each with another question; an attempt that does not hold comes before its task's next.

    A task of which no attempt holds comes last as it was.

    Args:
        tasks: read as they are needed.
        client: writes.
        settings: how; None takes the defaults.
        solvers: whose second model must agree on each paraphrase; None asks none.

    Raises:
        SpentError: the budget does not cover the next request.
        EndpointError: the endpoint failed.
    """
    settings = settings or ParaphraseSettings()
    numbered = enumerate(tasks)
    waiting: list[asyncio.Task[list[Made]]] = []
    try:
        while True:
            for number, task in islice(numbered, settings.at_once - len(waiting)):
                waiting.append(asyncio.create_task(_attempts(number, task, client, settings, solvers)))
            if not waiting:
                return
            for made in await waiting.pop(0):
                yield made
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _attempts(
    number: int, task: Task, client: ChatClient, settings: ParaphraseSettings, solvers: Solvers | None
) -> list[Made]:
    made = []
    for attempt in range(settings.attempts):
        try:
            made.append(Made(number, await _paraphrased(task, client, settings, solvers, attempt)))
        except RejectedError as problem:
            made.append(Made(number, None, problem.gate, problem.reason))
        else:
            return made
    return [*made, Made(number, task)]


async def _paraphrased(
    task: Task, client: ChatClient, settings: ParaphraseSettings, solvers: Solvers | None, attempt: int
) -> Task:
    literals = ", ".join(literals_in(task)) or "there are none"
    text = prompt("paraphrase", question=task.question, literals=literals)
    ask = Ask(({"role": "user", "content": text},), settings.temperature, settings.max_tokens, attempt, "paraphrase")
    try:
        reply = await client.ask(ask)
    except RefusedError as refusal:
        raise RejectedError("endpoint", "refused", str(refusal)) from None
    question = visible(reply.text).strip()
    check_paraphrase(task, question)
    synth = {**task.extra.get("synth", {}), "paraphrase_of": task.question}
    told = dataclasses.replace(task, question=question, extra={**task.extra, "synth": synth})
    if solvers is not None:
        await solvers.agree(told, Log())
    return told


def check_paraphrase(task: Task, question: str) -> None:
    """Check that a question still states what its task's own states, and no more.

    Raises:
        RejectedError: it does not.
    """
    share = len(question) / max(1, len(task.question))
    if not question or "\n\n" in question or not _LEAST_SHARE <= share <= _MOST_SHARE:
        raise RejectedError(GATE, "no question of like length", f"{share:.1f} of the old one")
    if question == task.question:
        raise RejectedError(GATE, "the same words")
    literals = literals_in(task)
    for literal in literals:
        if not _stands(literal, question):
            raise RejectedError("provenance", "a value is missing", f"{literal!r}")
    for value in _VALUE.findall(question):
        if value not in literals:
            raise RejectedError(GATE, "a value is new", f"{value!r}")
    for answer in task.ground_truth:
        if occurs(answer, question) and not occurs(answer, task.question):
            raise RejectedError(GATE, "states the answer", f"{answer!r}")


def literals_in(task: Task) -> list[str]:
    """What must stand in a paraphrase letter for letter, the longest first.

    It is every value of the reference program that the question states, and whatever else looks like a value there.
    """
    stated = {str(literal) for literal in program_literals(task.reference) if _stands(str(literal), task.question)}
    return sorted(stated | set(_VALUE.findall(task.question)), key=lambda literal: (-len(literal), literal))


def _stands(literal: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(literal)}(?!\w)", text) is not None


class Paraphrasing:
    """Paraphrases a stream of tasks, and counts what came of them."""

    def __init__(self, run: Callable[[Iterable[Task]], AsyncGenerator[Made, None]], runner: asyncio.Runner) -> None:
        """Take what paraphrases, and the loop that it runs in."""
        self._run, self._runner = run, runner
        self.changed = 0
        """Tasks with another question."""
        self.kept = 0
        """Tasks of which no attempt held."""
        self.rejected: Counter[tuple[str, str]] = Counter()
        """Attempts that did not hold, by gate and reason."""

    def tasks(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks, each with another question where one holds."""
        stream = self._run(tasks)
        try:
            while (made := self._runner.run(_next(stream))) is not None:
                if made.task is None:
                    self.rejected[made.gate, made.reason] += 1
                    continue
                changed = "paraphrase_of" in made.task.extra.get("synth", {})
                self.changed += changed
                self.kept += not changed
                yield made.task
        finally:
            self._runner.run(stream.aclose())


async def _next(stream: AsyncGenerator[Made, None]) -> Made | None:
    return await anext(stream, None)


@contextmanager
def paraphrased_with(
    endpoint: EndpointSettings,
    settings: ParaphraseSettings,
    replies: Path,
    *,
    agree: bool = False,
    max_tokens: int | None = None,
    max_requests: int | None = None,
) -> Iterator[Paraphrasing]:
    """What is needed to paraphrase from code that is not async.

    Args:
        endpoint: writes.
        settings: how it is asked.
        replies: the file that keeps what it answered.
        agree: whether its programs must come to the tasks' answers.
        max_tokens: that all runs with this file may use.
        max_requests: that this run may send.

    Raises:
        ConfigError: the file cannot be used, or the budget is spent, which is known by then only.
    """
    with asyncio.Runner() as runner:
        known = Replies(replies)
        budget = Budget(max_tokens, max_requests)
        budget.spent_before(known.tokens, 0)
        client = ChatClient(endpoint, known, budget)
        sandbox = LocalSandbox()
        solvers = Solvers(client, client, sandbox, SolverSettings()) if agree else None
        try:
            yield Paraphrasing(lambda tasks: paraphrase(tasks, client, settings, solvers), runner)
        except SpentError as spent:
            raise ConfigError(f"{spent}; what was answered is kept in {replies}, so a larger budget goes on") from None
        finally:
            runner.run(client.close())
            runner.run(sandbox.close())
            known.close()
