"""What each family's parser makes of turns: right ones, wrong ones, and a million that are broken at random."""

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from native_models import BAR, MODELS, tokenizer_of
from recall.renderer import NativeRenderer
from recall.tool_calls import FAMILIES, MAX_DEPTH, family_of, parse_search_turn
from recall.types import AssistantTurn, MalformedCall, ToolCall


def ds(text: str) -> str:
    """DeepSeek's tokens, with plain bars and spaces in the source of the test."""
    return text.replace("<|", f"<{BAR}").replace("|>", f"{BAR}>").replace("_", "▁")


F = ToolCall("f", {})
A = ToolCall("f", {"a": 1})

GOOD: list[tuple[str, str, tuple[ToolCall, ...]]] = [
    ("hermes", '<think>x</think>\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', (A,)),
    ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>", (A,)),
    ("qwen3_coder", "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>", (A,)),
    ("qwen3_coder", "<tool_call><function=f></function></tool_call>" * 2, (F, F)),
    (
        "qwen3_coder",
        "<tool_call>\n<function=f>\n<parameter=a>\n</tool_call> x\n</parameter>\n</function>\n</tool_call>",
        (ToolCall("f", {"a": "</tool_call> x"}),),
    ),
    (
        "qwen3_coder",
        "<think><tool_call></think><tool_call>\n<function=f>\n<parameter=a>\n\n  if x:\n    y\n</parameter>\n"
        "<parameter=b>\n{\"k\": [1]}</parameter></function></tool_call>",
        (ToolCall("f", {"a": "\n  if x:\n    y", "b": {"k": [1]}}),),
    ),
    ("llama", '{"name": "f", "parameters": {"a": 1}}', (A,)),
    ("llama", '<|python_tag|>{"type": "function", "name": "f", "parameters": {"a": 1}}; {"name": "f"}', (A, F)),
    ("llama", '<|python_tag|>brave_search.call(query="x \\"y\\"")', (ToolCall("brave_search", {"query": 'x "y"'}),)),
    ("llama", "[f(a=1), f()]", (A, F)),
    ("llama", "[f(a={'k': (1, 2.5, None), }, b='\\n')]", (ToolCall("f", {"a": {"k": [1, 2.5, None]}, "b": "\n"}),)),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]', (A,)),
    ("mistral", 'Sure.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{}', (A, F)),
    ("mistral", '[THINK][TOOL_CALLS][/THINK][TOOL_CALLS]f{"a": 1}', (A,)),
    ("gemma", "<start_function_call>call:f{a:1}<end_function_call>", (A,)),
    ("gemma", "<|channel>thought\nx<channel|><|tool_call>call:f{a:1}<tool_call|><|tool_call>call:f{}", (A, F)),
    (
        "gemma",
        "<start_function_call>call:f{s:<escape><end_function_call>}, <escape>,l:[true,null,-2.5],o:{<escape>k<escape>:"
        "1}}<end_function_call>",
        (ToolCall("f", {"s": "<end_function_call>}, ", "l": [True, None, -2.5], "o": {"k": 1}}),),
    ),
    (
        "deepseek",
        ds("x</think><|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>f\n```json\n{\"a\": 1}\n```")
        + ds('<|tool_call_end|>\n<|tool_call_begin|>f<|tool_sep|>{}<|tool_call_end|><|tool_calls_end|>'),
        (A, F),
    ),
    ("harmony", '<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>commentary to=functions.f '
     '<|constrain|>json<|message|>{"a": 1}<|call|>', (A,)),
    ("harmony", ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}', (A,)),
]  # fmt: skip


@pytest.mark.parametrize(("family", "text", "calls"), GOOD)
def test_right_turns_are_read(family: str, text: str, calls: tuple[ToolCall, ...]) -> None:
    turn = FAMILIES[family].parse(text)
    assert turn.calls == calls
    assert turn.text == text


