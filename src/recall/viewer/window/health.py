"""Says in words what is wrong with a run, and which trajectories show it.

Each check looks at the last steps of training, by the metrics where they say it and by the trajectories otherwise. A
check that lacks its numbers says that it was not made. Nothing here decides anything but what is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

import numpy as np

from recall.viewer.index.find import alive
from recall.viewer.index.index import Snapshot
from recall.viewer.index.rows import STATUSES

WINDOW = 10
"""The last steps that are looked at."""
FEW_PARSED = 0.5
"""The share of calls that could not be parsed, from which on that is what is wrong."""
EQUAL = 0.8
"""The share of groups whose rewards are all equal, from which on too little is learned."""
ENTROPY_GONE = 0.02
"""Nats a token under which a policy has stopped trying other things."""
FAILING = 0.3
"""The share of calls that failed, malformed ones left aside, from which on tools are what is wrong."""
TRUNCATED = 0.2
"""The share of episodes that a limit ended, from which on limits are what is wrong."""
GAP = 0.05
"""Nats between the engine's log-probability of a token and the trainer's; float32 stays under 0.001."""
TOOLS_SHARE = 0.5
"""The share of a step's time spent waiting for tools, from which on they are slow."""
SLOW_S = 1.0
"""Seconds of a call that are long for a tool that computes."""

