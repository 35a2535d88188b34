"""Certificates of questions. Each can reject; none looks at how a question was drawn where the text itself will do.

| gate | holds when |
|---|---|
| gold | each hop's passage states where the hop starts and where it ends |
| stated | the question names where the first hop starts, and neither its answer nor what lies on the way |
| unique | the encyclopedia tells of each hop once: one value for the subject, or one subject for the value |
| minimal | no passage that a name of the question stands in states the answer, and no fewer articles lead to it |
| guessable | no answer is right for more than `SHARE` of a split's questions |
| retrievable | for each hop the gold passage is among the first `top_k` of a search for its start and its relation |
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from recall.retriever.base import Passage, Retriever
from recall.synth.encyclopedia.articles import Fact
from recall.synth.encyclopedia.questions import Chain, Hop, sub_questions

SHARE = 0.02
"""The most questions of a split that one answer may be right for, and `FLOOR` of them where that is fewer."""
FLOOR = 2
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a question was thrown away."""

    gate: str
    """The certificate that rejected it."""
    reason: str
    """In a few words."""


class Library:
    """All passages of an encyclopedia, by what they state."""

    def __init__(self, passages: Iterable[Passage], facts: Iterable[Fact]) -> None:
        self.passages: Mapping[str, Passage] = {passage.id: passage for passage in passages}
        """By id."""
        self.facts = tuple(facts)
        """All that is told, of every shelf."""
        self._names = {fact.subject for fact in self.facts}
        self.stated = {id: self.named(passage.contents) for id, passage in self.passages.items()}
        """Names and numbers in each passage, read from its text."""
        self._where: dict[str, set[str]] = defaultdict(set)
        for id, names in self.stated.items():
            for name in names:
                self._where[name].add(id)
        self._own: dict[str, set[str]] = defaultdict(set)
        for id, passage in self.passages.items():
            self._own[passage.title].add(id)
        self._values = Counter((fact.subject, fact.word) for fact in self.facts)
        self._subjects = Counter((fact.value, fact.word) for fact in self.facts)

    def named(self, text: str) -> frozenset[str]:
        """The subjects and the numbers that a text states: names are one or two words."""
        words = _WORD.findall(text)
        pairs = (f"{first} {second}" for first, second in pairwise(words))
        return frozenset(word for word in (*words, *pairs) if word in self._names or word.isdigit())

    def ways(self, hop: Hop) -> int:
        """How many facts answer a hop."""
        fact = hop.fact
        return self._subjects[fact.value, fact.word] if hop.backward else self._values[fact.subject, fact.word]

    def distance(self, starts: Iterable[str], end: str, within: int) -> int:
        """The fewest articles that lead from names to another name or number; `within + 1` for more.

        In the first step any passage counts that a start stands in, in the others the articles of what was met.
        """
        reached = set(starts)
        if within and any(end in self.stated[id] for start in reached for id in self._where[start]):
            return 1
        for count in range(1, within + 1):
            reached = {name for start in reached for id in self._own[start] for name in self.stated[id]}
            if end in reached:
                return count
        return within + 1


def certify(chain: Chain, library: Library) -> Rejection | None:
    """What is wrong with a question by itself; None where nothing is."""
    for hop in chain.hops:
        stated = library.stated.get(hop.fact.passage, frozenset())
        if not {hop.start, hop.end} <= stated:
            return Rejection("gold", "a passage does not say where its hop starts or ends")
    said = library.named(chain.text)
    if chain.hops[0].start not in said:
        return Rejection("stated", "the question does not name where it starts")
    if said & {hop.end for hop in chain.hops}:
        return Rejection("stated", "the question names what it leads to")
    if any(library.ways(hop) != 1 for hop in chain.hops):
        return Rejection("unique", "a hop has several ends")
    if library.distance(said, chain.answer, len(chain.hops) - 1) < len(chain.hops):
        return Rejection("minimal", "fewer passages lead to the answer")
    return None


class Guesses:
    """Counts the answers of a split, so that none is right too often."""

    def __init__(self, rows: int) -> None:
        self._most = max(FLOOR, int(rows * SHARE))
        self._answers: Counter[str] = Counter()

    def check(self, chain: Chain) -> Rejection | None:
        """What is wrong with a question beside those that were added; None where nothing is."""
        if self._answers[chain.answer] >= self._most:
            return Rejection("guessable", "its answer is that of too many")
        return None

    def add(self, chain: Chain) -> None:
        """Take a question in."""
        self._answers[chain.answer] += 1


def queries_of(chain: Chain, *, bare: bool) -> list[tuple[Hop, str]]:
    """What each hop is searched for with.

    Args:
        chain: its hops become sub-questions with the answers filled in.
        bare: search for the name alone as well, which is what nano does.
    """
    queries = []
    for hop, asked in zip(chain.hops, sub_questions(chain.hops), strict=True):
        queries.append((hop, f"{hop.start} {asked.partition(' >> ')[2]}"))
        if bare:
            queries.append((hop, hop.start))
    return queries


async def unretrievable(
    chains: Sequence[Chain], retriever: Retriever, top_k: int, *, bare: bool = False
) -> list[Rejection | None]:
    """What is wrong with each of some questions by this retriever; None where nothing is. See `queries_of`."""
    asked = [queries_of(chain, bare=bare) for chain in chains]
    queries = [query for of_chain in asked for _, query in of_chain]
    found = iter(await retriever.search(queries, top_k) if queries else [])
    verdicts: list[Rejection | None] = []
    for of_chain in asked:
        missed = [hop for hop, _ in of_chain if hop.fact.passage not in {passage.id for passage in next(found)}]
        verdicts.append(Rejection("retrievable", "a hop's passage is not found") if missed else None)
    return verdicts
