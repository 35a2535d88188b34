"""What nano is pretrained on, made on the fly: primitives only.

Five kinds of document: random tokens repeated, look-ups of a key among pairs of random tokens, random tokens read
backward, dialogues of single calls and their answers, and walks. A walk makes several calls that fit together by type
under a question that the tools at hand cannot answer: at least one word of the question has no tool. So no document
solves a task of more than one call.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from recall.renderer import Renderer, schema_line
from recall.synth.programs import Chain, draw_chain, draw_join
from recall.synth.tasks import TABLED, draw_distractors, functions_of
from recall.synth.tools import WorldTool, draw_tool, source_of
from recall.synth.vocabulary import ATTRIBUTES, OPERATORS, QUESTIONS, RELATIONS, EntityType, Operator, Relation
from recall.synth.world import Word, draw_name, draw_world
from recall.tool_calls import format_calls
from recall.tools.results import show
from recall.types import Message, ToolCall, ToolSpec


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


def single_call(rng: random.Random) -> Dialogue:
    """One to four questions over the same tools, each answered by one call and none needing another's answer.

    A question is about a relation or attribute of a name, or an operator on two numbers.
    """
    first: Word = rng.choice(TABLED) if rng.random() < 0.75 else rng.choice(OPERATORS)
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
            noun = Chain((tool.word,)).noun(values[0])
        call = _call(tool, *values)
        result = function(call.name, call.arguments)
        asked, answer = rng.choice(QUESTIONS).format(noun=noun), str(tool.value(result))
        return Dialogue(asked, specs, (((call,), (result,)),), answer, (tool.word.word,))

    opening = question(tools[words.index(first)])
    more = tuple(question(rng.choice(tools)) for _ in range(rng.choice((0, 0, 1, 2, 3))))
    return replace(opening, more=more)


def walk(rng: random.Random) -> Dialogue:
    """Calls that fit together by type, under a question that the tools cannot answer."""
    asked = draw_chain(rng, rng.randint(2, 6)) if rng.random() < 0.6 else draw_join(rng, rng.randint(3, 5), OPERATORS)
    chains = [asked] if isinstance(asked, Chain) else [asked.left, asked.right]
    # Without one of its words the question cannot be answered, whatever else is there.
    missing = rng.choice(asked.words)
    steps = _draw_walk(rng, [chain.steps[0].domain for chain in chains], missing)
    words = list(dict.fromkeys(step.word for step in steps))
    words += [word for word in asked.words if word not in (missing, *words) and rng.random() < 0.6]
    words += draw_distractors(rng, [*words, missing], rng.randint(0, 2))
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
        rng.choice(QUESTIONS).format(noun=asked.noun(*starts)),
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


def _draw_walk(rng: random.Random, starts: Sequence[EntityType], missing: Word) -> list[_WalkStep]:
    """2 to 5 applications of distinct words, none of them `missing`, each to something already at hand."""
    types: list[EntityType | None] = [*starts]
    steps: list[_WalkStep] = []
    length = rng.choice((2, 2, 3, 3, 4, 5))
    while len(steps) < length:
        used = {missing, *(step.word for step in steps)}
        numbers = [index for index, kind in enumerate(types) if kind is None]
        names = [index for index, kind in enumerate(types) if kind is not None]
        if len(numbers) >= 2 and rng.random() < 0.7:
            pool: list[Word] = [word for word in OPERATORS if word not in used]
            sources = tuple(numbers[-2:])
        else:
            source = names[-1] if rng.random() < 0.6 else rng.choice(names)
            kinds = ATTRIBUTES if rng.random() < 0.5 else RELATIONS
            pool = [word for word in kinds if word.domain == types[source] and word not in used]
            sources = (source,)
        if pool:
            word = rng.choice(pool)
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
    """`single_call`, `walk`, `repeat`, `recall` or `backward`."""


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


def repeat(rng: random.Random, vocabulary: int, separator: int) -> Document:
    """Random tokens, a separator, the same tokens again; the second half is learned."""
    half = [rng.randrange(vocabulary) for _ in range(rng.randint(8, 48))]
    return Document((*half, separator, *half), (False,) * (len(half) + 1) + (True,) * len(half), "repeat")


def recall(rng: random.Random, vocabulary: int, separators: Sequence[int]) -> Document:
    """Pairs of random tokens, then keys in another order, each followed by its value; the values are learned.

    The value stands after its key, before it, or before it with a token between: a schema names its tool in all three
    ways, seen from the word that a question asks about. The separator tells which.
    """
    count = rng.randint(3, 20)
    keys = rng.sample(range(vocabulary), count)
    pairs = [(key, rng.randrange(vocabulary)) for key in keys]
    layout = rng.choice((0, 1, 2))
    tokens: list[int] = []
    for key, value in pairs:
        tokens += ((key, value), (value, key), (value, rng.randrange(vocabulary), key))[layout]
    tokens.append(separators[layout])
    mask = [False] * len(tokens)
    for key, value in rng.choices(pairs, k=count):
        tokens += [key, value]
        mask += [False, True]
    return Document(tuple(tokens), tuple(mask), "recall")


def backward(rng: random.Random, vocabulary: int, separators: Sequence[int]) -> Document:
    """Random tokens with the same fillers between them, then the tokens in reverse, each between a marker and noise.

    What is learned is to find the token written last in the list and to write the one before it: copying, of a kind
    that reading a nested phrase from the inside takes.
    """
    count, gap = rng.randint(2, 5), 2  # as between the nouns of a nested phrase
    drawn = rng.sample(range(vocabulary), count + gap + 1)
    items, fillers, marker = drawn[:count], drawn[count:-1], drawn[-1]
    tokens = [token for item in items for token in (*fillers, item)]
    tokens += [*(rng.randrange(vocabulary) for _ in range(rng.randint(0, 8))), separators[0], separators[1]]
    mask = [False] * len(tokens)
    for item in reversed(items):
        noise = [rng.randrange(vocabulary) for _ in range(rng.randint(0, 12))]
        tokens += [marker, item, *noise]
        mask += [False, True, *([False] * len(noise))]
    return Document(tuple(tokens), tuple(mask), "backward")
