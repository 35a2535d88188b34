"""The in-process engine samples exactly what the model says, whatever else is in the batch."""

import asyncio
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from recall.errors import ConfigError, PolicyError  # noqa: E402
from recall.policy.torch import TorchPolicy  # noqa: E402
from recall.policy.torch.sampling import Draw, uniforms  # noqa: E402
from recall.types import Completion, Sampling  # noqa: E402

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 3,
    "eos_token_id": 2,
}
STOPS = (1, 2)


@cache
def model(family: str = "qwen3", dtype: Any = torch.float64) -> Any:
    torch.manual_seed(0)
    if family == "mistral":
        made = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=None))
    else:
        made = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, tie_word_embeddings=True))
    return made.eval().to(dtype)


@dataclass(frozen=True)
class Played:
    tokens: tuple[int, ...]
    logprobs: tuple[float | None, ...]


async def episode(policy: TorchPolicy, group: int, member: int, *, tool_s: float, temperature: float) -> Played:
    """Three turns with made-up replies; a function of `group` and `member`, but for the time that the tools take."""
    chance, name = random.Random(group * 100 + member), f"{group}/{member}"
    tokens = [random.Random(group).randrange(97) for _ in range(9 + group)]
    logprobs: list[float | None] = [None] * len(tokens)
    policy.begin(name)
    for _ in range(3):
        sampling = Sampling(temperature, seed=chance.getrandbits(30), max_tokens=chance.randint(1, 12))
        completion = await policy.sample(tokens, sampling, episode_id=name)
        reply = [chance.randrange(97) for _ in range(chance.randint(0, 9))]
        tokens = [*tokens, *completion.token_ids, *reply]
        logprobs += [*completion.logprobs, *[None] * len(reply)]
        if tool_s:
            await asyncio.sleep(random.random() * tool_s)
    policy.end(name)
    return Played(tuple(tokens), tuple(logprobs))


async def rollout(policy: TorchPolicy, *, tool_s: float = 0.0, temperature: float = 1.0) -> list[Played]:
    runs = [episode(policy, g, m, tool_s=tool_s, temperature=temperature) for g in range(3) for m in range(4)]
    return list(await asyncio.gather(*runs))


def play(*, tool_s: float = 0.0, temperature: float = 1.0, of: Any = None, **settings: Any) -> list[Played]:
    policy = TorchPolicy(of or model(), stop_token_ids=STOPS, **settings)
    played = asyncio.run(rollout(policy, tool_s=tool_s, temperature=temperature))
    assert all(len(shard) == 0 for shard in policy._shards), "end() frees what was kept"
    policy.close()
    return played


def worst_error(played: list[Played], reference: Any, temperature: float = 1.0) -> float:
    worst = 0.0
    for run in played:
        with torch.no_grad():
            logits = reference(torch.tensor([run.tokens])).logits[0]
        expected = (logits.double() / temperature).log_softmax(-1)
        for index, logprob in enumerate(run.logprobs):
            if logprob is not None:
                worst = max(worst, abs(float(expected[index - 1, run.tokens[index]]) - logprob))
    return worst


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 4e-6)])
@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_logprobs_are_those_of_a_full_forward_pass(family: str, dtype: Any, bound: float) -> None:
    reference = model(family, dtype)
    assert worst_error(play(of=reference), reference) < bound


def test_logprobs_are_those_at_the_temperature() -> None:
    assert worst_error(play(temperature=0.7), model(), 0.7) < 4e-6


@pytest.mark.parametrize("shards", [1, 2])
def test_a_run_repeats_bit_for_bit_however_long_tools_take(shards: int) -> None:
    first = play(shards=shards, of=model(dtype=torch.float32))
    assert first == play(shards=shards, of=model(dtype=torch.float32), tool_s=0.01)


@pytest.mark.parametrize(
    "settings", [{"wave": 1}, {"wave": 16}, {"shards": 2}, {"max_batch": 3}, {"deterministic": False, "tool_s": 0.01}]
)
def test_a_seeded_turn_does_not_depend_on_the_batch(settings: dict[str, Any]) -> None:
    assert [run.tokens for run in play(**settings)] == [run.tokens for run in play()]


async def test_an_episode_alone_samples_what_it_samples_among_others() -> None:
    together = await rollout(TorchPolicy(model(), stop_token_ids=STOPS))
    alone = await episode(TorchPolicy(model(), stop_token_ids=STOPS), 1, 2, tool_s=0.0, temperature=1.0)
    assert alone.tokens == together[1 * 4 + 2].tokens


