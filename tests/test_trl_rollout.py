"""What TRL is given: our loop's tokens, mask and reward, a row for each prompt; and recipes that it cannot honour."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fakes import InProcessSandbox, chatml_tokenizer
from recall.environment import Limits, SourceEnvironment, ToolEnvironments
from recall.errors import ConfigError, PolicyError, RolloutError
from recall.evaluation.play import Player
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.rewards import get
from recall.tools.functions import FunctionTools
from recall.trainers.curriculum import CurriculumSettings
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe
from recall.trainers.trl.honours import arguments, check, loss_arguments
from recall.trainers.trl.rollout import KEY, REWARD, Rollout, prompt_for, reward
from recall.trainers.trl.settings import TrlSettings
from recall.trainers.trl.waves import Asked, WavePolicy
from recall.types import Completion, Group, Message, Sampling, Task, ToolSpec

RENDERER = ChatMLRenderer(chatml_tokenizer())
ONE = ToolSpec("one", "", {"type": "object", "properties": {}})
CALL = '<tool_call>{"name": "one", "arguments": {}}</tool_call>'
TASKS = {name: Task(name, f"{name}?", ("1",), env="def one():\n    return 1\n", tools=(ONE,)) for name in "abc"}


@dataclass
class Trainer:
    """As much of TRL's trainer as the loop reads."""

    state: Any = field(default_factory=lambda: _Numbers(global_step=0))
    accelerator: Any = field(default_factory=lambda: _Numbers(process_index=0))


@dataclass
class _Numbers:
    global_step: int = 0
    process_index: int = 0


@contextmanager
def over(player: Player) -> Iterator[Rollout]:
    loop = Rollout(lambda trainer: player, TASKS.__getitem__, Sampling(), eos_token_id=2)
    try:
        yield loop
    finally:
        loop.close()


def playing(turns: Sequence[str], sandbox: InProcessSandbox | None = None) -> AbstractContextManager[Rollout]:
    environments = ToolEnvironments(sandbox or InProcessSandbox(), Limits())
    return over(Player(ScriptedPolicy(turns, RENDERER), RENDERER, environments, get("exact"), Limits()))


def groups_of(loop: Rollout) -> list[Group]:
    assert loop.last is not None
    return loop.last.groups


def prompts(names: str) -> list[list[dict[str, str]]]:
    return [prompt_for(name) for name in names]


def test_every_prompt_gets_a_row_of_its_own_task() -> None:
    with playing([CALL, "\\boxed{1}"]) as loop:
        rows = loop(prompts("aaabbc"), Trainer())
    assert {len(values) for values in rows.values()} == {6}
    shown = [RENDERER.decode(ids) for ids in rows["prompt_ids"]]
    assert [next(name for name in "abc" if f"{name}?" in text) for text in shown] == list("aaabbc")
    assert [(group.task.id, len(group.trajectories)) for group in groups_of(loop)] == [("a", 3), ("b", 2), ("c", 1)]


def test_a_row_is_the_trajectory_with_exactly_the_sampled_tokens_unmasked() -> None:
    with playing([CALL, "\\boxed{1}"]) as loop:
        rows = loop(prompts("a"), Trainer())
    trajectory = groups_of(loop)[0].trajectories[0]
    assert rows["prompt_ids"][0] + rows["completion_ids"][0] == trajectory.token_ids
    assert rows["env_mask"][0] == [int(own) for own in trajectory.mask[len(rows["prompt_ids"][0]) :]]
    assert len(rows["logprobs"][0]) == len(rows["env_mask"][0])
    assert 0 in rows["env_mask"][0]
    assert rows[REWARD] == [1.0]


def test_the_reward_function_hands_on_what_the_loop_scored() -> None:
    assert reward(["text", "text"], **{REWARD: [0.5, None], "other": 1}) == [0.5, None]


def test_a_fault_of_ours_has_no_reward_and_a_masked_token() -> None:
    with playing([CALL, "\\boxed{1}"], InProcessSandbox(lasts_calls=2)) as loop:
        rows = loop(prompts("aaa"), Trainer())
    (lost,) = [number for number, score in enumerate(rows[REWARD]) if score is None]
    assert (rows["env_mask"][lost], rows["completion_ids"][lost]) == ([0], [2])
    assert rows[REWARD].count(1.0) == 2


def test_a_step_of_nothing_but_faults_stops_the_run() -> None:
    with playing([CALL], InProcessSandbox(broken=True)) as loop, pytest.raises(RolloutError, match="all of 2 episodes"):
        loop(prompts("ab"), Trainer())


def test_a_prompts_message_names_its_task_and_keeps_to_trls_form() -> None:
    (message,) = prompt_for("7", "how many?")
    assert (message["role"], message["content"], message[KEY]) == ("user", "how many?", "7")


def test_tools_of_many_trajectories_overlap() -> None:
    async def one() -> int:
        """Return one, slowly."""
        await asyncio.sleep(0.3)
        return 1

    def environment(task: Task) -> SourceEnvironment:
        return SourceEnvironment([Message("user", task.question)], [FunctionTools([one])], Limits())

    with over(
        Player(ScriptedPolicy([CALL, "\\boxed{1}"], RENDERER), RENDERER, environment, get("exact"), Limits())
    ) as loop:
        started = time.perf_counter()
        rows = loop(prompts("a" * 40), Trainer())
        assert time.perf_counter() - started < 40 * 0.3 / 2
    assert rows[REWARD] == [1.0] * 40
    assert [len(trajectory.calls) for trajectory in groups_of(loop)[0].trajectories] == [1] * 40


