"""The leaderboard's questions: what is said in each turn, which functions there are, and what the ground truth calls.

Reads the data files as the package `bfcl-eval` ships them, or a copy with the folders `questions` and
`possible_answer`. Those about a memory are made by `memory.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from recall.errors import ConfigError
from recall.types import Message

Sort = Literal["ast", "relevance", "multi_turn", "memory"]
"""How an entry is scored."""

CATEGORIES: Mapping[str, Sort] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple",
                "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
            ),
            "ast",
        ),
        **dict.fromkeys(("irrelevance", "live_irrelevance", "live_relevance"), "relevance"),
        **dict.fromkeys(
            ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context"),
            "multi_turn",
        ),
        **dict.fromkeys(("memory_kv", "memory_rec_sum", "memory_vector"), "memory"),
    }
)  # fmt: skip
"""The categories that can be played."""

OFFLINE: tuple[str, ...] = tuple(name for name, sort in CATEGORIES.items() if sort != "memory")
"""Those that need nothing but the package: what `all` stands for."""

_SEARCH = "it asks SerpAPI over the network: a key in SERPAPI_API_KEY, and google-search-results, html2text and bs4"
UNAVAILABLE: Mapping[str, str] = MappingProxyType(
    {
        "web_search_base": _SEARCH,
        "web_search_no_snippet": _SEARCH,
        "format_sensitivity": "it asks for other ways of writing calls in the prompt, and is not scored",
    }
)
"""The categories that are not played, and what each would need."""

LANGUAGES: Mapping[str, str] = MappingProxyType({"simple_java": "java", "simple_javascript": "javascript"})
"""The language of the values of a category, where it is not Python."""

PREREQUISITE = "_prereq"
"""What the category of a conversation that fills a memory ends with."""

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
        "MemoryAPI_kv": "memory_kv",
        "MemoryAPI_rec_sum": "memory_rec_sum",
        "MemoryAPI_vector": "memory_vector",
    }
)
"""The file that documents each backend."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One question of the leaderboard."""

    id: str
    """Unique in the leaderboard."""
    category: str
    """One of `CATEGORIES`, or one of them and `_prereq`."""
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
    scenario: str = ""
    """Of a memory: whom it serves."""
    after: tuple[str, ...] = ()
    """The entries that must have been played before it."""

    @property
    def conversation(self) -> bool:
        """Whether it fills a memory and is not scored."""
        return self.category.endswith(PREREQUISITE)

    @property
    def sort(self) -> Sort:
        """How it is scored."""
        return CATEGORIES[self.category.removesuffix(PREREQUISITE)]

    @property
    def language(self) -> str:
        """The language of its values."""
        return LANGUAGES.get(self.category, "python")

    @property
    def classes(self) -> tuple[str, ...]:
        """The backends that it plays with; none where calls are not executed."""
        return tuple(self.source.get("involved_classes", ()))


def read_entries(directory: Path, category: str) -> list[Entry]:
    """The entries of a category, in the order of the file; for one about a memory, the conversations first.

    Args:
        directory: the folder `bfcl_eval/data` of the package, or a copy of its files.
        category: one of `CATEGORIES`.

    Raises:
        ConfigError: the category is unknown or not available, or a file is missing or damaged.
    """
    if category not in CATEGORIES:
        why = f"not available: {UNAVAILABLE[category]}" if category in UNAVAILABLE else "unknown"
        raise ConfigError(f"category {category!r}: {why}; accepted: {', '.join(CATEGORIES)}")
    if CATEGORIES[category] == "memory":
        from recall.evaluation.bfcl.memory import memory_entries  # which reads with this module

        return memory_entries(directory, category)
    truths: dict[str, Any] = {}
    if CATEGORIES[category] != "relevance":
        truths = {str(row["id"]): row["ground_truth"] for row in truth_rows(directory, category)}
    documents: dict[str, list[dict[str, Any]]] = {}
    entries = []
    for row in question_rows(directory, category):
        for name in row.get("involved_classes", ()):
            if name not in documents:
                documents[name] = documents_of(directory, name)
        entries.append(_entry(row, category, truths.get(str(row["id"])), documents))
    return entries


def question_rows(directory: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of questions, in either layout of the folder."""
    questions = directory / "questions" if (directory / "questions").is_dir() else directory
    return rows_of(questions / f"BFCL_v4_{name}.json")


def truth_rows(directory: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of ground truths."""
    return rows_of(directory / "possible_answer" / f"BFCL_v4_{name}.json")


def documents_of(directory: Path, backend: str) -> list[dict[str, Any]]:
    """The documents of a backend's functions."""
    return list(rows_of(directory / "multi_turn_func_doc" / f"{_DOCUMENTS[backend]}.json"))


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines.

    Raises:
        ConfigError: it cannot be read, or a row is damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as fault:
                    raise ConfigError(f"{path} row {number}: not JSON: {fault.msg}") from None
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}; bfcl data is needed there") from None


def messages_of(said: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """What is said in one turn."""
    return tuple(Message(each["role"], each["content"]) for each in said)


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
    turns = tuple(map(messages_of, row["question"]))
    return Entry(str(row["id"]), category, turns, tuple(functions), appearing, truth, row)
