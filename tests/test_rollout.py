import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import InProcessSandbox, chatml_tokenizer, tool
from recall.environment import Limits, ToolEnvironment
from recall.errors import ConfigError, PolicyError, SandboxError
from recall.policy.scripted import Script, ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.rollout import rollout
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Session, SessionOptions
from recall.tool_calls import format_call, format_calls
from recall.types import CallStatus, Completion, Sampling, StopReason, Task, ToolCall, Trajectory

RENDERER = ChatMLRenderer(chatml_tokenizer())
TASK = Task(
    id="ages",
    question="How old is Ada's parent?",
    ground_truth=("61",),
    env='def parent(name):\n    return "Eve"\ndef age(name):\n    return 61\n',
    tools=(tool("parent", name="string"), tool("age", name="string")),
)
PARENT = format_call(ToolCall("parent", {"name": "Ada"}))
AGE = format_call(ToolCall("age", {"name": "Eve"}))
ANSWER = "It is \\boxed{61}."


async def play(
    *turns: str,
    limits: Limits | None = None,
    policy: ScriptedPolicy | None = None,
    sandbox: InProcessSandbox | None = None,
    sampling: Sampling | None = None,
    task: Task = TASK,
) -> Trajectory:
    """Play the turns; afterwards nothing may be left open."""
    policy = policy or ScriptedPolicy(turns, RENDERER)
    sandbox = sandbox or InProcessSandbox()
    limits = limits or Limits()
    trajectory = await rollout(
        ToolEnvironment(task, sandbox, limits),
        policy,
        RENDERER,
        task_id=task.id,
        episode_id="e",
        sampling=sampling or Sampling(),
        limits=limits,
    )
    assert not policy.open_episodes
    assert sandbox.open_sessions == 0
    return trajectory


def sampled_text(trajectory: Trajectory) -> list[str]:
    return [segment.text for segment in trajectory.segments if segment.sampled]


class Recording(ScriptedPolicy):
    """Keeps what it was asked."""

    def __init__(self, turns: Sequence[str] | Script) -> None:
        super().__init__(turns, RENDERER)
        self.asked: list[tuple[list[int], Sampling]] = []
        self.ended: list[str] = []

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        self.asked.append((list(prompt_ids), sampling))
        return await super().sample(prompt_ids, sampling, episode_id=episode_id)

    def end(self, episode_id: str) -> None:
        self.ended.append(episode_id)
        super().end(episode_id)


async def test_an_episode_is_prompt_turns_and_replies_in_turn() -> None:
    trajectory = await play(PARENT, AGE, ANSWER)
    assert [segment.sampled for segment in trajectory.segments] == [False, True, False, True, False, True]
    assert trajectory.stop_reason is StopReason.DONE
    assert (trajectory.task_id, trajectory.answer, trajectory.turns, trajectory.fault) == ("ages", "61", 3, None)
    assert [(record.turn, record.name, record.result) for record in trajectory.calls] == [
        (0, "parent", "Eve"),
        (1, "age", "61"),
    ]
    assert trajectory.duration_s > 0


async def test_the_mask_covers_exactly_the_sampled_tokens() -> None:
    trajectory = await play(PARENT, ANSWER)
    sampled = [token for token, mine in zip(trajectory.token_ids, trajectory.mask, strict=True) if mine]
    assert sampled == [*RENDERER.turn(PARENT), *RENDERER.turn(ANSWER)]
    assert len(trajectory.token_ids) == len(trajectory.mask) == len(trajectory.logprobs)


async def test_every_turn_sees_all_tokens_before_it_and_nothing_else() -> None:
    policy = Recording((PARENT, AGE, ANSWER))
    trajectory = await play(policy=policy)
    for (seen, _), at in zip(policy.asked, (1, 3, 5), strict=True):
        assert seen == [token for segment in trajectory.segments[:at] for token in segment.token_ids]


async def test_the_text_of_a_segment_is_its_tokens_decoded() -> None:
    trajectory = await play(PARENT, ANSWER)
    assert [segment.text for segment in trajectory.segments] == [
        RENDERER.decode(segment.token_ids) for segment in trajectory.segments
    ]
    assert sampled_text(trajectory) == [f"{PARENT}<|im_end|>", f"{ANSWER}<|im_end|>"]


async def test_turns_have_seeds_of_their_own_and_the_trajectory_keeps_the_first() -> None:
    policy = Recording((PARENT, AGE, ANSWER))
    trajectory = await play(policy=policy, sampling=Sampling(seed=7))
    seeds = [sampling.seed for _, sampling in policy.asked]
    assert seeds == [Sampling(seed=7).within(9, turn).seed for turn in range(3)]
    assert len(set(seeds)) == 3
    assert trajectory.seed == 7


