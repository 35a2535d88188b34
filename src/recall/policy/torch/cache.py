"""Keys and values of many episodes, and the attention that reads them. Prompts are kept apart and once per group.

Each token's attention is split in two: over its group's prompt, computed for the group's members together, and over its
own episode. The two are merged exactly. Nothing here knows of requests, sampling or text.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recall.policy.torch.decoder import Decoder


class Shape(NamedTuple):
    """What a model's attention looks like, found out by running one token."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def probe(cls, decoder: Decoder, device: torch.device) -> "Shape":
        """Run one token and look at the keys."""
        seen: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen.append((q, k))
            return q

        token = torch.zeros(1, dtype=torch.long, device=device)
        with torch.inference_mode():
            decoder.forward(token, token, attend)
        q, k = seen[0]
        return cls(len(seen), q.shape[1], k.shape[1], k.shape[2], k.dtype, device)


class Store:
    """Keys and values in slots, per layer: [slots, KV, D, length] and [slots, KV, length, D], growing geometrically.

    Keys lie transposed because the product with the queries then takes half the time on a CPU.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._buffers: list[Tensor] = []
        self.slots = 0
        self.length = 0

    def reserve(self, slots: int, length: int) -> None:
        """Make room for `slots` sequences of `length` tokens; what is stored stays."""
        if slots <= self.slots and length <= self.length:
            return
        new_slots = self.slots if slots <= self.slots else max(slots, 8, self.slots * 3 // 2)
        new_length = self.length if length <= self.length else max(length, 32, self.length * 3 // 2)
        kv, dim = self._shape.kv_heads, self._shape.head_dim
        sizes = ((new_slots, kv, dim, new_length), (new_slots, kv, new_length, dim))
        # Zeros: a weight of exactly 0 must not meet a NaN in memory that was never written.
        grown = [
            torch.zeros(size, dtype=self._shape.dtype, device=self._shape.device)
            for _ in range(self._shape.layers)
            for size in sizes
        ]
        for new, old in zip(grown, self._buffers, strict=False):
            new[: old.shape[0], :, : old.shape[2], : old.shape[3]] = old
        self._buffers, self.slots, self.length = grown, new_slots, new_length

    def release(self) -> None:
        """Give the memory back."""
        self._buffers, self.slots, self.length = [], 0, 0

    def write(self, layer: int, slots: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k, v [N, KV, D] at `slots` [N] and `positions` [N]."""
        self._buffers[2 * layer][slots, :, :, positions] = k
        self._buffers[2 * layer + 1][slots, :, positions] = v

    def read(self, layer: int, slots: Tensor | int, length: int) -> tuple[Tensor, Tensor]:
        """Keys [S * KV, D, length] and values [S * KV, length, D] of the first `slots` slots, or of the chosen ones.

        The first ones are views; the chosen ones are copied.
        """
        keys, values = self._buffers[2 * layer][..., :length], self._buffers[2 * layer + 1][:, :, :length]
        if isinstance(slots, Tensor):
            return keys.index_select(0, slots).flatten(0, 1), values.index_select(0, slots).flatten(0, 1)
        return keys[:slots].flatten(0, 1), values[:slots].flatten(0, 1)

    def swap(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Exchange the contents of slots pair by pair; no slot may be named twice."""
        to = torch.tensor([*left, *right], device=self._shape.device)
        source = torch.tensor([*right, *left], device=self._shape.device)
        for buffer in self._buffers:
            buffer.index_copy_(0, to, buffer.index_select(0, source))


class PromptAttention:
    """An `Attend` for B whole prompts, one after another; stores their keys and values."""

    def __init__(self, store: Store, slots: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        self._store = store
        length = torch.tensor(lengths)
        steps = torch.arange(max(lengths))
        valid = steps < length[:, None]
        starts = length.cumsum(0) - length
        self._rows = (starts[:, None] + torch.minimum(steps, length[:, None] - 1)).to(device)
        self._unpad = valid.flatten().nonzero()[:, 0].to(device)
        self.positions = steps.expand_as(valid)[valid].to(device)
        self._slots = torch.tensor(slots).repeat_interleave(length).to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention within each prompt."""
        self._store.write(layer, self._slots, self.positions, k, v)
        q, k, v = (x[self._rows].transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)[self._unpad]


class EpisodeAttention:
    """An `Attend` for tokens that follow what is stored of R episodes, a few tokens of each at a time.

    Call `place` before every forward pass, then pass the object as `attend`.
    """

    def __init__(
        self,
        shape: Shape,
        prompts: Store,
        own: Store,
        slots: Sequence[int],
        prompt_slots: Sequence[int],
        prompt_lengths: Sequence[int],
    ) -> None:
        """`slots` of the episodes in `own`, the slot of each one's prompt in `prompts`, and the prompt's length."""
        self._shape, self._prompts, self._own = shape, prompts, own
        span = max(slots) + 1
        if len(slots) >= _DENSE * span:
            # Rows are slots, holes included: reading a few idle rows is cheaper than copying the others.
            self.rows: list[int] = list(slots)
            self._count, self._own_slots = span, span
            self._row_slots: Tensor | None = None
        else:
            self.rows = list(range(len(slots)))
            self._count = len(slots)
            self._own_slots = self._row_slots = torch.tensor(slots, device=shape.device)  # type: ignore[assignment]
        self._group(prompt_slots, prompt_lengths)

    def _group(self, prompt_slots: Sequence[int], prompt_lengths: Sequence[int]) -> None:
        """Lay the rows out as [groups, members], so that a group's prompt is read once for all of its members."""
        device = self._shape.device
        members: dict[int, list[int]] = {}
        lengths: dict[int, int] = {}
        for row, prompt, length in zip(self.rows, prompt_slots, prompt_lengths, strict=True):
            members.setdefault(prompt, []).append(row)
            lengths[prompt] = length
        order = sorted(members)
        if len(order) >= _DENSE * (order[-1] + 1):
            self._prompt_slots: Tensor | int = order[-1] + 1
            order = list(range(order[-1] + 1))
        else:
            self._prompt_slots = torch.tensor(order, device=device)
        self._groups, self._members = len(order), max(len(rows) for rows in members.values())
        table = [members.get(prompt, []) for prompt in order]
        padded = [row for rows in table for row in [*rows, *[0] * (self._members - len(rows))]]
        back = [0] * self._count
        for group, rows in enumerate(table):
            for index, row in enumerate(rows):
                back[row] = group * self._members + index
        same = padded == list(range(self._count))
        self._to_group = None if same else torch.tensor(padded, device=device)
        self._from_group = None if same else torch.tensor(back, device=device)
        length_of = [lengths.get(prompt, 1) for prompt in order]
        self._prompt_length = max(length_of)
        self._prompt_mask: Tensor | None = None
        if min(length_of) < self._prompt_length:
            hidden = torch.arange(self._prompt_length) >= torch.tensor(length_of)[:, None]
            mask = torch.zeros(hidden.shape, dtype=self._score_dtype).masked_fill_(hidden, float("-inf"))
            self._prompt_mask = mask[:, None].to(device)

    @property
    def _score_dtype(self) -> torch.dtype:
        return torch.promote_types(self._shape.dtype, torch.float32)

    def place(self, rows: Tensor, steps: Tensor | None, starts: Tensor, width: int, length: int) -> None:
        """Say where the tokens of the next forward pass belong.

        Args:
            rows: [N] row of each token, a value of `self.rows`.
            steps: [N] number of the token among the row's new ones; None when each row has one.
            starts: [N] how many tokens of its own the row had stored before.
            width: the most new tokens of any row.
            length: the most tokens of any row afterwards, new ones included.
        """
        device = self._shape.device
        self._width, self._length = width, length
        self._token_slots = rows if self._row_slots is None else self._row_slots[rows]
        self._token_positions = starts if steps is None else starts + steps
        self._cells: Tensor | None = rows if steps is None else rows * width + steps
        first = torch.zeros(self._count, dtype=torch.long, device=device).index_copy_(0, rows, starts)
        if steps is None and len(rows) == self._count:
            self._cells = None  # every row has its token, and they come in order of rows
        seen = first[:, None] + torch.arange(width, device=device)
        hidden = torch.arange(length, device=device) > seen[..., None]
        mask = torch.zeros(hidden.shape, dtype=self._score_dtype, device=device)
        self._mask = mask.masked_fill_(hidden, float("-inf"))[:, None, :, None]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax over both parts with one maximum and one sum."""
        heads, kv, dim = self._shape.heads, self._shape.kv_heads, self._shape.head_dim
        rows, width, repeat = self._count, self._width, heads // kv
        self._own.write(layer, self._token_slots, self._token_positions, k, v)
        q = q * (
            dim**-0.5 / math.log(2)
        )  # in powers of two: exp slows down tenfold where a score is -inf, exp2 does not
        if self._cells is not None:
            q = q.new_zeros(rows * width, heads, dim).index_copy_(0, self._cells, q)
        q = q.view(rows, width, kv, repeat, dim)
        own_k, own_v = self._own.read(layer, self._own_slots, self._length)
        prompt_k, prompt_v = self._prompts.read(layer, self._prompt_slots, self._prompt_length)

        own = torch.bmm(q.transpose(1, 2).reshape(rows * kv, width * repeat, dim), own_k).to(self._score_dtype)
        own.view(rows, kv, width, repeat, -1).add_(self._mask)
        shared = torch.bmm(self._grouped(q), prompt_k).to(self._score_dtype)
        if self._prompt_mask is not None:
            shared.view(self._groups, -1, self._prompt_length).add_(self._prompt_mask)

        top = torch.maximum(self._by_row(own.amax(-1, True)), self._ungrouped(shared.amax(-1, True)))
        own.sub_(top.transpose(1, 2).reshape(rows * kv, width * repeat, 1)).exp2_()
        shared.sub_(self._grouped(top)).exp2_()
        total = self._by_row(own.sum(-1, True)) + self._ungrouped(shared.sum(-1, True))
        mixed = self._by_row(torch.bmm(own.to(q.dtype), own_v)) + self._ungrouped(
            torch.bmm(shared.to(q.dtype), prompt_v)
        )
        out = (mixed / total).to(q.dtype).reshape(rows * width, heads, dim)
        return out if self._cells is None else out.index_select(0, self._cells)

    def _by_row(self, x: Tensor) -> Tensor:
        """[R * KV, width * repeat, c] as [R, width, KV, repeat, c]."""
        return x.view(self._count, self._shape.kv_heads, self._width, -1, x.shape[-1]).transpose(1, 2)

    def _grouped(self, x: Tensor) -> Tensor:
        """[R, width, KV, repeat, c] as [groups * KV, members * width * repeat, c]."""
        _, width, kv, repeat, c = x.shape
        if self._to_group is not None:
            x = x.index_select(0, self._to_group)
        x = x.reshape(self._groups, self._members, width, kv, repeat, c).permute(0, 3, 1, 2, 4, 5)
        return x.reshape(self._groups * kv, self._members * width * repeat, c)

    def _ungrouped(self, x: Tensor) -> Tensor:
        """The inverse of `_grouped`."""
        kv, width = self._shape.kv_heads, self._width
        x = x.view(self._groups, kv, self._members, width, -1, x.shape[-1]).permute(0, 2, 3, 1, 4, 5)
        x = x.reshape(self._groups * self._members, width, kv, -1, x.shape[-1])
        return x if self._from_group is None else x.index_select(0, self._from_group)


_DENSE = 0.75
"""Read slots in place, idle ones included, when at least this share of them is wanted; else copy the wanted ones."""
