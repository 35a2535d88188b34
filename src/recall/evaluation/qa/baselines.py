"""The methods that agents are compared with: no search, one search, or searches at times that the method sets.

Each is written from its paper's description, with prompts of our own (`prompts.py`). A turn is one short episode
without tools, so a method that takes several reads its passages anew in each.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from recall.answers import extract_boxed
from recall.environment import FunctionEnvironment, Limits
from recall.errors import RolloutError
from recall.evaluation.qa import prompts
from recall.evaluation.qa.methods import Ask, Outcome, outcome_of, seeded
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.retriever.base import Passage, Retriever
from recall.rollout import rollout
from recall.types import Sampling, Trajectory

_SENTENCE_END = re.compile(
    r"(?:(?<![A-Z])(?<!\bMr)(?<!\bDr)(?<!\bSt)(?<!\bJr)(?<!\bMrs)\.|[!?])[\"')\]]*(?=\s+[\"'(\[\\]?[A-Z0-9])|(?=\n)"
)
_ANSWER_IS = re.compile(r"\banswer is:?\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every baseline works with."""

    policy: Policy
    """Writes the turns."""
    renderer: Callable[[str], Renderer]
    """The renderer of the policy's model with an instruction of ours as its system message."""
    limits: Limits
    """Of each turn: `max_tokens` and `max_turn_tokens`. Passages that would leave no room for a turn are left out, the
    last ones first."""
    sampling: Sampling
    """How turns are sampled."""
    retriever: Retriever | None = None
    """None for methods that do not search."""
    top_k: int = 5
    """Passages of a search."""


@dataclass
class Work:
    """The searches and turns that were done for one question."""

    bench: Bench
    """What it is done with."""
    ask: Ask
    """The question."""
    queries: list[str] = field(default_factory=list)
    """What was searched for."""
    played: list[Trajectory] = field(default_factory=list)
    """The turns."""

    async def search(self, query: str) -> list[Passage]:
        """Search.

        Raises:
            RetrieverError: the retriever failed.
        """
        if self.bench.retriever is None:
            raise ValueError("this method needs a retriever")
        self.queries.append(query)
        (passages,) = await self.bench.retriever.search([query], self.bench.top_k)
        return passages

    async def write(self, instruction: str, passages: Sequence[Passage] = (), thoughts: str = "") -> str:
        """Have the policy write one turn; its text without the stop token and without thinking.

        Raises:
            RolloutError: the engine failed.
        """
        renderer, limits = self.bench.renderer(instruction), self.bench.limits
        passages = list(passages)
        while True:
            contents = "\n\n".join(passage.contents for passage in passages)
            env = FunctionEnvironment(prompts.with_passages(self.ask.question.question, contents, thoughts), (), limits)
            prompt = renderer.prompt(await env.start(), ())
            if not passages or len(prompt) + limits.max_turn_tokens <= limits.max_tokens:
                break
            passages.pop()
        number = len(self.played)
        trajectory = await rollout(
            env,
            self.bench.policy,
            renderer,
            task_id=self.ask.question.id,
            episode_id=f"{self.ask.name}/{number}",
            sampling=seeded(self.bench.sampling, None if self.ask.seed is None else self.ask.seed + number),
            limits=limits,
        )
        self.played.append(trajectory)
        if trajectory.fault is not None:
            raise RolloutError(trajectory.fault)
        return "".join(visible(renderer.parse(s.token_ids).text) for s in trajectory.segments if s.sampled)


class Baseline:
    """A method that is a short program of searches and turns."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def solve(self, work: Work) -> str | None:
        """Do the work; return the answer."""
        raise NotImplementedError

    async def answer(self, ask: Ask) -> Outcome:
        """Answer one question."""
        work, started = Work(self.bench, ask), perf_counter()
        prediction, fault = None, None
        try:
            prediction = await self.solve(work)
        except RolloutError as error:
            # A turn's own fault has its type in it already.
            fault = str(error) if type(error) is RolloutError else f"{type(error).__name__}: {error}"
        return outcome_of(work.played, prediction, work.queries, perf_counter() - started, fault)


class Naive(Baseline):
    """`naive`: the answer at once, from memory."""

    async def solve(self, work: Work) -> str | None:
        """One turn."""
        return answer_in(await work.write(prompts.ANSWER))


class ZeroShot(Baseline):
    """`zero-shot`: think first, from memory. Source: Kojima et al. 2022, arXiv:2205.11916."""

    async def solve(self, work: Work) -> str | None:
        """One turn."""
        return answer_in(await work.write(prompts.REASON))


class OneSearch(Baseline):
    """`rag`: search for the question, read, answer. Source: Lewis et al. 2020, arXiv:2005.11401, by prompting."""

    async def solve(self, work: Work) -> str | None:
        """One search and one turn."""
        passages = await work.search(work.ask.question.question)
        return answer_in(await work.write(prompts.READ, passages))


class IterRetGen(Baseline):
    """`iter-retgen`: what was written last, before the question, is the next query; a set number of rounds.

    Source: Shao et al. 2023, arXiv:2305.15294.
    """

    rounds = 3

    async def solve(self, work: Work) -> str | None:
        """As many searches and turns as there are rounds."""
        text = ""
        for _ in range(self.rounds):
            passages = await work.search(f"{text} {work.ask.question.question}".strip())
            text = await work.write(prompts.REASON_READ, passages)
        return answer_in(text)


class IRCoT(Baseline):
    """`ircot`: think one sentence, search for it, think the next with all that was found.

    It ends with a sentence that gives the answer; where none does, a last turn reads all that was found.

    Source: Trivedi et al. 2022, arXiv:2212.10509.
    """

    most_thoughts = 5
    most_passages = 15

    async def solve(self, work: Work) -> str | None:
        """A search, then thoughts and searches by turns."""
        found = await work.search(work.ask.question.question)
        thoughts: list[str] = []
        while len(thoughts) < self.most_thoughts:
            thought = first_sentence(await work.write(prompts.NEXT_THOUGHT, found, " ".join(thoughts)))
            said = _told(thought)
            if said is not None:
                return said
            if not thought or thought in thoughts:
                break
            thoughts.append(thought)
            known = {passage.id for passage in found}
            found += [passage for passage in await work.search(thought) if passage.id not in known]
            found = found[: self.most_passages]
        return answer_in(await work.write(prompts.READ, found))


def visible(text: str) -> str:
    """What a turn says outside of `<think>`; nothing where the thinking did not end."""
    _, end, after = text.rpartition("</think>")
    return (after if end else text.partition("<think>")[0]).strip()


def answer_in(text: str) -> str | None:
    r"""The answer in a turn: the last `\boxed{}`, else what follows `answer is`, else the whole; None for nothing."""
    said = _told(text)
    return (said if said is not None else text.strip()) or None


def first_sentence(text: str) -> str:
    """The first sentence of a text, as far as full stops and capitals tell; no longer than its first line."""
    text = text.strip()
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def _told(text: str) -> str | None:
    """The answer that a text marks as such."""
    boxed = extract_boxed(text)
    if boxed is not None:
        return boxed
    match = _ANSWER_IS.search(text)
    return match[1].strip().rstrip(".") if match else None