async def test_a_turn_gets_what_is_left_of_the_budget() -> None:
    policy = Recording((PARENT, ANSWER))
    await play(policy=policy, limits=Limits(max_tokens=3000, max_turn_tokens=900), sampling=Sampling(max_tokens=2000))
    assert [sampling.max_tokens for _, sampling in policy.asked] == [900, 900]
    prompt = len(policy.asked[0][0])
    policy = Recording((PARENT, ANSWER))
    await play(policy=policy, limits=Limits(max_tokens=prompt + 400, max_turn_tokens=400))
    assert [sampling.max_tokens for _, sampling in policy.asked] == [prompt + 400 - len(s) for s, _ in policy.asked]


async def test_max_turns_ends_without_an_answer_and_without_a_reply_that_nobody_reads() -> None:
    trajectory = await play(PARENT, AGE, ANSWER, limits=Limits(max_turns=2))
    assert (trajectory.stop_reason, trajectory.answer, trajectory.turns) == (StopReason.MAX_TURNS, None, 2)
    assert trajectory.segments[-1].sampled
    assert len(trajectory.calls) == 2


async def test_a_turn_that_runs_out_of_tokens_is_the_last_and_runs_no_calls() -> None:
    trajectory = await play(PARENT, limits=Limits(max_turn_tokens=5))
    assert (trajectory.stop_reason, trajectory.calls) == (StopReason.MAX_TOKENS, ())
    assert trajectory.segments[-1].token_ids == tuple(RENDERER.turn(PARENT)[:5])


async def test_an_answer_that_was_cut_off_does_not_count() -> None:
    ids = RENDERER.turn(ANSWER)
    trajectory = await play(ANSWER, limits=Limits(max_turn_tokens=len(ids) - 1))
    assert (trajectory.stop_reason, trajectory.answer) == (StopReason.MAX_TOKENS, None)


async def test_a_reply_that_leaves_no_room_ends_the_episode_within_its_budget() -> None:
    full = await play(PARENT, ANSWER)
    first_three = sum(len(segment.token_ids) for segment in full.segments[:3])
    exactly = await play(PARENT, ANSWER, limits=Limits(max_tokens=first_three))
    assert (exactly.stop_reason, len(exactly.segments), len(exactly.calls)) == (StopReason.MAX_TOKENS, 2, 1)
    one_more = await play(PARENT, ANSWER, limits=Limits(max_tokens=first_three + 1))
    assert (one_more.stop_reason, len(one_more.token_ids)) == (StopReason.MAX_TOKENS, first_three + 1)


async def test_calls_beyond_the_limit_end_the_episode() -> None:
    trajectory = await play(PARENT, format_calls([ToolCall("age", {"name": "x"})] * 2), limits=Limits(max_calls=2))
    assert (trajectory.stop_reason, trajectory.answer, len(trajectory.calls)) == (StopReason.MAX_CALLS, None, 1)


async def test_an_answer_beside_a_call_is_not_taken() -> None:
    trajectory = await play(ANSWER + PARENT, "I do not know.")
    assert (trajectory.stop_reason, trajectory.answer) == (StopReason.DONE, None)


async def test_a_prompt_without_room_for_a_turn_is_the_users_failure() -> None:
    prompt = len((await play(ANSWER)).prompt_ids)
    with pytest.raises(ConfigError, match=f"task 'ages': the prompt has {prompt} tokens, and max_tokens is {prompt}"):
        await play(ANSWER, limits=Limits(max_tokens=prompt))


async def test_a_fault_of_the_sandbox_is_recorded_with_the_segments_so_far() -> None:
    trajectory = await play(PARENT, AGE, ANSWER, sandbox=InProcessSandbox(lasts_calls=1))
    assert (trajectory.stop_reason, trajectory.turns, len(trajectory.calls)) == (StopReason.FAULT, 2, 1)
    assert trajectory.fault == "SandboxError: the process is gone"


async def test_a_sandbox_that_cannot_start_is_a_fault() -> None:
    trajectory = await play(ANSWER, sandbox=InProcessSandbox(broken=True))
    assert (trajectory.stop_reason, trajectory.segments) == (StopReason.FAULT, ())
    assert trajectory.fault == "SandboxError: no process could be had"


async def test_a_fault_of_the_engine_is_recorded() -> None:
    class Broken(Recording):
        async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
            raise PolicyError("out of memory")

    policy = Broken(())
    trajectory = await play(policy=policy)
    assert (trajectory.fault, trajectory.turns) == ("PolicyError: out of memory", 0)
    assert policy.ended == ["e"]


