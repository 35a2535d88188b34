"""What an encyclopedia is about: kinds of subjects, and the words for what is told of them. Plain data.

There are two editions. `english` tells of people, towns, works and institutions in sentences. `nano` has the words that
the small policy was pretrained with, and its articles are boxes of facts, which is the only prose that it can read.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from recall.synth.procedural.names import Named
from recall.synth.vocabulary import ATTRIBUTES, ENTITY_TYPES, RELATIONS

EditionName = Literal["english", "nano"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of subject."""

    name: str
    """Such as `town`; within a passage a subject goes by it after its first sentence."""
    named: Named = "person"
    """How its names are made, in the edition `english`."""
    callings: tuple[str, ...] = ()
    """What its articles say it is, such as `a novelist`."""
    endings: tuple[str, ...] = ()
    """Second words of its names, in place of those of `named`."""


@dataclass(frozen=True, slots=True)
class Word:
    """Something that is told of the subjects of one kind."""

    noun: str
    """What a question calls it, after `the` and before `of`; unique in its edition."""
    domain: str
    """The kind of subject."""
    range: str = ""
    """The kind of what it leads to; empty for a whole number."""
    says: tuple[str, ...] = ()
    """Sentences about `{s}`, the subject, and `{o}`, the value, each with both."""
    backward: str = ""
    """How a question means the only subject with the value `{o}`; empty where none does."""
    numbers: tuple[int, int] = (10, 999)
    """The least and the largest, where it is a number."""


@dataclass(frozen=True, slots=True)
class Edition:
    """The kinds and words of an encyclopedia."""

    kinds: tuple[Kind, ...]
    """Of its subjects."""
    words: tuple[Word, ...]
    """What is told of them."""

    def of(self, kind: str) -> tuple[Word, ...]:
        """What is told of subjects of a kind."""
        return tuple(word for word in self.words if word.domain == kind)


_ENGLISH_KINDS = (
    Kind("person", "person", ("a novelist", "a painter", "a physician", "a surveyor", "a composer", "a botanist")),
    Kind("town", "place", ("a market town", "a harbour town", "a mining town", "a hill town", "a river town")),
    Kind("work", "thing", ("a novel", "an opera", "a stage play", "a song cycle", "a travel book")),
    Kind("institution", "thing", ("a learned body", "an old foundation", "a private foundation"),
         ("Academy", "Press", "Institute", "Society", "College", "Museum", "Library", "Observatory")),
)  # fmt: skip

_ENGLISH_WORDS = (
    Word("birthplace", "person", "town", ("{s} was born in {o}.", "The birthplace of {s} is {o}."),
         "the person born in {o}"),
    Word("home town in old age", "person", "town", ("{s} spent an old age in {o}.", "In old age {s} lived in {o}.")),
    Word("teacher", "person", "person", ("{s} learned the craft from {o}.", "The teacher of {s} was {o}."),
         "the person taught by {o}"),
    Word("rival", "person", "person", ("The lifelong rival of {s} was {o}.", "{s} saw a rival in {o} alone.")),
    Word("patron", "person", "person", ("{o} was the patron of {s}.", "{s} lived on the gifts of {o}, a patron.")),
    Word("employer", "person", "institution", ("{s} was employed by the {o}.", "The employer of {s} was the {o}.")),
    Word("favourite work", "person", "work", ("{s} called {o} a favourite.", "The favourite work of {s} was {o}.")),
    Word("birth year", "person", "", ("{s} came into the world in the year {o}.", "The birth year of {s} is {o}."),
         numbers=(1102, 1978)),
    Word("estate value", "person", "", ("The estate of {s} was valued at {o} crowns.",
         "{s} left an estate of {o} crowns in value."), numbers=(1040, 98760)),
    Word("founder", "town", "person", ("{s} was founded by {o}.", "The founder of {s} was {o}."),
         "the town founded by {o}"),
    Word("mayor", "town", "person", ("The mayor of {s} is {o}.", "{o} serves {s} as mayor.")),
    Word("twin town", "town", "town", ("{s} is twinned with {o}.", "The twin town of {s} is {o}.")),
    Word("largest landowner", "town", "institution", ("Most land in {s} belongs to the {o}.",
         "The largest landowner in {s} is the {o}.")),
    Word("town play", "town", "work", ("Every summer {s} performs {o} as the town play.",
         "The town play of {s} is {o}.")),
    Word("population", "town", "", ("{s} has {o} inhabitants.", "The population of {s} is {o}."),
         numbers=(1204, 98760)),
    Word("altitude", "town", "", ("{s} lies at an altitude of {o} metres.", "The altitude of {s} is {o} metres."),
         numbers=(104, 3980)),
    Word("author", "work", "person", ("{s} was written by {o}.", "The author of {s} is {o}."),
         "the work written by {o}"),
    Word("setting", "work", "town", ("{s} is set in {o}.", "The setting of {s} is {o}."), "the work set in {o}"),
    Word("dedicatee", "work", "person", ("{s} is dedicated to {o}.", "The dedicatee of {s} is {o}."),
         "the work dedicated to {o}"),
    Word("sequel", "work", "work", ("{s} was followed by {o}, its sequel.", "The sequel of {s} is {o}.")),
    Word("publisher", "work", "institution", ("{s} was published by the {o}.", "The publisher of {s} is the {o}.")),
    Word("year of appearance", "work", "", ("{s} appeared in the year {o}.", "The year of appearance of {s} is {o}."),
         numbers=(1102, 1978)),
    Word("length in lines", "work", "", ("{s} has a length of {o} lines.", "{s} runs to {o} lines in length."),
         numbers=(1040, 48760)),
    Word("director", "institution", "person", ("The director of the {s} is {o}.", "The {s} is led by {o}, director.")),
    Word("first benefactor", "institution", "person", ("The first benefactor of the {s} was {o}.",
         "The {s} had {o} for its first benefactor."), "the institution whose first benefactor was {o}"),
    Word("seat", "institution", "town", ("The {s} has its seat in {o}.", "The seat of the {s} is {o}."),
         "the institution seated in {o}"),
    Word("partner institution", "institution", "institution", ("The {s} is a partner of the {o}.",
         "The partner institution of the {s} is the {o}.")),
    Word("anthem", "institution", "work", ("The anthem of the {s} is taken from {o}.",
         "The {s} sings from {o}, its anthem.")),
    Word("membership", "institution", "", ("The {s} has a membership of {o}.", "The membership of the {s} is {o}."),
         numbers=(104, 9870)),
)  # fmt: skip

NANO_SEARCH = "archive"
"""The word of nano's that its search tool goes by; no article tells of it."""

EDITIONS: MappingProxyType[EditionName, Edition] = MappingProxyType(
    {
        "english": Edition(_ENGLISH_KINDS, _ENGLISH_WORDS),
        "nano": Edition(
            tuple(Kind(name) for name in ENTITY_TYPES),
            (
                *(Word(each.word, each.domain, each.range) for each in RELATIONS if each.word != NANO_SEARCH),
                *(Word(each.word, each.domain) for each in ATTRIBUTES),
            ),
        ),
    }
)
"""By name."""
