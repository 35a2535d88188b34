"""The dialect `native`: the model's own chat template, in the formats of eight families."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fakes import tool
from native_models import MODELS, tokenizer_of
from recall.renderer import NativeRenderer
from recall.types import Message, ToolCall

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
