"""The leaderboard's own program: result files as it reads them, and what it says of them, entry by entry.

Results are written as those of a model that calls functions natively, `[{"name": "{…}"}]` with the arguments as JSON
text, and words where there is no call: so nothing has to be written as source text and read back.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from recall.errors import ConfigError
from recall.evaluation.bfcl import evaluator
from recall.evaluation.bfcl.entries import CATEGORIES
from recall.evaluation.bfcl.play import Verdict
from recall.store import write_atomic

MODEL = "recall"
"""The folder of the results, which the leaderboard takes for the name of a model."""


def write_results(path: Path, verdicts: Iterable[Verdict], model: str = MODEL) -> Path:
    """Write what was played as the leaderboard's own result files below `path`; the folder of the results."""
    results = path.absolute() / "result"
    by: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by.setdefault(verdict.category, []).append(verdict)
    for category, found in by.items():
        if category not in CATEGORIES:
            continue  # a conversation that fills a memory is not scored
        rows = [{"id": each.id, "result": _result(each)} for each in sorted(found, key=_order)]
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        file = results / model / _folder(category) / f"BFCL_v4_{category}_result.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, partial(_write, content))
    return results


def _order(verdict: Verdict) -> list[int]:
    """The place in the leaderboard's files: ids count up, and those of `live_` categories in three numbers."""
    return [int(number) for number in re.findall(r"\d+", verdict.id)]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _result(verdict: Verdict) -> Any:
    turns = [[_step(said) for said in turn] for turn in verdict.result]
    if CATEGORIES[verdict.category] in ("ast", "relevance"):
        return turns[0][0]
    return turns


def _step(said: Any) -> Any:
    """A step; without a call it has at least one character, as an empty list of calls would be another thing."""
    if isinstance(said, str):
        return said or " "
    return [{name: json.dumps(arguments) for name, arguments in call.items()} for call in said]


def _folder(category: str) -> str:
    if category.startswith("memory_"):
        return f"agentic/memory/{category.removeprefix('memory_')}"
    return "multi_turn" if category.startswith("multi_turn") else "live" if category.startswith("live") else "non_live"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Our verdicts beside those of `bfcl evaluate`."""

    entries: int
    """How many were compared."""
    differing: tuple[tuple[str, str, str], ...]
    """Those on which they differ: the id, what we say, what it says; empty where an entry is right."""


async def evaluate(interpreter: Path, results: Path, categories: Sequence[str]) -> dict[str, str]:
    """Run `bfcl evaluate` on result files; by id, its word for what is wrong, and an empty one where nothing is.

    Args:
        interpreter: of the checkers' environment.
        results: the folder that `write_results` wrote.
        categories: which ones; each must have its file.

    Raises:
        ConfigError: the program cannot run there.
    """
    scores = results.parent / "score"
    process = await asyncio.create_subprocess_exec(
        interpreter,
        "-I",
        evaluator.__file__,
        *(str(results), str(scores), MODEL, *categories),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
    )
    _, complaints = await process.communicate()
    if process.returncode:
        reason = (complaints.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"{interpreter}: bfcl evaluate does not work there: {reason}")
    found: dict[str, str] = {}
    for category in categories:
        for line in _lines(results / MODEL / _folder(category) / f"BFCL_v4_{category}_result.json"):
            found[line["id"]] = ""
        _, *wrong = _lines(scores / MODEL / _folder(category) / f"BFCL_v4_{category}_score.json")
        found |= {row["id"]: _kind(row) for row in wrong}
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _kind(row: Mapping[str, Any]) -> str:
    error = row.get("error")
    return str(error.get("error_type") if isinstance(error, Mapping) else row.get("error_type"))


def compare(verdicts: Iterable[Verdict], official: Mapping[str, str]) -> Agreement:
    """Put our verdicts beside the leaderboard's, right or wrong and the word for what is wrong."""
    ours = {verdict.id: "" if verdict.valid else verdict.error_type for verdict in verdicts if verdict.id in official}
    differing = tuple((id, ours.get(id, "not played"), kind) for id, kind in official.items() if ours.get(id) != kind)
    return Agreement(len(official), differing)