async def test_greedy_equals_generate() -> None:
    reference = model()
    policy = TorchPolicy(reference, stop_token_ids=STOPS)
    prompts = [[5, 6, 7, 8], [9, 10, 11], [12]]
    sampled = await asyncio.gather(
        *(policy.sample(p, Sampling(0.0, max_tokens=20), episode_id=str(i)) for i, p in enumerate(prompts))
    )
    for prompt, completion in zip(prompts, sampled, strict=True):
        expected = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=list(STOPS),
            pad_token_id=0,
        )
        assert list(completion.token_ids) == expected[0, len(prompt) :].tolist()


async def test_a_turn_ends_with_a_stop_token_or_at_the_limit() -> None:
    policy = TorchPolicy(model(), stop_token_ids=range(40))
    turns = await asyncio.gather(
        *(policy.sample([5, 6, 7], Sampling(seed=i, max_tokens=3), episode_id=str(i)) for i in range(40))
    )
    for turn in turns:
        assert (turn.token_ids[-1] < 40) == (turn.finish_reason == "stop")
        assert all(token >= 40 for token in turn.token_ids[:-1])
        assert turn.finish_reason == "stop" or len(turn.token_ids) == 3
    assert {turn.finish_reason for turn in turns} == {"stop", "length"}


async def test_a_context_that_was_rewritten_is_computed_again() -> None:
    policy, other = (TorchPolicy(model(), stop_token_ids=()) for _ in range(2))

    async def greedy(context: list[int], name: str) -> Completion:
        asked = policy if name == "a" else other
        return await asked.sample(context, Sampling(0.0, max_tokens=5), episode_id=name)

    policy.begin("a")
    first = await greedy([5, 6, 7], "a")
    for context in ([5, 6, 7, *first.token_ids[:2], 50, 51], [5, 6, 7, 8], [5, 6, 7], [9, 10], [9, 10]):
        assert (await greedy(context, "a")).token_ids == (await greedy(context, "fresh")).token_ids


async def test_new_weights_forget_what_old_ones_computed() -> None:
    torch.manual_seed(1)
    changing = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES)).eval().double()
    policy = TorchPolicy(changing, stop_token_ids=())
    policy.begin("a")
    context = [5, 6, 7]
    context += (await policy.sample(context, Sampling(0.0, max_tokens=4), episode_id="a")).token_ids
    with torch.no_grad():
        for parameter in changing.parameters():
            parameter.mul_(1.1)
    policy.version = 7
    after = await policy.sample(context, Sampling(0.0, max_tokens=4), episode_id="a")
    fresh = await TorchPolicy(changing, stop_token_ids=()).sample(context, Sampling(0.0, max_tokens=4), episode_id="b")
    assert after.token_ids == fresh.token_ids
    assert after.logprobs == pytest.approx(fresh.logprobs, abs=1e-6)
    assert after.policy_version == 7


async def test_a_prompt_is_prefilled_once_for_its_group() -> None:
    policy = TorchPolicy(model(), stop_token_ids=())
    await asyncio.gather(*(policy.sample(range(10, 60), Sampling(max_tokens=4), episode_id=str(i)) for i in range(8)))
    stats = policy.stats()
    assert (stats.prefilled_tokens, stats.prompt_hits, stats.sampled_tokens) == (50, 7, 32)
    assert policy.stats().sampled_tokens == 0


async def alike(policy: TorchPolicy, member: int, temperature: float) -> Played:
    """Four turns with the same replies for all members but one, who hears something else in the second."""
    name = f"alike/{member}"
    tokens = [7, 8, 9]
    logprobs: list[float | None] = [None] * 3
    policy.begin(name)
    for number in range(4):
        sampling = Sampling(temperature, seed=10 * number + member, max_tokens=9)
        completion = await policy.sample(tokens, sampling, episode_id=name)
        reply = [30 + number, 31, 40 if (number, member) == (1, 3) else 32]
        tokens = [*tokens, *completion.token_ids, *reply]
        logprobs += [*completion.logprobs, *[None] * 3]
    policy.end(name)
    return Played(tuple(tokens), tuple(logprobs))


@pytest.mark.parametrize("temperature", [0.05, 0.15, 0.4])
async def test_contexts_that_are_the_same_are_run_once_and_part_where_the_samples_do(temperature: float) -> None:
    policy = TorchPolicy(model(), stop_token_ids=STOPS, shards=1)
    played = await asyncio.gather(*(alike(policy, member, temperature) for member in range(8)))
    stats = policy.stats()
    assert worst_error(list(played), model(), temperature) < 4e-6 / temperature
    apart = [await alike(policy, member, temperature) for member in range(8)]
    assert [run.tokens for run in apart] == [run.tokens for run in played]
    one_by_one = policy.stats()
    assert len({run.tokens for run in played}) > 1, "they part"
    assert stats.sampled_tokens == one_by_one.sampled_tokens
    assert stats.decoded_tokens < one_by_one.decoded_tokens, "and share what they can"
    assert stats.prefilled_tokens < one_by_one.prefilled_tokens


