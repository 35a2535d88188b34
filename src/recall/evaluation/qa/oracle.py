"""A policy that knows the way and not the answers: it reads the gold decomposition and searches, hop by hop.

It measures what a retriever over a corpus allows, not what a model can: its queries are MuSiQue's own sub-questions,
and it knows the answer of a hop only after it was shown the evidence. A hop whose evidence no query brings up ends the
episode without the answer, so its EM is the share of questions whose whole chain can be found.
"""

import re
from collections.abc import Callable, Generator, Iterator
from typing import Literal

from recall.answers import normalize
from recall.datasets.qa import Hop, Question
from recall.errors import ConfigError
from recall.policy.base import Policy
from recall.policy.scripted import ScriptedPolicy, TurnWriter
from recall.tool_calls import format_call
from recall.tools.search import SearchForm
from recall.types import ToolCall

Evidence = Literal["paragraph", "answer"]
"""What has to be shown for a hop: the very paragraph that the benchmark says it rests on, or its answer in any text."""
GIVEN_UP = "unknown"
"""The answer where a hop's evidence was not found."""
_REFERENCE = re.compile(r"#(\d+)")


def oracle(evidence: Evidence, writer: TurnWriter) -> Callable[[Question], Policy]:
    """Make the oracle of each question.

    Args:
        evidence: what has to be shown for a hop.
        writer: the renderer, of the dialect `recall`.
    """
    return lambda question: ScriptedPolicy(lambda prompt: _play(question, evidence), writer)


def check_hops(question: Question, evidence: Evidence) -> None:
    """Refuse a question that an oracle cannot play.

    Raises:
        ConfigError: it has no decomposition, or no paragraphs to rest on.
    """
    if not question.hops:
        raise ConfigError(f"question {question.id!r}: no question_decomposition in it, which the oracle plays")
    if evidence == "paragraph":
        places = [hop.paragraph for hop in question.hops]
        if any(place is None or not 0 <= place < len(question.paragraphs) for place in places):
            raise ConfigError(f"question {question.id!r}: a hop rests on no paragraph of the row; use oracle-answer")


def queries(hop: Hop, answers: list[str]) -> Iterator[str]:
    """What to search for in a hop, best first: the sub-question, then its subject, then the bare answers before it.

    Args:
        hop: `#1` in its question stands for the answer of the first hop.
        answers: of the hops before it.
    """

    def known(match: re.Match[str]) -> str:
        place = int(match[1]) - 1
        return answers[place] if 0 <= place < len(answers) else ""

    question = _REFERENCE.sub(known, hop.question)
    subject, relation, _ = question.partition(">>")
    yield " ".join(question.replace(">>", " ").split())
    if relation:
        yield subject.strip()
    for match in _REFERENCE.finditer(hop.question):
        yield known(match)


def _play(question: Question, evidence: Evidence) -> Generator[str, str, None]:
    answers: list[str] = []
    form = SearchForm.of(question.metadata)
    for hop in question.hops:
        for query in dict.fromkeys(query for query in queries(hop, answers) if query.strip()):
            shown = yield format_call(ToolCall(form.name, {form.query: query}))
            if _found(question, hop, evidence, shown):
                break
        else:
            yield f"\\boxed{{{GIVEN_UP}}}"
            return
        answers.append(hop.answer)
    yield f"\\boxed{{{answers[-1]}}}"


def _found(question: Question, hop: Hop, evidence: Evidence, shown: str) -> bool:
    if evidence == "answer":
        return f" {normalize(hop.answer)} " in f" {normalize(shown)} "
    assert hop.paragraph is not None, "check_hops was called before"
    return question.paragraphs[hop.paragraph].text.strip() in shown
