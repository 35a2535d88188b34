"""How large a model is: its parameters, its cache and its activations, counted from the few numbers of its config.json.

No weights are read, so a run can be planned on a machine that has none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recall.errors import ConfigError

BF16, FP32 = 2, 4
"""Bytes of a number."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The numbers that decide what a decoder with grouped-query attention and gated MLPs takes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied: bool
    """Whether the output layer is the embedding."""
    attention_bias: bool = False
    """Whether queries, keys and values have a bias, as in Qwen2."""
    head_norms: bool = False
    """Whether queries and keys are normed by head, as in Qwen3."""
    experts: int = 0
    """MLPs of a layer, of `feed_forward` each, some of which a router chooses for a token; 0 where there is one MLP."""
    chosen: int = 1
    """MLPs that a token goes through."""

    @property
    def _attention(self) -> int:
        """Numbers of a token's queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        inner = self.heads * self.head_dim
        found = self.hidden * self._attention + inner * self.hidden
        found += max(1, self.experts) * 3 * self.hidden * self.feed_forward + self.experts * self.hidden
        found += 2 * self.hidden
        return found + self.attention_bias * self._attention + self.head_norms * 2 * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer_parameters + self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def active_parameters(self) -> int:
        """Those that one token is computed with."""
        idle = max(1, self.experts) - self.chosen
        return self.parameters - self.layers * idle * 3 * self.hidden * self.feed_forward

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear layers but the output (Hu et al. 2021, arXiv:2106.09685).

        Raises:
            ConfigError: the model is a mixture of experts.
        """
        if self.experts:
            raise ConfigError("policy.lora_rank: adapters of a mixture of experts are not counted; accepted is 0")
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        ends = 2 * (self.hidden + inner) + 2 * (self.hidden + keys) + 3 * (self.hidden + self.feed_forward)
        return self.layers * rank * ends

    @property
    def cache_per_token(self) -> int:
        """Bytes of the keys and values of one token, in bfloat16, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BF16

    def activations_per_token(self, *, checkpointing: bool) -> int:
        """Bytes that a forward pass in bfloat16 keeps of one token for the backward pass, without the logits.

        Counted by tensor: residual, both norms and their outputs, queries, keys, values, what attention gives, and four
        of the MLP's width; attention itself keeps nothing (Dao et al. 2022, arXiv:2205.14135). With checkpointing the
        input of each layer is kept, and one layer's own while it is computed again (Chen et al. 2016,
        arXiv:1604.06174).
        """
        inner = self.heads * self.head_dim
        layer = (
            BF16 * (4 * self.hidden + self._attention + inner + 4 * self.chosen * self.feed_forward)
            + 2 * FP32 * self.hidden
        )
        return BF16 * self.layers * self.hidden + layer if checkpointing else self.layers * layer


_QWEN25, _QWEN3 = {"attention_bias": True}, {"head_norms": True}
KNOWN: Mapping[str, ModelSize] = MappingProxyType(
    {
        "Qwen2.5-0.5B": ModelSize(24, 896, 14, 2, 64, 4864, 151936, tied=True, **_QWEN25),
        "Qwen2.5-1.5B": ModelSize(28, 1536, 12, 2, 128, 8960, 151936, tied=True, **_QWEN25),
        "Qwen2.5-3B": ModelSize(36, 2048, 16, 2, 128, 11008, 151936, tied=True, **_QWEN25),
        "Qwen2.5-7B": ModelSize(28, 3584, 28, 4, 128, 18944, 152064, tied=False, **_QWEN25),
        "Qwen2.5-14B": ModelSize(48, 5120, 40, 8, 128, 13824, 152064, tied=False, **_QWEN25),
        "Qwen2.5-32B": ModelSize(64, 5120, 40, 8, 128, 27648, 152064, tied=False, **_QWEN25),
        "Qwen3-0.6B": ModelSize(28, 1024, 16, 8, 128, 3072, 151936, tied=True, **_QWEN3),
        "Qwen3-1.7B": ModelSize(28, 2048, 16, 8, 128, 6144, 151936, tied=True, **_QWEN3),
        "Qwen3-4B": ModelSize(36, 2560, 32, 8, 128, 9728, 151936, tied=True, **_QWEN3),
        "Qwen3-8B": ModelSize(36, 4096, 32, 8, 128, 12288, 151936, tied=False, **_QWEN3),
        "Qwen3-14B": ModelSize(40, 5120, 40, 8, 128, 17408, 151936, tied=False, **_QWEN3),
        "Qwen3-32B": ModelSize(64, 5120, 64, 8, 128, 25600, 151936, tied=False, **_QWEN3),
        "Qwen3-30B-A3B": ModelSize(48, 2048, 32, 4, 128, 768, 151936, tied=False, experts=128, chosen=8, **_QWEN3),
    }
)
"""Models by name, from their published config.json; a directory that is there is read instead."""
_EXPERTS: Mapping[str, str] = MappingProxyType({"qwen3_moe": "moe_intermediate_size", "mixtral": "intermediate_size"})
"""By kind of mixture, what its config.json calls the width of an expert."""
_ENDINGS = ("-instruct", "-base")


def size_of(model: str) -> ModelSize:
    """The size of a model: `nano`, a directory with a config.json, or a known name at the end of a path.

    Raises:
        ConfigError: it is none of these, or of a kind that is not counted here.
    """
    path = Path(str(resources.files("recall.nano").joinpath("weights"))) if model == "nano" else Path(model)
    if path.is_dir():
        return _read(path / "config.json")
    name = path.name.lower()
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    for known, size in KNOWN.items():
        if known.lower() == name:
            return size
    raise ConfigError(
        f"policy.model: {model}: no such directory, and no known name; accepted are {', '.join(KNOWN)}, with -Instruct "
        "or -Base or without, and directories with a config.json"
    )


def _read(path: Path) -> ModelSize:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config["model_type"])
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        width = _EXPERTS.get(kind, "intermediate_size")
        unknown = kind not in _EXPERTS and any("expert" in name for name in config)
        if unknown or int(config.get("decoder_sparse_step", 1)) != 1 or config.get("mlp_only_layers"):
            raise ConfigError(
                f"{path}: a mixture that is not counted here; accepted are dense models and, with experts "
                f"in every layer, {' and '.join(_EXPERTS)}"
            )
        return ModelSize(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            feed_forward=int(config[width]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
            head_norms=kind in ("qwen3", "qwen3_moe"),
            experts=int(config.get("num_experts") or config["num_local_experts"]) if kind in _EXPERTS else 0,
            chosen=int(config["num_experts_per_tok"]) if kind in _EXPERTS else 1,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be counted: {type(error).__name__}: {error}") from None
