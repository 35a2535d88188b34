"""What nano is pretrained on, made on the fly: primitives only.

Random tokens copied in order and in reverse, and look-ups of a key among pairs of random tokens; then dialogues of
single calls and their answers, of several things asked for at once, and walks. A walk makes several calls that fit
together by type under a question that the tools at hand cannot answer: at least one word of the question has no tool.
So no document solves a task of more than one call, where one call's answer is another's argument.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recall.renderer import Renderer, schema_line
from recall.synth.chains import Chain, draw_chain, draw_join
from recall.synth.tasks import TABLED, draw_distractors, functions_of
from recall.synth.tools import WorldTool, draw_tool, source_of
from recall.synth.vocabulary import (
    ENTITY_TYPES,
    GENITIVES,
    OPERATORS,
    QUESTIONS,
    EntityType,
    Genitive,
    Operator,
    Relation,
)
from recall.synth.world import Word, draw_name, draw_world
from recall.tool_calls import format_calls
from recall.tools.results import show
from recall.types import Message, ToolCall, ToolSpec

NAMED_WEIGHT = 0.7
"""How often a walk calls a tool that its question names, where another would be called once. Single calls teach to call
what is named; without this the most likely walk would be the solution in a quarter of the tasks of two calls."""

OPERATOR_SHARE = 0.45
"""Of the documents of single calls, those about an operator: there are few operators, but their parameters go by names
of their own, and at a quarter a third of them were still misread."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """An episode written out: what is asked, what is called, what comes back, what is answered."""

    question: str
    tools: tuple[ToolSpec, ...]
    turns: tuple[tuple[tuple[ToolCall, ...], tuple[Any, ...]], ...]
    """The calls of each turn and their results, JSON values."""
    answer: str
    asked: tuple[str, ...]
    """The words of the program that the question asks for, innermost first."""
    more: tuple["Dialogue", ...] = ()
    """Questions that follow in the same conversation, over the same tools."""


def single_call(rng: random.Random, *, operator: bool | None = None) -> Dialogue:
    """One to four questions over the same tools, each answered by one call and none needing another's answer.

    A question is about a relation or attribute of a name, or an operator on two numbers. `operator` says which of these
    comes first; None lets `rng` decide.
    """
    if operator is None:
        operator = rng.random() < OPERATOR_SHARE
    pool: Sequence[Word] = OPERATORS if operator else TABLED
    first = rng.choice(pool)
    words = [first, *draw_distractors(rng, [first], rng.randint(0, 7))]
    rng.shuffle(words)
    tools = [draw_tool(rng, each, from_held_out=False) for each in words]
    world = draw_world(rng, words, leaves=[each.word for each in words], name=lambda taken: _name(rng, taken))
    function = functions_of(source_of(tools, world))
    specs = tuple(tool.spec for tool in tools)

    def question(tool: WorldTool) -> Dialogue:
        if isinstance(tool.word, Operator):
            values: list[Any] = [rng.randint(10, 1500), rng.randint(10, 1500)]
            noun = f"the {tool.word.word} of {values[0]} and {values[1]}"
        else:
            values = [rng.choice(world.entities[tool.word.domain])]
            noun = Chain((tool.word,)).noun(values[0], genitive=rng.choice(GENITIVES))
        call = _call(tool, *values)
        result = function(call.name, call.arguments)
        asked, answer = rng.choice(QUESTIONS).format(noun=noun), str(tool.value(result))
        return Dialogue(asked, specs, (((call,), (result,)),), answer, (tool.word.word,))

    opening = question(tools[words.index(first)])
    more = tuple(question(rng.choice(tools)) for _ in range(rng.choice((0, 0, 1, 2, 3))))
    return replace(opening, more=more)


def several(rng: random.Random) -> Dialogue:
    """Two to five things asked for in one question, each found by one call and none needing another's answer.

    Either up to three things of different names, in the order of the question, or all of one name, from the name
    outwards: `Zobido's twin and mayor` or `the mayor and the twin of Zobido`.
    """
    genitive = rng.choice(GENITIVES)
    if of_one_name := rng.random() < 0.6:
        domain = rng.choice(ENTITY_TYPES)
        words = rng.sample([word for word in TABLED if word.domain == domain], rng.randint(2, 5))
    else:
        words = rng.sample(TABLED, rng.randint(2, 3))
    shown: list[Word] = [*words, *draw_distractors(rng, words, rng.randint(0, 3))]
    rng.shuffle(shown)
    tools = {word: draw_tool(rng, word, from_held_out=False) for word in shown}
    world = draw_world(rng, shown, leaves=[word.word for word in words], name=lambda taken: _name(rng, taken))
    function = functions_of(source_of(list(tools.values()), world))
    if of_one_name:
        starts = [rng.choice(world.entities[domain])] * len(words)
        noun = _list_of_one(words, starts[0], genitive)
    else:
        starts = [rng.choice(world.entities[word.domain]) for word in words]
        nouns = [Chain((word,)).noun(start, genitive=genitive) for word, start in zip(words, starts, strict=True)]
        noun = " and ".join(nouns)
    calls = [_call(tools[word], start) for word, start in zip(words, starts, strict=True)]
    results = [function(call.name, call.arguments) for call in calls]
    one_by_one = tuple(((call,), (result,)) for call, result in zip(calls, results, strict=True))
    return Dialogue(
        rng.choice(QUESTIONS).format(noun=noun),
        tuple(tools[word].spec for word in shown),
        ((tuple(calls), tuple(results)),) if rng.random() < 0.2 else one_by_one,
        ", ".join(str(tools[word].value(result)) for word, result in zip(words, results, strict=True)),
        tuple(word.word for word in words),
    )


def _list_of_one(words: Sequence[Word], entity: str, genitive: Genitive) -> str:
    """How a question lists several words of one entity, the first of them next to its name."""
    if genitive == "'s":
        return f"{entity}'s {' and '.join(word.word for word in words)}"
    return f"{' and '.join(f'the {word.word}' for word in reversed(words))} of {entity}"


def walk(rng: random.Random) -> Dialogue:
    """Calls that fit together by type, under a question that the tools cannot answer.

    Which of the fitting tools is called has next to nothing to do with the question: one that it names is called a
    little less often than another (`NAMED_WEIGHT`). More would give solutions away, and much less would have to be
    unlearned. How many calls are made follows how much the question asks for, give or take one.
    """
    while True:
        asked = (
            draw_chain(rng, rng.randint(2, 6)) if rng.random() < 0.6 else draw_join(rng, rng.randint(3, 5), OPERATORS)
        )
        chains = [asked] if isinstance(asked, Chain) else [asked.left, asked.right]
        # Without one of its words the question cannot be answered, whatever else is there.
        missing = rng.choice(asked.words)
        words = [word for word in asked.words if word is not missing and rng.random() < 0.8]
        words += draw_distractors(rng, asked.words, rng.randint(2, 5))
        length = max(2, asked.calls + rng.choice((-1, 0, 0, 0, 1)))
        weights = {word: NAMED_WEIGHT if word in asked.words else 1.0 for word in words}
        steps = _draw_walk(rng, [chain.steps[0].domain for chain in chains], weights, length)
        if len(steps) >= 2:
            break
    rng.shuffle(words)
    tools = {word: draw_tool(rng, word, from_held_out=False) for word in words}
    world = draw_world(
        rng, words, types={chain.steps[0].domain for chain in chains}, name=lambda taken: _name(rng, taken)
    )
    starts = [rng.choice(world.entities[chain.steps[0].domain]) for chain in chains]
    function = functions_of(source_of(list(tools.values()), world))
    turns: list[tuple[tuple[ToolCall, ...], tuple[Any, ...]]] = []
    values: list[Any] = [*starts]
    parallel = rng.random() < 0.3
    for step in steps:
        tool = tools[step.word]
        call = _call(tool, *(values[source] for source in step.sources))
        result = function(call.name, call.arguments)
        values.append(tool.value(result))
        if parallel and turns and max(step.sources) < len(values) - 1 - len(turns[-1][0]):
            calls, results = turns.pop()
            turns.append(((*calls, call), (*results, result)))
        else:
            turns.append(((call,), (result,)))
    return Dialogue(
        rng.choice(QUESTIONS).format(noun=asked.noun(*starts, genitive=rng.choice(GENITIVES))),
        tuple(tools[word].spec for word in words),
        tuple(turns),
        str(values[-1]),
        tuple(word.word for word in asked.words),
    )


@dataclass(frozen=True, slots=True)
class _WalkStep:
    word: Word
    sources: tuple[int, ...]
    """What it is applied to: first the names of the question are numbered, then the results of the walk."""


def _draw_walk(
    rng: random.Random, starts: Sequence[EntityType], weights: Mapping[Word, float], length: int
) -> list[_WalkStep]:
    """`length` applications of words, each to something already at hand; fewer when nothing fits any more.

    Among words that fit, one is drawn by its weight.
    """
    types: list[EntityType | None] = [*starts]
    steps: list[_WalkStep] = []
    left = list(weights)
    while len(steps) < length:
        numbers = [index for index, kind in enumerate(types) if kind is None]
        names = [index for index, kind in enumerate(types) if kind is not None]
        operators = [word for word in left if isinstance(word, Operator)] if len(numbers) >= 2 else []
        source = names[-1] if rng.random() < 0.6 else rng.choice(names)
        fitting = [word for word in left if not isinstance(word, Operator) and word.domain == types[source]]
        word: Word
        if operators and (not fitting or rng.random() < 0.7):
            word, sources = rng.choice(operators), tuple(numbers[-2:])
        elif fitting:
            (word,), sources = rng.choices(fitting, [weights[each] for each in fitting]), (source,)
        elif any(not isinstance(word, Operator) and word.domain in types for word in left):
            continue  # another source has a tool that fits
        else:
            break
        left.remove(word)
        steps.append(_WalkStep(word, sources))
        types.append(word.range if isinstance(word, Relation) else None)
    return steps


def _name(rng: random.Random, taken: set[str]) -> str:
    return draw_name(rng, from_held_out=False, taken=taken)


def _call(tool: WorldTool, *values: Any) -> ToolCall:
    return ToolCall(tool.spec.name, dict(zip(tool.parameters, values, strict=True)))


@dataclass(frozen=True, slots=True)
class Document:
    """Tokens to learn from."""

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    """[n] True where the token is to be predicted; the others are only read."""
    kind: str
    """`single_call`, `several`, `walk`, `copy` or `recall`."""


def texts_of(dialogue: Dialogue) -> list[str]:
    """The texts of a dialogue as they are encoded, one by one."""
    texts = ["\n".join(schema_line(tool) for tool in dialogue.tools)]
    for part in (dialogue, *dialogue.more):
        texts += [part.question, f"\\boxed{{{part.answer}}}"]
        texts += [format_calls(calls) for calls, _ in part.turns]
        texts += [show(result, 10_000) for _, results in part.turns for result in results]
    return texts


def encode_dialogue(dialogue: Dialogue, kind: str, renderer: Renderer, tokenizer: Any) -> Document:
    """Render a dialogue as an episode is rendered; only the assistant's turns are learned."""
    token_ids = renderer.prompt([Message("user", dialogue.question)], dialogue.tools)
    mask = [False] * len(token_ids)
    (stop,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)

    def append(ids: Sequence[int], learned: bool) -> None:
        token_ids.extend(ids)
        mask.extend([learned] * len(ids))

    for number, part in enumerate((dialogue, *dialogue.more)):
        if number:
            append(renderer.reply([Message("user", part.question)]), False)
        for calls, results in part.turns:
            append([*tokenizer.encode(format_calls(calls), add_special_tokens=False), stop], True)
            append(renderer.reply([Message("tool", show(result, 10_000)) for result in results]), False)
        append([*tokenizer.encode(f"\\boxed{{{part.answer}}}", add_special_tokens=False), stop], True)
    return Document(tuple(token_ids), tuple(mask), kind)


