"""Worlds, tools and tasks written by a language model behind any OpenAI-compatible endpoint, kept only where they hold.

What the model writes runs in the sandbox and nowhere else. `docs/synth-llm.md` describes the steps and the checks.
"""
