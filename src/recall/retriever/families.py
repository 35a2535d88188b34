"""How known encoders want their texts: prefixes, pooling, length.

What the user sets goes before all, then what a model's own directory says (the files of sentence-transformers).
Sources: the model cards of each family; for T5, FlashRAG's encoder, which takes the decoder's first state.
"""

import re
from typing import Literal

from recall.config import Settings

Pooling = Literal["mean", "cls", "last", "pooler", "first-decoder"]


class Family(Settings):
    """The habits of one family."""

    pooling: Pooling
    """How the states of the tokens become one vector: their mean, the first, the last, BERT's pooler, or the decoder's
    first state."""
    normalize: bool
    """Whether vectors have length 1."""
    query_prefix: str = ""
    """What goes before a query."""
    passage_prefix: str = ""
    """What goes before a passage."""


FAMILIES: tuple[tuple[str, Family], ...] = (
    (
        r"(?:^|[-_/])e5-(?!.*(?:instruct|mistral))",
        Family(pooling="mean", normalize=True, query_prefix="query: ", passage_prefix="passage: "),
    ),
    (
        r"bge-.*en\b",
        Family(pooling="cls", normalize=True, query_prefix="Represent this sentence for searching relevant passages: "),
    ),
    (r"bge-m3", Family(pooling="cls", normalize=True)),
    (r"minilm", Family(pooling="mean", normalize=True)),
    (r"contriever", Family(pooling="mean", normalize=False)),
    (r"dpr-", Family(pooling="pooler", normalize=False)),
)
"""Families by a pattern that is looked for in their models' names, lower case; the first that is found."""

T5 = Family(pooling="first-decoder", normalize=False)
"""An encoder of the architecture T5, whatever its name."""


def family_of(name: str, model_type: str) -> Family | None:
    """The family of a model, or None where it is none that is known.

    Args:
        name: what it is called: the last two parts of its path, or its name on the hub.
        model_type: its architecture, as its config.json says it.
    """
    known = next((family for pattern, family in FAMILIES if re.search(pattern, name.lower())), None)
    return known or (T5 if model_type == "t5" else None)
