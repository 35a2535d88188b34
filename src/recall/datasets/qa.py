"""Questions of multi-hop benchmarks, as FlashRAG keeps them: `{id, question, golden_answers, metadata}`, a row a line.

HotpotQA, 2WikiMultihopQA, MuSiQue and Bamboogle come in this form. Rows may carry their paragraphs, which a closed
corpus is made of, and MuSiQue's carry their decomposition. Making task rows of questions is `convert.py`'s work.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recall.datasets.rows import read_tasks
from recall.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph that came with a question."""

    title: str
    """Of its page."""
    text: str
    """The paragraph."""
    supporting: bool = False
    """Whether the answer rests on it."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a decomposition."""

    question: str
    """A question of its own; `#1` in it stands for the answer of the first step."""
    answer: str
    """The answer of this step."""
    paragraph: int | None = None
    """The place of the paragraph that says so among those of the question; None where it is not told."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a benchmark."""

    id: str
    """Unique within its file."""
    question: str
    """The text."""
    answers: tuple[str, ...]
    """The accepted answers, the first one first."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the benchmark says of it."""
    paragraphs: tuple[Paragraph, ...] = ()
    """The paragraphs that came with it."""

    @property
    def kind(self) -> str:
        """The benchmark's own name for its sort, such as `bridge` or `3hop1`; empty where it has none."""
        kind = self.metadata.get("type", "")
        return kind if isinstance(kind, str) else ""

    @property
    def hops(self) -> tuple[Hop, ...]:
        """MuSiQue's decomposition; empty for questions that carry none."""
        steps = self.metadata.get("question_decomposition")
        if not isinstance(steps, list):
            return ()
        return tuple(Hop(step["question"], step["answer"], step.get("paragraph_support_idx")) for step in steps)


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions: FlashRAG's JSON lines, or task rows (parquet or JSON lines), of which only question
    and accepted answers are taken.

    Raises:
        ConfigError: the file cannot be read, or a row is bad; one line that names the file, the row and the field.
    """
    if path.suffix == ".parquet":
        return [Question(task.id, task.question, task.ground_truth) for task in read_tasks(path)]
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise ConfigError(f"{path}: no questions in it")
    if isinstance(first[1], dict) and "reward_model" in first[1]:
        return [Question(task.id, task.question, task.ground_truth) for task in read_tasks(path)]
    questions = [question_from_row(first[1], first[0])]
    seen = {questions[0].id: first[0]}
    for where, row in rows:
        question = question_from_row(row, where)
        known = seen.setdefault(question.id, where)
        if known is not where:
            raise ConfigError(f"{where}: id: {question.id!r} is taken by {known}; ids are unique in a file")
        questions.append(question)
    return questions


def question_from_row(row: object, where: str) -> Question:
    """Build a question from one decoded row.

    Args:
        row: the row; `paragraphs` is a list of `{title, text, is_supporting}`.
        where: what to call the row in an error, such as `dev.jsonl row 3`.

    Raises:
        ConfigError: the row is bad.
    """
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where}: must be an object, not {type(row).__name__}")
    golden = row.get("golden_answers")
    if isinstance(golden, str):
        golden = [golden]
    if not isinstance(golden, list) or not golden:
        raise ConfigError(f"{where}: golden_answers: missing; accepted: a list of at least one text")
    # FlashRAG keeps some answers as JSON numbers and booleans.
    texts = [json.dumps(answer) if isinstance(answer, int | float) else answer for answer in golden]
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"{where}: metadata: must be an object, not {type(metadata).__name__}")
    question = Question(
        id=_text(row.get("id"), where, "id"),
        question=_text(row.get("question"), where, "question"),
        answers=tuple(_text(text, where, f"golden_answers[{i}]") for i, text in enumerate(texts)),
        metadata=metadata,
        paragraphs=tuple(_paragraphs(row.get("paragraphs") or [], where)),
    )
    try:
        hops = question.hops
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(
            f'{where}: metadata.question_decomposition: accepted: a list of objects with "question" and "answer"'
        ) from None
    for i, hop in enumerate(hops):
        _text(hop.question, where, f"metadata.question_decomposition[{i}].question")
        _text(hop.answer, where, f"metadata.question_decomposition[{i}].answer")
    return question


def _paragraphs(rows: object, where: str) -> Iterator[Paragraph]:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ConfigError(f"{where}: paragraphs: must be a list, not {type(rows).__name__}")
    for i, row in enumerate(rows):
        if (
            not isinstance(row, Mapping)
            or not isinstance(row.get("title"), str)
            or not isinstance(row.get("text"), str)
        ):
            raise ConfigError(f'{where}: paragraphs[{i}]: accepted: an object with the texts "title" and "text"')
        yield Paragraph(row["title"], row["text"], bool(row.get("is_supporting")))


def _text(value: Any, where: str, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: {name}: missing or empty; accepted: text")
    return value


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """The decoded lines of a file, each with its name."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                where = f"{path} row {number}"
                try:
                    yield where, json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as fault:
                    raise ConfigError(f"{where}: not JSON: {fault}") from None
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}") from fault
