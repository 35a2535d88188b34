"""Run a Hugging Face causal language model on flat tokens, with attention supplied by the caller.

Sequences are concatenated, never padded, so that the linear layers touch no wasted token; what a token may attend to is
the business of the `attend` that the caller passes: a KV cache when sampling, a `GroupLayout` when training. The
parameters are the model's own, and gradients flow into them. This module neither samples nor caches keys and values.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recall.errors import ConfigError

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`attend(layer, q [N, H, D], k [N, KV, D], v [N, KV, D]) -> [N, H, D]`, with q and k after the position embedding and
scores to be scaled by 1/sqrt(D). Query head h reads key head h // (H // KV)."""


class Decoder(Protocol):
    """A language model over flat tokens."""

    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, *, logits_at: Tensor | None = None
    ) -> Tensor:
        """The logits of the next token.

        Args:
            token_ids: [N] int64, any number of sequences one after another.
            positions: [N] int64, the position of each token within its own sequence.
            attend: the attention of each layer, called once a layer in order.
            logits_at: [M] int64 indices into the N tokens; None means all of them.

        Returns:
            [M, V] or [N, V] logits.

        Raises:
            ConfigError: the model asks for an attention that `attend` cannot express.
        """


def decoder_for(model: nn.Module, dtype: torch.dtype | None = None) -> Decoder:
    """The fastest decoder that is exact for `model`.

    Args:
        model: a causal language model of `transformers`, with or without adapters.
        dtype: what to compute in when no gradient is wanted; None is the model's own. Only Llama, Qwen2 and Qwen3 can
            compute in another type than their parameters have.

    Raises:
        ConfigError: the attention of the model cannot be routed through `attend`, or not in `dtype`.
    """
    if _is_known_family(model):
        return FamilyDecoder(model, dtype)
    own = next(model.parameters()).dtype
    if dtype not in (None, own):
        raise ConfigError(f"dtype: {type(model).__name__} computes in its own {own}; load it in {dtype} or leave unset")
    return HuggingFaceDecoder(model)


# Llama, Qwen2 and Qwen3 --------------------------------------------------------------------------------------------

_FAMILIES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Kinds of rope whose frequencies do not depend on the length of the input."""


def _is_known_family(model: Any) -> bool:
    """Whether the parameters can be read exactly: a known class, full attention, and plain, unwrapped linear layers."""
    if type(model).__name__ not in _FAMILIES or not type(model).__module__.startswith("transformers.models."):
        return False
    config = model.config
    if config.hidden_act != "silu" or set(getattr(config, "layer_types", None) or ["full_attention"]) != {
        "full_attention"
    }:
        return False
    if model.model.rotary_emb.rope_type not in _STATIC_ROPE:
        return False
    linears = [m for layer in model.model.layers for part in (layer.self_attn, layer.mlp) for m in part.children()]
    plain = (nn.Linear, type(model.model.norm), type(model.model.layers[0].mlp.act_fn))
    return all(type(m) in plain for m in linears) and type(model.lm_head) is nn.Linear


class _Layer(NamedTuple):
    """The weights of one layer; those of q, k, v and of gate, up are concatenated by rows."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    qk_norm: Tensor | None
    """[H + KV, D] what multiplies the normalised queries and keys."""
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class _Weights(NamedTuple):
    embedding: Tensor
    layers: tuple[_Layer, ...]
    norm: Tensor
    head: Tensor
    head_bias: Tensor | None


