"""What guessing earns: constants, echoes of the question, and results copied without being understood.

A generator may not be believed here, so every guess is judged as an answer is: by typed equality, and by the reward
that the row asks for. What a reward gives for form alone is left out: any answer earns it.
"""

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from recall import answers
from recall.rewards import Reward
from recall.synth.report.spread import entropy_bits, lower_bound
from recall.tools.results import as_text
from recall.types import Segment, StopReason, Task, Trajectory

LIMIT = 0.02
"""What a guess may earn of a template."""
ENOUGH = 1000
"""From so many tasks on a share is taken as it is; of fewer, the lower end of its 95 % interval counts."""
KEPT = 100
"""Tasks of a template on which rewards are computed; equality is judged on all."""
FEWEST = 50
"""Of fewer tasks a share says nothing: any one answer is a large part of them."""

_LITERAL = re.compile(
    r"'([^']+)'|\"([^\"]+)\"|“([^”]+)”"  # quoted
    r"|\b(\d{4}-\d{2}-\d{2}|\d{1,2} [A-Z][a-z]+ \d{4})\b"  # dates
    r"|(?<![\w.])(-?\d[\d,]*(?:\.\d+)?)(?![\w-])"  # numbers
    r"|\b([A-Z0-9]+(?:-[A-Z0-9]+)*\d[A-Z0-9-]*|[0-9a-f]{6,})\b"  # codes
    r"|(?<![.?!] )(?<!^)\b([A-Z][\w']*(?: [A-Z][\w']*)*)"  # names, not at the start of a sentence
)
_SENTENCE = re.compile(r"[A-Z].* (?:is|are|was|has|costs|weighs) (.+)\.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a guess was right, and what it earned."""

    tasks: int
    """The tasks on which it was made."""
    right: float
    """The share in which it equals an accepted answer."""
    reward: float
    """The mean of what the reward gives for the answer itself."""
    rewarded: int
    """The tasks on which the reward was computed."""

    @property
    def broken(self) -> bool:
        """Whether guessing pays."""
        return above(self.right, self.tasks) or above(self.reward, self.rewarded)

    def as_json(self) -> dict[str, Any]:
        """As a report holds it."""
        return {"tasks": self.tasks, "right": self.right, "reward": self.reward, "rewarded": self.rewarded}


def above(share: float, n: int) -> bool:
    """Whether a share of `n` tasks is surely at `LIMIT` or more; of fewer than `FEWEST` nothing is sure."""
    return n >= FEWEST and (share if n >= ENOUGH else lower_bound(share, n)) >= LIMIT


def earned(reward: Reward, task: Task, guess: str, changes: Mapping[str, Any] = MappingProxyType({})) -> float:
    """What a reward gives for an answer, without what it gives for form.

    Args:
        reward: of the row.
        task: what is answered.
        guess: the answer.
        changes: what was left behind, for a task that is about state.
    """
    turn = f"<think> . </think> \\boxed{{{guess}}}<|im_end|>"
    segments = (Segment((), None, ""), Segment((), (), turn))
    result = reward(task, Trajectory(task.id, segments, StopReason.DONE, guess, changes=changes))
    parts = result.parts
    # Where something was to be changed, a right answer alone is worth nothing.
    return parts.get("f1", parts.get("answer", result.score)) * parts.get("state", 1.0)


def right(task: Task, guess: str, changes: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether a guess equals an accepted answer, and the state is as it should be; arguments as for `earned`."""
    return (task.changes is None or task.changes == changes) and answers.equal(
        guess, task.ground_truth, task.answer_type
    )


def literals_of(question: str) -> list[str]:
    """The values that a question states, in order: what stands in quotes, dates, numbers, codes, names."""
    return [next(group for group in found.groups() if group) for found in _LITERAL.finditer(question)]


def echoes(question: str) -> dict[str, str]:
    """What an answer copied from the question may be, by the rule that copies it."""
    found = literals_of(question)
    places = {"first": 0, "second": 1, "last": -1} if len(found) > 1 else {"first": 0, "last": -1} if found else {}
    return {"whole question": question} | {f"{name} value": found[place] for name, place in places.items()}


def is_in_question(task: Task) -> bool:
    """Whether an accepted answer stands in the question, word for word, both normalised as for exact match.

    What to say where the tools cannot tell is part of such a task's question and gives nothing away: a task whose
    reference makes no call is none that counts.
    """
    if task.reference and not any("name" in item for item in task.reference):
        return False
    question = f" {answers.normalize(task.question)} "
    return any(f" {normal} " in question for answer in task.ground_truth if (normal := answers.normalize(answer)))


def bare(text: str) -> str:
    """A result as an answer: the only value of an object with one key, what a sentence says, else the result itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        said = _SENTENCE.fullmatch(text)
        return said[1] if said is not None else text
    return as_text(next(iter(value.values()))) if isinstance(value, dict) and len(value) == 1 else text


def key_of(text: str, task: Task) -> Hashable:
    """The value of an answer, as something to count by."""
    value = answers.value_of(text, task.answer_type.kind)
    if isinstance(value, Counter):
        return frozenset(value.items())
    return (task.answer_type.kind, value) if isinstance(value, Hashable) else text


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a task that has an answer, worked out once for all the groups that it is in."""

    task: Task
    """The task, without what no reward reads."""
    answers: Mapping[Hashable, str]
    """The accepted answers by value, each once."""
    echoes: Mapping[str, str]
    """What an echo of the question would answer, by rule."""
    echoed: frozenset[str]
    """The rules by which it would be right."""
    in_question: bool
    """Whether an accepted answer stands in the question."""


def facts_of(task: Task) -> Facts:
    """The facts of a task."""
    guesses = echoes(task.question)
    return Facts(
        replace(task, env="", tools=(), reference=(), extra={}),
        {key_of(text, task): text for text in task.ground_truth},
        guesses,
        frozenset(rule for rule, guess in guesses.items() if right(task, guess)),
        is_in_question(task),
    )


@dataclass
class Guesses:
    """The answers and the guesses of a template, or of another group of tasks."""

    tasks: int = 0
    counts: Counter[Hashable] = field(default_factory=Counter)
    """How often each value is an answer."""
    texts: dict[Hashable, str] = field(default_factory=dict)
    """How it was written first."""
    echoed: Counter[str] = field(default_factory=Counter)
    """How often each rule of `echoes` was right."""
    in_question: int = 0
    kept: list[Facts] = field(default_factory=list)
    """The first tasks, on which rewards are computed."""

    def add(self, facts: Facts) -> None:
        """Count a task."""
        self.tasks += 1
        self.counts.update(facts.answers.keys())
        for key, text in facts.answers.items():
            self.texts.setdefault(key, text)
        self.echoed.update({rule: rule in facts.echoed for rule in facts.echoes})
        self.in_question += facts.in_question
        if len(self.kept) < KEPT:
            self.kept.append(facts)

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most frequent answers with their shares of the tasks."""
        return [(self.texts[key], seen / self.tasks) for key, seen in self.counts.most_common(count)]

    @property
    def entropy(self) -> float:
        """Of the answers, in bits."""
        return entropy_bits(self.counts.values())

    def constant(self, reward: Reward) -> Rate | None:
        """The best constant answer: how often it is right, and what the best one earns. None for too few tasks."""
        if self.tasks < FEWEST:
            return None
        top = dict(self.top(3))
        known = {self.texts[key]: seen / self.tasks for key, seen in self.counts.most_common(50)}
        guesses = {*top, *self._words()}
        gains = {guess: max(0.0, known.get(guess, 0.0) + self._beyond(reward, guess)) for guess in guesses}
        return Rate(self.tasks, max(top.values()), max(gains.values()), len(self.kept))

    def echo(self, reward: Reward) -> Rate:
        """The best rule that copies from the question."""
        shares = {rule: hits / self.tasks for rule, hits in self.echoed.items()}
        gains = dict(shares)
        for rule in shares:
            made = [(kept.task, kept.echoes[rule], rule in kept.echoed) for kept in self.kept if rule in kept.echoes]
            more = sum(earned(reward, task, guess) - hit for task, guess, hit in made)
            gains[rule] = max(0.0, gains[rule] + more / len(self.kept))
        return Rate(self.tasks, max(shares.values()), max(gains.values()), len(self.kept))

    def _beyond(self, reward: Reward, guess: str) -> float:
        """What a guess earns on the kept tasks beyond being right there; added to how often it is right on all, this is
        a better estimate of what it earns than the mean on the kept ones alone.
        """
        return sum(earned(reward, kept.task, guess) - right(kept.task, guess) for kept in self.kept) / len(self.kept)

    def _words(self) -> Iterator[str]:
        """Guesses made of the words that most answers hold, for rewards that pay by the word."""
        words = Counter(
            word for kept in self.kept for word in set(" ".join(map(answers.normalize, kept.task.ground_truth)).split())
        )
        common = [word for word, count in words.most_common(3) if count > 1]
        yield from common[:1]
        yield " ".join(common)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a policy that copies results would answer to a task."""

    task: Task
    guesses: Mapping[str, str]
    """Its answer, by the rule that it copies by."""
    changes: Mapping[str, Any]
    """What its calls leave behind."""


def rate_of(copied: Sequence[Copied], reward: Reward) -> Rate:
    """How the best rule does; a rule that makes no guess at a task is wrong there."""
    hits: Counter[str] = Counter()
    gains: dict[str, float] = {}
    for one in copied:
        for rule, guess in one.guesses.items():
            hits[rule] += right(one.task, guess, one.changes)
            gains[rule] = gains.get(rule, 0.0) + earned(reward, one.task, guess, one.changes)
    count = len(copied)
    return Rate(count, max(hits.values()) / count, max(gains.values()) / count, count)
