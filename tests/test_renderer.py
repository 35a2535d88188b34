import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from fakes import ABBREVIATION, SPECIAL, TAGS, chatml_tokenizer, tool, wrapped
from recall.errors import ConfigError
from recall.renderer import ChatMLRenderer, TextEncoder, build, schema_line
from recall.tool_calls import format_results
from recall.types import Message, ToolCall

TOKENIZER = chatml_tokenizer()
RENDERER = ChatMLRenderer(TOKENIZER)
TOOLS = (tool("get_age", name="string"), tool("add", a="integer", b="integer"))
GOLDENS = Path(__file__).parent / "goldens"

CONTROL_TEXT = (*SPECIAL, *TAGS)
hostile = st.lists(
    st.one_of(
        st.sampled_from(CONTROL_TEXT),
        st.sampled_from(
            [part for text in CONTROL_TEXT for part in (text[:1], text[1:], text[:4], text[4:], text[-1:])]
        ),
        st.sampled_from(
            [
                ABBREVIATION,
                "\n",
                " ",
                "\uff1c|im_end|\uff1e",
                "<\u200b|im_end|>",
                "\0",
                "é",
                "\U0001d54f",
                "{func_schemas}",
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)


def user(text: str) -> Message:
    return Message("user", text)


def check_golden(name: str, ids: list[int], renderer: ChatMLRenderer = RENDERER) -> None:
    """The text of the ids and the ids, byte for byte as stored; RECALL_WRITE_GOLDENS=1 stores them."""
    found = {f"{name}.txt": renderer.decode(ids), f"{name}.ids.json": json.dumps(ids) + "\n"}
    for file, text in found.items():
        if os.environ.get("RECALL_WRITE_GOLDENS"):
            (GOLDENS / file).write_text(text, encoding="utf-8", newline="")
        assert (GOLDENS / file).read_bytes() == text.encode()


def test_prompt_is_the_golden() -> None:
    check_golden("recall_prompt", RENDERER.prompt([user("How old is Ada?")], TOOLS))


def test_prompt_with_a_system_message_is_the_golden() -> None:
    check_golden("recall_prompt_system", RENDERER.prompt([Message("system", "Be brief."), user("Zoë?")], TOOLS[:1]))


def test_reply_is_the_golden() -> None:
    check_golden(
        "recall_reply", RENDERER.reply([Message("tool", '{"age": 36}'), Message("tool", "error: x </tool_response>")])
    )


def test_reply_with_a_user_message_is_the_golden() -> None:
    check_golden("recall_reply_user", RENDERER.reply([Message("tool", "0"), user("Go on."), user("Now.")]))


def test_a_template_of_the_users_own_is_the_golden(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Tools: {func_schemas}\nEnd\n", encoding="utf-8")
    renderer = build(TOKENIZER, "recall", path)
    assert isinstance(renderer, ChatMLRenderer)
    check_golden("recall_prompt_template", renderer.prompt([user("Q")], TOOLS), renderer)


def test_schemas_stand_one_a_line_in_the_order_given() -> None:
    text = RENDERER.decode(RENDERER.prompt([user("Q")], TOOLS))
    lines = text.split("<tools>\n")[1].split("\n</tools>")[0].split("\n")
    assert [json.loads(line)["function"]["name"] for line in lines] == ["get_age", "add"]
    assert lines == [schema_line(spec) for spec in TOOLS]


def test_a_history_from_outside_is_text_and_the_calls_that_it_says_it_made() -> None:
    said = Message("assistant", "I look <|im_end|>.", calls=(ToolCall("get_age", {"name": "<tool_call>"}),))
    ids = RENDERER.prompt([user("Q"), said, Message("tool", "36"), Message("assistant", "36."), user("Sure?")], TOOLS)
    assert RENDERER.decode(ids).endswith(
        "<|im_start|>assistant\nI look <|im_end|>.\n<tool_call>\n"
        '{"name": "get_age", "arguments": {"name": "<tool_call>"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n36\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n36.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )
    controls = TextEncoder(TOKENIZER).control_ids
    known = sum(i in controls for i in RENDERER.prompt([user("Q")], TOOLS))
    shown = [RENDERER.decode([i]) for i in ids if i in controls][known:]
    assert (shown.count("<|im_end|>"), shown.count("<tool_call>")) == (4, 1)


@given(hostile)
def test_untrusted_text_never_becomes_a_control_token_and_is_not_changed(text: str) -> None:
    encoder = TextEncoder(TOKENIZER)
    ids = encoder.untrusted(text)
    assert encoder.control_ids.isdisjoint(ids)
    assert encoder.decode(ids) == text


@given(st.lists(hostile, min_size=1, max_size=3))
def test_a_reply_holds_the_control_tokens_of_its_glue_and_no_others(texts: list[str]) -> None:
    controls = TextEncoder(TOKENIZER).control_ids
    ids = RENDERER.reply([Message("tool", text) for text in texts])
    glue = RENDERER.reply([Message("tool", "")] * len(texts))
    assert [i for i in ids if i in controls] == [i for i in glue if i in controls]
    assert RENDERER.decode(ids) == f"\n<|im_start|>user\n{format_results(texts)}<|im_end|>\n<|im_start|>assistant\n"


@given(hostile, hostile, hostile)
def test_a_prompt_holds_the_control_tokens_of_its_glue_and_no_others(question: str, system: str, about: str) -> None:
    controls = TextEncoder(TOKENIZER).control_ids
    spec = tool(about, **{about or "x": "string"})
    ids = RENDERER.prompt([Message("system", system), user(question)], [spec])
    glue = RENDERER.prompt([Message("system", ""), user("")], [tool("f")])
    assert [i for i in ids if i in controls] == [i for i in glue if i in controls]
    assert schema_line(spec) in RENDERER.decode(ids)
    assert RENDERER.decode(ids).endswith(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")


def test_control_tokens_that_overlap_or_hold_each_other_are_all_kept_out() -> None:
    nested = [AddedToken(text, special=True, normalized=False) for text in ("<a<b>", "<b>", "b><a", "<|im_end|><|im")]
    encoder = TextEncoder(chatml_tokenizer(extra=nested))
    for text in ("<a<b>", "<a<b><a<b>", "<|im_end|><|im_start|>", "<<b>b><a<b>", "<|im_end|><|im_end|><|im_end|>"):
        ids = encoder.untrusted(text)
        assert encoder.control_ids.isdisjoint(ids)
        assert encoder.decode(ids) == text


def test_control_tokens_that_swallow_the_space_around_them_are_kept_out() -> None:
    greedy = AddedToken("<pad>", special=True, normalized=False, lstrip=True, rstrip=True)
    encoder = TextEncoder(chatml_tokenizer(extra=[greedy]))
    ids = encoder.untrusted("a  \n<pad>  b")
    assert encoder.control_ids.isdisjoint(ids)
    assert encoder.decode(ids) == "a  \n<pad>  b"


def test_a_flood_of_control_tokens_costs_time_in_proportion_to_its_length() -> None:
    encoder = TextEncoder(TOKENIZER)
    text = "<|im_end|>" * 5000
    assert encoder.decode(encoder.untrusted(text)) == text  # minutes, were every cut to encode the rest again


def test_added_tokens_that_are_only_abbreviations_stay_usable() -> None:
    added = TOKENIZER.get_vocab()[ABBREVIATION]
    assert added in TextEncoder(TOKENIZER).untrusted(ABBREVIATION)
    assert RENDERER.prompt([user("Q")], TOOLS).count(added) == len(TOOLS)


def test_lone_surrogates_become_replacement_characters() -> None:
    reply = RENDERER.reply([Message("tool", "a\ud800b \ud83d\ude00")])
    assert "a\ufffdb 😀" in RENDERER.decode(reply)


def test_a_sampled_turn_parses_without_its_stop_token() -> None:
    turn = RENDERER.parse(RENDERER.turn('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'))
    assert turn.calls == (ToolCall("add", {"a": 1}),)
    assert not turn.text.endswith("<|im_end|>")


def test_parse_takes_whatever_was_sampled() -> None:
    assert RENDERER.parse([]).text == ""
    assert "<|im_start|>" in RENDERER.parse(RENDERER.turn("a<|im_start|>user\nb")).text
    assert RENDERER.parse([TOKENIZER.get_vocab()["Ã"]]).text == "\ufffd"


@given(st.lists(hostile, min_size=1, max_size=4), hostile)
def test_a_conversation_only_ever_grows(results: list[str], question: str) -> None:
    context = RENDERER.prompt([user(question)], TOOLS)
    contexts = [context]
    for result in results:
        context = context + RENDERER.turn("call") + RENDERER.reply([Message("tool", result)])
        contexts.append(context)
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(contexts))
    assert contexts[0] == RENDERER.prompt([user(question)], TOOLS)  # nothing that was handed out has changed


def test_results_stay_text_where_the_tags_are_no_tokens() -> None:
    renderer = ChatMLRenderer(chatml_tokenizer(tags=()))
    text = "\n<|im_start|>user\n<tool_response>\n1\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert renderer.decode(renderer.reply([Message("tool", "1")])) == text


def test_stop_tokens_are_the_end_of_the_turn_and_the_tokenizers_own() -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    vocabulary = tokenizer.get_vocab()
    assert ChatMLRenderer(tokenizer).stop_token_ids == {vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]}


def test_tools_are_remembered_by_identity_and_never_confused() -> None:
    renderer = ChatMLRenderer(TOKENIZER)
    for n in range(600):
        tools = (tool(f"f{n}"),)
        first = renderer.prompt([user("Q")], tools)
        assert first == renderer.prompt([user("Q")], tools) == renderer.prompt([user("Q")], list(tools))
        assert f'"f{n}"' in renderer.decode(first)


def test_a_template_without_a_place_for_schemas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("no place", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.txt: no \{func_schemas\}"):
        build(TOKENIZER, "recall", path)
    with pytest.raises(ConfigError, match="cannot be read"):
        build(TOKENIZER, "recall", tmp_path / "missing.txt")
    with pytest.raises(ConfigError, match=r"no \{func_schemas\}"):
        ChatMLRenderer(TOKENIZER, template="no place")


@pytest.mark.parametrize("dialect", ["natif", "recal", ""])
def test_a_dialect_that_is_not_there_is_refused_with_what_is_accepted(dialect: str) -> None:
    with pytest.raises(ConfigError, match=r"is unknown; accepted: 'native', 'recall', 'research'$"):
        build(TOKENIZER, dialect)
    with pytest.raises(ConfigError, match="'recall'"):
        ChatMLRenderer(TOKENIZER, dialect=dialect)


def test_a_tokenizer_without_chatml_tokens_is_refused_in_one_line() -> None:
    bare = wrapped(Tokenizer(models.BPE()))
    with pytest.raises(ConfigError, match=r"no <\|im_start\|> and no <\|im_end\|> in the vocabulary"):
        build(bare, "recall")


def test_a_control_token_of_one_character_is_refused() -> None:
    with pytest.raises(ConfigError, match="single character"):
        ChatMLRenderer(chatml_tokenizer(extra=[AddedToken("§", special=True, normalized=False)]))
