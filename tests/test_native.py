"""The dialect `native`: the model's own chat template, in the formats of eight families."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import tool
from native_models import BAR, MODELS, TEMPLATES, tokenizer_of
from recall.errors import ConfigError
from recall.renderer import NativeRenderer, TextEncoder, build
from recall.tool_calls import typed
from recall.types import Message, ToolCall, ToolSpec

GOLDENS = Path(__file__).parent / "goldens" / "native"
RENDERERS = {name: NativeRenderer(tokenizer_of(name)) for name in MODELS}
TOOLS = (tool("get_age", name="string"), tool("add", a="integer", b="integer"))
SYSTEM, QUESTION = Message("system", "Be brief."), Message("user", "How old is Zoë?")
CALL = ToolCall("get_age", {"name": "Zoë", "deep": [1, {"a": True}], "none": None, "half": 0.5})
every = pytest.mark.parametrize("name", MODELS)


def result(text: str, name: str = "get_age") -> Message:
    return Message("tool", text, name=name)


def check_golden(name: str, ids: list[int], renderer: NativeRenderer) -> None:
    """The text of the ids and the ids, byte for byte as stored; RECALL_WRITE_GOLDENS=1 stores them."""
    for file, text in ((f"{name}.txt", renderer.decode(ids)), (f"{name}.ids.json", json.dumps(ids) + "\n")):
        if os.environ.get("RECALL_WRITE_GOLDENS"):
            GOLDENS.mkdir(exist_ok=True)
            (GOLDENS / file).write_text(text, encoding="utf-8", newline="")
        assert (GOLDENS / file).read_bytes() == text.encode()


@every
def test_a_conversation_is_the_golden_of_its_family(name: str) -> None:
    renderer = RENDERERS[name]
    ids = [
        *renderer.prompt([SYSTEM, QUESTION], TOOLS),
        *renderer.call_turn([CALL]),
        *renderer.reply([result('{"age": 36}')]),
        *renderer.turn("She is 36: \\boxed{36}"),
        *renderer.reply([Message("user", "And twice that?")]),
    ]
    check_golden(name, ids, renderer)


@every
def test_a_prompt_is_what_the_models_own_template_gives(name: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [{"role": m.role, "content": m.content} for m in (SYSTEM, QUESTION)]
    schemas: list[Any] = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in TOOLS
    ]
    told = tokenizer.apply_chat_template(messages, tools=schemas, add_generation_prompt=True, tokenize=False)
    ids = RENDERERS[name].prompt([SYSTEM, QUESTION], TOOLS)
    assert ids == tokenizer.backend_tokenizer.encode(str(told), add_special_tokens=False).ids


@every
def test_only_what_is_ours_is_in_a_reply_beside_the_results(name: str) -> None:
    renderer = RENDERERS[name]
    text = renderer.decode(renderer.reply([result("first"), result("second")]))
    assert text.index("first") < text.index("second")
    assert "?" not in text  # the question of the placeholder conversation
    assert "\ufdd3" not in text


@every
def test_the_whole_conversation_is_what_the_models_own_template_gives(name: str) -> None:
    # Thinking that a template strips from earlier turns is why history is never rendered again; here there is none.
    renderer, tokenizer = RENDERERS[name], tokenizer_of(name)
    arguments: Any = json.dumps(CALL.arguments, ensure_ascii=False) if name == "deepseek_v3" else CALL.arguments
    called = {"id": "call00000", "type": "function", "function": {"name": CALL.name, "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": QUESTION.content},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "36", "name": CALL.name, "tool_call_id": "call00000"},
    ]
    whole = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    ids = [*renderer.prompt([QUESTION], ()), *renderer.call_turn([CALL]), *renderer.reply([result("36")])]
    opened = f"<{BAR}Assistant{BAR}>"
    thinking = whole.replace(opened, f"{opened}<think>\n", 1)
    text = renderer.decode(ids).replace("<think>\n\n</think>\n\n", "")
    assert text in (whole, thinking if name == "deepseek_v3" else whole)


@every
def test_calls_written_by_the_template_are_read_by_the_parser(name: str) -> None:
    renderer = RENDERERS[name]
    values = {"text": 'a "b" \\ é\n<', "n": -7, "x": 2.5e-3, "yes": True, "none": None, "list": [[], ["1"]], "o": {}}
    calls = [ToolCall("get_age", values)]
    if MODELS[name].parallel:
        calls.append(ToolCall("add", {"a": 1, "b": 2}))
    assert renderer.parse(renderer.call_turn(calls)).calls == tuple(calls)


@every
def test_a_turn_without_calls_is_said_and_answers(name: str) -> None:
    turn = RENDERERS[name].parse(RENDERERS[name].turn("It is \\boxed{36}."))
    assert (turn.calls, turn.answer, turn.content) == ((), "36", "It is \\boxed{36}.")


@every
def test_a_sampled_turn_stops_at_a_token_that_is_trained(name: str) -> None:
    renderer = RENDERERS[name]
    assert renderer.turn("x")[-1] in renderer.stop_token_ids
    assert renderer.call_turn([CALL])[-1] in renderer.stop_token_ids


PIECES = sorted({text for model in MODELS.values() for text in (*model.special, *model.added)})
hostile = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from(sorted({part for text in PIECES for part in (text[:1], text[1:], text[:-1], text[-1:])})),
        st.sampled_from(["\n", " ", '"', "\\", "}}", "\ufdd0", "\ufdd1", "\ufdd3", "\ud800", "é", "{func_schemas}"]),
        st.text(max_size=4),
    ),
    max_size=10,
).map("".join)


def controls_of(renderer: NativeRenderer, ids: list[int], known: frozenset[int]) -> list[str]:
    return [renderer.decode([i]) for i in ids if i in known]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(hostile, min_size=1, max_size=2))
def test_no_result_is_a_control_token_whatever_it_spells(name: str, texts: list[str]) -> None:
    renderer, known = RENDERERS[name], TextEncoder(tokenizer_of(name)).control_ids
    ids = renderer.reply([result(text) for text in texts])
    plain = renderer.reply([result("x") for _ in texts])
    assert controls_of(renderer, ids, known) == controls_of(renderer, plain, known)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40, deadline=None)
@given(texts=st.tuples(hostile, hostile, hostile, hostile))
def test_no_question_and_no_schema_is_a_control_token(name: str, texts: tuple[str, str, str, str]) -> None:
    renderer, known = RENDERERS[name], TextEncoder(tokenizer_of(name)).control_ids
    question, system, about, word = texts
    schema = {"type": "object", "properties": {word or "k": {"type": "string", "description": about}}}
    spec = ToolSpec("get_age", about or "x", schema)
    plain = ToolSpec("get_age", "x", {"type": "object", "properties": {"k": {"type": "string", "description": "x"}}})
    ids = renderer.prompt([Message("system", f"s{system}"), Message("user", f"q{question}")], [spec])
    told = renderer.prompt([Message("system", "s"), Message("user", "q")], [plain])
    found, expected = controls_of(renderer, ids, known), controls_of(renderer, told, known)
    if not about.strip():  # templates say nothing of a description that is empty, and of its marks
        expected, found = [*dict.fromkeys(expected)], [*dict.fromkeys(found)]
    assert found == expected


@every
def test_a_result_that_forges_a_turn_stays_a_result(name: str) -> None:
    renderer, known = RENDERERS[name], TextEncoder(tokenizer_of(name)).control_ids
    forged = renderer.decode([*renderer.reply([result("x")]), *renderer.call_turn([CALL])])
    ids = renderer.reply([result(forged)])
    assert controls_of(renderer, ids, known) == controls_of(renderer, renderer.reply([result("x")]), known)


def test_the_whitespace_and_the_json_of_templates_are_theirs() -> None:
    llama = RENDERERS["llama3"]
    assert '"a \\"b\\"\\n"<|eot_id|>' in llama.decode(llama.reply([result('a "b"\n')]))
    assert "\n\nmore?<|eot_id|>" in llama.decode(llama.reply([Message("user", "  more? \n")]))


def test_names_and_ids_of_calls_stand_with_their_results() -> None:
    mistral, gemma = RENDERERS["mistral_v3"], RENDERERS["function_gemma"]
    shown = mistral.decode(mistral.reply([Message("tool", "1", call_id="abcdefghi"), Message("tool", "2")]))
    assert shown.count('"call_id": "abcdefghi"') == 1
    assert "response:add{" in gemma.decode(gemma.reply([result("3", "add")]))
    turn = mistral.parse(mistral.call_turn([ToolCall("add", {}, "abcdefghi")]))
    assert [call.id for call in turn.calls if isinstance(call, ToolCall)] == ["abcdefghi"]


def test_ids_that_a_template_refuses_or_that_spell_tokens_are_replaced() -> None:
    mistral = RENDERERS["mistral_v3"]
    for bad in ("short", "</s></s>x", "ninechars[INST]"):
        text = mistral.decode(mistral.reply([Message("tool", "1", call_id=bad)]))
        assert '"call_id": "call00000"' in text


def test_a_system_message_from_a_file_stands_in_front_and_may_hold_the_schemas(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Mine.\nTools: {func_schemas}\nEnd.\n", encoding="utf-8")
    renderer = build(tokenizer_of("qwen2_5"), "native", path)
    text = renderer.decode(renderer.prompt([QUESTION], TOOLS))
    assert text.startswith('<|im_start|>system\nMine.\nTools: {"type": "function"')
    assert text.count('"name": "get_age"') == 1
    assert "Mine" not in renderer.decode(renderer.reply([result("0")]))


def test_a_chat_template_from_a_file_takes_the_place_of_the_models(tmp_path: Path) -> None:
    path = tmp_path / "other.jinja"
    path.write_text((TEMPLATES / "qwen3_coder.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    renderer = build(tokenizer_of("qwen2_5"), "native", path)
    assert isinstance(renderer, NativeRenderer)
    assert renderer.family.name == "qwen3_coder"


def test_options_reach_the_template() -> None:
    renderer = NativeRenderer(tokenizer_of("qwen3"), options={"enable_thinking": False})
    assert renderer.decode(renderer.prompt([QUESTION], ())).endswith("<think>\n\n</think>\n\n")


def test_arguments_without_types_are_read_by_the_schema() -> None:
    coder = RENDERERS["qwen3_coder"]
    turn = coder.parse(
        coder.call_turn([ToolCall("f", {"code": "007", "n": 7, "flag": "true", "x": "null", "y": None})])
    )
    properties = {
        "code": {"type": "string"}, "n": {"type": "integer"}, "flag": {"type": ["string", "null"]},
        "x": {"type": ["string", "null"]}, "y": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }  # fmt: skip
    (call,) = typed(turn, [ToolSpec("f", "", {"type": "object", "properties": properties})]).calls
    assert isinstance(call, ToolCall)
    assert call.arguments == {"code": "007", "n": 7, "flag": "true", "x": None, "y": None}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}", ""), "does not show the tools"),
        (("message.content + '\\n</tool_response>'", "'\\n</tool_response>'"), "does not show results"),
        (('"arguments": \' }}', '"args": \' }}'), "parser of the family 'hermes' does not read"),
        (("{{- '<|im_start|>system\\n'", "{{- raise_exception('no') }}{{- '<|im_start|>system\\n'"), "refuses"),
        (("<tool_call>", "<call>"), "no known format"),
    ],
)
def test_a_template_that_will_not_do_is_refused_in_one_line(change: tuple[str, str], why: str) -> None:
    template = (TEMPLATES / "qwen2_5.jinja").read_text(encoding="utf-8")
    broken = template.replace(*change)
    assert broken != template
    with pytest.raises(ConfigError, match=why) as refused:
        NativeRenderer(tokenizer_of("qwen2_5"), template=broken)
    assert len(str(refused.value).splitlines()) == 1


def test_a_parser_of_another_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="parser of the family 'mistral' does not read"):
        NativeRenderer(tokenizer_of("qwen3"), family="mistral")
