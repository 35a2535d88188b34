"""Ask every question that has no answer yet, many at a time, and keep each answer as it comes."""

import asyncio
from collections.abc import Callable, Sequence

from recall.datasets.qa import Question
from recall.errors import ConfigError
from recall.evaluation.play import seed_of
from recall.evaluation.qa.measures import measure
from recall.evaluation.qa.methods import Ask, Method, Outcome
from recall.evaluation.qa.results import Results, Row


async def run(
    method: Method,
    questions: Sequence[Question],
    results: Results,
    *,
    seed: int = 0,
    at_once: int = 64,
    told: Callable[[Row], None] | None = None,
) -> None:
    """Answer the questions that `results` does not hold yet, and write a row for each.

    Args:
        method: answers one question.
        questions: all questions of the run; the place of one decides its seed, whichever of them are done already.
        results: the open folder.
        seed: of the run.
        at_once: questions under way at the same time.
        told: called with each row when it is written.

    Raises:
        ConfigError: a question cannot be asked with these settings; those under way are cancelled.
    """
    waiting = iter([(place, q) for place, q in enumerate(questions) if q.id not in results.rows])

    async def work() -> None:
        for place, question in waiting:
            outcome = await method.answer(Ask(question, f"qa/{place}", seed_of(seed, place)))
            row = row_of(question, outcome)
            results.add(row)
            if told is not None:
                told(row)

    refusal: ConfigError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except* ConfigError as refused:
        refusal = next(error for error in refused.exceptions if isinstance(error, ConfigError))
    if refusal is not None:  # one line for the user instead of a group of them
        raise refusal


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
