"""`recall score`: put a reward on recorded transcripts, or again on the trajectories of a run. It plays nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from recall.config import Positional, Settings
from recall.errors import ConfigError

TOLERANCE = 1e-9
"""Recorded and computed scores that differ by no more are equal; scores are sums of a few simple fractions."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scored case."""

    id: str
    """The row's id, or `TASK/NUMBER` for a trajectory."""
    score: float | None
    """What the reward gave; None where it raised."""
    error: str | None = None
    """The reward's own complaint."""
    recorded: float | None = None
    """The score in the file; None where there is none, or where the recorded reward raised."""
    has_record: bool = False
    """Whether the file recorded an outcome at all."""

    @property
    def equal(self) -> bool:
        """Whether score and record agree: both the same number, or both none."""
        if self.score is None or self.recorded is None:
            return self.score is self.recorded
        return abs(self.score - self.recorded) <= TOLERANCE


class Score(Settings):
    """Score transcripts, or the trajectories of a run again.

    Transcripts are JSONL with id, transcript, ground_truth and optionally score and error. The exit
    status is 1 when a recorded score differs from the computed one.
    """

    file: Positional[Path]
    """A JSONL file of transcripts, or a trajectories file (`.jsonl.zst`)."""
    reward: str = "recall"
    """The reward's name."""
    as_json: bool = Field(default=False, alias="json")
    """Print one JSON object a case, and one for the summary."""

    def main(self) -> int:
        """Print the cases and their summary."""
        cases = []
        trajectories = self.file.name.endswith(".zst")
        for case in score_trajectories(self.file, self.reward) if trajectories else score_rows(self.file, self.reward):
            print(json.dumps(_as_json(case)) if self.as_json else _as_text(case))
            cases.append(case)
        scores = [case.score for case in cases if case.score is not None]
        recorded = [case for case in cases if case.has_record]
        summary: dict[str, Any] = {"cases": len(cases), "mean": sum(scores) / len(scores) if scores else None}
        if recorded:
            equal = sum(case.equal for case in recorded)
            summary |= {"equal": equal, "different": len(recorded) - equal}
        print(json.dumps(summary) if self.as_json else "  ".join(f"{name} {value}" for name, value in summary.items()))
        return 1 if summary.get("different") else 0


def score_rows(file: Path, reward: str) -> Iterator[Case]:
    """Score the transcripts of a JSONL file.

    Raises:
        ConfigError: a row is not as described in the command's help, or the reward does not read transcripts.
    """
    from recall import rewards
    from recall.rewards.recall import score_transcript

    if rewards.get(reward) is not rewards.get("recall"):
        raise ConfigError(f"--reward: {reward!r} scores trajectories; a file of transcripts takes 'recall'")
    for number, line in enumerate(_lines(file), 1):
        transcript, truth, identity, recorded, has_record = _row(file, number, line)
        try:
            yield Case(identity, score_transcript(transcript, truth), None, recorded, has_record)
        except ValueError as error:
            yield Case(identity, None, str(error), recorded, has_record)


def score_trajectories(file: Path, reward: str) -> Iterator[Case]:
    """Score the trajectories of a run's file again, beside the scores that it recorded."""
    from recall import rewards, store

    judge = rewards.get(reward)
    for stored in store.read_groups(file):
        pairs = zip(stored.group.trajectories, stored.group.rewards, strict=True)
        for number, (trajectory, result) in enumerate(pairs):
            score = judge(stored.group.task, trajectory).score
            yield Case(f"{stored.group.task.id}/{number}", score, None, result.score, True)


def _lines(file: Path) -> Iterator[str]:
    try:
        with open(file, encoding="utf-8") as opened:
            yield from opened
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error.reason}") from None


def _row(file: Path, number: int, line: str) -> tuple[str, str | list[str], str, float | None, bool]:
    place = f"{file}: row {number}"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: not a JSON object")
    transcript, truth, recorded = row.get("transcript"), row.get("ground_truth"), row.get("score")
    if not isinstance(transcript, str):
        raise ConfigError(f"{place}: transcript: {transcript!r} is not accepted; it takes text")
    if not isinstance(truth, str) and not (isinstance(truth, list) and all(isinstance(item, str) for item in truth)):
        raise ConfigError(f"{place}: ground_truth: {truth!r} is not accepted; it takes text or a list of text")
    if isinstance(recorded, bool) or not isinstance(recorded, (int, float, type(None))):
        raise ConfigError(f"{place}: score: {recorded!r} is not accepted; it takes a number or null")
    has_record = recorded is not None or row.get("error") is not None
    return transcript, truth, str(row.get("id", number)), recorded, has_record


def _as_json(case: Case) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": case.id, "score": case.score, "error": case.error}
    return shown | ({"recorded": case.recorded, "equal": case.equal} if case.has_record else {})


def _as_text(case: Case) -> str:
    score = f"raised: {case.error}" if case.score is None else f"{case.score:.4f}"
    record = "raised" if case.recorded is None else f"{case.recorded:.4f}"
    return f"{case.id}  {score}" + (f"  DIFFERENT, recorded {record}" if case.has_record and not case.equal else "")
