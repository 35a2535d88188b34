"""Pretrain nano from nothing on documents made on the fly; resumable, on the CPU or on CUDA.

The recipe has two phases. First random tokens to copy and keys to look up, until the circuits for it form, as they do
in sudden changes; without them the policy never learns to read a schema or a question. They form in minutes if plain
copies come first and all else stands on them, and not at all if everything comes at once. Then dialogues, with a batch
of the first kind now and then so that the circuits stay. Batches are a function of the seed and the step, so a resumed
run sees the same.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from recall.errors import ConfigError
from recall.nano.corpus import Document, copy, encode_dialogue, recall, several, single_call, texts_of, walk
from recall.nano.muon import Muon
from recall.nano.tokenizer import build_tokenizer
from recall.renderer import ChatMLRenderer, default_template
from recall.store import write_atomic
from recall.synth.vocabulary import SYLLABLES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class PretrainSettings(BaseModel):
    """How nano is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path = Path("runs/nano")
    """Where the model, its tokenizer, its card and the training state go."""
    seed: int = 0
    """Decides the weights at the start and every document."""
    layers: int = Field(default=4, ge=1)
    """Transformer layers."""
    hidden: int = Field(default=128, ge=32, multiple_of=32)
    """Width; heads are 32 wide, half as many for keys as for queries."""
    feed_forward: int = Field(default=384, ge=32)
    """Width of the gated feed-forward layer."""
    circuit_steps: int = Field(default=1200, ge=0)
    """Steps of the first phase."""
    plain_steps: int = Field(default=400, ge=0)
    """Steps at its beginning in which random tokens are only copied, in order and in reverse."""
    dialogue_steps: int = Field(default=2200, ge=1)
    """Steps of the second phase."""
    circuit_every: int = Field(default=8, ge=2)
    """In the second phase each step of this number is one of the first phase's kind."""
    circuit_tokens: int = Field(default=5_000, ge=512)
    """About so many tokens a step of the first phase's kind."""
    dialogue_tokens: int = Field(default=8_000, ge=512)
    """About so many tokens a step of the second phase's kind."""
    single_call_share: float = Field(default=0.35, ge=0, le=1)
    """The share of dialogues of one call a question."""
    several_share: float = Field(default=0.3, ge=0, le=1)
    """The share of dialogues that ask for several things at once; the rest are walks."""
    matrix_learning_rate: float = Field(default=0.02, gt=0)
    """Muon's, for the matrices."""
    other_learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW's, for embeddings and norms."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """The last part of the second phase over which both rates fall linearly to a twentieth."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    save_every: int = Field(default=100, ge=1)
    """Steps between saved training states."""


def nano_tokenizer(seed: int = 0, documents: int = 2000) -> "PreTrainedTokenizerFast":
    """The tokenizer that the corpus of this seed gives."""
    rng = random.Random(f"nano/tokenizer/{seed}")
    dialogues = [(single_call if index % 2 else walk)(rng) for index in range(documents)]
    texts = [text for dialogue in dialogues for text in texts_of(dialogue)]
    return build_tokenizer(texts, prompt=default_template(), syllables=SYLLABLES)