@pytest.mark.parametrize(
    ("family", "text", "problem"),
    [
        ("qwen3_coder", "<tool_call>f</tool_call>", "write <function=NAME>"),
        ("qwen3_coder", "<tool_call><function=></function></tool_call>", "no name"),
        ("qwen3_coder", "<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>", "twice"),
        ("qwen3_coder", "<function=f>x<parameter=a>1</parameter></function>", "outside of the parameters"),
        ("llama", '{"name": "f", "parameters": [1]}', "must be a JSON object, not a list"),
        ("llama", '{"name": "f", "parameters": {"a": 1}', "not valid JSON"),
        ("llama", "<|python_tag|>import os", "a call such as name"),
        ("llama", "[f(a=b)]", "text without its quotes"),
        ("llama", "[f(a=1, a=2)]", "written twice"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}', "not valid JSON"),
        ("mistral", "[TOOL_CALLS]", "write [TOOL_CALLS]"),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": 1} and more', "text after"),
        ("gemma", "<start_function_call>f{}<end_function_call>", "write call:NAME"),
        ("gemma", "<start_function_call>call:f{a:<escape>x}<end_function_call>", "not closed"),
        ("gemma", "<|tool_call>call:f{a:1} x<tool_call|>", "text after the arguments"),
        ("deepseek", ds("<|tool_calls_begin|><|tool_call_begin|>f{}<|tool_call_end|>"), "there is no <"),
        ("deepseek", ds("<|tool_calls_begin|>f"), "before each call"),
        ("deepseek", ds("<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>f\n{}"), "between ```json"),
        ("harmony", "<|channel|>commentary to=functions.f", "no <|message|>"),
        ("harmony", '<|channel|>commentary to=functions.f<|message|>{"a": }', "not valid JSON"),
    ],
)
def test_wrong_calls_are_values_that_say_what_is_wrong(family: str, text: str, problem: str) -> None:
    (call,) = FAMILIES[family].parse(text).calls
    assert isinstance(call, MalformedCall)
    assert problem in call.problem


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llama", '{"name": "Ada", "age": 36}'),
        ("llama", "[1, 2]"),
        ("llama", 'The call {"name": "f", "parameters": {}} is what I would write.'),
        ("qwen3_coder", "<think><tool_call><function=f></function></tool_call>"),
        ("mistral", "[THINK][TOOL_CALLS]f{}"),
        ("deepseek", ds("<think><|tool_calls_begin|>")),
        ("harmony", "<|channel|>final<|message|>to=functions.f"),
    ],
)
def test_what_is_only_said_or_thought_is_no_call(family: str, text: str) -> None:
    assert FAMILIES[family].parse(text).calls == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_thinking_and_answer_are_told_apart(family: str) -> None:
    thought = {
        "harmony": "<|channel|>analysis<|message|>\\boxed{1}<|end|><|start|>assistant<|channel|>final<|message|>",
        "mistral": "[THINK]\\boxed{1}[/THINK]",
        "gemma": "<|channel>thought\n\\boxed{1}<channel|>",
        "llama": "",
    }.get(family, "<think>\\boxed{1}</think>")
    turn = FAMILIES[family].parse(f"{thought}It is \\boxed{{2}}.")
    assert (turn.thinking, turn.answer, turn.content) == ("\\boxed{1}" if thought else "", "2", "It is \\boxed{2}.")


@pytest.mark.parametrize("name", MODELS)
def test_the_family_is_found_in_the_chat_template(name: str) -> None:
    found = family_of(str(tokenizer_of(name).chat_template))
    assert found is not None
    assert found.name == MODELS[name].family


def test_values_nested_too_deep_are_refused_in_every_format() -> None:
    deep = "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)
    turns = {
        "hermes": f'<tool_call>{{"name": "f", "arguments": {{"a": {deep}}}}}</tool_call>',
        "qwen3_coder": f"<function=f><parameter=a>{deep}</parameter></function>",
        "llama": f"[f(a={deep})]",
        "mistral": f'[TOOL_CALLS]f[ARGS]{{"a": {deep}}}',
        "gemma": f"<start_function_call>call:f{{a:{deep}}}<end_function_call>",
        "deepseek": ds(f'<|tool_calls_begin|><|tool_call_begin|>f<|tool_sep|>{{"a": {deep}}}<|tool_call_end|>'),
        "harmony": f' to=functions.f<|message|>{{"a": {deep}}}',
    }
    assert turns.keys() == FAMILIES.keys()
    for family, text in turns.items():
        (call,) = FAMILIES[family].parse(text).calls
        assert isinstance(call, MalformedCall)
        assert "nested deeper" in call.problem


