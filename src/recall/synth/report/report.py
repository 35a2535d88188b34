"""Makes the report on a set: one pass over all rows, and a closer look at a sample of them.

The report is plain data, as JSON can say it. How it is shown is `recall.viewer`'s business.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recall import __version__, rewards
from recall.renderer import PLACEHOLDER, default_template, schema_line
from recall.synth.report.asked import Asking, ask_model
from recall.synth.report.gates import ANCHORS, gates_of
from recall.synth.report.guesses import rate_of
from recall.synth.report.overlap import Against, Keys, Nearness, digest
from recall.synth.report.profile import GROUPINGS, Profile
from recall.synth.report.replay import Replay, replay, two_sandboxes
from recall.synth.report.spread import spread
from recall.types import CallStatus, Task

FORMAT = 1
"""The version of the report's own form."""
SAMPLE = 2000
"""Tasks that are replayed and whose tokens are counted."""
_EXAMPLES = 20

Count = Callable[[str], int]
"""The number of tokens of a text."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a set is looked at."""

    sample: int = SAMPLE
    """Tasks to replay and to count the tokens of; 0 replays none."""
    seed: int = 0
    """Decides which."""
    reward: str = "row"
    """The reward that guesses are judged by."""
    max_prompt_tokens: int = 1536
    """What counts as too long a prompt; the published training had room for so many tokens."""
    tokenizer: str = ""
    """What tokens are counted with, in words."""
    count: Count | None = None
    """Counts tokens; None leaves tokens out."""
    on_row: Callable[[], object] = field(default=lambda: None)
    """Called after every row that was read."""
    on_replay: Callable[[], object] = field(default=lambda: None)
    """Called after every task that was replayed."""
    asking: Asking | None = None
    """A model to ask, too; None asks none."""
    on_asked: Callable[[], object] = field(default=lambda: None)
    """Called after every task that the model was asked about."""


def make_report(
    tasks: Iterable[Task],
    *,
    source: Mapping[str, Any],
    options: Options,
    against: Sequence[Against] = (),
) -> dict[str, Any]:
    """The report on some tasks, read once.

    Args:
        tasks: in the order of the set; they are not kept, except for the sample.
        source: what is known of where they come from; it stands in the report as it is.
        options: how closely to look.
        against: other files that the tasks must not share questions with.

    Raises:
        RolloutError: the sandbox failed, not a tool; or the endpoint did.
    """
    profile, keys, nearness, sample = Profile(), Keys(), Nearness(), _Sample(options.sample, options.seed)
    for task in tasks:
        profile.add(task)
        keys.add(task)
        nearness.add(task.question)
        for other in against:
            other.add(task)
        sample.add(task)
        options.on_row()
    replays = asyncio.run(_replays(sample.tasks(), options)) if options.sample else []
    reward = rewards.get(options.reward)
    numbers = profile.numbers(reward)
    numbers["overlap"] = keys.numbers() | nearness.numbers(options.seed) | {"against": [o.numbers() for o in against]}
    numbers["replay"] = _replay_numbers(replays, profile.rows - profile.without_reference) if replays else None
    numbers["tokens"] = _token_numbers(sample.tasks(), replays, options)
    asking = options.asking
    numbers["asked"] = asyncio.run(ask_model(sample.least(asking.tasks), asking, options.on_asked)) if asking else None
    for grouping, name_of in GROUPINGS.items():
        _rate_groups(numbers[grouping], name_of, replays, options.reward)
    return {
        "format": FORMAT,
        "version": __version__,
        "source": dict(source),
        "rows": profile.rows,
        "looked_at": {
            "replayed": len(replays),
            "tokens_counted": len(sample.tasks()) if options.count else 0,
            "compared_for_nearness": numbers["overlap"]["rows"],
            "sample_seed": options.seed,
            "reward": options.reward,
            "asked": numbers["asked"]["tasks"] if asking else 0,
        },
        "gates": [gate.as_json() for gate in gates_of(numbers)],
        "anchors": [dict(anchor) for anchor in ANCHORS],
        **numbers,
    }