async def test_a_fault_on_closing_is_recorded() -> None:
    class Leaving(InProcessSandbox):
        async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
            class Lost:
                async def call(
                    self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None
                ) -> CallResult:
                    return CallResult(CallStatus.OK, 0)

                async def close(self) -> None:
                    raise SandboxError("gone")

            return Lost()

    trajectory = await play(PARENT, ANSWER, sandbox=Leaving())
    assert (trajectory.stop_reason, trajectory.fault) == (StopReason.FAULT, "SandboxError: gone")


async def test_a_bug_stops_the_run_and_leaves_nothing_open() -> None:
    policy, sandbox = Recording((PARENT,)), InProcessSandbox()
    with pytest.raises(ValueError, match="the script is over"):
        await play(policy=policy, sandbox=sandbox)
    assert (policy.ended, sandbox.opened, sandbox.open_sessions) == (["e"], 1, 0)


class Sleeping(Recording):
    """Never comes back after its first turn."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        if self.asked:
            await asyncio.sleep(60)
        return await super().sample(prompt_ids, sampling, episode_id=episode_id)


async def test_an_episode_out_of_time_keeps_its_segments() -> None:
    policy = Sleeping((PARENT, ANSWER))
    trajectory = await play(policy=policy, limits=Limits(episode_timeout_s=0.05))
    assert (trajectory.stop_reason, trajectory.turns, trajectory.fault) == (StopReason.TIMEOUT, 1, None)
    assert policy.ended == ["e"]


async def test_a_timeout_that_is_not_the_episodes_is_not_taken_for_it() -> None:
    class Late(Recording):
        async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
            raise TimeoutError("not mine")

    with pytest.raises(TimeoutError, match="not mine"):
        await play(policy=Late(()), limits=Limits(episode_timeout_s=30))


async def test_what_an_episode_changed_is_kept() -> None:
    env = "told = []\ndef parent(name):\n    told.append(name)\ndef _changes():\n    return {'told': told}\n"
    task = replace(TASK, env=env, tools=TASK.tools[:1], changes={"told": ["Ada"]})
    assert (await play(PARENT, ANSWER, task=task)).changes == {"told": ["Ada"]}
    assert (await play(PARENT, "Done.", task=task)).changes == {"told": ["Ada"]}
    assert (await play(PARENT, ANSWER, task=task, limits=Limits(max_turns=1))).changes is None
    assert (await play(PARENT, ANSWER)).changes is None


async def test_cancelling_closes_everything_and_goes_on() -> None:
    policy, sandbox = Sleeping((PARENT, ANSWER)), InProcessSandbox()
    episode = asyncio.create_task(play(policy=policy, sandbox=sandbox))
    await asyncio.sleep(0.05)
    assert sandbox.open_sessions == 1
    episode.cancel()
    with pytest.raises(asyncio.CancelledError):
        await episode
    assert (policy.ended, sandbox.open_sessions) == (["e"], 0)


async def test_all_episodes_of_a_gather_are_announced_before_any_is_sampled() -> None:
    class Counting(Recording):
        async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
            await asyncio.sleep(0)
            announced.append(len(self.open_episodes))
            return await super().sample(prompt_ids, sampling, episode_id=episode_id)

    announced: list[int] = []
    policy, sandbox = Counting((ANSWER,)), InProcessSandbox()
    episodes = [
        rollout(
            ToolEnvironment(TASK, sandbox),
            policy,
            RENDERER,
            task_id="t",
            episode_id=str(n),
            sampling=Sampling(),
            limits=Limits(),
        )
        for n in range(5)
    ]
    await asyncio.gather(*episodes)
    assert announced[0] == 5


@given(st.lists(st.sampled_from([PARENT, AGE, ANSWER, "<tool_call>{", "<think>", format_calls([ToolCall("x", {})] * 3)])
                | st.text(max_size=8), max_size=6), st.integers(560, 1500))  # fmt: skip
def test_whatever_is_written_an_episode_stays_within_its_budget(turns: list[str], max_tokens: int) -> None:
    limits = Limits(max_tokens=max_tokens, max_turn_tokens=100, max_turns=5, max_calls=6)
    trajectory = asyncio.run(play(*turns, ANSWER, limits=limits))
    assert len(trajectory.token_ids) <= max_tokens
    assert trajectory.turns <= 5
    assert len(trajectory.calls) <= 6
    assert trajectory.segments[-1].sampled
    assert all(a.sampled is not b.sampled for a, b in zip(trajectory.segments, trajectory.segments[1:], strict=False))
    assert all(record.status is not CallStatus.OK or record.result in ("Eve", "61") for record in trajectory.calls)
