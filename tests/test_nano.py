"""What nano is made of: a corpus that gives no task away, a tokenizer that loses nothing, a training that can stop."""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from recall.cli.nano import Pretrain  # noqa: E402
from recall.errors import ConfigError  # noqa: E402
from recall.nano.corpus import (  # noqa: E402
    NAMED_WEIGHT,
    Dialogue,
    Document,
    copy,
    encode_dialogue,
    recall,
    several,
    single_call,
    walk,
)
from recall.nano.pretrain import Corpus, PretrainSettings, nano_model, pretrain, rate  # noqa: E402
from recall.nano.pretrain import nano_tokenizer as nano_tokenizer_of_now  # noqa: E402
from recall.nano.tokenizer import CONTROL, GLUE  # noqa: E402
from recall.renderer import ChatMLRenderer  # noqa: E402
from recall.synth.tasks import TABLED  # noqa: E402
from recall.synth.vocabulary import NAMING_STYLES, OPERATORS, QUESTIONS, SYLLABLES  # noqa: E402
from recall.synth.world import draw_name, held_out  # noqa: E402
from recall.tools.results import show  # noqa: E402
from recall.types import Message, ToolCall  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = {word.word for word in (*TABLED, *OPERATORS)}
NAME = re.compile(rf"\b(?:{'|'.join(s.capitalize() for s in SYLLABLES)})(?:{'|'.join(SYLLABLES)}){{1,2}}\b")


@cache
def walks() -> tuple[Dialogue, ...]:
    rng = random.Random("walks")
    return tuple(walk(rng) for _ in range(2000))


@cache
def singles() -> tuple[Dialogue, ...]:
    rng = random.Random("singles")
    return tuple(single_call(rng) for _ in range(1000))


@cache
def lists() -> tuple[Dialogue, ...]:
    rng = random.Random("lists")
    return tuple(several(rng) for _ in range(500))


def word_of(name: str) -> str:
    """The word that a tool of this name computes."""
    return max((word for word in WORDS if word in name.lower()), key=len)


def called(dialogue: Dialogue) -> list[str]:
    return [word_of(call.name) for calls, _ in dialogue.turns for call in calls]


def inner(value: Any) -> Any:
    """The value in what a tool returned: bare, or alone under its key."""
    if isinstance(value, dict):
        (value,) = value.values()
    return value


# The corpus --------------------------------------------------------------------------------------------------------


def test_no_walk_can_do_what_its_question_asks() -> None:
    for dialogue in walks():
        assert len(set(dialogue.asked)) >= 2
        assert set(dialogue.asked) - {word_of(tool.name) for tool in dialogue.tools}


def test_no_walk_makes_the_calls_of_its_question_in_passing() -> None:
    for dialogue in walks():
        calls = iter(called(dialogue))
        assert not all(word in calls for word in dialogue.asked)


def test_a_walk_calls_what_fits_and_what_the_question_names_a_little_less_often() -> None:
    """Where the second call goes on from the first one's result: how often a tool is called that the question names,
    beside how often it would be by the weights of the tools that fit.
    """
    by_word = {word.word: word for word in TABLED}
    seen, expected, variance = 0, 0.0, 0.0
    for dialogue in walks():
        first, second = called(dialogue)[:2]
        (_, result), other = [pair for turn in dialogue.turns for pair in zip(*turn, strict=True)][:2]
        if str(inner(result)) not in map(str, other[0].arguments.values()) or second not in by_word:
            continue
        shown = {word_of(tool.name) for tool in dialogue.tools} - {first}
        fitting = [word for word in shown if word in by_word and by_word[word].domain == by_word[second].domain]
        named = NAMED_WEIGHT * sum(word in dialogue.asked for word in fitting)
        share = named / (named + sum(word not in dialogue.asked for word in fitting))
        seen += second in dialogue.asked
        expected, variance = expected + share, variance + share * (1 - share)
    assert expected > 50
    assert abs(seen - expected) < 4 * variance**0.5


def test_walks_make_two_to_seven_calls_that_all_come_to_something() -> None:
    assert {len(called(dialogue)) for dialogue in walks()} == {2, 3, 4, 5, 6, 7}
    for dialogue in walks():
        assert called(dialogue) == list(dict.fromkeys(called(dialogue)))
        assert dialogue.answer == str(inner(dialogue.turns[-1][1][-1]))


def test_every_argument_of_a_walk_was_said_before_its_turn() -> None:
    for dialogue in walks():
        known = set(NAME.findall(dialogue.question))
        for calls, results in dialogue.turns:
            assert all(str(value) in known for call in calls for value in call.arguments.values())
            known |= {str(inner(result)) for result in results}