class FamilyDecoder:
    """Llama, Qwen2 and Qwen3, read parameter by parameter.

    Without gradients it computes on a copy with fused projections, taken again whenever a parameter was written in
    place; with gradients, on the parameters themselves. Dropout is never applied.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        self._model = cast(Any, model)
        config: Any = model.config
        self._heads = int(config.num_attention_heads)
        self._kv_heads = int(config.num_key_value_heads)
        self._head_dim = int(self._model.model.layers[0].self_attn.head_dim)
        self._eps = float(config.rms_norm_eps)
        self._dtype = dtype
        self._parameters = tuple(model.parameters())
        self._snapshot: _Weights | None = None
        self._snapshot_key: tuple[tuple[int, int], ...] = ()
        self._rope: tuple[Tensor, Tensor] | None = None

    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, *, logits_at: Tensor | None = None
    ) -> Tensor:
        """See `Decoder.forward`."""
        weights = self._live() if torch.is_grad_enabled() else self._frozen()
        x = F.embedding(token_ids, weights.embedding)
        cos, sin = self._rotation(positions, x.dtype)
        for index, layer in enumerate(weights.layers):
            attended = self._attention(index, layer, self._normed(x, layer.norm), cos, sin, attend)
            x = _plus_linear(x, attended, layer.out, layer.out_bias)
            gate, up = F.linear(self._normed(x, layer.mlp_norm), layer.gate_up, layer.gate_up_bias).chunk(2, -1)
            x = _plus_linear(x, F.silu(gate) * up, layer.down, layer.down_bias)
        if logits_at is not None:
            x = x.index_select(0, logits_at)
        return F.linear(self._normed(x, weights.norm), weights.head, weights.head_bias)

    def _attention(self, index: int, w: _Layer, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        heads, kv = self._heads, self._kv_heads
        qkv = F.linear(x, w.qkv, w.qkv_bias).view(len(x), heads + 2 * kv, self._head_dim)
        qk, v = torch.split(qkv, [heads + kv, kv], 1)
        if w.qk_norm is not None:
            qk = self._normed(qk, w.qk_norm)
        q, k = torch.split(_rotated(qk, cos, sin), [heads, kv], 1)
        return attend(index, q, k, v).reshape(len(x), heads * self._head_dim)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The RMS norm over the last dimension times `weight`, which may be wider."""
        if torch.is_grad_enabled() or x.dtype not in (torch.float32, torch.float64):
            if weight.dim() == 1:
                return F.rms_norm(x, weight.shape, weight, self._eps)
            return F.rms_norm(x, x.shape[-1:], None, self._eps) * weight
        # In half of the library's time: on a CPU it takes eight small operations.
        scale: Tensor = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(self._eps).rsqrt_()
        return (x * scale[..., None]).mul_(weight)

    def _rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """[N, 1, D] cosines and signed sines, from a table that grows by doubling."""
        need = int(positions.max()) + 1 if len(positions) else 1
        table = self._rope
        if table is None or len(table[0]) < need or table[0].dtype != dtype or table[0].device != positions.device:
            table = self._rope = self._rope_table(max(256, 1 << (need - 1).bit_length()), positions.device, dtype)
        return table[0][positions][:, None], table[1][positions][:, None]

    @torch.no_grad()
    def _rope_table(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """[length, D] cosines and signed sines, in float32 until the end as the library does."""
        rotary = self._model.model.rotary_emb
        with torch.inference_mode(False):  # made while sampling, it must serve training too
            steps = torch.arange(length, device=device, dtype=torch.float32)
            angles = torch.outer(steps, rotary.inv_freq.to(device, torch.float32))
            cos, sin = angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling
            return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)

    def _frozen(self) -> _Weights:
        key = tuple((p._version, p.data_ptr()) for p in self._parameters)
        if self._snapshot is None or key != self._snapshot_key:
            with torch.inference_mode(False), torch.no_grad():
                self._snapshot, self._snapshot_key = self._live(self._dtype), key
        return self._snapshot

    def _live(self, dtype: torch.dtype | None = None) -> _Weights:
        def cast(tensor: Tensor) -> Tensor:
            return tensor if dtype is None else tensor.to(dtype)

        def one(module: Any, name: str = "weight") -> Tensor | None:
            value = getattr(module, name, None)
            return None if value is None else cast(value)

        def weight(module: Any) -> Tensor:
            return cast(module.weight)

        def stacked(modules: Sequence[Any], name: str = "weight") -> Any:
            parts = [one(module, name) for module in modules]
            return None if parts[0] is None else torch.cat([part for part in parts if part is not None])

        def qk_norm(attention: Any) -> Tensor | None:
            if not hasattr(attention, "q_norm"):
                return None
            q, k = weight(attention.q_norm), weight(attention.k_norm)
            return torch.cat((q.expand(self._heads, -1), k.expand(self._kv_heads, -1)))

        def layer(block: Any) -> _Layer:
            attention, mlp = block.self_attn, block.mlp
            qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
            gate_up = (mlp.gate_proj, mlp.up_proj)
            return _Layer(
                weight(block.input_layernorm),
                stacked(qkv),
                stacked(qkv, "bias"),
                qk_norm(attention),
                weight(attention.o_proj),
                one(attention.o_proj, "bias"),
                weight(block.post_attention_layernorm),
                stacked(gate_up),
                stacked(gate_up, "bias"),
                weight(mlp.down_proj),
                one(mlp.down_proj, "bias"),
            )

        base, head = self._model.model, self._model.lm_head
        layers = tuple(layer(block) for block in base.layers)
        return _Weights(weight(base.embed_tokens), layers, weight(base.norm), weight(head), one(head, "bias"))


