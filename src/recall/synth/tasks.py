"""Tasks by the number: `ToolTasks(settings, seed)[i]` is a pure function of settings, split, seed and i.

What is held out is a property of spelling (`world.held_out`), so training tasks and held-out tasks cannot meet: names,
the words of a chain or join, and pairs of naming style and parameter. First cut of the generator: chains and joins over
fictional worlds; certificates, mutators and domain skins are not here yet.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recall.errors import ConfigError
from recall.programs import run
from recall.synth.chains import Chain, Join, draw_chain, draw_join
from recall.synth.tools import WorldTool, by_word, draw_tool, is_number, source_of, styles_of
from recall.synth.vocabulary import (
    ATTRIBUTES,
    GENITIVES,
    OPERATORS,
    QUESTIONS,
    RELATIONS,
    Attribute,
    Operator,
    Relation,
)
from recall.synth.world import Word, World, draw_name, draw_world, held_out
from recall.types import AnswerType, Task

SPLITS: Mapping[str, frozenset[str]] = {
    "train": frozenset(),
    "new_worlds": frozenset(),
    "new_names": frozenset({"names"}),
    "new_chains": frozenset({"chains"}),
    "new_tools": frozenset({"tools"}),
    "held_out": frozenset({"names", "chains"}),
    "base": frozenset(),
}
"""What of a split is drawn from the held-out part. Worlds differ between any two splits. `base` is for pretraining."""

Kind = Literal["chain", "join"]

TABLED: tuple[Relation | Attribute, ...] = (*RELATIONS, *ATTRIBUTES)
"""The words that a world holds a table for."""
MOST_CALLS = 9
"""Longer programs do not fit into a world: a chain that passes no entity twice would take too long to draw."""
MOST_DISTRACTORS = 40
"""More would ask for more words than there are beside those of the longest program."""


class TaskSettings(BaseModel):
    """What tasks are made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distractors: tuple[int, int] = Field(default=(2, 3))
    """The fewest and the most tools that a task shows beyond those that its reference program calls."""
    mixed_naming: bool = False
    """Name each tool of a world in a style of its own, instead of all in one style as a real interface does."""

    @field_validator("distractors")
    @classmethod
    def _check_distractors(cls, value: tuple[int, int]) -> tuple[int, int]:
        few, many = value
        if not 0 <= few <= many <= MOST_DISTRACTORS:
            raise ValueError(f"the fewest and the most, in this order, each from 0 to {MOST_DISTRACTORS}")
        return value


def parse_label(label: str) -> tuple[Kind, int]:
    """What a label stands for: `3` a chain of 3 calls, `join` a join of 3, `join5` one of 5.

    Raises:
        ConfigError: it stands for nothing.
    """
    kind: Kind = "join" if label.startswith("join") else "chain"
    calls, fewest = label.removeprefix("join") or "3", 3 if kind == "join" else 1
    if calls not in map(str, range(fewest, MOST_CALLS + 1)) or not label:
        raise ConfigError(
            f"task kind {label!r}: accepted are a number of calls from 1 to {MOST_CALLS}, 'join', and 'join4' to "
            f"'join{MOST_CALLS}'"
        )
    return kind, int(calls)


class ToolTasks:
    """An endless sequence of tasks of one kind and split."""

    def __init__(self, label: str, *, split: str, seed: int, settings: TaskSettings | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}: accepted are {', '.join(SPLITS)}")
        self.label, self.split, self.seed = label, split, seed
        self.kind, self.calls = parse_label(label)
        self.settings = settings or TaskSettings()

    def __getitem__(self, index: int) -> Task:
        rng = random.Random(f"task/{self.split}/{self.seed}/{self.label}/{index}")
        new = SPLITS[self.split]
        while True:
            program = draw_chain(rng, self.calls) if self.kind == "chain" else draw_join(rng, self.calls)
            if held_out("program", *spelling(program)) is ("chains" in new) or self.calls == 1:
                break
        few, many = self.settings.distractors
        words = [*program.words, *draw_distractors(rng, program.words, rng.randint(few, many))]
        rng.shuffle(words)
        styles = styles_of(from_held_out="tools" in new)
        if not self.settings.mixed_naming:
            styles = [rng.choice(styles)]
        tools = [draw_tool(rng, word, from_held_out="tools" in new, styles=styles) for word in words]
        return build(rng, program, tools, names="names" in new, id=f"{self.split}-{self.seed}-{self.label}-{index}",
                     split=self.split, label=self.label)  # fmt: skip

    def take(self, count: int, *, start: int = 0) -> list[Task]:
        """The tasks numbered `start` to `start + count - 1`."""
        return [self[start + offset] for offset in range(count)]

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1