def test_a_document_of_single_calls_answers_each_question_by_one_call_and_with_nothing_from_another() -> None:
    for dialogue in singles():
        said: set[str] = set()
        for part in (dialogue, *dialogue.more):
            ((calls, (result,)),) = part.turns
            (call,) = calls
            assert part.tools == dialogue.tools
            assert part.asked == (word_of(call.name),)
            assert part.answer == str(inner(result))
            assert all(str(value) in part.question for value in call.arguments.values())
            assert not said & {value for value in call.arguments.values() if isinstance(value, str)}
            said.add(part.answer)


def test_several_things_asked_for_are_found_by_a_call_each_on_a_name_of_the_question() -> None:
    for dialogue in lists():
        calls = [call for calls, _ in dialogue.turns for call in calls]
        found = [str(inner(result)) for _, results in dialogue.turns for result in results]
        assert tuple(word_of(call.name) for call in calls) == dialogue.asked
        assert len(set(dialogue.asked)) == len(calls) >= 2
        assert dialogue.answer == ", ".join(found)
        values = [value for call in calls for value in call.arguments.values()]
        assert all(NAME.fullmatch(value) and value in dialogue.question for value in values)
        assert not set(values) & set(found)
    assert {len(dialogue.turns) for dialogue in lists()} == {1, 2, 3, 4, 5}


def test_what_is_asked_of_one_name_is_found_from_the_name_outwards() -> None:
    seen = set()
    for dialogue in lists():
        names = NAME.findall(dialogue.question)
        if len(names) > 1:
            continue
        in_order = [word_of(word) for word in re.findall(r"[a-z]+", dialogue.question) if word in WORDS]
        possessive = "'s" in dialogue.question
        assert dialogue.asked == tuple(in_order if possessive else reversed(in_order))
        seen.add((possessive, len(in_order)))
    assert seen == {(possessive, count) for possessive in (True, False) for count in (2, 3, 4, 5)}


def test_no_name_of_the_corpus_is_held_out() -> None:
    for dialogue in (*walks(), *singles(), *lists()):
        for part in (dialogue, *dialogue.more):
            values = [value for calls, _ in part.turns for call in calls for value in call.arguments.values()]
            results = [inner(result) for _, each in part.turns for result in each]
            text = " ".join([part.question, part.answer, *map(str, values), *map(str, results)])
            assert NAME.findall(text) or part.asked[0] in {word.word for word in OPERATORS}
            assert not any(held_out(name) for name in NAME.findall(text))


def test_no_tool_of_the_corpus_is_of_a_held_out_style() -> None:
    for dialogue in (*walks(), *singles(), *lists()):
        for tool in dialogue.tools:
            word = word_of(tool.name)
            style = tool.name.replace(word, "{word}")
            assert not held_out("tool", style, *tool.parameters["properties"])


def spans(document: Document) -> Iterator[tuple[bool, list[int]]]:
    """Runs of tokens that are learned, or not."""
    run: list[int] = []
    for index, token in enumerate(document.token_ids):
        if run and document.mask[index] != document.mask[index - 1]:
            yield document.mask[index - 1], run
            run = []
        run.append(token)
    yield document.mask[-1], run


