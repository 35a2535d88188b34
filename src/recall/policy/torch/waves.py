"""Sample for many episodes in waves: prefill what is new, then decode together for a few steps. In one thread.

It owns the cache: which slot holds which episode, and which prompt they share. It knows nothing of asyncio, of waiting,
or of who may join a wave; `engine.TorchPolicy` decides that.
"""

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

import torch
from torch import Tensor

from recall.policy.torch.cache import DecodeAttention, PromptAttention, ReplyAttention, Shape, Store
from recall.policy.torch.decoder import Decoder
from recall.policy.torch.sampling import Draw, uniforms
from recall.types import Sampling


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine did since it was last asked."""

    sampled_tokens: int = 0
    """Tokens sampled."""
    prefilled_tokens: int = 0
    """Tokens of prompts and replies that were run through the model."""
    prompt_hits: int = 0
    """Episodes that found their prompt's keys and values there."""
    decode_steps: int = 0
    """Forward passes that took one token of each active episode."""
    decoded_tokens: int = 0
    """Tokens sampled in those passes."""
    prefill_s: float = 0.0
    """Seconds spent on prompts and replies, summed over shards."""
    decode_s: float = 0.0
    """Seconds spent on decode steps, summed over shards."""

    @property
    def mean_batch(self) -> float:
        """Episodes in the average decode step."""
        return self.decoded_tokens / self.decode_steps if self.decode_steps else 0.0

    @property
    def busy_s(self) -> float:
        """Seconds of work, summed over shards."""
        return self.prefill_s + self.decode_s

    def __add__(self, other: "EngineStats") -> "EngineStats":
        return EngineStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(eq=False, slots=True)
