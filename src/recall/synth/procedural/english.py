"""Small rules of English that questions and descriptions of tools share."""

from recall.synth.procedural.kinds import Kind

_AS_IF_CONSONANT = ("uni", "use", "usa", "eu", "one")
_AS_IF_VOWEL = ("hour", "heir", "honour", "honest")


def a(noun: str) -> str:
    """The noun with the indefinite article that it takes."""
    lower = noun.lower()
    vowel = lower[:1] in "aeiou" and not lower.startswith(_AS_IF_CONSONANT)
    return f"{'an' if vowel or lower.startswith(_AS_IF_VOWEL) else 'a'} {noun}"


def in_time(kind: Kind) -> bool:
    """Whether values are moments, which are early or late, and not high or low."""
    return kind.json == "string" or kind.name.startswith("year")


def superlative(kind: Kind, *, largest: bool) -> str:
    """How the extreme of a kind is called."""
    if in_time(kind):
        return "latest" if largest else "earliest"
    return "highest" if largest else "lowest"


def comparative(kind: Kind, *, larger: bool) -> str:
    """How the more extreme of two values is called."""
    if in_time(kind):
        return "later" if larger else "earlier"
    return "higher" if larger else "lower"


def beyond(kind: Kind, *, above: bool) -> str:
    """The preposition that stands before a bound."""
    if in_time(kind):
        return "after" if above else "before"
    return "above" if above else "below"
