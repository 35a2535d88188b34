"""The kinds of value that a world holds: how each is drawn, compared and converted, and how hard it is to guess.

Kinds are nominal: a mass in kilograms and a mass in tonnes are two kinds of one dimension, a fee and a price two kinds
that happen to have the same unit. An answerable kind has at least `ANSWERABLE_BITS` of entropy, so that a guess is no
answer. Names of entities are drawn in `names.py`; the values of labels come from a skin.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import partial
from types import MappingProxyType
from typing import Literal

from recall.synth.procedural import names
from recall.synth.procedural.names import pick
from recall.types import AnswerType

Value = str | int | float
JsonType = Literal["integer", "number", "string", "boolean"]

ANSWERABLE_BITS = 10.0
"""The least entropy of a kind whose values may be the answer of a task."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value."""

    name: str
    """What skins call it."""
    json: JsonType
    """The JSON Schema type of its values."""
    answer: AnswerType
    """How an answer of this kind is compared."""
    sample: Callable[[random.Random], Value] = field(repr=False, compare=False)
    """Draws one value; see `draw`."""
    unit: str = ""
    """The plural noun that a question counts in, such as `kilograms`; empty where there is none."""
    bits: float = 0.0
    """The Shannon entropy of one draw."""
    answerable: bool = False
    """Whether a value may be the answer of a task."""
    dimension: str = ""
    """What it measures, such as `mass`; kinds of one dimension convert into one another."""
    scale: Fraction = Fraction(1)
    """One unit of it, in the base unit of its dimension."""
    places: int = 0
    """The number of decimals that a `number` is written with at most."""
    additive: bool = False
    """Whether sums and differences of its values mean something."""
    ordered: bool = False
    """Whether one value can be larger or later than another. Strings of such a kind sort in that order."""

    def draw(self, rng: random.Random) -> Value:
        """A fresh value; a pure function of the state of `rng`."""
        return self.sample(rng)


def exact(value: int | float) -> Fraction:
    """The decimal number that a value is written as, without binary rounding."""
    return Fraction(repr(value))


def convert(value: int | float, source: Kind, target: Kind) -> Fraction:
    """A quantity of one kind in the unit of another, exactly.

    Raises:
        ValueError: the two do not measure the same dimension.
    """
    if not source.dimension or source.dimension != target.dimension:
        raise ValueError(f"{source.name} does not convert into {target.name}")
    return exact(value) * source.scale / target.scale


def enumeration(name: str, values: Sequence[str]) -> Kind:
    """The kind of a label: one of a few words, each as likely as the others."""
    return Kind(name, "string", AnswerType("entity"), partial(_choice, tuple(values)), bits=math.log2(len(values)))


def _choice(values: tuple[str, ...], rng: random.Random) -> str:
    return pick(rng, values)


def _even(low: int, steps: int, places: int, rng: random.Random) -> int | float:
    return _written(low + int(rng.random() * steps), places)


def _log_even(low: float, ratio: float, high: int, places: int, rng: random.Random) -> int | float:
    return _written(min(high, int(math.exp(low + rng.random() * ratio))), places)


def _written(steps: int, places: int) -> int | float:
    return steps / 10**places if places else steps


def _day(first: int, days: int, rng: random.Random) -> str:
    return date.fromordinal(first + int(rng.random() * days)).isoformat()


def _minute(rng: random.Random) -> str:
    hours, minutes = divmod(int(rng.random() * 24 * 60), 60)
    return f"{hours:02}:{minutes:02}"


def _second(rng: random.Random) -> str:
    return f"{_minute(rng)}:{int(rng.random() * 60):02}"


