"""Ask every question that has no answer yet, many at a time, and keep each answer as it comes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict

from recall.datasets.qa import Question
from recall.errors import ConfigError, RolloutError
from recall.evaluation.kept import Kept
from recall.evaluation.play import seed_of
from recall.evaluation.qa.measures import measure
from recall.evaluation.qa.methods import Ask, Method, Outcome
from recall.evaluation.qa.results import Results, Row
from recall.types import Group, RewardResult, Task

_LEAST_FAULTS = 16
"""Faults in a row that end a run, where fewer questions are under way at once."""


async def run(
    method: Method,
    questions: Sequence[Question],
    results: Results,
    *,
    seed: int = 0,
    at_once: int = 64,
    told: Callable[[Row], None] | None = None,
    kept: Kept | None = None,
) -> None:
    """Answer the questions that `results` does not hold yet, and write a row for each.

    Args:
        method: answers one question.
        questions: all questions of the run; the place of one decides its seed, whichever of them are done already.
        results: the open folder.
        seed: of the run.
        at_once: questions under way at the same time.
        told: called with each row when it is written.
        kept: takes the episodes behind each row.

    Raises:
        ConfigError: a question cannot be asked with these settings; those under way are cancelled.
        RolloutError: so many questions in a row failed through a fault of ours that the rest would fail too.
    """
    waiting = iter([(place, q) for place, q in enumerate(questions) if q.id not in results.rows])
    most_faults, faults = max(_LEAST_FAULTS, at_once), 0

    async def work() -> None:
        nonlocal faults
        for place, question in waiting:
            outcome = await method.answer(Ask(question, f"qa/{place}", seed_of(seed, place)))
            row = row_of(question, outcome)
            results.add(row)
            if kept is not None and outcome.played:
                kept.add("qa", group_of(row, outcome))
            if told is not None:
                told(row)
            faults = 0 if row.fault is None else faults + 1
            if faults == most_faults:
                raise RolloutError(f"{faults} questions in a row failed: {row.fault}; the same command goes on")

    end: ConfigError | RolloutError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except* (ConfigError, RolloutError) as ended:
        end = next(error for error in ended.exceptions if isinstance(error, ConfigError | RolloutError))
    if end is not None:  # one line for the user instead of a group of them
        raise end


def group_of(row: Row, outcome: Outcome) -> Group:
    """The episodes of an answered question, as a group of its task; each is worth what the answer is."""
    task = Task(row.id, row.question, row.accepted, data_source="qa", split="qa", kind=row.kind)
    scores = asdict(row.scores)
    reward = RewardResult(row.scores.em, bool(row.scores.em), scores)
    return Group(task, outcome.played, [reward] * len(outcome.played))


def row_of(question: Question, outcome: Outcome) -> Row:
    """The row of an answered question."""
    return Row(
        id=question.id,
        question=question.question,
        accepted=question.answers,
        prediction=outcome.prediction,
        scores=measure(outcome.prediction, question.answers),
        kind=question.kind,
        closed=outcome.closed,
        truncated=outcome.truncated,
        stop=outcome.stop,
        queries=outcome.queries,
        turns=outcome.turns,
        read_tokens=outcome.read_tokens,
        sampled_tokens=outcome.sampled_tokens,
        duration_s=round(outcome.duration_s, 4),
        fault=outcome.fault,
        texts=outcome.texts,
    )
