"""vLLM in process, with nano: exact ids and log-probabilities, weights that follow, a cache that is found again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from recall.environment import ToolEnvironments
from recall.errors import ConfigError, PolicyError
from recall.evaluation.local import NANO_LIMITS, LoadedModel, PolicySettings, load
from recall.policy.torch.loading import resolve, with_lora
from recall.policy.vllm import VllmPolicy, VllmSettings
from recall.policy.vllm.weights import named_weights
from recall.rollout import rollout
from recall.sandbox.local import LocalSandbox
from recall.synth.tasks import ToolTasks
from recall.types import Sampling, StopReason

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("default")]

NATS = 1e-3
"""How far the engine's log-probabilities may be from the model's own."""


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load(PolicySettings(engine="vllm", device="cpu"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def policy(loaded: LoadedModel) -> AsyncIterator[VllmPolicy]:
    engine = VllmPolicy(resolve("nano"), stop_token_ids=sorted(loaded.renderer.stop_token_ids))
    await engine.start()
    yield engine
    engine.close()


def own(model: torch.nn.Module, prompt: list[int], ids: list[int], temperature: float = 1.0) -> list[float]:
    """[n] log-probabilities of `ids` after `prompt` by `transformers`, nats."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0].float() / temperature
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return rows.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()


def gap(model: torch.nn.Module, prompt: list[int], completion: object, temperature: float = 1.0) -> float:
    mine = own(model, prompt, list(completion.token_ids), temperature)
    return max(abs(a - b) for a, b in zip(mine, completion.logprobs, strict=True))


