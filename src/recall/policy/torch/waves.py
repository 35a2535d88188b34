"""Sample for many episodes in waves: prefill what is new, then decode together for a few steps. In one thread.

Episodes whose contexts are the same so far are one row of the batch and one slot of the cache; each draws its own token
from what the row says, and those who draw another than most go on as a row of their own from the next wave on. It owns
the cache: which slot holds which context, and which prompt they share. It knows nothing of asyncio, of waiting, or of
who may join a wave; `engine.TorchPolicy` decides that.
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
from recall.policy.torch.layout import common
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
    """Forward passes that took one token of each active context."""
    decoded_tokens: int = 0
    """Tokens that those passes took; episodes with the same context take one together."""
    prefill_s: float = 0.0
    """Seconds spent on prompts and replies, summed over shards."""
    decode_s: float = 0.0
    """Seconds spent on decode steps, summed over shards."""

    @property
    def mean_batch(self) -> float:
        """Contexts in the average decode step."""
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
class _Branch:
    """A context that has a slot."""

    slot: int
    token_ids: list[int]
    """The tokens after the prompt whose keys and values are in the cache."""
    users: int = 0
    """Episodes whose context begins, or ends, with it."""


@dataclass(eq=False, slots=True)
class _Episode:
    """What is kept of an episode."""

    prompt: _Prompt
    token_ids: list[int]
    """Everything after the prompt."""
    branch: _Branch | None = None
    """Where to look for keys and values; how many of them are its own shows in the tokens."""


@dataclass(eq=False, slots=True)
class _Strand:
    """Turns that have the same context and sample alike: a row of the batch."""

    turns: list[tuple[int, Turn]]
    """With the place of each among those that the strand began with."""
    prompt: _Prompt
    branch: _Branch
    token_ids: list[int]
    """Everything after the prompt; the very list of its episodes, so that it grows for all."""

    @property
    def news(self) -> list[int]:
        """The tokens that have no keys and values yet."""
        return self.token_ids[len(self.branch.token_ids) :]


class Waves:
    """The sampling engine behind `TorchPolicy`."""

    def __init__(self, decoder: Decoder, shape: Shape, stop_token_ids: Sequence[int], *, prefill_tokens: int) -> None:
        """`prefill_tokens` bounds the tokens of one prefill pass."""
        self._decoder = decoder
        self._shape = shape
        self._stops = frozenset(stop_token_ids)
        self._prefill_tokens = prefill_tokens
        self._prompts: dict[tuple[int, ...], _Prompt] = {}
        self._episodes: dict[str, _Episode] = {}
        self._branches: list[_Branch] = []
        self._prompt_store, self._own_store = Store(shape), Store(shape)
        self.stats = EngineStats()

    def __len__(self) -> int:
        """How many episodes are here."""
        return len(self._episodes)

    def holds(self, prompt: tuple[int, ...]) -> bool:
        """Whether an episode that began with `prompt` is here."""
        return prompt in self._prompts

    def end(self, episode_id: str) -> None:
        """Forget an episode, known or not."""
        episode = self._episodes.pop(episode_id, None)
        if episode is not None:
            self._move(episode, None)
            episode.prompt.users -= 1
            if not episode.prompt.users:
                del self._prompts[episode.prompt.token_ids]

    def invalidate(self) -> None:
        """Forget every key and value, because the weights changed; episodes go on."""
        for branch in self._branches:
            branch.token_ids = []
        for prompt in self._prompts.values():
            prompt.logits = None

    def release(self) -> None:
        """Forget every key and value and give their memory back."""
        self.invalidate()
        self._prompt_store.release()
        self._own_store.release()

    def join(self, turn: Turn) -> None:
        """Take in the context of a turn; what is stored of it already is kept."""
        episode = self._episodes.get(turn.episode_id)
        tokens = tuple(turn.prompt_ids)
        if episode is not None and tokens[: len(episode.prompt.token_ids)] != episode.prompt.token_ids:
            self.end(turn.episode_id)
            episode = None
        if episode is None:
            prompt = self._prompts.get(tokens)
            if prompt is None:
                prompt = self._prompts[tokens] = _Prompt(tokens, _lowest_free({p.slot for p in self._prompts.values()}))
            else:
                self.stats += EngineStats(prompt_hits=1)
            prompt.users += 1
            episode = self._episodes[turn.episode_id] = _Episode(prompt, [])
        episode.token_ids = list(tokens[len(episode.prompt.token_ids) :])

    @torch.inference_mode()
    def run(self, turns: Sequence[Turn], steps: int) -> None:
        """Bring every turn forward by up to `steps` tokens, one more for those that joined.

        A turn that parts from others on the way stops there, until the next wave.
        """
        started = time.perf_counter()
        strands = self._strands(turns, steps)
        self._run_prompts([strand.prompt for strand in strands])
        fresh = [strand for strand in strands if len(strand.news) != 1]
        if fresh:
            self._run_replies(fresh)
            strands = self._strands([turn for turn in turns if not turn.done], steps)
        middle = time.perf_counter()
        if strands:
            self._compact({strand.branch.slot for strand in strands})
            strands.sort(key=lambda strand: strand.branch.slot)
            self._decode(strands, steps)
        self.stats += EngineStats(prefill_s=middle - started, decode_s=time.perf_counter() - middle)

    def _strands(self, turns: Sequence[Turn], steps: int) -> list[_Strand]:
        """The rows that turns make, each with a slot of its own, and room for `steps` tokens more."""
        alike: dict[tuple[Any, ...], list[Turn]] = {}
        for turn in turns:
            episode, sampling = self._episodes[turn.episode_id], turn.sampling
            key = (id(episode.prompt), sampling.temperature, sampling.top_p, *episode.token_ids)
            alike.setdefault(key, []).append(turn)
        used = {branch.slot for branch in self._branches}
        copies: list[tuple[int, int]] = []
        strands: list[_Strand] = []
        for same in alike.values():
            episodes = [self._episodes[turn.episode_id] for turn in same]
            branch, copied = self._branch_of(episodes, {id(strand.branch) for strand in strands}, used)
            if copied is not None:
                copies.append((copied, branch.slot))
            own = list(episodes[0].token_ids)
            for episode in episodes:
                self._move(episode, branch)
                episode.token_ids = own
            strands.append(_Strand([*enumerate(same)], episodes[0].prompt, branch, own))
        if strands:
            longest = max(len(strand.token_ids) for strand in strands)
            self._own_store.reserve(1 + max(strand.branch.slot for strand in strands), steps + 1 + longest)
            self._own_store.copy(copies, longest)
        return strands

    def _branch_of(self, episodes: Sequence[_Episode], taken: Set[int], used: set[int]) -> tuple[_Branch, int | None]:
        """The branch of some episodes with the same context, and the slot to copy its beginning from, if any.

        A branch that others build on is not cut, and no two strands go on with one. Slots that became free meanwhile
        may still be copied from, so they stay in `used`, to which a new one is added.
        """
        own = episodes[0].token_ids
        # The last token must run again when nothing is new: its logits were not kept.
        most = max(len(own) - 1, 0)
        found: tuple[int, bool, _Branch] | None = None
        for branch in {id(e.branch): e.branch for e in episodes if e.branch is not None}.values():
            option = min(_common(branch.token_ids, own), most), id(branch) not in taken, branch
            if found is None or option[:2] > found[:2]:
                found = option
        kept, free, branch_ = found or (0, False, None)
        if branch_ is not None and free:
            alone = branch_.users == sum(episode.branch is branch_ for episode in episodes)
            if kept == len(branch_.token_ids) or alone:
                del branch_.token_ids[kept:]
                return branch_, None
        new = _Branch(_lowest_free(used), own[:kept])
        used.add(new.slot)
        self._branches.append(new)
        return new, branch_.slot if branch_ is not None and kept else None

    def _move(self, episode: _Episode, branch: _Branch | None) -> None:
        """Let an episode look for its keys and values elsewhere."""
        old, episode.branch = episode.branch, branch
        if branch is not None:
            branch.users += 1
        if old is not None:
            old.users -= 1
            if not old.users:
                self._branches.remove(old)

    def _compact(self, active: Set[int]) -> None:
        """Move active contexts to the first slots, when they are few among idle ones."""
        if len(active) >= 0.75 * (max(active) + 1):
            return
        outside = sorted(slot for slot in active if slot >= len(active))
        holes = sorted(set(range(len(active))) - active)
        longest = max(len(branch.token_ids) for branch in self._branches)
        self._own_store.copy([*zip(outside, holes, strict=True), *zip(holes, outside, strict=True)], longest)
        moved = dict(zip([*outside, *holes], [*holes, *outside], strict=True))
        for branch in self._branches:
            branch.slot = moved.get(branch.slot, branch.slot)

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

    def _run_replies(self, strands: list[_Strand]) -> None:
        """Run what is new of each context and sample the first token after it for each of its turns."""
        logits = [strand.prompt.logits for strand in strands]
        news = [index for index, strand in enumerate(strands) if strand.token_ids]
        news.sort(key=lambda index: (len(strands[index].news), strands[index].branch.slot))
        for chunk in _chunks(news, [len(strands[index].news) for index in news], self._prefill_tokens):
            for index, row_logits in zip(chunk, self._run_chunk([strands[index] for index in chunk]), strict=True):
                logits[index] = row_logits
        draw, drawn = self._draw(strands, 1)
        ids, logprobs = draw(torch.stack(logits), drawn[0])  # type: ignore[arg-type]
        self.stats += EngineStats(sampled_tokens=sum(len(strand.turns) for strand in strands))
        for strand, tokens, nats in zip(strands, ids.tolist(), logprobs.tolist(), strict=True):
            self._extend(strand, tokens, nats)

    def _run_chunk(self, strands: list[_Strand]) -> Tensor:
        """[R, V] logits after the last token of each context."""
        news = [strand.news for strand in strands]
        lengths = [len(new) for new in news]
        attention = ReplyAttention(
            self._prompt_store,
            self._own_store,
            [strand.branch.slot for strand in strands],
            [len(strand.branch.token_ids) for strand in strands],
            lengths,
            [strand.prompt.slot for strand in strands],
            [len(strand.prompt.token_ids) for strand in strands],
            self._shape.device,
        )
        tokens = self._tensor([token for new in news for token in new])
        last = self._tensor(lengths).cumsum(0) - 1
        logits = self._decoder.forward(tokens, attention.positions, attention, logits_at=last)
        for strand, new in zip(strands, news, strict=True):
            strand.branch.token_ids += new
        self.stats += EngineStats(prefilled_tokens=len(tokens))
        return logits

    def _decode(self, strands: list[_Strand], steps: int) -> None:
        """Sample up to `steps` tokens of each turn; strands are sorted by slot, each with one token not yet stored."""
        steps = min(steps, max(turn.limit - len(turn.token_ids) for strand in strands for _, turn in strand.turns))
        slots = [strand.branch.slot for strand in strands]
        kept = [len(strand.branch.token_ids) for strand in strands]
        prompts = [len(strand.prompt.token_ids) for strand in strands]
        attention = DecodeAttention(
            self._shape,
            self._prompt_store,
            self._own_store,
            slots,
            kept,
            [strand.prompt.slot for strand in strands],
            prompts,
            steps,
        )
        slot, stored = self._tensor(slots), self._tensor(kept)
        position = stored + self._tensor(prompts)
        draw, drawn = self._draw(strands, steps)
        tokens = [strand.token_ids[-1] for strand in strands]
        sampled = decoded = ran = 0
        for step in range(steps):
            attention.place(step, slot, stored)
            logits = self._decoder.forward(self._tensor(tokens), position, attention)
            ids, logprobs = draw(logits, drawn[step])
            ran, decoded = ran + 1, decoded + len(strands)
            sampled += sum(len(strand.turns) for strand in strands)
            rows = zip(strands, tokens, ids.tolist(), logprobs.tolist(), strict=True)
            going, tokens = [], []
            for number, (strand, token, row, nats) in enumerate(rows):
                strand.branch.token_ids.append(token)
                following = self._extend(strand, row, nats)
                if following is not None:
                    going.append(number)
                    tokens.append(following)
            if not going:
                break
            stored, position = stored + 1, position + 1
            if len(going) < len(strands):
                strands = [strands[number] for number in going]
                keep = self._tensor(going)
                slot, stored, position, drawn = slot[keep], stored[keep], position[keep], drawn[:, keep]
                draw = draw.select(keep)
        self.stats += EngineStats(sampled_tokens=sampled, decode_steps=ran, decoded_tokens=decoded)

    def _draw(self, strands: Sequence[_Strand], steps: int) -> tuple[Draw, Tensor]:
        """How each strand samples, and [steps, strands, most turns of any] the numbers that its turns draw with."""
        samplings = [strand.turns[0][1].sampling for strand in strands]
        draw = Draw.build([s.temperature for s in samplings], [s.top_p for s in samplings], self._shape.device)
        width = max(len(strand.turns) for strand in strands)
        turns = [
            turn for strand in strands for _, turn in [*strand.turns, *strand.turns[:1] * (width - len(strand.turns))]
        ]
        drawn = uniforms([turn.seed for turn in turns], [len(turn.token_ids) for turn in turns], steps)
        return draw, drawn.view(steps, len(strands), width).to(self._shape.device)

    def _extend(self, strand: _Strand, ids: Sequence[int], logprobs: Sequence[float]) -> int | None:
        """Give each turn of a strand the token that it drew, and go on with those that drew what most did.

        Returns:
            Their token; None where every turn is done.
        """
        drew: dict[int, list[tuple[int, Turn]]] = {}
        for place, turn in strand.turns:
            token = ids[place]
            turn.token_ids.append(token)
            turn.logprobs.append(logprobs[place])
            turn.stopped = token in self._stops
            if not turn.done:
                drew.setdefault(token, []).append((place, turn))
        most = max(drew.values(), key=len, default=[])
        staying = {place for place, _ in most}
        for place, turn in strand.turns:
            if place not in staying:
                self._episodes[turn.episode_id].token_ids = [*strand.token_ids, ids[place]]
        strand.turns = most
        if not most:
            return None
        strand.token_ids.append(ids[most[0][0]])
        return strand.token_ids[-1]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._shape.device)


def _common(left: list[int], right: list[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return len(left) if right[: len(left)] == left else common(left, right)


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