class _Sample:
    """A sample of tasks, uniform and the same in every process: those whose numbers hash lowest."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed, self._rows = size, seed, 0
        self._heap: list[tuple[int, int, Task]] = []

    def add(self, task: Task) -> None:
        """Take a task, or not."""
        rank = (-digest(str(self._seed), str(self._rows)), self._rows, task)
        self._rows += 1
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, rank)
        elif self._heap and rank > self._heap[0]:
            heapq.heapreplace(self._heap, rank)

    def tasks(self) -> list[Task]:
        """The sample, in the order of the set."""
        return [task for _, _, task in sorted(self._heap, key=lambda rank: rank[1])]

    def least(self, count: int) -> list[Task]:
        """A smaller sample, in no order that means anything."""
        return [task for _, _, task in sorted(self._heap, reverse=True)[:count]]


async def _replays(tasks: Sequence[Task], options: Options) -> list[Replay]:
    playable = [task for task in tasks if task.reference]
    if not playable:
        return []
    done = []
    async with two_sandboxes() as sandboxes:
        async for each in replay(playable, sandboxes=sandboxes):
            done.append(each)
            options.on_replay()
    return done


def _replay_numbers(replays: Sequence[Replay], of: int) -> dict[str, Any]:
    calls = [record for each in replays for record in each.played.records]
    good = [record for record in calls if record.status is CallStatus.OK]
    falsy = sum(record.result in _FALSY for record in good)
    nowhere = [{"task": each.task.id, "argument": text} for each in replays for text in each.nowhere]
    failures = [each for each in replays if not each.played.solved]
    return {
        "tasks": len(replays),
        "of": of,
        "solved": 1 - len(failures) / len(replays),
        "failures": [{"task": e.task.id, "problem": e.played.problem} for e in failures[:_EXAMPLES]],
        "same": sum(each.same for each in replays) / len(replays),
        "unlike": [each.task.id for each in replays if not each.same][:_EXAMPLES],
        "calls": len(calls),
        "again": sum(len(each.played.records) - each.shape.calls for each in replays if each.played.solved),
        "falsy": falsy / max(1, len(good)),
        "call_ms": spread(round(record.duration_s * 1000, 2) for record in calls),
        "statuses": dict(Counter(str(record.status) for record in calls).most_common()),
        "provenance": {
            "arguments": sum(each.arguments for each in replays),
            "from_schema": sum(each.from_schema for each in replays),
            "violations": len(nowhere),
            "examples": nowhere[:_EXAMPLES],
        },
    }


_FALSY = frozenset({"", "0", "0.0", "false", "null", "[]", "{}"})
"""Results that the published sandbox showed as nothing."""


def _token_numbers(tasks: Sequence[Task], replays: Sequence[Replay], options: Options) -> dict[str, Any] | None:
    count = options.count
    if count is None or not tasks:
        return None
    template = default_template()
    schema, question, prompt = [], [], []
    for task in tasks:
        schemas = "\n".join(map(schema_line, task.tools))
        schema.append(count(schemas))
        question.append(count(task.question))
        system = template.replace(PLACEHOLDER, schemas)
        prompt.append(count(f"{_SYSTEM}{system}{_USER}{task.question}{_ASSISTANT}"))
    observations = [count(record.result) for each in replays for record in each.played.records]
    limit = options.max_prompt_tokens
    return {
        "tokenizer": options.tokenizer,
        "tasks": len(tasks),
        "schema": spread(schema),
        "question": spread(question),
        "prompt": spread(prompt),
        "observation": spread(observations),
        "max_prompt_tokens": limit,
        "over": sum(tokens > limit for tokens in prompt) / len(prompt),
    }


_SYSTEM, _USER, _ASSISTANT = (
    "<|im_start|>system\n",
    "<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
"""What ChatML puts around a system message and a question."""


def _rate_groups(
    rows: Sequence[dict[str, Any]], name_of: Callable[[Task], str], replays: Sequence[Replay], reward: str
) -> None:
    """Add to each group of tasks what copied results earn, from the tasks of it that were replayed."""
    judge = rewards.get(reward)
    groups: dict[str, list[Replay]] = {}
    for each in replays:
        if each.task.ground_truth and each.played.solved:
            groups.setdefault(name_of(each.task), []).append(each)
    for row in rows:
        played = groups.get(row["name"], [])
        row["replayed"] = len(played)
        for rule, guess in (("single_call", Replay.single_call), ("last_observation", Replay.last_observation)):
            copied = [found for each in played if (found := guess(each)) is not None]
            rate = rate_of(copied, judge) if copied else None
            row[rule] = rate.as_json() if rate else None
            if rate is not None and rate.broken:
                row["guessable"].append(rule)


def broken(report: Mapping[str, Any]) -> list[str]:
    """The names of the gates that are broken."""
    return [gate["name"] for gate in report["gates"] if gate["broken"]]