def copy(rng: random.Random, vocabulary: int, separators: Sequence[int], *, plain: bool = False) -> Document:
    """Random tokens, then the same again, in order or in reverse; the separator tells which. The copy is learned.

    Unless `plain`, the list may have a filler between its tokens, as there is glue between the nouns of a question, and
    the copy may be broken up: each of its tokens between a marker and noise, as a word that is called stands among
    arguments and results.
    """
    backward = rng.random() < 0.5
    broken, gap = (False, 0) if plain else rng.choice(((False, 0), (False, 1), (True, 1), (True, 1)))
    count = rng.randint(2, 8) if broken else rng.randint(8, 32)
    *items, filler, marker = rng.sample(range(vocabulary), count + 2)
    tokens = [token for item in items for token in (*[filler] * gap, item)]
    tokens += [rng.randrange(vocabulary) for _ in range(rng.randint(0, 8) if broken else 0)]
    tokens.append(separators[backward])
    mask = [False] * len(tokens)
    for item in reversed(items) if backward else items:
        before = [marker] if broken else []
        after = [rng.randrange(vocabulary) for _ in range(rng.randint(0, 12))] if broken else []
        tokens += [*before, item, *after]
        mask += [*([False] * len(before)), True, *([False] * len(after))]
    return Document(tuple(tokens), tuple(mask), "copy")


def recall(rng: random.Random, vocabulary: int, separators: Sequence[int]) -> Document:
    """Pairs of random tokens, then keys in another order, each followed by its value; the values are learned.

    The value stands right after its key or before it, with a token between, or after it beyond three tokens that are
    the same for every pair: a schema has its parts in all four places, seen from the word that a question asks about.
    The separator tells which.
    """
    layout = rng.randrange(4)
    count = rng.randint(3, 10 if layout == 3 else 20)
    *keys, first, second, third = rng.sample(range(vocabulary), count + 3)
    pairs = [(key, rng.randrange(vocabulary)) for key in keys]
    tokens: list[int] = []
    for key, value in pairs:
        between = rng.randrange(vocabulary)
        tokens += (
            (key, value),
            (value, key),
            (value, between, key),
            (key, first, second, third, value),
        )[layout]
    tokens.append(separators[layout])
    mask = [False] * len(tokens)
    for key, value in rng.choices(pairs, k=count):
        tokens += [key, value]
        mask += [False, True]
    return Document(tuple(tokens), tuple(mask), "recall")