Level = Literal["bad", "warn", "good", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says."""

    check: str
    """Its name."""
    level: Level
    words: str
    """A sentence with the numbers."""
    advice: str = ""
    """What to look at or to try."""
    filter: Mapping[str, Any] = field(default_factory=dict)
    """The filter of the trajectories that show it; empty where none do."""
    metric: str = ""
    """The curve that shows it."""


@dataclass(frozen=True)
class _Look:
    """What checks look at: the last steps of training."""

    columns: Mapping[str, Sequence[float | None]]
    index: Snapshot
    rows: Any
    """[n] the trajectories of these steps."""
    steps: str
    """Their range, as a filter takes it."""

    def last(self, name: str) -> float | None:
        """The mean of a metric over the last steps; None where it is not recorded."""
        known = [value for value in self.columns.get(name, ()) if value is not None][-WINDOW:]
        return fmean(known) if known else None

    def first(self, name: str) -> float | None:
        """The mean of a metric over the first steps."""
        known = [value for value in self.columns.get(name, ()) if value is not None][:WINDOW]
        return fmean(known) if known else None

    def sum(self, name: str) -> int:
        """The sum of a column over the trajectories."""
        return int(self.index.columns[name][self.rows].sum())

    def where(self, **more: Any) -> dict[str, Any]:
        """A filter of these steps' training trajectories."""
        return {"split": "train", "step": self.steps, **more}


def health(metrics: Mapping[str, Any], index: Snapshot, notes: Sequence[str]) -> list[dict[str, Any]]:
    """Every check, the worst first."""
    look = _look(metrics, index)
    findings = [finding for check in _CHECKS for finding in check(look)]
    told = [*notes, *(f"{file.name} {file.problem}" for file in index.files if file.alive and file.problem)]
    if told:
        findings.append(Finding("files", "warn", "Some files are odd: " + "; ".join(told[:5]) + "."))
    order: tuple[Level, ...] = ("bad", "warn", "unknown", "good")
    return [asdict(finding) for finding in sorted(findings, key=lambda finding: order.index(finding.level))]


def _look(metrics: Mapping[str, Any], index: Snapshot) -> _Look:
    rows = np.empty(0, np.int64)
    steps = "0"
    if "train" in index.splits:
        mask = alive(index) & (index.columns["split"] == index.splits.index("train"))
        rows = np.flatnonzero(mask)
        known = np.unique(index.columns["step"][rows])[-WINDOW:]
        if len(known):
            rows = rows[index.columns["step"][rows] >= known[0]]
            steps = f"{known[0]}..{known[-1]}"
    return _Look(metrics["columns"], index, rows, steps)


def _calls(look: _Look) -> Iterator[Finding]:
    if not len(look.rows):
        yield Finding("calls", "unknown", "No trajectories of training are kept, so calls are not known.")
        return
    calls, malformed = look.sum("calls"), look.sum("malformed")
    count = len(look.rows)
    if calls == 0:
        with_depth = int(np.count_nonzero(look.index.columns["depth"][look.rows]))
        level: Level = "bad" if with_depth else "warn"
        yield Finding(
            "calls",
            level,
            f"No calls: in the last {count:,} trajectories the policy called no tool even once.",
            "Read one. If it wrote calls, the dialect does not read them: try another policy.dialect or template.",
            look.where(calls="0"),
            "rollout/calls_mean",
        )
    elif malformed / calls >= FEW_PARSED:
        yield Finding(
            "calls",
            "bad",
            f"Calls are not parsed: {malformed:,} of {calls:,} calls ({malformed / calls:.0%}) could not be read.",
            "The model does not know the dialect, or turns are cut before a call ends: see max_turn_tokens.",
            look.where(status=["malformed"]),
            "rollout/malformed",
        )
    else:
        said = f"{calls / count:.2f} calls a trajectory, {malformed / calls:.0%} of them malformed."
        yield Finding("calls", "good", f"Calls are parsed: {said}", "", {}, "rollout/calls_mean")


def _rewards(look: _Look) -> Iterator[Finding]:
    used, equal = look.last("groups/used"), look.last("groups/zero_variance")
    if used is None or equal is None or not used + equal:
        yield Finding("rewards", "unknown", "Whether groups differ in reward is not recorded by this run.")
        return
    share = equal / (used + equal)
    if share >= EQUAL:
        scores = look.index.columns["score"][look.rows]
        all_wrong = not len(scores) or float(np.mean(scores)) < 0.5
        yield Finding(
            "rewards",
            "bad" if share > 0.99 else "warn",
            f"Rewards are all equal in {share:.0%} of groups, and such groups teach nothing.",
            "Tasks are too hard: take easier ones in between, or larger groups."
            if all_wrong
            else "Tasks are solved: take harder ones.",
            look.where(correct=not all_wrong),
            "groups/zero_variance",
        )
    else:
        yield Finding("rewards", "good", f"{1 - share:.0%} of groups have rewards that differ.", "", {}, "groups/used")


def _entropy(look: _Look) -> Iterator[Finding]:
    now, before = look.last("policy/entropy"), look.first("policy/entropy")
    if now is None or before is None:
        yield Finding("entropy", "unknown", "The policy's entropy is not recorded by this run.")
    elif now < ENTROPY_GONE:
        yield Finding(
            "entropy",
            "bad" if before > 5 * now else "warn",
            f"Entropy is gone: {now:.4f} nats a token, from {before:.4f} at the start. It tries nothing else any more.",
            "A lower learning rate, learner.entropy_coefficient, a higher clip_high, or harder tasks in the mix.",
            look.where(sort="-logprob"),
            "policy/entropy",
        )
    else:
        words = f"Entropy is {now:.3f} nats a token, from {before:.3f} at the start."
        yield Finding("entropy", "good", words, "", {}, "policy/entropy")


def _tools(look: _Look) -> Iterator[Finding]:
    calls, malformed, failed = (look.sum(name) if len(look.rows) else 0 for name in ("calls", "malformed", "failed"))
    parsed = calls - malformed
    if not parsed:
        yield Finding("tools", "unknown", "No call was parsed, so whether tools work is not known.")
        return
    failing = failed - malformed
    statuses = look.index.columns["statuses"][look.rows]
    counts = {
        name: int(np.count_nonzero(statuses & (1 << at)))
        for at, name in enumerate(STATUSES)
        if name not in ("ok", "malformed")
    }
    named = [name for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count]
    if failing / parsed >= FAILING:
        spread = ", ".join(f"{name} in {counts[name]:,}" for name in named[:3])
        yield Finding(
            "tools",
            "bad" if failing / parsed > 0.6 else "warn",
            f"Tools fail: {failing:,} of {parsed:,} calls ({failing / parsed:.0%}); trajectories with {spread}.",
            "Read what the tools answer. An unknown tool or bad arguments are the policy's, the others the tool's.",
            look.where(status=named[:1]),
            "rollout/failed_calls",
        )
    else:
        words = f"{1 - failing / parsed:.0%} of the calls that were parsed ended well."
        yield Finding("tools", "good", words, "", {}, "rollout/failed_calls")


def _truncation(look: _Look) -> Iterator[Finding]:
    share = look.last("rollout/truncated")
    if share is None:
        yield Finding("truncation", "unknown", "How many episodes a limit ended is not recorded by this run.")
    elif share >= TRUNCATED:
        yield Finding(
            "truncation",
            "bad" if share >= 0.5 else "warn",
            f"Limits end {share:.0%} of episodes before the policy does.",
            "Raise the limit that ends them, or see whether the policy repeats itself.",
            look.where(stop=["max_tokens", "max_turns", "max_calls", "timeout"]),
            "rollout/truncated",
        )
    else:
        yield Finding("truncation", "good", f"Limits end {share:.1%} of episodes.", "", {}, "rollout/truncated")


def _engines(look: _Look) -> Iterator[Finding]:
    gap = look.last("policy/logprob_gap_max")
    if gap is None:
        words = "How far the engine's and the trainer's log-probabilities are apart is not recorded by this run."
        yield Finding("engines", "unknown", words)
    elif gap > GAP:
        yield Finding(
            "engines",
            "bad" if gap > 10 * GAP else "warn",
            f"Engine and trainer disagree: up to {gap:.3g} nats about a token that was sampled.",
            "In float32 that is a bug to report; in bfloat16 set learner.importance_cap.",
            {},
            "policy/logprob_gap_max",
        )
    else:
        words = f"Engine and trainer agree to {gap:.2g} nats."
        yield Finding("engines", "good", words, "", {}, "policy/logprob_gap_max")


def _waiting(look: _Look) -> Iterator[Finding]:
    share = look.last("time/tools_share")
    slowest = look.index.columns["slowest_s"][look.rows] if len(look.rows) else np.zeros(1)
    high = float(np.quantile(slowest, 0.95))
    if (share is not None and share >= TOOLS_SHARE) or high > SLOW_S:
        waited = "" if share is None else f"up to {share:.0%} of a step is spent waiting for them, and "
        yield Finding(
            "waiting",
            "warn",
            f"Tools are slow: {waited}in one of twenty episodes a call takes {high:.2f} s or more.",
            "The sandbox or the retriever: see recall sandbox serve --workers, or where the search runs.",
            look.where(sort="-slowest_s"),
            "time/tools_share",
        )
    elif share is None:
        yield Finding("waiting", "unknown", "How long steps wait for tools is not recorded by this run.")
    else:
        words = f"At most {share:.0%} of a step is spent waiting for tools."
        yield Finding("waiting", "good", words, "", {}, "time/tools_share")


def _faults(look: _Look) -> Iterator[Finding]:
    count = look.sum("fault") if len(look.rows) else 0
    if count:
        yield Finding(
            "faults",
            "bad" if count > 0.2 * len(look.rows) else "warn",
            f"{count:,} of the last {len(look.rows):,} episodes failed through a fault of ours: sandbox or engine.",
            "They are left out of the gradient; read the fault.",
            look.where(fault=True),
            "rollout/faults",
        )
    elif len(look.rows):
        yield Finding("faults", "good", "No episode failed through a fault of ours.", "", {}, "rollout/faults")


def _pays(look: _Look) -> Iterator[Finding]:
    rewards = look.first("reward/mean"), look.last("reward/mean")
    solved = look.first("success/mean"), look.last("success/mean")
    (r0, r1), (s0, s1) = rewards, solved
    if r0 is None or r1 is None or s0 is None or s1 is None or len(look.columns["reward/mean"]) < 2 * WINDOW:
        return
    if r1 - r0 > 0.1 and s1 - s0 < 0.02:
        yield Finding(
            "pays",
            "bad",
            f"The reward rises ({r0:.2f} to {r1:.2f}) and success does not ({s0:.0%} to {s1:.0%}).",
            "It is paid for something else than solving tasks. Look at the parts of the reward.",
            look.where(correct=False, sort="-reward"),
            "reward/mean",
        )


_CHECKS = (_calls, _rewards, _entropy, _tools, _truncation, _engines, _waiting, _faults, _pays)