class Turn:
    """A turn being sampled."""

    episode_id: str
    prompt_ids: Sequence[int]
    sampling: Sampling
    seed: int
    limit: int
    """The most tokens to sample, the room in the context taken into account."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def done(self) -> bool:
        """Whether a stop token or the limit ended it."""
        return self.stopped or len(self.token_ids) >= self.limit


@dataclass(eq=False, slots=True)
class _Prompt:
    token_ids: tuple[int, ...]
    slot: int
    users: int = 0
    logits: Tensor | None = None
    """[V] what follows the prompt; None until it was run."""


@dataclass(eq=False, slots=True)
class _Row:
    """What is kept of an episode."""

    prompt: _Prompt
    slot: int
    token_ids: list[int] = field(default_factory=list)
    """Everything after the prompt."""
    stored: int = 0
    """How many of them have keys and values in the cache."""


class Waves:
    """The sampling engine behind `TorchPolicy`."""

    def __init__(self, decoder: Decoder, shape: Shape, stop_token_ids: Sequence[int], *, prefill_tokens: int) -> None:
        """`prefill_tokens` bounds the tokens of one prefill pass."""
        self._decoder = decoder
        self._shape = shape
        self._stops = torch.tensor(sorted(stop_token_ids), device=shape.device)
        self._stop_set = frozenset(stop_token_ids)
        self._prefill_tokens = prefill_tokens
        self._prompts: dict[tuple[int, ...], _Prompt] = {}
        self._rows: dict[str, _Row] = {}
        self._prompt_store, self._own_store = Store(shape), Store(shape)
        self.stats = EngineStats()

    def __len__(self) -> int:
        """How many episodes hold a slot."""
        return len(self._rows)

    def holds(self, prompt: tuple[int, ...]) -> bool:
        """Whether an episode that began with `prompt` is here."""
        return prompt in self._prompts

    def end(self, episode_id: str) -> None:
        """Forget an episode, known or not."""
        row = self._rows.pop(episode_id, None)
        if row is not None:
            row.prompt.users -= 1
            if not row.prompt.users:
                del self._prompts[row.prompt.token_ids]

    def invalidate(self) -> None:
        """Forget every key and value, because the weights changed; episodes go on."""
        for row in self._rows.values():
            row.stored = 0
        for prompt in self._prompts.values():
            prompt.logits = None

    def release(self) -> None:
        """Forget every key and value and give their memory back."""
        self.invalidate()
        self._prompt_store.release()
        self._own_store.release()

    def join(self, turn: Turn) -> None:
        """Give the turn's episode a slot, keeping what is stored of its context."""
        row = self._rows.get(turn.episode_id)
        tokens = tuple(turn.prompt_ids)
        if row is not None and tokens[: len(row.prompt.token_ids)] != row.prompt.token_ids:
            self.end(turn.episode_id)
            row = None
        if row is None:
            prompt = self._prompts.get(tokens)
            if prompt is None:
                prompt = self._prompts[tokens] = _Prompt(tokens, _lowest_free({p.slot for p in self._prompts.values()}))
            else:
                self.stats += EngineStats(prompt_hits=1)
            prompt.users += 1
            row = self._rows[turn.episode_id] = _Row(prompt, _lowest_free({r.slot for r in self._rows.values()}))
        own = list(tokens[len(row.prompt.token_ids) :])
        if own[: row.stored] != row.token_ids[: row.stored]:
            row.stored = next(i for i, token in enumerate(row.token_ids) if i >= len(own) or own[i] != token)
        row.token_ids = own
        # The last token must run again when nothing is new: its logits were not kept.
        row.stored = min(row.stored, max(len(own) - 1, 0))

    @torch.inference_mode()
    def run(self, turns: Sequence[Turn], steps: int) -> None:
        """Bring every turn forward by up to `steps` tokens, one more for those that joined."""
        started = time.perf_counter()
        rows = [self._rows[turn.episode_id] for turn in turns]
        self._own_store.reserve(1 + max(row.slot for row in rows), steps + 1 + max(len(row.token_ids) for row in rows))
        self._compact(rows)
        self._run_prompts([row.prompt for row in rows])
        fresh = [turn for turn, row in zip(turns, rows, strict=True) if len(row.token_ids) - row.stored != 1]
        if fresh:
            self._run_replies(fresh)
        middle = time.perf_counter()
        active = sorted((turn for turn in turns if not turn.done), key=lambda t: self._rows[t.episode_id].slot)
        if active:
            self._decode(active, min(steps, max(turn.limit - len(turn.token_ids) for turn in active)))
        self.stats += EngineStats(prefill_s=middle - started, decode_s=time.perf_counter() - middle)

    def _compact(self, rows: Sequence[_Row]) -> None:
        """Move active episodes to the first slots, when they are few among idle ones."""
        active = {row.slot for row in rows}
        if len(active) >= 0.75 * (max(active) + 1):
            return
        outside = sorted(slot for slot in active if slot >= len(active))
        holes = sorted(set(range(len(active))) - active)
        longest = max(row.stored for row in self._rows.values())
        self._own_store.swap(outside, holes, longest)
        moved = dict(zip([*outside, *holes], [*holes, *outside], strict=True))
        for row in self._rows.values():
            row.slot = moved.get(row.slot, row.slot)

    def _run_prompts(self, prompts: Sequence[_Prompt]) -> None:
        new = sorted({prompt.slot: prompt for prompt in prompts if prompt.logits is None}.items())
        if not new:
            return
        todo = [prompt for _, prompt in new]
        self._prompt_store.reserve(1 + todo[-1].slot, max(len(prompt.token_ids) for prompt in todo))
        for chunk in _chunks(todo, [len(prompt.token_ids) for prompt in todo], self._prefill_tokens):
            lengths = [len(prompt.token_ids) for prompt in chunk]
            attention = PromptAttention(
                self._prompt_store, [prompt.slot for prompt in chunk], lengths, self._shape.device
            )
            last = self._tensor(lengths).cumsum(0) - 1
            tokens = self._tensor([token for prompt in chunk for token in prompt.token_ids])
            logits = self._decoder.forward(tokens, attention.positions, attention, logits_at=last)
            for prompt, row in zip(chunk, logits, strict=True):
                prompt.logits = row
            self.stats += EngineStats(prefilled_tokens=len(tokens))

    def _run_replies(self, turns: list[Turn]) -> None:
        """Run what is new of each episode and sample the first token after it."""
        rows = [self._rows[turn.episode_id] for turn in turns]
        logits = [row.prompt.logits for row in rows]
        news = [index for index, row in enumerate(rows) if row.token_ids]
        news.sort(key=lambda index: (len(rows[index].token_ids) - rows[index].stored, rows[index].slot))
        for chunk in _chunks(news, [len(rows[i].token_ids) - rows[i].stored for i in news], self._prefill_tokens):
            for index, row_logits in zip(chunk, self._run_chunk([rows[i] for i in chunk]), strict=True):
                logits[index] = row_logits
        draw = Draw.build(
            [t.sampling.temperature for t in turns], [t.sampling.top_p for t in turns], self._shape.device
        )
        drawn = uniforms([turn.seed for turn in turns], [len(turn.token_ids) for turn in turns], 1)
        ids, logprobs = draw(torch.stack(logits), drawn[0].to(self._shape.device))  # type: ignore[arg-type]
        for turn, row, token, logprob in zip(turns, rows, ids.tolist(), logprobs.tolist(), strict=True):
            self._extend(turn, row, [token], [logprob])
        self.stats += EngineStats(sampled_tokens=len(turns))

    def _run_chunk(self, rows: list[_Row]) -> Tensor:
        """[R, V] logits after the last token of each row."""
        news = [row.token_ids[row.stored :] for row in rows]
        lengths = [len(new) for new in news]
        attention = ReplyAttention(
            self._prompt_store,
            self._own_store,
            [row.slot for row in rows],
            [row.stored for row in rows],
            lengths,
            [row.prompt.slot for row in rows],
            [len(row.prompt.token_ids) for row in rows],
            self._shape.device,
        )
        tokens = self._tensor([token for new in news for token in new])
        last = self._tensor(lengths).cumsum(0) - 1
        logits = self._decoder.forward(tokens, attention.positions, attention, logits_at=last)
        for row in rows:
            row.stored = len(row.token_ids)
        self.stats += EngineStats(prefilled_tokens=len(tokens))
        return logits

    def _decode(self, turns: list[Turn], steps: int) -> None:
        """Sample up to `steps` tokens of each turn; turns are sorted by slot, each with one token not yet stored."""
        device = self._shape.device
        rows = [self._rows[turn.episode_id] for turn in turns]
        attention = DecodeAttention(
            self._shape,
            self._prompt_store,
            self._own_store,
            [row.slot for row in rows],
            [row.stored for row in rows],
            [row.prompt.slot for row in rows],
            [len(row.prompt.token_ids) for row in rows],
            steps,
        )
        slot = self._tensor([row.slot for row in rows])
        token = self._tensor([row.token_ids[-1] for row in rows])
        stored = self._tensor([row.stored for row in rows])
        position = stored + self._tensor([len(row.prompt.token_ids) for row in rows])
        left = self._tensor([turn.limit - len(turn.token_ids) for turn in turns])
        draw = Draw.build([t.sampling.temperature for t in turns], [t.sampling.top_p for t in turns], device)
        drawn = uniforms([turn.seed for turn in turns], [len(turn.token_ids) for turn in turns], steps).to(device)
        alive = torch.arange(len(turns), device=device)
        taken = torch.full_like(alive, steps)
        out_ids = torch.zeros(steps, len(turns), dtype=torch.long, device=device)
        out_logprobs = torch.zeros(steps, len(turns), dtype=torch.float32, device=device)
        decoded = ran = 0
        for step in range(steps):
            attention.place(step, slot, stored)
            logits = self._decoder.forward(token, position, attention)
            token, logprob = draw(logits, drawn[step, alive])
            out_ids[step, alive] = token
            out_logprobs[step, alive] = logprob.to(out_logprobs.dtype)
            decoded, ran = decoded + len(alive), ran + 1
            stored, position = stored + 1, position + 1
            ended = torch.isin(token, self._stops) | (left <= step + 1)
            if ended.any():
                taken[alive[ended]] = step + 1
                keep = (~ended).nonzero()[:, 0]
                if not len(keep):
                    break
                alive, slot, token, stored, position, left = (
                    part[keep] for part in (alive, slot, token, stored, position, left)
                )
                draw = draw.select(keep)
        columns = zip(taken.tolist(), out_ids.T.tolist(), out_logprobs.T.tolist(), strict=True)
        for turn, row, (number, ids, logprobs) in zip(turns, rows, columns, strict=True):
            row.stored += number
            self._extend(turn, row, ids[:number], logprobs[:number])
        self.stats += EngineStats(sampled_tokens=decoded, decode_steps=ran, decoded_tokens=decoded)

    def _extend(self, turn: Turn, row: _Row, ids: list[int], logprobs: list[float]) -> None:
        row.token_ids += ids
        turn.token_ids += ids
        turn.logprobs += logprobs
        turn.stopped = turn.token_ids[-1] in self._stop_set

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._shape.device)


def _lowest_free(taken: Set[int]) -> int:
    return next(slot for slot in count() if slot not in taken)


def _chunks(items: Sequence[Any], sizes: Sequence[int], budget: int) -> Iterator[list[Any]]:
    """Cut `items` so that the sizes of a chunk, padded to its largest, stay within `budget`; a chunk is never empty."""
    chunk: list[Any] = []
    widest = 0
    for item, size in zip(items, sizes, strict=True):
        widest = max(widest, size)
        if chunk and widest * (len(chunk) + 1) > budget:
            yield chunk
            chunk, widest = [], size
        chunk.append(item)
    if chunk:
        yield chunk
