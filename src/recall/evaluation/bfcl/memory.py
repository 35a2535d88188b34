"""The leaderboard's questions about a memory: conversations that fill it, one after another, and then what is asked.

Each kind of memory is played on its own. The conversations of one scenario build on each other, and every question of
the scenario starts from what the last one left behind; no question sees what another did.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.evaluation.bfcl.entries import (
    PREREQUISITE,
    Entry,
    documents_of,
    messages_of,
    question_rows,
    rows_of,
    truth_rows,
)

SCENARIOS = ("student", "customer", "finance", "healthcare", "notetaker")
"""Whom a memory serves."""
_COPIED = "memory_prereq_conversation"
"""The folder of the conversations."""


def memory_entries(directory: Path, category: str) -> list[Entry]:
    """The conversations and then the questions of one kind of memory.

    Raises:
        ConfigError: a file is missing or damaged; copies of the data may lack the conversations.
    """
    if not (directory / _COPIED).is_dir():
        raise ConfigError(f"{directory / _COPIED}: not there; {category} needs the data of the package itself")
    backend = f"MemoryAPI_{category.removeprefix('memory_')}"
    functions = tuple(documents_of(directory, backend))
    entries: list[Entry] = []
    last: dict[str, tuple[str, ...]] = {}
    for scenario in SCENARIOS:
        for row in rows_of(directory / _COPIED / f"memory_{scenario}.json"):
            name = f"{category}{PREREQUISITE}"
            entry = _entry(row, name, category, backend, functions, None, scenario, last.get(scenario, ()))
            entries.append(entry)
            last[scenario] = (entry.id,)
    for row, truth in zip(question_rows(directory, "memory"), truth_rows(directory, "memory"), strict=True):
        scenario = row["scenario"]
        entries.append(
            _entry(row, category, category, backend, functions, truth["ground_truth"], scenario, last[scenario])
        )
    return entries


def _entry(
    row: Mapping[str, Any],
    name: str,
    category: str,
    backend: str,
    functions: tuple[Mapping[str, Any], ...],
    truth: Any,
    scenario: str,
    after: tuple[str, ...],
) -> Entry:
    return Entry(
        id=str(row["id"]).replace("memory", category, 1),
        category=name,
        turns=tuple(map(messages_of, row["question"])),
        functions=functions,
        truth=truth,
        source={"involved_classes": [backend]},
        scenario=scenario,
        after=after,
    )
