"""`recall nano pretrain`: make nano, the policy that comes with ReCall, from nothing."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from recall.cli.allocator import calm_allocator
from recall.config import Settings


class Pretrain(Settings):
    """Pretrain nano on documents made on the fly: format, copying, reading schemas, single calls and their answers."""

    out: Path = Path("runs/nano-pretrained")
    """Where the model, its tokenizer and the training state go."""
    seed: int = 0
    """Decides the weights at the start and every document."""
    circuit_steps: int = Field(default=1200, ge=0)
    """Steps on copying random tokens and on key look-ups, before the dialogues."""
    dialogue_steps: int = Field(default=2200, ge=1)
    """Steps on dialogues."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    resume: bool = False
    """Go on from the training state in `out`."""

    def main(self) -> int:
        """Pretrain, measure, write the card, and say where the model is."""
        from recall.nano.card import finish
        from recall.nano.pretrain import PretrainSettings, pretrain

        calm_allocator()
        settings = PretrainSettings(**self.model_dump(exclude={"resume"}))
        pretrain(settings, resume=self.resume)
        slots = finish(settings)
        print("teacher-forced:", ", ".join(f"{slot} {rate:.3f}" for slot, rate in slots.items()))
        print(settings.out)
        return 0
