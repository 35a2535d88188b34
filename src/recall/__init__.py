"""ReCall trains language models to reason with tool calls by reinforcement learning, from outcome rewards alone."""

__version__ = "0.1.0.dev0"