def moved(model: torch.nn.Module, seed: int, by: float = 0.05) -> None:
    """Change every weight that is trained, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator)


PROMPT = [442, *range(5, 120)]


async def test_logprobs_are_the_models_own_at_every_temperature(loaded: LoadedModel, policy: VllmPolicy) -> None:
    await policy.follow(loaded.model, 0)
    for temperature in (1.0, 0.6, 1.4):
        sampling = Sampling(temperature=temperature, max_tokens=40, seed=7)
        completion = await policy.sample(PROMPT, sampling, episode_id="a")
        assert gap(loaded.model, PROMPT, completion, temperature) < NATS


async def test_a_turn_is_a_function_of_its_seed_and_ends_with_a_stop_token_or_at_its_limit(
    loaded: LoadedModel, policy: VllmPolicy
) -> None:
    await policy.follow(loaded.model, 0)
    turns = [
        await policy.sample(PROMPT, Sampling(max_tokens=60, seed=seed), episode_id=str(number))
        for number, seed in enumerate((3, 3, *range(20)))
    ]
    assert turns[0].token_ids == turns[1].token_ids
    assert len({turn.token_ids for turn in turns}) > 5
    for turn in turns:
        stops = [token in loaded.renderer.stop_token_ids for token in turn.token_ids]
        assert not any(stops[:-1])
        assert (turn.finish_reason == "stop") == stops[-1]
        assert turn.finish_reason == "stop" or len(turn.token_ids) == 60


async def test_after_every_sync_the_engine_has_the_trainers_weights(loaded: LoadedModel, policy: VllmPolicy) -> None:
    for version in range(1, 4):
        moved(loaded.model, version)
        stale = await policy.sample(PROMPT, Sampling(max_tokens=40, seed=1), episode_id="old")
        assert gap(loaded.model, PROMPT, stale) > 10 * NATS, "the update must be large enough to be seen"
        await policy.follow(loaded.model, version)
        fresh = await policy.sample(PROMPT, Sampling(max_tokens=40, seed=1), episode_id="new")
        assert fresh.policy_version == version
        assert gap(loaded.model, PROMPT, fresh) < NATS
        scored = await policy.score(PROMPT)
        assert scored == pytest.approx(own(loaded.model, PROMPT[:1], PROMPT[1:]), abs=NATS)


async def test_an_adapter_follows_merged(loaded: LoadedModel, policy: VllmPolicy) -> None:
    adapted = with_lora(load(PolicySettings(device="cpu")).model, 4)
    moved(adapted, 5, by=0.3)
    await policy.follow(adapted, 9)
    turn = await policy.sample(PROMPT, Sampling(max_tokens=40, seed=1), episode_id="lora")
    assert gap(adapted, PROMPT, turn) < NATS
    whole = load(PolicySettings(device="cpu")).model
    assert [name for name, _ in named_weights(adapted)] == [name for name, _ in whole.named_parameters()]


async def test_a_later_turn_finds_the_earlier_ones_in_the_cache(loaded: LoadedModel, policy: VllmPolicy) -> None:
    await policy.follow(loaded.model, 10)
    policy.stats()
    first = await policy.sample(PROMPT, Sampling(max_tokens=40, seed=2), episode_id="e")
    assert policy.stats().cached_tokens == 0, "a sync empties the cache"
    longer = [*PROMPT, *first.token_ids, 442, 17, 18]
    await policy.sample(longer, Sampling(max_tokens=4, seed=2), episode_id="e")
    stats = policy.stats()
    assert stats.cached_tokens >= 32 * ((len(PROMPT) + len(first.token_ids) - 1) // 32)
    assert (stats.prompt_tokens, stats.sampled_tokens > 0) == (len(longer), True)


async def test_an_episode_with_real_tools_is_the_trajectory_that_was_sampled(policy: VllmPolicy) -> None:
    fresh = load(PolicySettings(device="cpu"))
    await policy.follow(fresh.model, 11)
    tasks = ToolTasks("2", split="held_out", seed=0).take(12)
    async with asyncio.timeout(200):
        sandbox = LocalSandbox()
        environments = ToolEnvironments(sandbox, NANO_LIMITS)
        played = await asyncio.gather(
            *(
                rollout(
                    environments(task),
                    policy,
                    fresh.renderer,
                    task_id=task.id,
                    episode_id=str(number),
                    sampling=Sampling(max_tokens=NANO_LIMITS.max_turn_tokens, seed=number),
                    limits=NANO_LIMITS,
                )
                for number, task in enumerate(tasks)
            )
        )
        await sandbox.close()
    assert [trajectory.fault for trajectory in played] == [None] * 12
    assert sum(len(trajectory.calls) for trajectory in played) >= 6
    assert any(trajectory.stop_reason is StopReason.DONE for trajectory in played)
    for trajectory in played:
        mine = own(fresh.model, trajectory.token_ids[:1], trajectory.token_ids[1:])
        pairs = zip(mine, trajectory.logprobs[1:], trajectory.mask[1:], strict=True)
        assert max(abs(a - b) for a, b, sampled in pairs if sampled) < NATS


async def test_many_long_contexts_at_once_are_each_sampled_by_their_seed(
    loaded: LoadedModel, policy: VllmPolicy
) -> None:
    await policy.follow(loaded.model, 12)
    prompts = [[442, 5 + number, *range(5, 300)] for number in range(64)]
    sampling = Sampling(max_tokens=4, seed=3)
    turns = await asyncio.gather(
        *(policy.sample(prompt, sampling, episode_id=str(n)) for n, prompt in enumerate(prompts))
    )
    assert max(gap(loaded.model, prompt, turn) for prompt, turn in zip(prompts, turns, strict=True)) < NATS


async def test_a_cancelled_turn_leaves_the_engine_at_work(loaded: LoadedModel, policy: VllmPolicy) -> None:
    turn = asyncio.create_task(policy.sample(PROMPT, Sampling(max_tokens=1500, seed=1), episode_id="long"))
    await asyncio.sleep(0.2)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await policy.follow(loaded.model, 12)
    assert (await policy.sample(PROMPT, Sampling(max_tokens=4, seed=1), episode_id="next")).token_ids


async def test_a_context_that_does_not_fit_is_a_failure_of_ours(policy: VllmPolicy) -> None:
    with pytest.raises(PolicyError, match="sampling with vLLM"):
        await policy.sample([5] * 4000, Sampling(max_tokens=4), episode_id="big")


async def test_logprobs_that_vllm_cannot_give_are_refused(policy: VllmPolicy) -> None:
    with pytest.raises(ConfigError, match="top_p"):
        await policy.sample(PROMPT, Sampling(top_p=0.9), episode_id="p")


async def test_no_sleep_on_the_cpu_and_no_engine_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy\.vllm\.sleep"):
        VllmPolicy(tmp_path, stop_token_ids=[1], settings=VllmSettings(sleep=True))
    with pytest.raises(ConfigError, match="does not start"):
        await VllmPolicy(tmp_path, stop_token_ids=[1]).start()
