"""What the leaderboard asks, so that no task to train on is one of its own: a task that shares it is refused.

A task shares nothing with an entry when no name in it is a word of the leaderboard, none of its backends starts from a
state of an entry, and it asks for no sequence of calls that an entry asks for in one turn.
"""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recall.evaluation.bfcl.entries import CATEGORIES, Entry, read_entries
from recall.evaluation.bfcl.training.plan import Plan

_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True, slots=True)
class Held:
    """What is held out."""

    words: frozenset[str]
    """All words of four letters and more in what users say and in the states that entries start from."""
    states: frozenset[str]
    """The states of single backends, as JSON."""
    said: frozenset[str]
    """What users say."""
    turns: frozenset[str]
    """What the ground truth calls in single turns, as JSON."""

    def why_not(self, plan: Plan) -> str:
        """Why a task must not be trained on; empty when it may be."""
        if any(_json(state) in self.states for state in plan.config.values()):
            return "starts from a state of the leaderboard"
        if any(turn.said in self.said for turn in plan.turns):
            return "asks what the leaderboard asks"
        if any(_json([[call.name, dict(call.arguments)] for call in turn.calls]) in self.turns for turn in plan.turns):
            return "takes the calls of a turn of the leaderboard"
        return ""


def held_out(directory: Path) -> Held:
    """What the leaderboard's entries of several turns hold.

    Args:
        directory: its data.

    Raises:
        ConfigError: the data cannot be read.
    """
    entries = [
        entry
        for category, sort in CATEGORIES.items()
        if sort == "multi_turn"
        for entry in read_entries(directory, category)
    ]
    return Held(
        words=frozenset(_words(entries)),
        states=frozenset(_json(state) for entry in entries for state in entry.source["initial_config"].values()),
        said=frozenset(message.content for entry in entries for turn in entry.turns for message in turn),
        turns=frozenset(_json([_call(code) for code in turn]) for entry in entries for turn in entry.truth if turn),
    )


def _words(entries: Iterable[Entry]) -> Iterable[str]:
    for entry in entries:
        for turn in entry.turns:
            for message in turn:
                yield from _WORD.findall(message.content.lower())
        yield from _WORD.findall(json.dumps(entry.source["initial_config"]).lower())


def _call(code: str) -> list[Any]:
    """A call of the ground truth; arguments by position, which tasks have none of, keep it apart from all of ours."""
    node = ast.parse(code, mode="eval").body
    assert isinstance(node, ast.Call), f"{code} is no call"
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return [ast.unparse(node.func), named, *(ast.literal_eval(value) for value in node.args)]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
