"""What rows share: with each other, across splits, and with files of questions that models are measured on."""

import hashlib
import json
import re
import zlib
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recall.synth.report.profile import claims_of, split_of
from recall.synth.report.shapes import outline
from recall.types import Task

WORDS = 8
"""So many words in a row, shared with a question of another file, count as an overlap."""
SHINGLE = 3
"""Near duplicates are told by the runs of so many words that two questions share."""
NEAR = 0.8
"""From this Jaccard similarity on two questions are near duplicates."""
MOST_COMPARED = 200_000
"""Rows among which near duplicates are looked for."""

_BANDS, _BAND_ROWS = 21, 6  # at a similarity of 0.8 a pair meets in some band with probability 0.998
_LOOK_BACK = 4
_WORD = re.compile(r"\w+")
_PRIME = (1 << 31) - 1


def digest(*texts: str) -> int:
    """64 bits that stand for some texts."""
    hashed = hashlib.blake2b(digest_size=8)
    for text in texts:
        hashed.update(text.encode("utf-8", "surrogatepass"))
        hashed.update(b"\0")
    return int.from_bytes(hashed.digest(), "little")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


class Keys:
    """Counts what is distinct in a set, and what two of its splits share. 9 bytes a row and key."""

    NAMES = ("environment", "tool set", "question", "program shape", "program", "template", "structure")
    """What is counted: the source; names and schemas of tools; the question, folded; the reference program without
    literals and names; the same with names, over its tool set; and what the generator calls template and structure."""
    APART = ("environment", "question", "program", "structure")
    """What no two splits may share."""

    def __init__(self) -> None:
        self._splits: list[str] = []
        self._values = {name: array("Q") for name in self.NAMES}
        self._of = {name: array("B") for name in self.NAMES}

    def add(self, task: Task) -> None:
        """Count a task."""
        split = split_of(task)
        if split not in self._splits:
            self._splits.append(split)
        number, claims = self._splits.index(split), claims_of(task)
        tools = json.dumps([[tool.name, tool.description, tool.parameters] for tool in task.tools], sort_keys=True)
        values = {"environment": task.env, "tool set": tools, "question": " ".join(words_of(task.question))}
        if task.reference:
            values["program shape"] = outline(task.reference, names=False)
            values["program"] = f"{tools}\n{outline(task.reference, names=True)}"
        values |= {name: str(claims[name]) for name in ("template", "structure") if name in claims}
        for name, text in values.items():
            self._values[name].append(digest(text))
            self._of[name].append(number)

    def numbers(self) -> dict[str, Any]:
        """Distinct values of each key, and for every two splits how many values of each they share."""
        distinct, shared = {}, []
        for name in self.NAMES:
            values = np.frombuffer(self._values[name], np.uint64) if self._values[name] else np.zeros(0, np.uint64)
            splits = np.frombuffer(self._of[name], np.uint8) if self._of[name] else np.zeros(0, np.uint8)
            distinct[name] = int(np.unique(values).size) if values.size else None
            if name in self.APART:
                shared += self._shared(name, values, splits)
        return {"distinct": distinct, "splits": len(self._splits), "shared": shared}

    def _shared(self, name: str, values: npt.NDArray[np.uint64], splits: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
        parts = [np.unique(values[splits == number]) for number in range(len(self._splits))]
        found = []
        for one in range(len(parts)):
            for other in range(one):
                count = int(np.intersect1d(parts[one], parts[other], assume_unique=True).size)
                if count:
                    found.append({"what": name, "splits": [self._splits[other], self._splits[one]], "count": count})
        return found


class Nearness:
    """Finds near duplicates among questions by MinHash. Source: Broder 1997; banding: Leskovec et al., MMDS, ch. 3."""

    def __init__(self, most: int = MOST_COMPARED) -> None:
        self._most = most
        self._shingles = array("I")
        self._ends = array("Q")

    def add(self, question: str) -> None:
        """Take a question, as long as there is room."""
        if len(self._ends) >= self._most:
            return
        words = words_of(question)
        runs = {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
        self._shingles.extend(sorted({zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs}))
        self._ends.append(len(self._shingles))

    def numbers(self, seed: int = 0) -> dict[str, Any]:
        """The share of questions of which another is a near duplicate."""
        rows = len(self._ends)
        if not rows:
            return {"rows": 0, "near_duplicates": None}
        shingles = np.frombuffer(self._shingles, np.uint32)
        ends = np.frombuffer(self._ends, np.uint64).astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        rng = np.random.default_rng(seed)
        near = np.zeros(rows, bool)
        for _ in range(_BANDS):
            band = np.zeros(rows, np.uint64)
            for _ in range(_BAND_ROWS):
                factor, shift = (np.uint64(rng.integers(1, _PRIME)) for _ in range(2))
                # Multiply-shift by a prime: 32 bits times 31 bits stay below 2**63.
                hashed = (shingles * factor + shift) % np.uint64(_PRIME)
                least = np.minimum.reduceat(hashed, starts)
                band = band * np.uint64(0x9E3779B97F4A7C15) + least
            self._compare(np.argsort(band, kind="stable"), band, near, shingles, starts, ends)
        return {"rows": rows, "near_duplicates": float(near.mean())}

    def _compare(
        self,
        order: npt.NDArray[np.int64],
        band: npt.NDArray[np.uint64],
        near: npt.NDArray[np.bool_],
        shingles: npt.NDArray[np.uint32],
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> None:
        """Mark the near duplicates among rows that meet in a band; each is compared with a few before it."""
        for back in range(1, _LOOK_BACK + 1):
            meets = np.flatnonzero(band[order[back:]] == band[order[:-back]])
            for place in meets:
                one, other = order[place], order[place + back]
                if near[one] and near[other]:
                    continue
                a, b = shingles[starts[one] : ends[one]], shingles[starts[other] : ends[other]]
                both = np.intersect1d(a, b, assume_unique=True).size
                if both >= NEAR * (a.size + b.size - both):
                    near[one] = near[other] = True


class Against:
    """Looks for what a set shares with one other file of tasks or questions."""

    def __init__(self, file: str, tasks: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Read the other file: each question with the names of its tools."""
        self.file, self.questions = file, 0
        self._runs: set[int] = set()
        self._names: set[str] = set()
        self._rows = self._sharing = 0
        self._shared_names: set[str] = set()
        self._example = ""
        for question, names in tasks:
            self.questions += 1
            self._runs.update(_runs(question))
            self._names.update(names)

    def add(self, task: Task) -> None:
        """Compare a task."""
        self._rows += 1
        if any(run in self._runs for run in _runs(task.question)):
            self._sharing += 1
            self._example = self._example or task.question
        self._shared_names.update(tool.name for tool in task.tools if tool.name in self._names)

    def numbers(self) -> Mapping[str, Any]:
        """What was found."""
        return {
            "file": self.file,
            "questions": self.questions,
            "words": WORDS,
            "share": self._sharing / max(1, self._rows),
            "example": self._example,
            "tool_names": sorted(self._shared_names)[:20],
            "tool_names_shared": len(self._shared_names),
        }


def _runs(text: str) -> list[int]:
    words = words_of(text)
    return [digest(*words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]
