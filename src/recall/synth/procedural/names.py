"""Names that nobody bears: persons, places, things and codes from syllable grammars, in several invented languages.

A name is a pure function of the generator's state and of the names that are taken already. Persons have two words,
places one, things an invented word and a noun (`Orvel Compass`), codes are letters and digits. Of each there are more
than 2^20 in every language, so that worlds of hundreds of entities need few second draws.
"""

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Literal, TypeVar, get_args

T = TypeVar("T")
Named = Literal["person", "place", "thing", "code"]
"""How an entity is named."""
NAMED: tuple[Named, ...] = get_args(Named)


@dataclass(frozen=True, slots=True)
class Language:
    """The sounds of an invented language: a word is onset, vowel, coda, …, vowel, end."""

    onsets: tuple[str, ...]
    """What begins a syllable."""
    vowels: tuple[str, ...]
    """What every syllable turns on."""
    links: tuple[str, ...]
    """What closes a syllable before another; may be empty text."""
    ends: tuple[str, ...]
    """What closes the last syllable of a word."""
    place_ends: tuple[str, ...]
    """What a place's name ends with instead."""

    @property
    def syllable(self) -> tuple[tuple[str, ...], ...]:
        """The sounds of a syllable that another follows."""
        return self.onsets, self.vowels, self.links

    @property
    def last(self) -> tuple[tuple[str, ...], ...]:
        """The sounds of the last syllable of a word."""
        return self.onsets, self.vowels, self.ends


def _language(onsets: str, vowels: str, links: str, ends: str, place_ends: str) -> Language:
    """A language from words; `-` stands for nothing."""

    def sounds(text: str) -> tuple[str, ...]:
        return tuple("" if part == "-" else part for part in text.split())

    return Language(sounds(onsets), sounds(vowels), sounds(links), sounds(ends), sounds(place_ends))


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        "orvel": _language(
            "b d f g k l m n p r s t v z br dr gr tr",
            "a e i o u",
            "- - - l n r s",
            "l n r s th m d",
            "en ar is ol um ia",
        ),
        "tesk": _language(
            "b d h j k l m n p r s t v sk st kr sv",
            "a e i o u y",
            "- - - k l n r",
            "k n r sk st v d",
            "vik heim dal sund ness holt",
        ),
        "lumai": _language(
            "f h k l m n p r s t w y sh ch", "a e i o u ai au", "- - - n l", "- - n r", "nui lani mora paki tue rea"
        ),
        "quen": _language(
            "c d f g l m n p qu r s t v cl fl pr",
            "a e i o ae io",
            "- - - l n r s m",
            "x s nt l rn us",
            "ium ora ence antis ella odro",
        ),
        "zhar": _language(
            "b d g gh j k kh m n r sh t y z zh dz",
            "a e i o u aa",
            "- - - r l m n z",
            "k r sh m n z d",
            "abad zhan dur kand maz orum",
        ),
        "plain": _language(
            "b d f g k l m n r s t v z",
            "a e i o",
            "-",
            "n r s l m d t k",
            "ba be bo da di do fa fe fi ga ge gi ka ki ko la li lo "
            "ma me mo na ne ni ra re ri sa se so ta te to va ve vi za zo",
        ),
        "brith": _language(
            "b c d g h l m n p r t w br cr gl gw th",
            "a e i o u y",
            "- - - d l n r ll",
            "n th dd r l s m",
            "wen combe mor garth ford rhyd",
        ),
    }
)
"""By name; a skin sounds like one of them."""

_THING_NOUNS = (
    "Anchor Anvil Arch Atlas Beacon Bell Bridge Bough Candle Cairn Chart Cinder Circle Clasp Compass Copper "
    "Crest Crown Dial Ember Fable Falcon Feather Fern Flint Forge Garland Gate Harbour Harp Hearth Heron "
    "Hollow Ivory Juniper Kestrel Key Ladder Lantern Lark Laurel Lily Loom Lyre Maple Marble Meadow Mirror "
    "Moon Needle Oak Orchard Otter Pebble Pillar Plume Prism Quill Raven Reed Ribbon River Rowan Saddle Sail "
    "Sickle Signal Sparrow Spindle Star Stone Summit Swift Thistle Thorn Tide Timber Torch Tower Vale Veil "
    "Violet Wheel Willow Window Winter Wren"
)
THING_NOUNS: tuple[str, ...] = tuple(_THING_NOUNS.split())
"""The second words of things."""
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_VOWELS = "aeiou"
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_DIGITS = "0123456789"
_PATTERN: Mapping[str, str] = MappingProxyType({"A": _LETTERS, "9": _DIGITS, "x": _DIGITS + "abcdef"})
_PATIENCE = 50
"""After so many draws a decoy grows by two letters, and again after as many more."""
CODE_PATTERN = "AA-9999"
"""How an entity that is named by a code is named: `KX-4821`."""


