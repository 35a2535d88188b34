"""Keys and values of many episodes, and the attention that reads them. Prompts are kept apart and once per group.

While tokens are decoded, each row's scores over its group's prompt, computed for the group's members together, and over
its own episode meet in one softmax. Nothing here knows of requests, sampling or text.
"""

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
    """Keys and values in slots, [slots, KV, length, D] each and per layer, growing geometrically."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.slots = 0
        self.length = 0

    def reserve(self, slots: int, length: int) -> None:
        """Make room for `slots` sequences of `length` tokens; what is stored stays."""
        if slots <= self.slots and length <= self.length:
            return
        new_slots = self.slots if slots <= self.slots else max(slots, 8, self.slots * 3 // 2)
        new_length = self.length if length <= self.length else max(length, 32, self.length * 3 // 2)
        size = (new_slots, self._shape.kv_heads, new_length, self._shape.head_dim)
        for buffers in (self._keys, self._values):
            for layer in range(self._shape.layers):
                # Zeros: a weight of exactly 0 must not meet a NaN in memory that was never written.
                new = torch.zeros(size, dtype=self._shape.dtype, device=self._shape.device)
                if len(buffers) <= layer:
                    buffers.append(new)
                    continue
                new[: self.slots, :, : self.length] = buffers[layer]
                buffers[layer] = new
        self.slots, self.length = new_slots, new_length

    def release(self) -> None:
        """Give the memory back."""
        self._keys, self._values, self.slots, self.length = [], [], 0, 0

    def write(self, layer: int, slots: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k, v [N, KV, D] at `slots` [N] and `positions` [N]."""
        self._keys[layer][slots, :, positions] = k
        self._values[layer][slots, :, positions] = v

    def read(self, layer: int, slots: Tensor | int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values [S, KV, length, D]: views of the first `slots` slots, or copies of the chosen ones."""
        keys, values = self._keys[layer][:, :, :length], self._values[layer][:, :, :length]
        if isinstance(slots, int):
            return keys[:slots], values[:slots]
        return keys.index_select(0, slots), values.index_select(0, slots)

    def copy(self, slots: Sequence[tuple[int, int]], length: int) -> None:
        """Copy the first `length` tokens of slots to others, given as pairs; all are read before any is written."""
        if not slots:
            return
        source, to = torch.tensor(slots, device=self._shape.device).T
        for buffer in (*self._keys, *self._values):
            used = buffer[:, :, :length]
            used.index_copy_(0, to, used.index_select(0, source))


class PromptAttention:
    """An `Attend` for B whole prompts, one after another; stores their keys and values."""

    def __init__(self, store: Store, slots: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        self._store = store
        self._rows, self._unpad, valid = (part.to(device) for part in _padded(lengths))
        self.positions = torch.arange(max(lengths), device=device).expand_as(valid)[valid]
        self._slots = torch.tensor(slots).repeat_interleave(torch.tensor(lengths)).to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention within each prompt."""
        self._store.write(layer, self._slots, self.positions, k, v)
        q, k, v = (x[self._rows].transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)[self._unpad]


class ReplyAttention:
    """An `Attend` for R runs of new tokens, one after another, each of which follows what is stored of an episode."""

    def __init__(
        self,
        prompts: Store,
        own: Store,
        slots: Sequence[int],
        stored: Sequence[int],
        lengths: Sequence[int],
        prompt_slots: Sequence[int],
        prompt_lengths: Sequence[int],
        device: torch.device,
    ) -> None:
        """`stored` [R] tokens of the episodes in `slots` [R] are followed by `lengths` [R] new ones."""
        self._prompts, self._own = prompts, own
        self._rows, self._unpad, valid = (part.to(device) for part in _padded(lengths))
        first, prompt_length = torch.tensor(stored), torch.tensor(prompt_lengths)
        steps = torch.arange(max(lengths))
        number = first[:, None] + steps  # [R, W] of each token among its episode's own
        self._token_positions = number.to(device)[valid]
        self.positions = (number + prompt_length[:, None]).to(device)[valid]
        self._token_slots = torch.tensor(slots).repeat_interleave(torch.tensor(lengths)).to(device)
        self._slots, self._prompt_slots = torch.tensor(slots).to(device), torch.tensor(prompt_slots).to(device)
        self._length = max(map(sum, zip(stored, lengths, strict=True)))
        self._prompt_length = max(prompt_lengths)
        of_prompt = torch.arange(self._prompt_length) >= prompt_length[:, None, None]
        of_own = torch.arange(self._length) > number[..., None]
        hidden = torch.cat((of_prompt.expand(-1, len(steps), -1), of_own), -1)
        self._mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None].to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention to the whole prompt, to what is stored, and causally to the new tokens."""
        self._own.write(layer, self._token_slots, self._token_positions, k, v)
        parts = zip(
            self._prompts.read(layer, self._prompt_slots, self._prompt_length),
            self._own.read(layer, self._slots, self._length),
            strict=True,
        )
        keys, values = (torch.cat(part, 2) for part in parts)
        rows = q[self._rows].transpose(1, 2)
        out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=self._mask.to(q.dtype), enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)[self._unpad]


class DecodeAttention:
    """An `Attend` for one new token of each of some episodes, in a few forward passes one after another.

    Rows are the first slots of the store, idle ones included: reading some of those is cheaper than copying the
    others. Call `place` before every forward pass.
    """

    def __init__(
        self,
        shape: Shape,
        prompts: Store,
        own: Store,
        slots: Sequence[int],
        stored: Sequence[int],
        prompt_slots: Sequence[int],
        prompt_lengths: Sequence[int],
        passes: int,
    ) -> None:
        """`slots` of the episodes in ascending order, what is stored of each, and its prompt, for so many passes."""
        self._shape, self._prompts, self._own = shape, prompts, own
        self._count = slots[-1] + 1
        first = torch.zeros(self._count, dtype=torch.long)
        first[torch.tensor(slots)] = torch.tensor(stored)
        self._first = max(stored)
        last = first + torch.arange(passes)[:, None]  # [passes, rows] the newest token of each
        hidden = torch.arange(self._first + passes) > last[..., None]
        mask = torch.zeros(hidden.shape, dtype=shape.dtype).masked_fill_(hidden, float("-inf")).to(shape.device)
        self._masks = mask.repeat_interleave(shape.kv_heads, 1)[:, :, None]
        self._group(slots, prompt_slots, prompt_lengths)

    def _group(self, slots: Sequence[int], prompt_slots: Sequence[int], prompt_lengths: Sequence[int]) -> None:
        """Lay the rows out as [groups, members], so that a prompt is read once for several of its rows.

        Members are padded to the most of any group, so a prompt with many more rows than others is read more than once.
        """
        device = self._shape.device
        rows_of: dict[int, list[int]] = {}
        lengths: dict[int, int] = {}
        for row, prompt, length in zip(slots, prompt_slots, prompt_lengths, strict=True):
            rows_of.setdefault(prompt, []).append(row)
            lengths[prompt] = length
        self._members = width = _best_width([len(rows) for rows in rows_of.values()])
        groups = [
            (prompt, rows[first : first + width])
            for prompt, rows in rows_of.items()
            for first in range(0, len(rows), width)
        ]
        self._groups = len(groups)
        grid = [row for _, rows in groups for row in [*rows, *[0] * (width - len(rows))]]
        back = [0] * self._count
        for group, (_, rows) in enumerate(groups):
            for index, row in enumerate(rows):
                back[row] = group * width + index
        same = grid == list(range(self._count))
        self._to_group = None if same else torch.tensor(grid, device=device)
        self._from_group = None if same else torch.tensor(back, device=device)
        self._prompt_length = longest = max(lengths.values())
        hidden = torch.arange(longest) >= torch.tensor([lengths[prompt] for prompt, _ in groups])[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._shape.dtype).masked_fill_(hidden, float("-inf")).to(device)
        self._prompt_mask = mask.repeat_interleave(self._shape.kv_heads, 0)[:, None]
        order = [prompt for prompt, _ in groups]
        chosen = len(order) if order == list(range(len(order))) else torch.tensor(order, device=device)
        # The prompts stay the same for all passes, so they are fetched once.
        self._of_prompts = [
            tuple(part.flatten(0, 1) for part in self._prompts.read(layer, chosen, longest))
            for layer in range(self._shape.layers)
        ]

    def place(self, number: int, rows: Tensor, stored: Tensor) -> None:
        """Say where the tokens of the forward pass with this number belong.

        Args:
            number: of the pass, from 0.
            rows: [N] the slot of each token.
            stored: [N] how many tokens of its own the row had stored before.
        """
        self._slots, self._positions = rows, stored
        self._length = self._first + number + 1
        self._mask = self._masks[number, :, :, : self._length]
        self._whole = len(rows) == self._count

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One softmax over both parts."""
        heads, kv, dim = self._shape.heads, self._shape.kv_heads, self._shape.head_dim
        self._own.write(layer, self._slots, self._positions, k, v)
        if not self._whole:
            q = q.new_zeros(self._count, heads, dim).index_copy_(0, self._slots, q)
        own_k, own_v = (part.flatten(0, 1) for part in self._own.read(layer, self._count, self._length))
        prompt_k, prompt_v = self._of_prompts[layer]
        scale = dim**-0.5
        own = torch.baddbmm(self._mask, q.reshape(self._count * kv, -1, dim), own_k.transpose(1, 2), alpha=scale)
        q = self._grouped(q.view(self._count, kv, -1, dim))
        shared = torch.baddbmm(self._prompt_mask, q, prompt_k.transpose(1, 2), alpha=scale)
        both = torch.cat((own.view(self._count, kv, -1, self._length), self._ungrouped(shared)), -1)
        weights = both.softmax(-1, dtype=torch.promote_types(both.dtype, torch.float32)).to(v.dtype)
        own = torch.bmm(weights[..., : self._length].flatten(0, 1), own_v)
        shared = torch.bmm(self._grouped(weights[..., self._length :]), prompt_v)
        out = self._ungrouped(shared).add_(own.view(self._count, kv, -1, dim)).view(self._count, heads, dim)
        return out if self._whole else out.index_select(0, self._slots)

    def _grouped(self, x: Tensor) -> Tensor:
        """[R, KV, repeat, c] as [groups * KV, members * repeat, c]."""
        if self._to_group is not None:
            x = x.index_select(0, self._to_group)
        _, kv, repeat, c = x.shape
        x = x.view(self._groups, self._members, kv, repeat, c).transpose(1, 2)
        return x.reshape(self._groups * kv, self._members * repeat, c)

    def _ungrouped(self, x: Tensor) -> Tensor:
        """The inverse of `_grouped`, in memory of its own."""
        kv, c = self._shape.kv_heads, x.shape[-1]
        x = x.view(self._groups, kv, self._members, -1, c).transpose(1, 2).flatten(0, 1)
        return x.contiguous() if self._from_group is None else x.index_select(0, self._from_group)


def _best_width(sizes: Sequence[int]) -> int:
    """How many rows of a prompt to lay side by side: what reads prompts seldom and pads little."""

    def cost(width: int) -> int:
        return sum(-(-size // width) for size in sizes) * (_READING + width)

    return min(range(1, max(sizes) + 1), key=cost)


_READING = 2
"""What reading a prompt costs, in rows that look at one: about, and nothing but speed hangs on it."""


def _padded(lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """For S runs of flat tokens that stand one after another, laid out as [S, longest].

    Returns:
        [S, longest] the flat index of each token, padding repeating the run's last; the indices into S * longest of
        what is not padding; and [S, longest] whether it is not.
    """
    length = torch.tensor(lengths)
    steps = torch.arange(max(lengths))
    valid = steps < length[:, None]
    rows = (length.cumsum(0) - length)[:, None] + torch.minimum(steps, length[:, None] - 1)
    return rows, valid.flatten().nonzero()[:, 0], valid