PARSERS: dict[str, Any] = {name: family.parse for name, family in FAMILIES.items()} | {"research": parse_search_turn}
CALLS = [
    ToolCall("get_age", {"name": 'Zo\u00eb "x" \\', "n": [1, 2.5, {"k": None}], "yes": True}),
    ToolCall("add", {"a": -1, "b": 2}),
]


def seeds_of() -> list[tuple[str, str]]:
    """Turns in every format, as the templates write them, with what they say before and the tests' own."""
    found = [(family, text) for family, text, _ in GOOD]
    found.append(("research", "<think>x</think> <search> who was Ada? </search>"))
    for name, model in MODELS.items():
        renderer = NativeRenderer(tokenizer_of(name))
        calls = CALLS if model.parallel else CALLS[:1]
        found.append((model.family, renderer.decode(renderer.call_turn(calls, "I look it up."))))
    return found


SEEDS = seeds_of()
PIECES = sorted(
    {text for model in MODELS.values() for text in (*model.special, *model.added)}
    | {"{", "}", "[", "]", '"', "'", ":", ",", "\\", "\\u", "\ud800", "\0", "(", ")", "=", ";", "\n", "9" * 5000}
    | {"1e999", "NaN", "<function=", "<parameter=", "</parameter>", "</function>", "call:", "to=", "[" * 200, "```"}
)


def mutated(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """`count` broken turns, each with a family: one to four changes of a right one."""
    chance = random.Random(seed)
    for _ in range(count):
        family, text = chance.choice(SEEDS)
        for _ in range(chance.randint(1, 4)):
            at, to = sorted(chance.randint(0, len(text)) for _ in range(2))
            change = chance.randrange(5)
            if change == 0:  # cut a piece out
                text = text[:at] + text[min(to, at + 12) :]
            elif change == 1:  # cut the end off
                text = text[:to]
            elif change == 2:  # say a piece twice
                text = text[:to] + text[at:to] + text[to:]
            elif change == 3:  # put a piece in
                text = text[:at] + chance.choice(PIECES) + text[at:]
            else:  # put in a piece of another turn
                other = chance.choice(SEEDS)[1]
                text = text[:at] + other[chance.randint(0, len(other)) :] + text[at:]
        yield family, text


def parse_all(count: int, seed: int) -> tuple[int, int, float]:
    """Parse broken turns; how many calls were read, how many were malformed, and the seconds that the slowest took."""
    read, malformed, slowest = 0, 0, 0.0
    for family, text in mutated(count, seed):
        began = time.thread_time()
        turn: AssistantTurn = PARSERS[family](text)
        slowest = max(slowest, time.thread_time() - began)
        assert turn.text == text
        wrong = sum(isinstance(call, MalformedCall) for call in turn.calls)
        malformed += wrong
        read += len(turn.calls) - wrong
    return read, malformed, slowest


MUTATIONS = int(os.environ.get("RECALL_MUTATIONS", "10000"))
"""How many turns are broken; `make test-mutations` breaks a million."""


@pytest.mark.timeout(3600)
def test_mutated_turns_parse_without_an_exception_or_a_hang() -> None:
    began = time.perf_counter()
    read, malformed, slowest = parse_all(MUTATIONS, seed=1)
    seconds = time.perf_counter() - began
    print(f"{MUTATIONS:,} turns: {read:,} calls, {malformed:,} malformed; slowest {slowest:.4f} s; all {seconds:.0f} s")
    assert min(read, malformed) > MUTATIONS / 10
    assert slowest < 0.5


@pytest.mark.parametrize("piece", [*PIECES, "<tool_call></tool_call>", "<function=f>", "[f(", "call:f{a:", '{"a":'])
def test_a_flood_of_one_piece_costs_no_time_to_speak_of(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    for parse in PARSERS.values():
        began = time.thread_time()
        for start in ("", "<tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "<start_function_call>call:f{a:", "[f(a="):
            parse(start + text)
        assert time.thread_time() - began < 5