def spelling(program: Chain | Join) -> tuple[str, ...]:
    """The words of a program in order, which decide whether it is held out."""
    if isinstance(program, Chain):
        return tuple(step.word for step in program.steps)
    return (program.operator.word, *spelling(program.left), "and", *spelling(program.right))


def draw_distractors(rng: random.Random, words: Sequence[Word], count: int) -> list[Word]:
    """Words that a program does not need, most of them applicable to entities that it meets."""
    met = {word.domain for word in words if not isinstance(word, Operator)}
    used = {word.word for word in words}
    others = [word for word in TABLED if word.word not in used]
    near: list[Word] = [word for word in others if word.domain in met]
    if any(isinstance(word, Operator) for word in words):
        near += [word for word in OPERATORS if word.word not in used] * 2
    drawn: dict[str, Word] = {}
    while len(drawn) < count:
        word = rng.choice(near if near and rng.random() < 0.8 else others)
        drawn[word.word] = word
    return list(drawn.values())


def build(
    rng: random.Random,
    program: Chain | Join,
    tools: Sequence[WorldTool],
    *,
    names: bool,
    id: str,
    split: str,
    label: str,
) -> Task:
    """The task that asks for `program` over a fresh world, its ground truth found by running the reference program."""
    chains = [program] if isinstance(program, Chain) else [program.left, program.right]
    leaves = [chain.steps[-1].word for chain in chains]
    words = [tool.word for tool in tools]
    while True:
        world = draw_world(
            rng, words, leaves=leaves, name=lambda taken: draw_name(rng, from_held_out=names, taken=taken)
        )
        starts = [rng.choice(world.entities[chain.steps[0].domain]) for chain in chains]
        met = [name for chain, start in zip(chains, starts, strict=True) for name in entities_on(chain, start, world)]
        if len(set(met)) == len(met):
            break
    noun = program.noun(*starts, genitive=rng.choice(GENITIVES))
    calls, toolset = [], by_word(tools)
    ends = []
    for chain, start in zip(chains, starts, strict=True):
        at: Any = start
        for step in chain.steps:
            tool = toolset[step.word]
            calls.append(tool.reference(at))
            at = tool.result_of(len(calls) - 1)
        ends.append(at)
    if isinstance(program, Join):
        calls.append(toolset[program.operator.word].reference(*ends))
    source = source_of(tools, world)
    last = toolset[program.operator.word if isinstance(program, Join) else program.steps[-1].word]
    answer = last.value(run(calls, functions_of(source))[-1])
    return Task(
        id=id,
        question=rng.choice(QUESTIONS).format(noun=noun),
        ground_truth=(str(answer),),
        env=source,
        tools=tuple(tool.spec for tool in tools),
        answer_type=AnswerType("integer" if is_number(last.word) else "text"),
        data_source="recall_synth",
        split=split,
        depth=len(calls),
        kind=label,
        reference=tuple(calls),
    )


def entities_on(chain: Chain, start: str, world: World) -> list[str]:
    """The entities that a chain passes; one passed twice would open a shorter way to the answer."""
    met = [start]
    for step in chain.steps[:-1]:
        met.append(str(world.tables[step.word][met[-1]]))
    return met


def functions_of(source: str) -> Callable[[str, Mapping[str, Any]], Any]:
    """Call the functions of `source` in this process; only for source that this package itself wrote."""
    namespace: dict[str, Any] = {}
    exec(compile(source, "<world>", "exec"), namespace)
    return lambda name, arguments: namespace[name](**arguments)
