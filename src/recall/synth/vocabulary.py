"""The words that worlds, tools and questions are made of. Plain data; nothing here draws at random.

Relations lead from an entity to an entity, attributes from an entity to a number, operators from two numbers to one.
Each word is used once, so that a word names one relation, attribute or operator everywhere.
"""

from dataclasses import dataclass
from typing import Literal

EntityType = Literal["person", "city", "company", "ship", "guild"]
ENTITY_TYPES: tuple[EntityType, ...] = ("person", "city", "company", "ship", "guild")


@dataclass(frozen=True, slots=True)
class Relation:
    """A function from the entities of one type to those of another."""

    word: str
    domain: EntityType
    range: EntityType


@dataclass(frozen=True, slots=True)
class Attribute:
    """A whole number that every entity of a type has."""

    word: str
    domain: EntityType


@dataclass(frozen=True, slots=True)
class Operator:
    """A function of two whole numbers."""

    word: str
    expression: str
    """Python over `{a}` and `{b}`."""


_RELATIONS: dict[EntityType, dict[EntityType, str]] = {
    "person": {
        "person": "mentor rival cousin deputy sponsor",
        "city": "birthplace residence",
        "company": "employer creditor",
        "ship": "yacht",
        "guild": "order",
    },
    "city": {
        "person": "mayor architect",
        "city": "twin neighbor",
        "company": "brewery utility",
        "ship": "ferry",
        "guild": "council",
    },
    "company": {
        "person": "director auditor",
        "city": "headquarters branch",
        "company": "supplier insurer",
        "ship": "flagship",
        "guild": "union",
    },
    "ship": {
        "person": "captain navigator owner",
        "city": "harbor shipyard",
        "company": "charterer builder",
        "ship": "sister escort",
        "guild": "registry",
    },
    "guild": {
        "person": "master scribe",
        "city": "hall archive",
        "company": "banker publisher",
        "ship": "barge",
        "guild": "ally parent",
    },
}
RELATIONS: tuple[Relation, ...] = tuple(
    Relation(word, domain, range_)
    for domain, by_range in _RELATIONS.items()
    for range_, words in by_range.items()
    for word in words.split()
)
_ATTRIBUTES: dict[EntityType, str] = {
    "person": "age salary height debt",
    "city": "population altitude area",
    "company": "revenue staff stock",
    "ship": "length crew speed",
    "guild": "membership treasury dues",
}
ATTRIBUTES: tuple[Attribute, ...] = tuple(
    Attribute(word, domain) for domain, words in _ATTRIBUTES.items() for word in words.split()
)
OPERATORS: tuple[Operator, ...] = (
    Operator("sum", "{a} + {b}"),
    Operator("difference", "abs({a} - {b})"),
    Operator("larger", "max({a}, {b})"),
    Operator("smaller", "min({a}, {b})"),
)

JOINING: tuple[Operator, ...] = tuple(operator for operator in OPERATORS if operator.word in ("sum", "difference"))
"""What a task may join with: the larger and the smaller of two numbers are numbers seen already, so half a solution
could guess them."""

NAMING_STYLES: tuple[str, ...] = (
    "get_{word}",
    "find_{word}",
    "lookup_{word}",
    "fetch_{word}",
    "{word}_of",
    "{word}",
    "query_{word}",
    "{word}_lookup",
)
ENTITY_PARAMETERS: tuple[str, ...] = ("name", "key", "entity", "subject", "id")
NUMBER_PARAMETERS: tuple[tuple[str, str], ...] = (("a", "b"), ("x", "y"), ("first", "second"), ("left", "right"))
OUTPUT_STYLES: tuple[str, ...] = ("", "value", "{word}")
"""The key under which a tool returns its value; without one it returns the bare value."""

QUESTIONS: tuple[str, ...] = ("What is {noun}?", "Find {noun}.", "Tell me {noun}.")
Genitive = Literal["of", "'s"]
"""The two ways of saying whose: `the mentor of the twin of Zobido` or `Zobido's twin's mentor`."""
GENITIVES: tuple[Genitive, ...] = ("of", "'s")

ONSETS = "bdfgklmnrstvz"
VOWELS = "aeio"
SYLLABLES: tuple[str, ...] = tuple(onset + vowel for onset in ONSETS for vowel in VOWELS)
