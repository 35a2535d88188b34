"""What nano must know before any reinforcement: single calls, slot by slot, over held-out names.

Teacher-forced: each token of a right dialogue is predicted from the right tokens before it. A base that misreads
schemas never earns a reward to learn from, so this is measured, not assumed.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from recall.nano.corpus import Dialogue, encode_dialogue, single_call
from recall.programs import run
from recall.renderer import Renderer
from recall.synth.tasks import ToolTasks, functions_of
from recall.types import Task, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

THRESHOLD = 0.95
"""Each slot must be right this often."""


def single_call_dialogue(task: Task) -> Dialogue:
    """The right dialogue of a task of one call."""
    (call,) = task.reference
    results = run(task.reference, functions_of(task.env))
    turn = ((ToolCall(call["name"], call["arguments"]),), (results[0],))
    return Dialogue(task.question, task.tools, (turn,), task.ground_truth[0], ())


def slots(token_ids: list[int], mask: list[bool], tokenizer: "PreTrainedTokenizerFast") -> Iterator[tuple[int, str]]:
    """The place and the slot of each token that the policy writes: function, parameter, value, answer or format."""
    slot = "format"
    opens = {'\n{"name": "': "function", '", "arguments": {"': "parameter", '": "': "value", '": ': "value",
             "\\boxed{": "answer"}  # fmt: skip
    closes = ('"}}\n', "}}\n", "}", "</tool_call>", "<|im_end|>")
    for place, (token, own) in enumerate(zip(token_ids, mask, strict=True)):
        if not own:
            slot = "format"
            continue
        text = tokenizer.decode([token])
        if text in opens or text in closes:
            yield place, "format"
            slot = opens.get(text, "format")
        else:
            yield place, slot


@torch.no_grad()
def slot_accuracy(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", renderer: Renderer, *, tasks: int = 200
) -> dict[str, float]:
    """Teacher-forced accuracy by slot, over held-out tasks of one call and as many calls of an operator.

    Tasks ask for relations and attributes only, and what operators call their parameters is a reading of its own: their
    slots are named `operator function` and so on.
    """
    rng = random.Random("gate/operators")
    dialogues = [("", single_call_dialogue(task)) for task in ToolTasks("1", split="held_out", seed=1).take(tasks)]
    dialogues += [("operator ", replace(single_call(rng, operator=True), more=())) for _ in range(tasks)]
    right: dict[str, list[bool]] = {}
    for prefix, dialogue in dialogues:
        document = encode_dialogue(dialogue, "single_call", renderer, tokenizer)
        ids: Any = torch.tensor([document.token_ids], device=model.device)
        predicted = model(input_ids=ids, use_cache=False).logits[0].argmax(-1).tolist()
        for place, slot in slots(list(document.token_ids), list(document.mask), tokenizer):
            right.setdefault(prefix + slot, []).append(predicted[place - 1] == document.token_ids[place])
    return {slot: sum(values) / len(values) for slot, values in sorted(right.items())}
