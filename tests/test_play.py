from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from fakes import InProcessSandbox, chatml_tokenizer
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError
from recall.evaluation.play import Player, seed_of, success_by_kind
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.rewards import get
from recall.types import Completion, Group, RewardResult, Sampling, StopReason, Task, ToolSpec, Trajectory

RENDERER = ChatMLRenderer(chatml_tokenizer())
TOOL = ToolSpec("one", "", {"type": "object", "properties": {}})


def task(name: str, *, kind: str = "") -> Task:
    return Task(name, f"{name}?", ("1",), env="def one():\n    return 1\n", tools=(TOOL,), kind=kind)


class Seeds(ScriptedPolicy):
    """Remembers the seed that each episode was sampled with."""

    def __init__(self, turns: Sequence[str]) -> None:
        super().__init__(turns, RENDERER)
        self.seeds: dict[str, int | None] = {}

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        self.seeds[episode_id] = sampling.seed
        return await super().sample(prompt_ids, sampling, episode_id=episode_id)


def player(policy: ScriptedPolicy, *, sandbox: InProcessSandbox | None = None, limits: Limits | None = None) -> Player:
    limits = limits or Limits()
    environments = ToolEnvironments(sandbox or InProcessSandbox(), limits)
    return Player(policy, RENDERER, environments, get("exact"), limits)


async def test_groups_come_in_the_order_of_the_tasks_with_a_reward_for_each_trajectory() -> None:
    policy = Seeds(["\\boxed{1}"])
    groups = await player(policy).play([task("a"), task("b"), task("a")], samples=2, sampling=Sampling())
    assert [group.task.id for group in groups] == ["a", "b", "a"]
    assert [[reward.correct for reward in group.rewards] for group in groups] == [[True, True]] * 3
    assert policy.open_episodes == set()


async def test_every_episode_has_a_name_and_a_seed_of_its_own_that_depend_on_its_place_only() -> None:
    runs = []
    for _ in range(2):
        policy = Seeds(["\\boxed{1}"])
        await player(policy).play([task("a"), task("b")], samples=3, sampling=Sampling(), label="x/", seed=5)
        runs.append(policy.seeds)
    assert runs[0] == runs[1]
    assert set(runs[0]) == {f"x/{number}/{sample}" for number in range(2) for sample in range(3)}
    assert len(set(runs[0].values())) == 6
    await player(policy := Seeds(["\\boxed{1}"])).play([task("a")], samples=3, sampling=Sampling(), seed=6)
    assert not set(policy.seeds.values()) & set(runs[0].values())


async def test_a_fault_of_ours_is_scored_nought_without_asking_the_reward() -> None:
    broken = player(Seeds(["\\boxed{1}"]), sandbox=InProcessSandbox(broken=True))
    (group,) = await broken.play([task("a")], samples=2, sampling=Sampling())
    assert [trajectory.stop_reason for trajectory in group.trajectories] == [StopReason.FAULT] * 2
    assert group.rewards == [RewardResult(0.0, correct=False, parts={"fault": 1.0})] * 2
    assert success_by_kind([group]) == {}


async def test_a_refused_task_is_one_plain_error_and_leaves_nothing_open() -> None:
    policy, sandbox = Seeds(["\\boxed{1}"]), InProcessSandbox()
    with pytest.raises(ConfigError, match="max_tokens is 5") as caught:
        await player(policy, sandbox=sandbox, limits=Limits(max_tokens=5)).play(
            [task("a"), task("b")], samples=2, sampling=Sampling()
        )
    assert type(caught.value) is ConfigError
    assert policy.open_episodes == set()
    assert sandbox.open_sessions == 0


async def test_a_bug_in_an_episode_is_not_hidden() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="the script is over")):
        await player(Seeds([])).play([task("a")], samples=1, sampling=Sampling())


def test_success_is_counted_by_kind_or_else_by_depth_without_faults() -> None:
    good, bad = RewardResult(1.0, correct=True), RewardResult(0.0, correct=False)
    fine = Trajectory("t", (), StopReason.DONE)
    fault = Trajectory("t", (), StopReason.FAULT, fault="gone")
    groups = [
        Group(task("a", kind="join"), [fine, fine, fault], [good, bad, bad]),
        Group(task("b", kind="join"), [fine], [good]),
        Group(Task("c", "?", ("1",), depth=4), [fine], [bad]),
    ]
    assert success_by_kind(groups) == {"join": 2 / 3, "4": 0.0}


def test_seeds_are_63_bits_and_those_of_neighbours_unlike() -> None:
    seeds = [seed_of(a, b, c) for a in range(6) for b in range(6) for c in range(6)]
    assert len(set(seeds)) == 216
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 2) != seed_of(2, 1)
    assert seed_of(-1) == seed_of(2**64 - 1)
    changed = [bin(one ^ other).count("1") for one, other in pairwise(seeds)]
    assert 26 < sum(changed) / len(changed) < 37


async def test_at_most_at_once_episodes_are_alive_and_splitting_changes_no_seed() -> None:
    alive = []

    class Counting(Seeds):
        def begin(self, episode_id: str) -> None:
            super().begin(episode_id)
            alive.append(len(self.open_episodes))

    tasks, seeds = [task(name) for name in "abcde"], []
    for at_once in (512, 4):
        policy = Counting(["\\boxed{1}"])
        groups = await replace(player(policy), at_once=at_once).play(tasks, samples=2, sampling=Sampling())
        assert [group.task.id for group in groups] == list("abcde")
        seeds.append(policy.seeds)
    assert seeds[0] == seeds[1]
    assert max(alive[-10:]) <= 4
