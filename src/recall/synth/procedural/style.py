"""How the tools of one world are named and what their results look like, as one programmer's interface would be."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Case = Literal["snake", "camel"]
Wrapping = Literal["bare", "result", "value", "named", "prose"]
"""What a tool that reads one value returns: the value, an object under some name, or text."""

_NAMES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "field": (
            "get_{entity}_{word}", "{entity}_{word}", "fetch_{word}_of_{entity}", "read_{entity}_{word}",
            "{word}_of_{entity}", "look_up_{entity}_{word}", "query_{word}_for_{entity}", "show_{entity}_{word}",
        ),
        "record": (
            "get_{entity}", "{entity}_details", "fetch_{entity}_record", "describe_{entity}", "{entity}_info",
            "read_{entity}", "load_{entity}",
        ),
        "members": (
            "list_{plural}_by_{word}", "{plural}_of_{word}", "find_{plural}_by_{word}", "get_{plural}_for_{word}",
            "{word}_{plural}", "search_{plural}_with_{word}",
        ),
        "where": (
            "{plural}_with_{word}", "filter_{plural}_by_{word}", "search_{plural}_{word}", "select_{plural}_by_{word}",
        ),
        "range": (
            "{plural}_in_{word}_range", "filter_{plural}_on_{word}", "{plural}_between_{word}",
            "search_{plural}_by_{word}_range",
        ),
        "lookup": ("find_{entity}_id", "{entity}_id_of", "resolve_{entity}", "{entity}_by_name", "identify_{entity}"),
        "rate": ("exchange_rate", "get_rate", "rate_of_currency", "currency_rate", "fetch_exchange_rate"),
        "act": ("{word}_{entity}", "{entity}_{word}", "do_{word}_{entity}"),
        "move": ("{word}_{entity}", "{entity}_{word}", "{word}_{entity}_to"),
        "add": ("add", "sum_of", "add_numbers", "plus"),
        "subtract": ("difference", "difference_of", "subtract_numbers", "gap_between"),
    }
)  # fmt: skip
"""Patterns by what a tool does; `field` serves links and labels too."""

_KEYS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "name": ("{entity}", "name", "{entity}_name", "key", "of"),
        "id": ("{entity}_id", "id", "key", "{entity}", "identifier"),
    }
)

_PLAIN: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        **_NAMES,
        "field": (
            "get_{word}", "find_{word}", "lookup_{word}", "fetch_{word}", "{word}_of", "{word}", "query_{word}",
            "{word}_lookup",
        ),
        "add": ("sum", "get_sum", "find_sum", "sum_of", "query_sum"),
        "subtract": ("difference", "get_difference", "find_difference", "difference_of", "query_difference"),
    }
)  # fmt: skip
"""The patterns of plain tools, in which a word means one thing whatever it is about."""
_PLAIN_KEYS = ("name", "key", "entity", "subject", "id")


@dataclass(frozen=True, slots=True)
class Style:
    """One way to name things and to return them."""

    case: Case
    """Of names of tools and of parameters."""
    names: Mapping[str, str]
    """By what a tool does, the pattern of its name."""
    key: str
    """The pattern of the parameter that takes an entity."""
    wrapping: Wrapping
    """Of single values."""
    listing: Literal["bare", "items"]
    """Whether a list comes bare or in an object."""
    page_size: int
    """Entries of a page; 0 for lists that come whole."""
    page: str
    """The name of the parameter that takes the number of a page."""
    items: str
    """What holds the entries of a list that is in an object."""
    bounds: tuple[str, str]
    """The parameters that take the least and the largest value."""
    plain: bool = False
    """Whether names and descriptions are as short as they get."""

    @property
    def next_page(self) -> str:
        """Where a page says the number of the next one."""
        return self.cased("next_page")

    def name(self, verb: str, **words: str) -> str:
        """The name of a tool."""
        return self.cased(self.names[verb].format(**words))

    def cased(self, name: str) -> str:
        """A snake_case name in this style's case."""
        if self.case == "snake":
            return name
        first, *rest = name.split("_")
        return first + "".join(part.capitalize() for part in rest)


def draw_style(rng: random.Random, *, keyed: str, prose: bool, page_size: int, plain: bool = False) -> Style:
    """A style.

    Args:
        rng: decides everything.
        keyed: whether entities are known by `name` or by `id`.
        prose: answer in sentences where a tool gives one value.
        page_size: entries of a page, 0 for none.
        plain: as short as it gets.
    """
    return Style(
        case="snake" if plain else rng.choice(("snake", "snake", "snake", "camel")),
        names={verb: rng.choice(patterns) for verb, patterns in (_PLAIN if plain else _NAMES).items()},
        key=rng.choice(_PLAIN_KEYS if plain else _KEYS[keyed]),
        wrapping="prose" if prose else rng.choice(("bare", "value" if plain else "result", "named")),
        listing=rng.choice(("bare", "items")),
        page_size=page_size,
        page=rng.choice(("page", "page_number", "p")),
        items=rng.choice(("items", "results", "matches", "entries")),
        bounds=rng.choice((("at_least", "at_most"), ("min_value", "max_value"), ("low", "high"))),
        plain=plain,
    )