def test_masks_cover_exactly_what_the_assistant_writes(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    renderer = ChatMLRenderer(nano_tokenizer)
    for dialogue in (*walks()[:40], *singles()[:40], *lists()[:40]):
        document = encode_dialogue(dialogue, "any", renderer, nano_tokenizer)
        turns = [renderer.parse(run) for learned, run in spans(document) if learned]
        expected: list[tuple[tuple[ToolCall, ...], str | None]] = []
        reading = iter(
            renderer.decode(run).removesuffix("<|im_start|>assistant\n")
            for learned, run in spans(document)
            if not learned
        )
        assert next(reading).endswith(f"<|im_start|>user\n{dialogue.question}<|im_end|>\n")
        for number, part in enumerate((dialogue, *dialogue.more)):
            if number:
                assert next(reading) == f"\n<|im_start|>user\n{part.question}<|im_end|>\n"
            for calls, results in part.turns:
                expected.append((calls, None))
                shown = [show(result, 10_000) for result in results]
                assert next(reading) == renderer.decode(
                    renderer.reply([Message("tool", text) for text in shown])
                ).removesuffix("<|im_start|>assistant\n")
            expected.append(((), part.answer))
        assert [(turn.calls, turn.answer) for turn in turns] == expected
        assert next(reading, None) is None
        stop = nano_tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert all(run[-1] == stop and run.count(stop) == 1 for learned, run in spans(document) if learned)


def test_what_is_copied_and_looked_up_is_there_to_be_read() -> None:
    rng = random.Random(0)
    for number in range(400):
        document = copy(rng, 500, (501, 502, 503), plain=number < 100)
        (separator,) = {501, 502} & set(document.token_ids)
        start = document.token_ids.index(separator)
        read = [token for token, own in zip(document.token_ids, document.mask, strict=True) if own]
        places = [document.token_ids.index(token) for token in read]
        assert places == sorted(places, reverse=separator == 502)
        assert len({after - before for before, after in pairwise(places)}) == 1
        assert not any(document.mask[: start + 1])
        if number < 100:
            assert sorted(places) == list(range(start))
            assert all(document.mask[start + 1 :])
        document = recall(rng, 500, (501, 502, 503, 504))
        learned = [index for index, own in enumerate(document.mask) if own]
        start = learned[0] - 1
        for index in learned:
            key, value = document.token_ids[index - 1 : index + 1]
            pairs = document.token_ids[: start - 1]
            near = [
                {pairs[at + step] for step in (-2, -1, 1, 4) if 0 <= at + step < len(pairs)}
                for at, token in enumerate(pairs)
                if token == key
            ]
            assert any(value in each for each in near)


def test_batches_are_a_function_of_seed_and_step(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    small = PretrainSettings(circuit_steps=2, dialogue_steps=8, circuit_tokens=512, dialogue_tokens=512)
    corpus = Corpus(small, nano_tokenizer)
    assert list(corpus.batches(0, 4))[2:] == list(corpus.batches(2, 4))
    kinds = [{document.kind for document in batch} for _, batch in corpus.batches(0, 10)]
    assert [each <= {"copy", "recall"} for each in kinds] == [True, True, *[False] * 6, True, False]
    other = Corpus(small.model_copy(update={"seed": 1}), nano_tokenizer)
    assert list(other.batches(2, 3)) != list(corpus.batches(2, 3))


# The tokenizer -----------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]))
    | st.lists(st.sampled_from((*CONTROL, *GLUE, "a", " 7"))).map("".join)
)
@example(text=" \t\r\n  x\u00a0\u2028🂡e\u0301 \x00")
def test_any_text_decodes_to_itself(nano_tokenizer: "PreTrainedTokenizerFast", text: str) -> None:
    assert nano_tokenizer.decode(nano_tokenizer.encode(text)) == text


def test_a_digit_is_a_token(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    for text in ("7", "1024", " 88", "9a9"):
        tokens = nano_tokenizer.convert_ids_to_tokens(nano_tokenizer.encode(text))
        assert [token for token in tokens if any(character.isdigit() for character in token)] == re.findall(r"\d", text)


def test_a_name_is_spelled_in_syllables_held_out_or_not(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    rng = random.Random(0)
    for number in range(200):
        name = draw_name(rng, from_held_out=bool(number % 2))
        ids = nano_tokenizer.encode(f"{name}?")
        assert len(ids) == len(name) // 2 + 1
        assert [str(nano_tokenizer.decode([token])).lower() for token in ids[:-1]] == re.findall("..", name.lower())


def test_a_word_is_the_same_token_in_a_question_and_in_the_name_of_a_tool(
    nano_tokenizer: "PreTrainedTokenizerFast",
) -> None:
    for word in (*TABLED, *OPERATORS):
        (token,) = nano_tokenizer.encode(word.word)
        texts = [style.format(word=word.word) for style in NAMING_STYLES]
        texts += [question.format(noun=f"the {word.word} of Zoli") for question in QUESTIONS]
        texts += [f"Find Zoli's {word.word}'s age.", f"Find the age of the {word.word} of Zoli."]
        assert [text for text in texts if token not in nano_tokenizer.encode(text)] == []


def test_the_command_has_the_defaults_of_the_recipe() -> None:
    ours, theirs = Pretrain.model_fields, PretrainSettings.model_fields
    shared = ours.keys() & theirs.keys() - {"out"}
    assert shared >= {"seed", "circuit_steps", "dialogue_steps"}
    assert {name: ours[name].default for name in shared} == {name: theirs[name].default for name in shared}


def test_tags_are_single_special_tokens(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    added = nano_tokenizer.backend_tokenizer.get_added_tokens_decoder()
    for tag in CONTROL:
        (token,) = nano_tokenizer.encode(tag)
        assert added[token].special
    for piece in GLUE:
        assert len(nano_tokenizer.encode(piece)) == 1


def test_the_vocabulary_is_the_model_s(nano_tokenizer: "PreTrainedTokenizerFast") -> None:
    assert sorted(nano_tokenizer.get_vocab().values()) == list(range(len(nano_tokenizer)))
    small = PretrainSettings(layers=1, hidden=32, feed_forward=32)
    model = nano_model(small, len(nano_tokenizer), nano_tokenizer.pad_token_id, nano_tokenizer.eos_token_id)
    assert model.get_input_embeddings().weight.shape == (len(nano_tokenizer), 32)
    assert model.config.vocab_size == len(nano_tokenizer) <= 800


def test_a_saved_tokenizer_is_the_same(nano_tokenizer: "PreTrainedTokenizerFast", tmp_path: Path) -> None:
    from recall.policy.torch.loading import load_tokenizer

    nano_tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    text = json.dumps([dialogue.question for dialogue in walks()[:20]]) + "".join(CONTROL)
    assert again.encode(text) == nano_tokenizer.encode(text)
    assert again.chat_template == nano_tokenizer.chat_template


# Pretraining -------------------------------------------------------------------------------------------------------


def tiny(out: Path, **changes: Any) -> PretrainSettings:
    made = PretrainSettings(
        out=out, layers=1, hidden=32, feed_forward=32, circuit_steps=2, dialogue_steps=4, circuit_every=2,
        circuit_tokens=512, dialogue_tokens=512, device="cpu", save_every=3,
    )  # fmt: skip
    return made.model_copy(update=changes)


def test_a_resumed_pretraining_equals_one_in_one_go_bit_for_bit(tmp_path: Path) -> None:
    whole = pretrain(tiny(tmp_path / "whole"))
    # A directory in the place of the model's makes the run fail once its state of step 3 is written.
    blocked = tmp_path / "parts" / "config.json"
    blocked.mkdir(parents=True)
    with pytest.raises(OSError, match=r"config\.json"):
        pretrain(tiny(tmp_path / "parts"))
    assert torch.load(tmp_path / "parts" / "training_state.pt", weights_only=True)["step"] == 3
    blocked.rmdir()
    parts = pretrain(tiny(tmp_path / "parts"), resume=True)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    states = [torch.load(path / "training_state.pt", weights_only=True) for path in (whole, parts)]
    for state in states:
        del state["seconds"]
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)
    assert not list(parts.glob(".*"))


def test_pretraining_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    pretrain(tiny(tmp_path, circuit_steps=0, dialogue_steps=40), report=lines.append)
    losses = [float(match) for line in lines for match in re.findall(r"dialogue ([\d.]+)", line)]
    assert len(lines) == 2
    assert losses[1] < losses[0] < 7
    assert capsys.readouterr().out == ""


def test_pretraining_neither_overwrites_nor_resumes_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training state to resume"):
        pretrain(tiny(tmp_path / "none"), resume=True)
    (tmp_path / "training_state.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="go on with --resume"):
        pretrain(tiny(tmp_path))


def test_both_rates_warm_up_hold_and_fall_to_a_twentieth() -> None:
    plan = PretrainSettings(circuit_steps=100, dialogue_steps=400, decay_share=0.5)
    rates = [rate(step, plan) for step in range(500)]
    assert rates[0] == pytest.approx(1 / 50)
    assert set(rates[49:301]) == {1.0}
    assert rates[400] == pytest.approx(0.5)
    assert rates[499] == 0.05


# The weights that come with the package -----------------------------------------------------------------------------


def test_the_weights_in_the_package_pass_the_gate() -> None:
    from recall.nano.gate import THRESHOLD, slot_accuracy
    from recall.policy.torch.loading import load_model, load_tokenizer, resolve

    path = resolve("nano")
    tokenizer = load_tokenizer(path)
    model = load_model(path, device=torch.device("cpu"), dtype=torch.float32)
    slots = slot_accuracy(model, tokenizer, ChatMLRenderer(tokenizer), tasks=100)
    names = {"function", "parameter", "value", "answer", "format"}
    assert set(slots) == names | {f"operator {name}" for name in names}
    assert {slot: rate for slot, rate in slots.items() if rate < THRESHOLD} == {}


def test_the_weights_in_the_package_are_small_and_of_the_package_s_tokenizer() -> None:
    from recall.policy.torch.loading import load_tokenizer, resolve

    path = resolve("nano")
    assert sum(file.stat().st_size for file in path.iterdir()) <= 10_000_000
    assert load_tokenizer(path).get_vocab() == nano_tokenizer_of_now().get_vocab()
