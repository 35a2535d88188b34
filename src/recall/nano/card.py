"""The model card of nano, written from what was measured. It trains nothing."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.nano.gate import THRESHOLD

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
| data | documents made on the fly by `recall.nano.corpus`: repeated random tokens, key look-ups, dialogues of one call, walks |
| steps | {steps} ({circuit_steps} of the first phase) |
| tokens | {tokens:.1f} million |
| seed | {seed} |
| time | {minutes:.0f} minutes on {device} |
| last loss | {loss:.3f} nats a learned token, over the last {window} dialogue steps |
| weights | SHA-256 `{digest}` |

## What it can do
Write the format, read the schemas of tools that it is shown, make the one call that a question asks for, and answer with
the result. Teacher-forced accuracy by slot, over held-out names: {slots}.

## What it cannot do
Anything else. It knows the words of `recall.synth.vocabulary` and no others, and it has seen no question that takes more
than one call being solved: its walks make several calls under questions that the tools at hand cannot answer
(`tests/test_nano.py` checks the corpus for that). Learning to chain and to join calls is left to reinforcement.
"""


def write_card(out: Path, state: Mapping[str, Any], slots: Mapping[str, float]) -> Path:
    """Write `README.md` beside the weights.

    Args:
        out: the directory of the model.
        state: what `pretrain` reports of the run, by the names in the card.
        slots: teacher-forced accuracy by slot.
    """
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    rates = ", ".join(f"{slot} {rate:.3f}" for slot, rate in slots.items())
    low = [slot for slot, rate in slots.items() if rate < THRESHOLD]
    rates += f". Below the gate of {THRESHOLD}: {', '.join(low)}" if low else ""
    path = out / "README.md"
    path.write_text(_CARD.format(**state, digest=digest, slots=rates), encoding="utf-8")
    return path