async def test_episodes_that_never_part_cost_what_one_costs() -> None:
    policy, costs = TorchPolicy(model(), stop_token_ids=STOPS, shards=1), []
    for members in (1, 5):
        await asyncio.gather(*(alike(policy, member, 0.0) for member in range(10, 10 + members)))
        stats = policy.stats()
        costs.append((stats.prefilled_tokens, stats.decoded_tokens, stats.decode_steps))
        assert stats.mean_batch == 1
    assert costs[0] == costs[1]


async def test_two_engines_on_one_model_do_not_interfere() -> None:
    alone = await rollout(TorchPolicy(model("mistral"), stop_token_ids=STOPS))
    policies = [TorchPolicy(model("mistral"), stop_token_ids=STOPS) for _ in range(2)]
    both = await asyncio.gather(*(rollout(policy) for policy in policies))
    assert [run.tokens for run in both[0]] == [run.tokens for run in both[1]] == [run.tokens for run in alone]


async def test_a_cancelled_turn_leaves_the_others_alone() -> None:
    policy = TorchPolicy(model(), stop_token_ids=(), wave=1)
    policy.begin("a")
    policy.begin("b")
    doomed = asyncio.create_task(policy.sample([5, 6], Sampling(max_tokens=200), episode_id="a"))
    other = asyncio.create_task(policy.sample([5, 6], Sampling(0.0, max_tokens=30), episode_id="b"))
    await asyncio.sleep(0.01)
    doomed.cancel()
    policy.end("a")
    sampled = await other
    policy.end("b")
    expected = await policy.sample([5, 6], Sampling(0.0, max_tokens=30), episode_id="c")
    assert sampled.token_ids == expected.token_ids
    assert all(len(shard) == 0 for shard in policy._shards)


def test_the_engine_serves_one_event_loop_after_another() -> None:
    policy = TorchPolicy(model(), stop_token_ids=(), wave=1)

    async def interrupted() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(policy.sample([5, 6], Sampling(max_tokens=250), episode_id="a"), 0.02)

    asyncio.run(interrupted())
    first, second = (
        asyncio.run(policy.sample([5, 6], Sampling(seed=3, max_tokens=5), episode_id=name)) for name in "bc"
    )
    assert first.token_ids == second.token_ids


async def test_failures_name_their_cause() -> None:
    policy = TorchPolicy(model(), stop_token_ids=(), max_context=16)
    for context, problem in (([], "0 tokens"), ([1] * 16, "16 tokens"), ([97], "vocabulary of 97")):
        with pytest.raises(PolicyError, match=problem):
            await policy.sample(context, Sampling(), episode_id="a")
    assert len((await policy.sample([1] * 10, Sampling(), episode_id="a")).token_ids) == 6
    policy.close()
    with pytest.raises(PolicyError, match="closed"):
        await policy.sample([1], Sampling(), episode_id="a")
    with pytest.raises(ConfigError, match="wave"):
        TorchPolicy(model(), stop_token_ids=(), wave=0)
    with pytest.raises(ConfigError, match="stop_token_ids"):
        TorchPolicy(model(), stop_token_ids=(97,))


def test_samples_at_temperature_one_follow_the_softmax() -> None:
    torch.manual_seed(0)
    logits, draws = torch.randn(12), 20_000
    chances = uniforms([5], [0], draws).T  # all from one row
    ids, logprobs = Draw.build([1.0], [1.0], torch.device("cpu"))(logits[None], chances)
    expected = logits.softmax(-1) * draws
    chi_square = float(((ids[0].bincount(minlength=12) - expected) ** 2 / expected).sum())
    assert chi_square < 31.3  # the 0.1% quantile for 11 degrees of freedom
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[ids])


def test_top_p_never_leaves_the_nucleus_and_reaches_all_of_it() -> None:
    logits = torch.tensor([0.4, 0.05, 0.3, 0.2, 0.05]).log()
    chances = uniforms([5], [0], 3000)
    ids, logprobs = Draw.build([1.0] * 3000, [0.6] * 3000, torch.device("cpu"))(logits.expand(3000, -1), chances)
    assert set(ids[:, 0].tolist()) == {0, 2}
    torch.testing.assert_close(logprobs, logits[ids])


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([float("-inf"), 0.0, float("-inf")]).expand(2, -1)
    ids, _ = Draw.build([1.0] * 2, [1.0] * 2, torch.device("cpu"))(
        logits, torch.tensor([[0.0], [1 - 2.0**-32]], dtype=torch.float64)
    )
    assert ids.tolist() == [[1], [1]]


def test_neighbouring_seeds_and_tokens_draw_independently() -> None:
    drawn = uniforms(list(range(200)), [0] * 200, 200)
    assert len(set(drawn.flatten().tolist())) > 0.999 * drawn.numel()
    correlation = torch.corrcoef(torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.02
