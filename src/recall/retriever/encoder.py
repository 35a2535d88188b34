"""Turns texts into vectors with an encoder in Hugging Face's format, with the prefixes and the pooling it was made for.

Who the encoder is, down to its weights and its vocabulary, is a value (`EncoderFacts`) that an index keeps; queries are
encoded only by the same.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever.families import Family, Pooling, family_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    Vectors = np.ndarray[Any, np.dtype[np.float32]]

T = TypeVar("T")
TOKENS = 256
"""Where texts are cut, in tokens, if nothing else is said."""
_PROBE = "The Quick brown fox, 1984: naïve café 東京 antidisestablishmentarianism?"
_MODULES = ("Transformer", "Pooling", "Normalize")


class EncoderSettings(Settings):
    """Which encoder, and how it runs. What is none is taken from the model's own files or from its family."""

    model: str = ""
    """A directory, or a name on the Hugging Face hub, such as intfloat/e5-base-v2."""
    revision: str | None = None
    """The commit or branch of a model on the hub."""
    query_prefix: str | None = None
    """What goes before a query."""
    passage_prefix: str | None = None
    """What goes before a passage."""
    pooling: Pooling | None = None
    """How the states of the tokens become one vector."""
    normalize: bool | None = None
    """Whether vectors are scaled to length 1."""
    query_tokens: int | None = Field(default=None, ge=4)
    """Where queries are cut, in tokens; none means 256, or what the model takes where that is less."""
    passage_tokens: int | None = Field(default=None, ge=4)
    """Where passages are cut, in tokens; none means 256, or what the model takes where that is less."""
    device: str = "auto"
    """On which of auto, cpu, cuda or cuda:N it runs."""
    half: bool | None = None
    """Whether it runs in float16; none means on CUDA only."""
    batch_tokens: int = Field(default=0, ge=0)
    """Tokens of one pass, padding counted; 0 means 65,536 on CUDA and 512 elsewhere, where a larger batch is
    mostly more padding."""


