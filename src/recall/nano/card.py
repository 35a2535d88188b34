"""The model card of nano, written from what was measured. It trains nothing."""

import hashlib
from typing import TYPE_CHECKING

from recall.nano.gate import THRESHOLD, slot_accuracy
from recall.store import write_atomic

if TYPE_CHECKING:
    from recall.nano.pretrain import PretrainSettings

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# recall-nano

A policy of {parameters:.2f} million parameters (Qwen3 architecture, {layers} layers, width {hidden}, vocabulary {vocabulary}) that
`recall train` starts from when nothing else is named. Made from random weights by `recall nano pretrain`; no other
model or data went in.

| | |
|---|---|
| data | documents made on the fly by `recall.nano.corpus`: random tokens copied in both directions and looked up, dialogues of single calls, of several things asked for at once, walks |
| steps | {steps} ({circuit_steps} of the first phase) |
| tokens | {tokens:.1f} million |
| seed | {seed} |
| time | {minutes:.0f} minutes |
| last loss | {loss:.3f} nats a learned token of a dialogue; what a walk calls next cannot be foretold, so 0 is out of reach |
| weights | SHA-256 `{digest}` |

## What it can do
Write the format, read the schemas of tools that it is shown, make the call that a question asks for, and answer with
the result; the same for several things asked for at once that do not depend on each other. Teacher-forced accuracy by slot, over held-out names: {slots}.

## What it cannot do
Anything else. It knows the words of `recall.synth.vocabulary` and no others, and it has never seen a question solved in
which one call's result is another's argument: its walks make such calls under questions that the tools at hand cannot
answer (`tests/test_nano.py` checks the corpus for that). Learning to chain and to join calls is left to reinforcement.
"""


def finish(settings: "PretrainSettings") -> dict[str, float]:
    """Measure a pretrained nano at the gate and write its card, `README.md`, beside the weights.

    Returns:
        Teacher-forced accuracy by slot.
    """
    import torch

    from recall.policy.torch.loading import load_model, load_tokenizer
    from recall.renderer import build

    out = settings.out
    tokenizer = load_tokenizer(out)
    model = load_model(out, device=torch.device("cpu"), dtype=torch.float32)
    slots = slot_accuracy(model, tokenizer, build(tokenizer))
    state = torch.load(out / "training_state.pt", map_location="cpu", weights_only=True)
    low = [slot for slot, rate in slots.items() if rate < THRESHOLD]
    rates = ", ".join(f"{slot} {rate:.3f}" for slot, rate in slots.items())
    card = _CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        layers=settings.layers,
        hidden=settings.hidden,
        vocabulary=len(tokenizer),
        steps=state["step"],
        circuit_steps=settings.circuit_steps,
        tokens=state["tokens"] / 1e6,
        seed=settings.seed,
        minutes=state["seconds"] / 60,
        loss=state["loss"],
        digest=hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        slots=rates + (f". Below the gate of {THRESHOLD}: {', '.join(low)}" if low else ""),
    )
    write_atomic(out / "README.md", lambda file: file.write(card.encode()))
    return slots