def _truth(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _quantity(
    name: str,
    low: float,
    high: float,
    unit: str = "",
    *,
    places: int = 0,
    log: bool = False,
    dimension: str = "",
    scale: Fraction | int = 1,
    additive: bool = True,
    answerable: bool | None = None,
) -> Kind:
    """A number between `low` and `high`, both included, evenly over the numbers or over their logarithms."""
    first, last = round(low * 10**places), round(high * 10**places)
    count = last - first + 1
    bits = math.log2(count)
    if log:  # the differential entropy of the density 1 / (x ln(b/a)) over steps of one
        bits = math.log2(math.log((last + 1) / first)) + (math.log2(first) + math.log2(last + 1)) / 2
    sample = partial(_even, first, count, places)
    if log:
        sample = partial(_log_even, math.log(first), math.log((last + 1) / first), last, places)
    answer = AnswerType("number", tolerance=0.5 * 10**-places) if places else AnswerType("integer")
    return Kind(
        name,
        "number" if places else "integer",
        answer,
        sample,
        unit=unit,
        bits=bits,
        answerable=bits >= ANSWERABLE_BITS if answerable is None else answerable,
        dimension=dimension,
        scale=Fraction(scale),
        places=places,
        additive=additive,
        ordered=True,
    )


def _dates(name: str, first: date, last: date) -> Kind:
    days = (last - first).days + 1
    sample = partial(_day, first.toordinal(), days)
    return Kind(name, "string", AnswerType("date"), sample, bits=math.log2(days), answerable=True, ordered=True)


def _clock(name: str, sample: Callable[[random.Random], str], count: int) -> Kind:
    return Kind(name, "string", AnswerType("entity"), sample, bits=math.log2(count), answerable=True, ordered=True)


def _code(name: str, pattern: str) -> Kind:
    sample = partial(names.patterned, pattern)
    return Kind(name, "string", AnswerType("entity"), sample, bits=names.pattern_bits(pattern), answerable=True)


def _name(name: str, style: names.Named) -> Kind:
    sample = partial(names.draw, style)
    return Kind(name, "string", AnswerType("entity"), sample, bits=names.bits(style), answerable=True)


_MONEY = (
    _quantity("credits", 1_000, 99_999, "credits", log=True, dimension="money"),
    _quantity("credits_large", 100_000, 9_999_999, "credits", log=True, dimension="money"),
    _quantity("price", 5, 999.99, "credits", places=2, log=True, dimension="money"),
    _quantity("fee", 20, 4_999.99, "credits", places=2, log=True, dimension="money"),
    _quantity("balance", -5_000, 5_000, "credits", places=2, dimension="money"),
    _quantity("cents", 1_000, 99_999, "cents", log=True, dimension="money", scale=Fraction(1, 100)),
    _quantity("crowns", 1_000, 24_999, "crowns", log=True, dimension="money", scale=20),
)
_MASS = (
    _quantity("milligrams", 1_000, 99_999, "milligrams", log=True, dimension="mass", scale=Fraction(1, 1000)),
    _quantity("grams", 1_000, 60_000, "grams", log=True, dimension="mass"),
    _quantity("grams_1", 100, 999.9, "grams", places=1, dimension="mass"),
    _quantity("kilograms", 1_000, 99_999, "kilograms", log=True, dimension="mass", scale=1000),
    _quantity("kilograms_2", 2, 90, "kilograms", places=2, dimension="mass", scale=1000),
    _quantity("tonnes", 1_000, 90_000, "tonnes", log=True, dimension="mass", scale=1_000_000),
    _quantity("tonnes_1", 100, 4_000, "tonnes", places=1, log=True, dimension="mass", scale=1_000_000),
)
_LENGTH = (
    _quantity("millimetres", 1_000, 30_000, "millimetres", log=True, dimension="length", scale=Fraction(1, 1000)),
    _quantity("centimetres_1", 20, 400, "centimetres", places=1, dimension="length", scale=Fraction(1, 100)),
    _quantity("metres", 1_000, 50_000, "metres", log=True, dimension="length"),
    _quantity("metres_2", 2, 60, "metres", places=2, dimension="length"),
    _quantity("kilometres", 1_000, 20_000, "kilometres", log=True, dimension="length", scale=1000),
    _quantity("kilometres_1", 100, 900, "kilometres", places=1, dimension="length", scale=1000),
    _quantity("depth", 5, 900, "metres", places=1, dimension="length", additive=False),
    _quantity("altitude", 120, 8_900, "metres", dimension="length", additive=False),
)
_AREA_VOLUME = (
    _quantity(
        "square_centimetres", 1_000, 40_000, "square centimetres", log=True, dimension="area", scale=Fraction(1, 10_000)
    ),
    _quantity("square_metres", 1_000, 90_000, "square metres", log=True, dimension="area"),
    _quantity("hectares", 2, 400, "hectares", places=2, log=True, dimension="area", scale=10_000),
    _quantity(
        "square_kilometres", 100, 3_000, "square kilometres", places=1, log=True, dimension="area", scale=1_000_000
    ),
    _quantity("millilitres", 1_000, 50_000, "millilitres", log=True, dimension="volume", scale=Fraction(1, 1000)),
    _quantity("litres", 1_000, 90_000, "litres", log=True, dimension="volume"),
    _quantity("litres_1", 100, 900, "litres", places=1, dimension="volume"),
    _quantity("hectolitres", 100, 2_000, "hectolitres", places=1, log=True, dimension="volume", scale=100),
    _quantity("cubic_metres", 1_000, 40_000, "cubic metres", log=True, dimension="volume", scale=1000),
)
_TIME = (
    _quantity("seconds", 1_000, 80_000, "seconds", log=True, dimension="duration"),
    _quantity("minutes", 1_000, 40_000, "minutes", log=True, dimension="duration", scale=60),
    _quantity("minutes_2", 2, 240, "minutes", places=2, dimension="duration", scale=60),
    _quantity("hours", 1_000, 40_000, "hours", log=True, dimension="duration", scale=3600),
    _quantity("hours_1", 100, 999.9, "hours", places=1, dimension="duration", scale=3600),
    _quantity("days", 1_000, 30_000, "days", log=True, dimension="duration", scale=86_400),
    _quantity("minutes_short", 5, 180, "minutes", dimension="duration", scale=60),
    _quantity("days_short", 2, 120, "days", dimension="duration", scale=86_400),
)
_SPEED_FLOW = (
    _quantity(
        "kilometres_an_hour",
        5,
        180,
        "kilometres an hour",
        places=1,
        dimension="speed",
        scale=Fraction(5, 18),
        additive=False,
    ),
    _quantity("metres_a_second", 1, 40, "metres a second", places=2, dimension="speed", additive=False),
    _quantity(
        "metres_a_minute", 1_000, 9_000, "metres a minute", dimension="speed", scale=Fraction(1, 60), additive=False
    ),
    _quantity("litres_a_minute", 1_000, 9_000, "litres a minute", dimension="flow"),
    _quantity("litres_an_hour", 1_000, 60_000, "litres an hour", log=True, dimension="flow", scale=Fraction(1, 60)),
)
_PHYSICS = (
    _quantity("watts", 1_000, 90_000, "watts", log=True, dimension="power"),
    _quantity("kilowatts", 100, 3_000, "kilowatts", places=1, log=True, dimension="power", scale=1000),
    _quantity("kilowatt_hours", 1_000, 90_000, "kilowatt-hours", log=True, dimension="energy"),
    _quantity("megawatt_hours", 10, 900, "megawatt-hours", places=2, log=True, dimension="energy", scale=1000),
    _quantity("hectopascals", 850, 1_080, "hectopascals", places=1, dimension="pressure", additive=False),
    _quantity("kilopascals", 100, 2_500, "kilopascals", places=1, dimension="pressure", scale=10, additive=False),
    _quantity("bars", 10, 300, "bars", places=2, dimension="pressure", scale=1000, additive=False),
    _quantity("celsius", -60, 60, "degrees Celsius", places=1, additive=False),
    _quantity("warmth", 5, 95, "degrees Celsius", places=2, additive=False),
    _quantity("heat", 60, 1_400, "degrees Celsius", places=1, additive=False),
    _quantity("bearing", 0, 359.9, "degrees", places=1, additive=False),
    _quantity("latitude", -89.999, 89.999, "degrees", places=3, additive=False),
    _quantity("kilohertz", 1_000, 30_000, "kilohertz", log=True, dimension="frequency", additive=False),
    _quantity("megahertz", 60, 900, "megahertz", places=2, dimension="frequency", scale=1000, additive=False),
    _quantity("megabytes", 1_000, 90_000, "megabytes", log=True, dimension="data"),
    _quantity("gigabytes", 100, 900, "gigabytes", places=1, dimension="data", scale=1000),
    _quantity("volts", 100, 990, "volts", places=1, additive=False),
    _quantity("kilonewtons", 100, 2_000, "kilonewtons", places=1),
    _quantity("lumens", 1_000, 90_000, "lumens", log=True),
    _quantity("density", 600, 1_500, "grams a litre", places=1, additive=False),
    _quantity("concentration", 1, 80, "milligrams a litre", places=2, additive=False),
    _quantity("acidity", 3, 9, places=2, additive=False),
)
_NUMBERS = (
    _quantity("count_12", 1, 12),
    _quantity("count_50", 2, 50),
    _quantity("count_200", 10, 200),
    _quantity("count_1000", 120, 1_999),
    _quantity("count_10k", 1_000, 9_999),
    _quantity("count_100k", 10_000, 99_999),
    _quantity("count_million", 100_000, 999_999),
    _quantity("age", 18, 90, "years"),
    _quantity("score", 1_000, 9_999, "points"),
    _quantity("score_2", 10, 99.99, "points", places=2),
    _quantity("rank_points", 800, 2_900, "points", additive=False),
    _quantity("rating", 1, 9.9, places=1, additive=False),
    _quantity("percent_1", 0.1, 99.9, "percent", places=1, additive=False),
    _quantity("percent_2", 0.01, 99.99, "percent", places=2, additive=False),
    _quantity("year", 1_000, 2_099, additive=False),
    _quantity("year_modern", 1_890, 2_090, additive=False),
)
_TEXTS = (
    _dates("date", date(2001, 1, 1), date(2098, 12, 31)),
    _dates("date_birth", date(1930, 1, 1), date(2012, 12, 31)),
    _dates("date_historic", date(1500, 1, 1), date(1949, 12, 31)),
    _clock("time", _minute, 24 * 60),
    _clock("time_seconds", _second, 24 * 60 * 60),
    _code("hex_id", "xxxxxxxx"),
    _code("serial", "AA-9999"),
    _code("call_sign", "AA9AAA"),
    _code("registry_number", "A 9999-99"),
    _code("barcode", "9999999999"),
    _code("grid_reference", "AA 999 999"),
    _code("plate", "AAA 999A"),
    _code("invoice_number", "9999/9999"),
    _code("shelf_mark", "A-999.99"),
    _name("person_name", "person"),
    _name("place_name", "place"),
    _name("thing_name", "thing"),
    Kind("flag", "boolean", AnswerType("boolean"), _truth, bits=1.0),
)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for group in (_MONEY, _MASS, _LENGTH, _AREA_VOLUME, _TIME, _SPEED_FLOW, _PHYSICS, _NUMBERS, _TEXTS)
        for kind in group
    }
)
"""Every kind but those of labels, by name."""
