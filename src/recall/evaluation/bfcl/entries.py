"""The leaderboard's questions: what is said in each turn, which functions there are, and what the ground truth calls.

Reads the data files as the package `bfcl-eval` ships them, or a copy with the folders `questions` and
`possible_answer`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from recall.errors import ConfigError
from recall.types import Message

Sort = Literal["ast", "relevance", "multi_turn"]
"""How an entry is scored."""

CATEGORIES: Mapping[str, Sort] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "live_multiple",
                "live_parallel", "live_parallel_multiple",
            ),
            "ast",
        ),
        **dict.fromkeys(("irrelevance", "live_irrelevance", "live_relevance"), "relevance"),
        **dict.fromkeys(
            ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context"),
            "multi_turn",
        ),
    }
)  # fmt: skip
"""The categories that can be played offline."""

UNAVAILABLE: Mapping[str, str] = MappingProxyType(
    {
        "simple_java": "its checker needs tree_sitter 0.21 for Java",
        "simple_javascript": "its checker needs tree_sitter 0.21 for JavaScript",
        "web_search_base": "it asks SerpAPI (SERPAPI_API_KEY) over the network",
        "web_search_no_snippet": "it asks SerpAPI (SERPAPI_API_KEY) over the network",
        "memory_kv": "it plays conversations beforehand to fill the memory",
        "memory_vector": "it plays conversations beforehand, and needs faiss and an embedding model",
        "memory_rec_sum": "it plays conversations beforehand to fill the memory",
    }
)
"""The categories that are not played, and what each would need."""

_DOCUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "GorillaFileSystem": "gorilla_file_system",
        "MathAPI": "math_api",
        "MessageAPI": "message_api",
        "TwitterAPI": "posting_api",
        "TicketAPI": "ticket_api",
        "TradingBot": "trading_bot",
        "TravelAPI": "travel_booking",
        "VehicleControlAPI": "vehicle_control",
    }
)
"""The file that documents each backend."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One question of the leaderboard."""

    id: str
    """Unique in the leaderboard."""
    category: str
    """One of `CATEGORIES`."""
    turns: tuple[tuple[Message, ...], ...]
    """What the user (or a system message) says in each turn; an empty turn is one in which functions appear."""
    functions: tuple[Mapping[str, Any], ...]
    """The documents of the functions that are there from the start."""
    appearing: Mapping[int, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """By turn, the documents of the functions that appear in it."""
    truth: Any = None
    """The ground truth as the leaderboard has it; None where a category has none."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The entry as it stands in the file."""

    @property
    def sort(self) -> Sort:
        """How it is scored."""
        return CATEGORIES[self.category]

    @property
    def classes(self) -> tuple[str, ...]:
        """The backends that it plays with."""
        return tuple(self.source.get("involved_classes", ()))


def read_entries(directory: Path, category: str) -> list[Entry]:
    """The entries of a category, in the order of the file.

    Args:
        directory: the folder `bfcl_eval/data` of the package, or a copy of its files.
        category: one of `CATEGORIES`.

    Raises:
        ConfigError: the category is unknown or not available, or a file is missing or damaged.
    """
    if category not in CATEGORIES:
        why = f"not available: {UNAVAILABLE[category]}" if category in UNAVAILABLE else "unknown"
        raise ConfigError(f"category {category!r}: {why}; accepted: {', '.join(CATEGORIES)}")
    truths: dict[str, Any] = {}
    if CATEGORIES[category] != "relevance":
        found = _rows(directory / "possible_answer" / _file(category))
        truths = {str(row["id"]): row["ground_truth"] for row in found}
    questions = directory / "questions" if (directory / "questions").is_dir() else directory
    documents: dict[str, list[dict[str, Any]]] = {}
    entries = []
    for row in _rows(questions / _file(category)):
        for name in row.get("involved_classes", ()):
            if name not in documents:
                file = directory / "multi_turn_func_doc" / f"{_DOCUMENTS[name]}.json"
                documents[name] = list(_rows(file))
        entries.append(_entry(row, category, truths.get(str(row["id"])), documents))
    return entries


def _file(category: str) -> str:
    return f"BFCL_v4_{category}.json"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as fault:
                    raise ConfigError(f"{path} row {number}: not JSON: {fault.msg}") from None
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}; bfcl data is needed there") from None


def _entry(
    row: Mapping[str, Any], category: str, truth: Any, documents: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Entry:
    functions = list(row.get("function", ()))
    for name in row.get("involved_classes", ()):
        functions += documents[name]
    appearing: dict[int, tuple[Mapping[str, Any], ...]] = {}
    for turn, names in row.get("missed_function", {}).items():
        appearing[int(turn)] = tuple(function for name in names for function in functions if function["name"] == name)
        functions = [function for function in functions if function["name"] not in names]
    turns = tuple(tuple(Message(said["role"], said["content"]) for said in turn) for turn in row["question"])
    return Entry(str(row["id"]), category, turns, tuple(functions), appearing, truth, row)
