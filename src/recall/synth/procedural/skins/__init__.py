"""The domains that worlds are dressed in: each a TOML file beside this one, or a file of the user's.

Skins only rename: the same shape of world appears in many vocabularies. Those in `HELD_OUT` are kept for the split
`new_skins`, so that no word of theirs is trained on as theirs.
"""

from functools import cache
from importlib import resources
from pathlib import Path

from recall.errors import ConfigError
from recall.synth.procedural.skins.reader import parse, read
from recall.synth.procedural.skins.schema import Action, Entity, Field, Label, Link, Move, Skin, States

__all__ = [
    "HELD_OUT",
    "NAMES",
    "PLAIN",
    "Action",
    "Entity",
    "Field",
    "Label",
    "Link",
    "Move",
    "Skin",
    "States",
    "load",
    "read",
    "skin_of",
]

NAMES: tuple[str, ...] = (
    "library",
    "clinic",
    "freight",
    "payroll",
    "orbital_depot",
    "guild",
    "vineyard",
    "museum",
    "observatory",
    "fishery",
    "railway",
    "theatre",
    "apiary",
    "mine",
    "courier",
    "botanical_garden",
    "film_archive",
    "school",
    "pharmacy",
    "lighthouse_service",
    "auction_house",
    "ferry_line",
    "ice_station",
    "print_shop",
    "rescue_dogs",
    "kitchens",
    "bridge_inspection",
    "radio_stations",
    "greenhouse",
    "waterworks",
    "glassworks",
    "court_registry",
)
"""Every skin of the house; adding a file adds its name here, and no name ever moves, as tasks are drawn by position."""

HELD_OUT: tuple[str, ...] = ("apiary", "courier", "auction_house", "ice_station", "bridge_inspection")
"""The skins of the split `new_skins`."""


PLAIN: tuple[str, ...] = ("plain_first", "plain_second", "plain_held_out")
"""Skins in the words that nano's base has read, for the recipe `nano`; the last is held out."""


@cache
def load(name: str) -> Skin:
    """A skin of the house by name; read once.

    Raises:
        ConfigError: there is none of this name, or its file is not a skin.
    """
    if name not in (*NAMES, *PLAIN):
        raise ConfigError(f"{name!r}: no such skin; there are {', '.join((*NAMES, *PLAIN))}")
    file = resources.files(__name__).joinpath(f"{name}.toml")
    return parse(file.read_text(encoding="utf-8"), f"{name}.toml")


def skin_of(name: str) -> Skin:
    """A skin of the house by name, or one of the user's by its file.

    Raises:
        ConfigError: there is none, or the file is no skin.
    """
    return read(Path(name)) if name.endswith(".toml") else load(name)
