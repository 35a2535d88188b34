"""Synthetic tasks: fictional worlds, tools over them, and questions whose answers only the tools can tell."""
