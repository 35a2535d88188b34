"""What an encyclopedia is made of: the settings and their presets."""

from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from recall.config import Settings, load
from recall.errors import ConfigError
from recall.synth.encyclopedia.subjects import EDITIONS, EditionName


def _in_order(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1]:
        raise ValueError("the fewest and the most, in this order, neither below 1")
    return value


Span = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""The fewest and the most, both included."""


class EncyclopediaRecipe(Settings):
    """How articles and questions are drawn."""

    edition: EditionName = "english"
    """Whether articles are sentences for any model, or boxes of facts in the words of nano."""
    hops: Span = (2, 4)
    """Passages that a question takes; the split `deeper` takes one more than the most."""
    facts: Span = (4, 6)
    """Facts that an article tells."""
    facts_a_passage: int = Field(default=2, ge=1)
    """Facts of one passage, at most."""
    articles_a_question: float = Field(default=0.5, gt=0, le=20)
    """Articles for each question."""
    backward: float = Field(default=0.25, ge=0, le=1)
    """Questions that do not name the subject they start from but say which one it is: `the work set in Tolmaza`."""
    top_k: int = Field(default=5, ge=1, le=100)
    """Passages of a search, among which the one that a hop rests on has to be."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        edition = EDITIONS[self.edition]
        fewest = min(len(edition.of(kind.name)) for kind in edition.kinds)
        if self.facts[1] > fewest:
            raise ValueError(f"facts: the edition {self.edition} has {fewest} things to tell of a subject, at most")
        if self.backward and not any(word.backward for word in edition.words):
            raise ValueError(f"backward: the edition {self.edition} has no words for it; 0 is accepted")
        return self


PRESETS: MappingProxyType[str, EncyclopediaRecipe] = MappingProxyType(
    {
        "default": EncyclopediaRecipe(),
        "nano": EncyclopediaRecipe(
            edition="nano", hops=(1, 3), facts=(1, 1), articles_a_question=3, backward=0, top_k=1
        ),
    }
)
"""Recipes by name."""


def recipe_of(name: str | Path) -> EncyclopediaRecipe:
    """A preset by name, or a recipe from a TOML file.

    Raises:
        ConfigError: there is none, or the file is no recipe.
    """
    if str(name) in PRESETS:
        return PRESETS[str(name)]
    if Path(name).suffix != ".toml":
        raise ConfigError(f"no recipe {str(name)!r}; accepted: a .toml file, or one of {', '.join(PRESETS)}")
    return load(EncyclopediaRecipe, Path(name))