def nano_model(settings: PretrainSettings, vocabulary: int, pad: int, stop: int) -> "PreTrainedModel":
    """A Qwen3 of nano's size with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(settings.seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.hidden // 32,
        num_key_value_heads=max(1, settings.hidden // 64),
        head_dim=32,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        attention_bias=False,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=stop,
        initializer_range=0.02,
    )
    model: PreTrainedModel = Qwen3ForCausalLM(config)
    return model


class Corpus:
    """Batches by the step."""

    def __init__(self, settings: PretrainSettings, tokenizer: "PreTrainedTokenizerFast") -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.renderer = ChatMLRenderer(tokenizer)
        separators = ("<|endoftext|>", "<think>", "</think>", "</tool_response>")
        self.separators = [tokenizer.get_vocab()[token] for token in separators]

    def circuit(self, rng: random.Random, step: int) -> Document:
        """A document of the first phase."""
        plain = step < self.settings.plain_steps
        if plain or rng.random() < 0.8:
            return copy(rng, len(self.tokenizer), self.separators, plain=plain)
        return recall(rng, len(self.tokenizer), self.separators)

    def dialogue(self, rng: random.Random) -> Document:
        """A document of the second phase."""
        single, several_ = self.settings.single_call_share, self.settings.several_share
        drawn = rng.random()
        make = single_call if drawn < single else several if drawn < single + several_ else walk
        return encode_dialogue(make(rng), make.__name__, self.renderer, self.tokenizer)

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, list[Document]]]:
        """The batches of the steps from `start` to `stop`, as a function of seed and step."""
        for step in range(start, stop):
            in_circuit = step < self.settings.circuit_steps or step % self.settings.circuit_every == 0
            rng = random.Random(f"nano/{self.settings.seed}/{step}")
            batch: list[Document] = []
            room = self.settings.circuit_tokens if in_circuit else self.settings.dialogue_tokens
            while room > 0:
                batch.append(self.circuit(rng, step) if in_circuit else self.dialogue(rng))
                room -= len(batch[-1].token_ids)
            yield step, batch


def loss_of(model: "PreTrainedModel", batch: list[Document], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats of the learned tokens, and whether each was the most likely one.

    Documents are padded on the right, so the causal mask alone keeps padding out of them; they go through the model in
    four parts by length, so that little is padded.
    """
    ordered = sorted(batch, key=lambda document: len(document.token_ids))
    quarter = -(-len(ordered) // 4)
    hiddens, targets = [], []
    for start in range(0, len(ordered), quarter):
        part = ordered[start : start + quarter]
        tokens = torch.zeros(len(part), len(part[-1].token_ids), dtype=torch.long)
        learned = torch.zeros_like(tokens, dtype=torch.bool)
        for row, document in enumerate(part):
            tokens[row, : len(document.token_ids)] = torch.tensor(document.token_ids)
            learned[row, : len(document.mask)] = torch.tensor(document.mask)
        tokens, learned = tokens.to(device), learned.to(device)
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        hiddens.append(hidden[:, :-1][learned[:, 1:]])
        targets.append(tokens[:, 1:][learned[:, 1:]])
    logits = model.get_output_embeddings()(torch.cat(hiddens)).float()  # type: ignore[no-untyped-call]
    target = torch.cat(targets)
    return F.cross_entropy(logits, target), logits.argmax(-1) == target


def optimizers_of(model: nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and "embed" not in name]
    others = [parameter for name, parameter in named if parameter.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=settings.matrix_learning_rate),
        torch.optim.AdamW(others, lr=settings.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, settings: PretrainSettings) -> float:
    """The factor on both learning rates at a step."""
    warm = min(1.0, (step + 1) / 50)
    total = settings.circuit_steps + settings.dialogue_steps
    decaying = max(1, int(settings.dialogue_steps * settings.decay_share))
    return warm * max(0.05, min(1.0, (total - step) / decaying))


def pretrain(settings: PretrainSettings, *, resume: bool = False, report: Callable[[str], None] = print) -> Path:
    """Train and save nano.

    Returns:
        The directory of the finished model.

    Raises:
        ConfigError: the directory holds a training state already and `resume` is off, or holds none and it is on.
    """
    device = torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")
    state_path = settings.out / "training_state.pt"
    if state_path.exists() and not resume:
        raise ConfigError(f"{settings.out}: holds a training state; go on with --resume, or choose another --out")
    if resume and not state_path.exists():
        raise ConfigError(f"{settings.out}: no training state to resume")
    settings.out.mkdir(parents=True, exist_ok=True)
    tokenizer = nano_tokenizer()
    stop = tokenizer.get_vocab()["<|im_end|>"]
    model: Any = nano_model(settings, len(tokenizer), int(tokenizer.pad_token_id), stop).to(device)  # type: ignore[arg-type]
    optimizers = optimizers_of(model, settings)
    bases = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    first, spent, seen = 0, 0.0, 0
    if resume:
        state = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, spent, seen = state["step"], state["seconds"], state["tokens"]
    corpus, total = Corpus(settings, tokenizer), settings.circuit_steps + settings.dialogue_steps
    began, losses, last = time.monotonic() - spent, dict[str, list[float]](), 0.0
    for step, batch in corpus.batches(first, total):
        for optimizer, base in zip(optimizers, bases, strict=True):
            for group, value in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = value * rate(step, settings)
        # On the CPU bfloat16 is slower than float32 at this size.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, right = loss_of(model, batch, device)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen += sum(len(document.token_ids) for document in batch)
        kind = "circuit" if batch[0].kind in ("copy", "recall") else "dialogue"
        losses.setdefault(kind, []).append(loss.item())
        if (step + 1) % 20 == 0:
            means = " ".join(f"{kind} {sum(values) / len(values):.4f}" for kind, values in losses.items())
            seconds = time.monotonic() - began
            report(f"step {step + 1}/{total} loss {means} accuracy {right.float().mean():.3f} "
                   f"tokens {seen / 1e6:.1f}M {seen / seconds / 1e3:.1f}k/s {seconds / 60:.1f} min")  # fmt: skip
            last = sum(found) / len(found) if (found := losses.get("dialogue")) else last
            losses.clear()
        if (step + 1) % settings.save_every == 0 or step + 1 == total:
            state = {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step + 1,
                "seconds": time.monotonic() - began,
                "tokens": seen,
                "loss": last,
            }
            write_atomic(state_path, lambda file, state=state: torch.save(state, file))  # type: ignore[misc]
            save_model(model, tokenizer, settings.out)
    return settings.out


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", out: Path) -> None:
    """Write weights, configuration and tokenizer in Hugging Face's format, each file whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for file in Path(folder).iterdir():
            os.replace(file, out / file.name)