def pick(rng: random.Random, among: Sequence[T]) -> T:
    """One of several, each as likely as the others: `rng.choice` in a third of its time, as worlds have many draws."""
    return among[int(rng.random() * len(among))]


def draw(style: Named, rng: random.Random, *, taken: Collection[str] = (), language: str = "orvel") -> str:
    """A name that is not in `taken`.

    Args:
        style: whose name it is.
        rng: decides everything.
        taken: names given already; a set, as it is asked often.
        language: one of `LANGUAGES`.
    """
    while True:
        name = _drawn(style, rng, LANGUAGES[language])
        if name not in taken:
            return name


def _drawn(style: Named, rng: random.Random, language: Language) -> str:
    if style == "person":
        return f"{_word(rng, language, 2)} {_word(rng, language, pick(rng, (2, 3)))}"
    if style == "place":
        return _stem(rng, language, pick(rng, (2, 3))) + pick(rng, language.place_ends)
    if style == "thing":
        return f"{_word(rng, language, 2)} {pick(rng, THING_NOUNS)}"
    return patterned(CODE_PATTERN, rng)


def _stem(rng: random.Random, language: Language, syllables: int) -> str:
    """Syllables, each closed by a link, with a capital."""
    return _spelled(rng, language.syllable * syllables).capitalize()


def _word(rng: random.Random, language: Language, syllables: int) -> str:
    return _spelled(rng, language.syllable * (syllables - 1) + language.last).capitalize()


def _spelled(rng: random.Random, places: Sequence[Sequence[str]]) -> str:
    """One of each place's sounds or signs. They are the digits of one number, which costs less than a draw for each; of
    2^96 numbers, none of the at most 2^40 spellings has noticeably more than another.
    """
    number = rng.getrandbits(96)
    spelled = ""
    for among in places:
        number, digit = divmod(number, len(among))
        spelled += among[digit]
    return spelled


def patterned(pattern: str, rng: random.Random) -> str:
    """A code: `A` is a letter, `9` a digit, `x` a hexadecimal digit; everything else stands for itself."""
    return _spelled(rng, [_PATTERN.get(sign, sign) for sign in pattern])


def pattern_bits(pattern: str) -> float:
    """The entropy of a code of this pattern."""
    return sum(math.log2(len(_PATTERN.get(sign, sign))) for sign in pattern)


def bits(style: Named, language: str = "orvel") -> float:
    """The entropy of a name, as if no two draws spelled the same."""
    sounds = LANGUAGES[language]
    syllable = _entropy(sounds.onsets) + _entropy(sounds.vowels)
    linked, ended = syllable + _entropy(sounds.links), syllable + _entropy(sounds.ends)
    if style == "person":
        return linked + ended + 1 + 1.5 * linked + ended
    if style == "place":
        return 1 + 2.5 * linked + _entropy(sounds.place_ends)
    if style == "thing":
        return linked + ended + _entropy(THING_NOUNS)
    return pattern_bits(CODE_PATTERN)


def _entropy(sounds: tuple[str, ...]) -> float:
    """The entropy of a choice among sounds of which some may be listed twice."""
    return sum(times / len(sounds) * math.log2(len(sounds) / times) for times in Counter(sounds).values())


def decoy_of(rng: random.Random, name: str, *, taken: Collection[str] = ()) -> str:
    """A name that begins like `name` and is another: the same first word or first half, with another ending.

    Args:
        rng: decides everything.
        name: what it is mistaken for.
        taken: names that it must not be either.
    """
    first, _, last = name.rpartition(" ")
    kept = len(name) - max(1, len(last) // 2)
    for attempt in count():
        if last in THING_NOUNS and attempt < _PATIENCE:
            decoy = f"{first} {pick(rng, THING_NOUNS)}"
        else:
            decoy = name[:kept] + "".join(_like(sign, rng) for sign in name[kept:])
        for _ in range(attempt // _PATIENCE):  # few others are like it, so it must grow
            decoy += pick(rng, _VOWELS) + pick(rng, _CONSONANTS)
        if decoy != name and decoy not in taken:
            return decoy
    raise AssertionError("count() does not end")


def _like(sign: str, rng: random.Random) -> str:
    """A sign of the same sort: a digit for a digit, a vowel for a vowel, a consonant for a consonant."""
    for sort in (_DIGITS, _VOWELS, _CONSONANTS, _LETTERS):
        if sign in sort:
            return pick(rng, sort)
    return sign