class EncoderFacts(Settings):
    """All that decides what vector a text gets."""

    model: str
    """The directory, absolute, or the name on the hub, from which it was loaded."""
    revision: str
    """The commit on the hub; empty for a directory."""
    weights: str
    """A checksum over the names, the shapes and the first values of all weights."""
    vocabulary: str
    """A checksum over the vocabulary, and the tokens of a sentence."""
    query_prefix: str
    passage_prefix: str
    pooling: Pooling
    normalize: bool
    query_tokens: int
    passage_tokens: int
    dim: int
    """The length of a vector."""

    def differences(self, other: "EncoderFacts") -> list[str]:
        """Where two encoders differ, in words; where they are stored does not count."""
        mine, theirs = self.model_dump(exclude={"model", "revision"}), other.model_dump()
        return [f"{name} {mine[name]!r} is not {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]

    def again(self, settings: EncoderSettings) -> EncoderSettings:
        """The settings that load the same encoder again, from where `settings` has it now and on its device.

        Raises:
            ConfigError: `settings` asks for another one.
        """
        for name in ("query_prefix", "passage_prefix", "pooling", "normalize", "query_tokens", "passage_tokens"):
            asked, known = getattr(settings, name), getattr(self, name)
            if asked is not None and asked != known:
                raise ConfigError(f"--encoder.{name}: {asked!r} is not {known!r}, with which the index was built")
        known = self.model_dump(exclude={"weights", "vocabulary", "dim"})
        moved = {"model": settings.model, "revision": settings.revision} if settings.model else {}
        revision = {"revision": self.revision or None}
        return settings.model_copy(update=known | revision | moved)


class Encoder:
    """A loaded encoder; safe to use from many threads, which take turns."""

    def __init__(self, settings: EncoderSettings) -> None:
        """Load it.

        Raises:
            ConfigError: it cannot be loaded, or nobody says how its texts are prefixed and pooled.
        """
        import torch

        if not settings.model:
            raise ConfigError(
                "--encoder.model: missing; accepted: a model directory or a name such as intfloat/e5-base-v2"
            )
        self._device = device_named(settings.device, "--encoder.device")
        self._tokenizer, self._model, where, commit = _load(settings)
        self.facts = _facts(settings, self._tokenizer, self._model, where, commit)
        """Who it is."""
        half = self._device.type == "cuda" if settings.half is None else settings.half
        self._model = (self._model.half() if half else self._model).to(self._device).eval()
        self._torch_threads = torch.get_num_threads()
        cpu = self._device.type == "cpu"
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if cpu else 1, thread_name_prefix="encoder")
        self._batch_tokens = settings.batch_tokens or (65_536 if self._device.type == "cuda" else 512)
        self._lock = (
            threading.Lock()
        )  # tokenizers are not for two threads, and two passes at once need twice the memory

    def encode(self, texts: Sequence[str], of: Literal["query", "passage"]) -> "Vectors":
        """The vectors of some texts.

        Args:
            texts: [n] any text.
            of: which prefix and which length apply.

        Returns:
            [n, dim] float32.
        """
        import numpy as np
        import torch

        facts = self.facts
        prefix, room = (
            (facts.query_prefix, facts.query_tokens) if of == "query" else (facts.passage_prefix, facts.passage_tokens)
        )
        vectors = np.empty((len(texts), facts.dim), np.float32)
        with self._lock:
            if not texts:
                return vectors
            rows = self._tokenizer([prefix + text for text in texts], truncation=True, max_length=room)["input_ids"]
            order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
            batches = []
            while order:
                batches.append(order[: max(1, self._batch_tokens // len(rows[order[0]]))])
                order = order[len(batches[-1]) :]
            try:
                made = self._pool.map(self._vectors, ([rows[row] for row in batch] for batch in batches))
                for batch, part in zip(batches, made, strict=True):
                    vectors[batch] = part
            finally:
                torch.set_num_threads(self._torch_threads)
        return vectors

    def close(self) -> None:
        """End its threads. Safe to call twice."""
        self._pool.shutdown()

    def _vectors(self, rows: Sequence[Sequence[int]]) -> "Vectors":
        """The vectors of texts of similar length, the longest first."""
        import torch

        if self._device.type == "cpu":
            # A pass on a thread for each core does several times what one pass on all of them does: its operations are
            # so short that the threads mostly wait for each other.
            torch.set_num_threads(1)
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (len(rows[0]) - len(row))] for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(ids.shape[1], device=self._device)[None] < lengths[:, None]
        pooling = self.facts.pooling
        with torch.inference_mode():
            if pooling == "first-decoder":
                start = torch.zeros((len(rows), 1), dtype=torch.long, device=self._device)
                output = self._model(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=start)
            else:
                output = self._model(input_ids=ids, attention_mask=mask.long())
            pooled = _pooled(output, mask, pooling)
            scaled: Vectors = (
                (torch.nn.functional.normalize(pooled, dim=-1) if self.facts.normalize else pooled).cpu().numpy()
            )
            return scaled


def _pooled(output: Any, mask: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """One vector for each text, [n, dim] float32, from states [n, tokens, dim]."""
    import torch

    if pooling == "pooler":
        pooled: torch.Tensor = _known(output.pooler_output, "--encoder.pooling: the model has no pooler")
        return pooled.float()
    states: torch.Tensor = output.last_hidden_state.float()
    if pooling == "mean":
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    return states[:, 0]


def _facts(settings: EncoderSettings, tokenizer: Any, model: Any, where: Path, commit: str) -> EncoderFacts:
    local = Path(settings.model).is_dir()
    name = "/".join(Path(settings.model).absolute().parts[-2:]) if local else settings.model
    family = _family(where, name, model.config.model_type, settings)
    most = _most_tokens(where, model.config)
    return EncoderFacts(
        model=str(Path(settings.model).absolute()) if local else settings.model,
        revision=commit,
        weights=_weights(model),
        vocabulary=_vocabulary(tokenizer),
        query_prefix=_or(settings.query_prefix, family.query_prefix),
        passage_prefix=_or(settings.passage_prefix, family.passage_prefix),
        pooling=_or(settings.pooling, family.pooling),
        normalize=_or(settings.normalize, family.normalize),
        query_tokens=min(settings.query_tokens or TOKENS, most),
        passage_tokens=min(settings.passage_tokens or TOKENS, most),
        dim=model.config.hidden_size,
    )


def _family(where: Path, name: str, model_type: str, settings: EncoderSettings) -> Family:
    """What the model's files say, the rest by its name.

    Raises:
        ConfigError: neither says it, and the user does not either.
    """
    known = family_of(name, model_type)
    modules = [str(module.get("type", "")).rpartition(".")[2] for module in _json(where / "modules.json", [])]
    if other := [module for module in modules if module not in _MODULES]:
        raise ConfigError(f"{where}: its module {other[0]} is not supported; accepted: {', '.join(_MODULES)}")
    modes = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
    pooling = _json(where / "1_Pooling" / "config.json", {})
    set_modes = [mode.removeprefix("pooling_mode_") for mode, on in pooling.items() if on is True]
    found = next((modes[mode] for mode in set_modes if mode in modes), None)
    if modules and found:
        base = known or Family(pooling="mean", normalize=False)
        return base.model_copy(update={"pooling": found, "normalize": "Normalize" in modules or base.normalize})
    if known is None and (settings.pooling is None or settings.normalize is None):
        raise ConfigError(
            f"{settings.model}: no known family, so set --encoder.pooling and --encoder.normalize"
            " (and the prefixes, --encoder.query_prefix and --encoder.passage_prefix, where it has any)"
        )
    return known or Family(pooling="mean", normalize=False)


def _load(settings: EncoderSettings) -> tuple[Any, Any, Path, str]:
    """The tokenizer, the model in float32, the directory that its files are in, and its commit on the hub."""
    import torch
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging
    from transformers.utils.hub import cached_file

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    name, revision = settings.model, settings.revision or "main"
    try:
        config = Path(str(cached_file(name, "config.json", revision=revision)))
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model, report = AutoModel.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, SafetensorError, HFValidationError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--encoder.model: {name}: cannot be loaded: {line}") from error
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing or (report["missing_keys"] and settings.pooling == "pooler"):
        raise ConfigError(
            f"--encoder.model: {name}: weights are missing, {sorted(report['missing_keys'])[0]} among them"
        )
    return tokenizer, model, config.parent, "" if Path(name).is_dir() else config.parent.name


def device_named(name: str, flag: str) -> "torch.device":
    """The device that `auto`, `cpu`, `cuda` or `cuda:N`, the value of `flag`, means here.

    Raises:
        ConfigError: there is none.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"{flag}: {name!r} is not accepted; it takes auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"{flag}: {name!r} is not available on this machine; accepted here: auto, cpu")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _most_tokens(where: Path, config: Any) -> int:
    """How long a text the model takes, by what sentence-transformers was told, and by its positions."""
    told = _json(where / "sentence_bert_config.json", {}).get("max_seq_length")
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and config.model_type in ("roberta", "xlm-roberta", "mpnet"):
        positions -= 2  # their positions are counted from the one after the padding's
    return min(limit for limit in (told, positions, 1 << 20) if isinstance(limit, int))


def _weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.flatten()[:256].float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _vocabulary(tokenizer: Any) -> str:
    words = json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer(_PROBE)["input_ids"]])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _json(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise


def _or(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _known(value: T | None, otherwise: str) -> T:
    if value is None:
        raise ConfigError(otherwise)
    return value