def _plus_linear(x: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x` + F.linear(inner, weight, bias), the first sum inside of the product."""
    return torch.addmm(x if bias is None else x + bias, inner, weight.t())


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of the last dimension; the sign of the first half is in `sin` [N, 1, D]."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


# Any other model ---------------------------------------------------------------------------------------------------

_INTERFACE = "recall_flat"
_UNSUPPORTED = ("softcap", "position_bias", "s_aux", "sinks")


@dataclass
class _Call:
    """What one forward pass carries to the attention of each layer."""

    attend: Attend
    length: int
    """One more than the largest position, to be held against a sliding window."""
    layers: int = 0


def _flat_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The function that `transformers` calls in each layer; outside a flat call it is the library's sdpa."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    call: _Call | None = kwargs.pop("recall_call", None)
    if call is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ConfigError(f"model: {type(module).__name__} uses `{name}`, which the torch engine cannot honour")
    window = kwargs.get("sliding_window")
    if window is not None and call.length > window:
        raise ConfigError(f"model: a context of {call.length} tokens exceeds the sliding window of {window}")
    call.layers += 1
    scaling = kwargs.get("scaling")
    if scaling is not None and (factor := scaling * query.shape[-1] ** 0.5) != 1.0:
        query = query * factor
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return call.attend(module.layer_idx, q, k, v)[None], None


class HuggingFaceDecoder:
    """Any causal model of `transformers` whose attention goes through its attention interface, adapters included.

    Sets the model's attention implementation once; outside this decoder the model then computes as with `sdpa`.
    """

    def __init__(self, model: nn.Module) -> None:
        """Raises ConfigError when the attention cannot be routed, found out by running one token."""
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(_INTERFACE, _flat_attention)
        AttentionMaskInterface.register(_INTERFACE, sdpa_mask)
        self._model = cast(Any, model)
        accepted = inspect.signature(_base_model(model).forward).parameters
        self._keeps_logits = "logits_to_keep" in accepted
        before = self._model.config._attn_implementation
        token = torch.zeros(1, dtype=torch.long, device=next(model.parameters()).device)
        try:
            _base_model(model).set_attn_implementation(_INTERFACE)
            with torch.no_grad():
                self.forward(token, token, lambda layer, q, k, v: q)
        except (ConfigError, ValueError, TypeError) as fault:
            _base_model(model).set_attn_implementation(before)
            name = type(_base_model(model)).__name__
            raise ConfigError(f"model: the attention of {name} cannot be routed: {fault}") from fault

    def forward(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, *, logits_at: Tensor | None = None
    ) -> Tensor:
        """See `Decoder.forward`."""
        call = _Call(attend, int(positions.max()) + 1 if len(positions) else 0)
        narrow = {"logits_to_keep": logits_at} if self._keeps_logits and logits_at is not None else {}
        # A four-dimensional mask is passed through as it is, which spares the library building [N, N].
        unread = torch.empty(1, 1, 1, 1, device=token_ids.device)
        logits = self._model(
            input_ids=token_ids[None],
            position_ids=positions[None],
            attention_mask=unread,
            use_cache=False,
            recall_call=call,
            **narrow,
        ).logits[0]
        layers = _base_model(self._model).config.get_text_config().num_hidden_layers
        if call.layers != layers:
            raise ConfigError(f"{call.layers} of {layers} layers went through the attention interface")
        return logits if logits_at is None or narrow else logits.index_select(0, logits_at)  # type: ignore[no-any-return]


def _base_model(model: Any) -> Any:
    """The model of `transformers` under an adapter's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
