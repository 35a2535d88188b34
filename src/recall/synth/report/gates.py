"""The gates of a report: what a set must hold to, each with what was measured and on what."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recall.synth.report.guesses import FEWEST, LIMIT, above
from recall.synth.report.profile import GROUPINGS

IN_QUESTION = 0.0005
"""MuSiQue's share of answers that stand in the question is 0.0 %, to one decimal."""
BEST_CONSTANT = 0.0145
"""MuSiQue's best constant answer is right in 1.4 %, to one decimal."""
COUNTERFACTUAL = 0.95
"""The share of re-drawn worlds in which the answer has to change."""

ANCHORS: tuple[Mapping[str, Any], ...] = (
    {"set": "MuSiQue", "in_question": 0.000, "constant": 0.014},
    {"set": "Bamboogle", "in_question": 0.008, "constant": 0.016},
    {"set": "HotpotQA", "in_question": 0.102, "constant": 0.031},
    {"set": "2WikiMultihopQA", "in_question": 0.361, "constant": 0.075},
)
"""What the same measures say of sets that people wrote, measured on them."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition."""

    name: str
    """What is measured."""
    value: float | None
    """What was found; None where it could not be measured."""
    accepts: str
    """What is accepted, in words."""
    broken: bool
    """Whether it is not."""
    basis: str
    """What it was measured on."""
    unit: str = "share"
    """`share`, or `count`."""
    detail: str = ""
    """Where it is broken: the worst cases."""

    def as_json(self) -> dict[str, Any]:
        """As a report holds it."""
        return asdict(self)


def gates_of(numbers: Mapping[str, Any]) -> list[Gate]:
    """The gates of a report, from its numbers."""
    parts = (_replay_gates, _overlap_gates, _guess_gates, _claim_gates, _asked_gates)
    return [gate for part in parts for gate in part(numbers)]


def _replay_gates(numbers: Mapping[str, Any]) -> list[Gate]:
    found = numbers["replay"]
    if found is None:
        why = "no task carries a reference program" if numbers["without_reference"] else "not asked for"
        names = ("reference replay", "determinism", "provenance violations")
        return [Gate(name, None, "100 %" if "v" not in name[:5] else "0", False, why) for name in names]
    basis = f"{found['tasks']:,} of {found['of']:,} tasks"
    failures = "; ".join(f"{case['task']}: {case['problem']}" for case in found["failures"][:3])
    unlike = ", ".join(found["unlike"][:5])
    nowhere = "; ".join(f"{case['task']}: {case['argument']}" for case in found["provenance"]["examples"][:3])
    violations = found["provenance"]["violations"]
    arguments = f"{found['provenance']['arguments']:,} arguments of {basis}"
    return [
        Gate("reference replay", found["solved"], "100 %", found["solved"] < 1, basis, detail=failures),
        Gate("determinism", found["same"], "100 %", found["same"] < 1, f"{basis}, in two processes", detail=unlike),
        Gate("provenance violations", violations, "0", violations > 0, arguments, "count", nowhere),
    ]


def _overlap_gates(numbers: Mapping[str, Any]) -> list[Gate]:
    shared = numbers["overlap"]["shared"]
    count = sum(case["count"] for case in shared)
    detail = "; ".join(f"{case['count']} {case['what']} in {' and '.join(case['splits'])}" for case in shared[:4])
    if numbers["overlap"]["splits"] < 2:
        return [Gate("cross-split overlap", None, "0", False, "there is one split", "count")]
    basis = "all rows: environments, questions, programs over their tools, claimed structures"
    return [Gate("cross-split overlap", count, "0", count > 0, basis, "count", detail)]


def _guess_gates(numbers: Mapping[str, Any]) -> list[Gate]:
    answers = numbers["answers"]
    if not answers["tasks"]:
        return []
    rows = f"all {answers['tasks']:,} answers"
    top = answers["top"][0]["share"]
    known = answers["tasks"] >= 1000
    gates = [
        Gate("answer in question", answers["in_question"], "0.0 %", answers["in_question"] >= IN_QUESTION, rows),
        Gate(
            "best constant, whole set",
            top,
            "at most 1.4 %",
            top >= BEST_CONSTANT if known else above(top, answers["tasks"]),
            rows if known else f"{rows}, too few to tell exactly",
            detail=f"{answers['top'][0]['answer'][:60]!r}",
        ),
    ]
    return gates + [_rule_gate(rule, title, numbers) for rule, title in RULES.items()]


RULES = {
    "constant": "best constant",
    "echo": "question echo",
    "single_call": "single call",
    "last_observation": "last observation",
}
"""The kinds of guess, for people."""


def _rule_gate(rule: str, title: str, numbers: Mapping[str, Any]) -> Gate:
    """The gate of one kind of guess: no template may fall to it, no kind or family of tasks, and not all together."""
    accepts = f"under {LIMIT:.0%} of every template"
    rated = [group[rule] for group in numbers["families"] if group[rule]]
    tasks = sum(rate["tasks"] for rate in rated)
    if not tasks:
        return Gate(title, None, accepts, False, "too few tasks to tell")
    groups = [group for grouping in GROUPINGS for group in numbers[grouping] if group[rule]]
    large = sum(group[rule]["tasks"] >= FEWEST for group in groups)
    fallen = [group for group in groups if rule in group["guessable"]]
    fallen.sort(key=lambda group: -max(group[rule]["right"], group[rule]["reward"]))
    mean = sum(rate["right"] * rate["tasks"] for rate in rated) / tasks
    basis = f"{tasks:,} tasks; {large:,} templates, kinds and families of {FEWEST} or more"
    if not fallen:
        unsure = ", too few to be sure" if mean >= LIMIT and not above(mean, tasks) else ""
        return Gate(title, mean, accepts, above(mean, tasks), f"{basis}; the mean{unsure}")
    worst = max(fallen[0][rule]["right"], fallen[0][rule]["reward"])
    detail = "; ".join(f"{name}: {said}" for name, said in {g["name"]: _said(g[rule]) for g in fallen[:4]}.items())
    return Gate(title, worst, accepts, True, f"{basis}; the worst of {len(fallen)} that fall", detail=detail)


def _said(rate: Mapping[str, Any]) -> str:
    return f"right in {rate['right']:.1%}, earns {rate['reward']:.1%} ({rate['tasks']:,} tasks)"


def _claim_gates(numbers: Mapping[str, Any]) -> list[Gate]:
    gates = []
    claim = numbers["claims"]["counterfactual"]
    if claim["tasks"]:
        basis = f"claimed by the generator for {claim['tasks']:,} tasks"
        low = claim["share"] < COUNTERFACTUAL
        gates.append(
            Gate("answer changes with the world", claim["share"], f"at least {COUNTERFACTUAL:.0%}", low, basis)
        )
    unlike = numbers["claims"]["calls_unlike_the_program"]
    gates.append(Gate("claims unlike the program", unlike, "0", unlike > 0, "the number of calls of all rows", "count"))
    return gates


def _asked_gates(numbers: Mapping[str, Any]) -> list[Gate]:
    """A model may not know the answers by itself."""
    asked = numbers["asked"]
    found = asked["without_tools"] if asked is not None else {"tasks": 0}
    if not found["tasks"]:
        return []
    basis = f"{asked['guesses']} answers of {asked['model']} to each of {found['tasks']:,} tasks"
    falls = above(found["pass_at_1"], found["tasks"])
    return [Gate("answered without tools", found["pass_at_1"], f"under {LIMIT:.0%}", falls, basis)]
