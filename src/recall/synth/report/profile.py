"""What is read off the rows of a set in one pass: sizes, mixes, shapes, answers, and guesses that need no tool."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from recall.rewards import Reward
from recall.synth.report.guesses import Guesses, facts_of
from recall.synth.report.shapes import shape_of
from recall.synth.report.spread import gini, spread
from recall.types import Task

MOST_NAMES = 40
"""A mix with more parts shows the most frequent ones, and one for the others."""


def claims_of(task: Task) -> Mapping[str, Any]:
    """What the generator says of a task; empty where it says nothing."""
    claims = task.extra.get("synth")
    return claims if isinstance(claims, Mapping) else {}


def template_of(task: Task) -> str:
    """What tasks are grouped by: the template that the row names, else its kind, else its number of calls."""
    return str(claims_of(task).get("template") or task.kind or f"{task.depth} calls")


def family_of(task: Task) -> str:
    """The kind of a task whatever its number of calls: what the row calls its family, else the kind without digits."""
    return str(claims_of(task).get("family") or task.kind.rstrip("0123456789") or task.kind or "(none)")


def split_of(task: Task) -> str:
    """The split of a task, or a word for none."""
    return task.split or "(none)"


class Profile:
    """Takes the tasks of a set one by one, and keeps counts."""

    def __init__(self) -> None:
        self.rows = 0
        self._groups: dict[str, dict[str, Guesses]] = {grouping: {} for grouping in GROUPINGS}
        self.answers = Guesses()
        self.without_reference = 0
        self._mixes: dict[str, Counter[str]] = {name: Counter() for name in _MIXES}
        self._shapes: dict[str, Counter[float]] = {name: Counter() for name in _SHAPES}
        self._operators: dict[str, Counter[str]] = {}
        self._uses: Counter[str] = Counter()
        self._claims: dict[str, Counter[Any]] = {name: Counter() for name in _CLAIMS}
        self._unlike = 0

    def add(self, task: Task) -> None:
        """Count a task."""
        self.rows += 1
        claims = claims_of(task)
        for name, part in _MIXES.items():
            self._mixes[name][part(task)] += 1
        self._uses.update({tool.name: 0 for tool in task.tools})
        if task.reference:
            self._add_reference(task, claims)
        else:
            self.without_reference += 1
        if task.ground_truth:
            facts = facts_of(task)
            self.answers.add(facts)
            for grouping, name_of in GROUPINGS.items():
                self._groups[grouping].setdefault(name_of(task), Guesses()).add(facts)
        self._add_claims(claims)

    def numbers(self, reward: Reward) -> dict[str, Any]:
        """What was counted, as a report holds it."""
        return {
            "mixes": {name: _mix(counts) for name, counts in self._mixes.items()},
            "shapes": {name: spread(counts) for name, counts in self._shapes.items()},
            "operators": self._operator_matrix(),
            "tool_use": {
                "names": len(self._uses),
                "called": sum(count > 0 for count in self._uses.values()),
                "gini": gini(self._uses.values()),
            },
            "answers": {
                "tasks": self.answers.tasks,
                "distinct": len(self.answers.counts),
                "entropy_bits": self.answers.entropy,
                "top": [{"answer": text, "share": share} for text, share in self.answers.top(8)],
                "in_question": self.answers.in_question / max(1, self.answers.tasks),
            },
            "claims": self._claimed(),
            **{grouping: _group_rows(groups, reward) for grouping, groups in self._groups.items()},
            "without_reference": self.without_reference,
        }

    def _add_reference(self, task: Task, claims: Mapping[str, Any]) -> None:
        shape = shape_of(task.reference)
        called = [str(item["name"]) for item in task.reference if "name" in item]
        self._uses.update(called)
        found = {
            "calls": shape.calls,
            "depth": shape.depth,
            "width": shape.width,
            "tools": len(task.tools),
            "tools never needed": len({tool.name for tool in task.tools} - set(called)),
        }
        for name, value in found.items():
            self._shapes[name][value] += 1
        named = claims.get("operators")
        operators = {*shape.words, *map(str, named if isinstance(named, list | tuple) else ())} or {"(none)"}
        column = self._operators.setdefault(split_of(task), Counter())
        column.update(operators)
        again = sum(bool(item.get("retry")) for item in task.reference)
        told = (claims.get("calls", shape.calls), task.depth or shape.calls)
        self._unlike += not all(calls in (shape.calls, shape.calls + again) for calls in told)
        if "shortest" in claims:
            self._claims["shortest is calls"][claims["shortest"] == shape.calls] += 1

    def _add_claims(self, claims: Mapping[str, Any]) -> None:
        """Count what the generator says; what is not of the form expected counts as not said."""
        for name in ("difficulty", "turns", "counterfactual"):
            value = claims.get(name)
            if isinstance(value, int | float):
                self._claims[name][round(float(value), 2)] += 1
        kinds, levels = claims.get("distractors"), claims.get("levels")
        if isinstance(kinds, Mapping):
            self._claims["distractors"].update({str(k): n for k, n in kinds.items() if isinstance(n, int)})
        if isinstance(levels, Mapping):
            self._claims["levels"].update(f"{name} {level}" for name, level in levels.items())

    def _operator_matrix(self) -> dict[str, Any]:
        splits = sorted(self._operators)
        total = sum(self._operators.values(), Counter[str]())
        names = [name for name, _ in total.most_common(MOST_NAMES)]
        return {
            "names": names,
            "splits": splits,
            "counts": [[self._operators[split][name] for split in splits] for name in names],
        }

    def _claimed(self) -> dict[str, Any]:
        shorter, counterfactual = self._claims["shortest is calls"], self._claims["counterfactual"]
        carried = counterfactual.total()
        return {
            "difficulty": spread(self._claims["difficulty"]),
            "turns": spread(self._claims["turns"]),
            "distractors": dict(self._claims["distractors"].most_common(MOST_NAMES)),
            "levels": dict(self._claims["levels"].most_common(MOST_NAMES * 4)),
            "shortest_is_calls": {
                "tasks": shorter.total(),
                "share": shorter[True] / shorter.total() if shorter else None,
            },
            "counterfactual": {
                "tasks": carried,
                "share": sum(v * n for v, n in counterfactual.items()) / carried if carried else None,
            },
            "calls_unlike_the_program": self._unlike,
        }


def _group_rows(groups: Mapping[str, Guesses], reward: Reward) -> list[dict[str, Any]]:
    """What guesses without a tool earn in each group, the largest first."""
    rows = []
    for name, guesses in sorted(groups.items(), key=lambda item: (-item[1].tasks, item[0])):
        constant, echo = guesses.constant(reward), guesses.echo(reward)
        rows.append(
            {
                "name": name,
                "tasks": guesses.tasks,
                "entropy_bits": guesses.entropy,
                "top_answer": guesses.top(1)[0][0],
                "constant": constant.as_json() if constant else None,
                "echo": echo.as_json(),
                "in_question": guesses.in_question / guesses.tasks,
                "guessable": [rule for rule, rate in (("constant", constant), ("echo", echo)) if rate and rate.broken],
            }
        )
    return rows


def _mix(counts: Counter[str]) -> dict[str, Any]:
    shown = dict(counts.most_common(MOST_NAMES))
    return {"distinct": len(counts), "parts": shown, "others": counts.total() - sum(shown.values())}


_MIXES: Mapping[str, Callable[[Task], str]] = {
    "split": split_of,
    "kind": lambda task: task.kind or "(none)",
    "domain": lambda task: str(claims_of(task).get("domain", "(not said)")),
    "source": lambda task: task.data_source or "(none)",
    "answer": lambda task: task.answer_type.kind if task.ground_truth else "(state alone)",
    "goal": lambda task: "state" if task.changes is not None else "answer",
    "reward": lambda task: task.reward or "(by source)",
}
"""The mixes of a report: what a task counts as in each."""
GROUPINGS: Mapping[str, Callable[[Task], str]] = {
    "templates": template_of,
    "kinds": lambda task: task.kind or "(none)",
    "families": family_of,
}
"""What tasks are grouped by where guesses are judged."""
_SHAPES = ("calls", "depth", "width", "tools", "tools never needed")
_CLAIMS = ("difficulty", "turns", "counterfactual", "distractors", "levels", "shortest is calls")