def completion(asked: Asked) -> Completion:
    ids = tuple(asked.prompt_ids)[:1] * asked.sampling.max_tokens
    return Completion(ids, (-1.0,) * len(ids), "length")


async def test_turns_that_wait_are_one_wave_and_each_gets_its_own() -> None:
    waves: list[int] = []

    def generate(wave: Sequence[Asked]) -> list[Completion]:
        waves.append(len(wave))
        time.sleep(0.05)
        return [completion(asked) for asked in wave]

    policy = WavePolicy(generate)
    turns = await asyncio.gather(
        *(policy.sample([number], Sampling(max_tokens=number + 1), episode_id=str(number)) for number in range(20))
    )
    assert [turn.token_ids for turn in turns] == [(number,) * (number + 1) for number in range(20)]
    assert sum(waves) == 20
    assert len(waves) <= 2


async def test_a_wave_that_fails_is_a_failure_of_ours_and_the_next_one_is_sampled() -> None:
    def generate(wave: Sequence[Asked]) -> list[Completion]:
        if wave[0].prompt_ids == [0]:
            raise RuntimeError("out of memory")
        return [completion(asked) for asked in wave]

    policy = WavePolicy(generate)
    with pytest.raises(PolicyError, match="out of memory"):
        await policy.sample([0], Sampling(max_tokens=1), episode_id="a")
    assert (await policy.sample([1], Sampling(max_tokens=1), episode_id="b")).token_ids == (1,)


async def test_a_cancelled_turn_takes_no_other_with_it() -> None:
    def generate(wave: Sequence[Asked]) -> list[Completion]:
        time.sleep(0.2)
        return [completion(asked) for asked in wave]

    policy = WavePolicy(generate)
    turns = [asyncio.create_task(policy.sample([n], Sampling(max_tokens=1), episode_id=str(n))) for n in range(3)]
    await asyncio.sleep(0.05)
    turns[1].cancel()
    assert [(await turns[n]).token_ids for n in (0, 2)] == [(0,), (2,)]


PLAIN = TrainRecipe(
    engine="trl",
    tasks=TaskSource(revisit=0),
    curriculum=CurriculumSettings(by="none"),
    rollout=RolloutSettings(groups=4),
)


def test_a_recipe_that_trl_can_honour_is_accepted() -> None:
    check(PLAIN)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"curriculum": CurriculumSettings()}, "curriculum.by"),
        ({"tasks": TaskSource(revisit=0.5)}, "tasks.revisit"),
        ({"rollout": RolloutSettings(resample=1)}, "rollout.resample"),
        ({"learner": LearnerSettings(algorithm="rloo")}, "learner.algorithm"),
        ({"learner": LearnerSettings(algorithm="reinforce_pp")}, "learner.algorithm"),
        ({"learner": LearnerSettings(micro_tokens=4096)}, "learner.micro_tokens"),
        ({"learner": LearnerSettings(importance_cap=2.0)}, "learner.importance_cap"),
        ({"learner": LearnerSettings(constant_length=99)}, "learner.constant_length"),
        ({"shuffle_rewards": True}, "shuffle_rewards"),
        ({"trl": TrlSettings(sampler="server")}, "trl.server_url"),
        ({"trl": TrlSettings(server_url="http://127.0.0.1:1")}, "trl.server_url"),
        ({"trl": TrlSettings(sampler="colocate", args={"vllm_enable_sleep_mode": True})}, "vllm_enable_sleep_mode"),
    ],
)
def test_what_trl_cannot_honour_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(PLAIN.model_copy(update=changes))


def given(recipe: TrainRecipe, processes: int = 1) -> dict[str, Any]:
    return arguments(recipe, Path("out"), processes=processes, bfloat16=False, cpu=True)


def test_a_step_is_cut_into_passes_and_minibatches() -> None:
    learner = LearnerSettings(minibatches=2, epochs=3)
    found = given(PLAIN.model_copy(update={"learner": learner, "trl": TrlSettings(pass_trajectories=4)}), processes=2)
    assert found["steps_per_generation"] * 4 * 2 == 4 * 8
    assert found["gradient_accumulation_steps"] == 2
    assert (found["num_iterations"], found["num_generations"]) == (3, 8)
    assert found["max_steps"] == PLAIN.steps * 2 * 3


def test_passes_that_do_not_divide_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trl\.pass_trajectories"):
        given(PLAIN.model_copy(update={"trl": TrlSettings(pass_trajectories=7)}))


def test_an_argument_that_the_recipe_has_a_setting_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trl\.args\.learning_rate"):
        given(PLAIN.model_copy(update={"trl": TrlSettings(args={"learning_rate": 1.0})}))
    assert given(PLAIN.model_copy(update={"trl": TrlSettings(args={"deepspeed": "z2.json"})}))["deepspeed"] == "z2.json"


def test_clips_are_handed_over_in_trls_own_terms() -> None:
    assert loss_arguments(LearnerSettings(algorithm="cispo"))["epsilon_high"] == 3.0
    dapo = loss_arguments(LearnerSettings(algorithm="dapo", clip_low=0.1))
    assert (dapo["epsilon"], dapo["epsilon_high"], dapo["loss_type"]) == (0.1, 0.28, "dapo")
    assert loss_arguments(LearnerSettings(algorithm="gspo"))["importance_sampling_level"] == "sequence"


def test_the_published_divergence_comes_with_grpo() -> None:
    assert given(PLAIN.model_copy(update={"learner": LearnerSettings(algorithm="grpo")}))["beta"] == 0.001
    assert given(PLAIN)["beta"] == 0.0
