"""What a set written by a model is made with. What it may cost, and how fast, is no part of it."""

from pydantic import Field, model_validator

from recall.config import Settings
from recall.synth.llm.author import AuthorSettings
from recall.synth.llm.certify_world import CertificateSettings
from recall.synth.llm.solvers import SolverSettings


class LLMRecipe(Settings):
    """The settings that decide what is made; a set is only ever continued with the same."""

    author: AuthorSettings = AuthorSettings()
    """How a model is asked for worlds."""
    certificates: CertificateSettings = CertificateSettings()
    """How much is asked of what it wrote."""
    solvers: SolverSettings = SolverSettings()
    """How models are asked about each task."""
    variants: int = Field(default=1, ge=1, le=50)
    """Rows of each task, each in a world of its own; at most as many as `certificates.seeds`."""
    validation_share: float = Field(default=0.0, ge=0, le=0.5)
    """The share of shapes of worlds whose rows are the split `validation`."""
    new_worlds_share: float = Field(default=0.0, ge=0, le=0.5)
    """The share of shapes of worlds whose rows are the split `new_worlds`."""
    max_likeness: float = Field(default=0.5, gt=0, le=1)
    """How much a setting may be like an earlier one: the Jaccard index of pairs of words."""

    @model_validator(mode="after")
    def _sound(self) -> "LLMRecipe":
        if self.variants > self.certificates.seeds:
            raise ValueError(f"variants is {self.variants}; at most certificates.seeds, {self.certificates.seeds}")
        if self.author.least_calls > self.author.most_calls:
            raise ValueError("author.least_calls is above author.most_calls")
        if self.certificates.least_tools > self.certificates.most_tools:
            raise ValueError("certificates.least_tools is above certificates.most_tools")
        return self

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """The splits besides `train`, with the share of each."""
        shares = (("validation", self.validation_share), ("new_worlds", self.new_worlds_share))
        return tuple((split, share) for split, share in shares if share)

    def rows_by_split(self, rows: int) -> dict[str, int]:
        """How many of so many rows are wanted of each split."""
        others = {split: round(rows * share) for split, share in self.shares}
        return {"train": rows - sum(others.values()), **others}
