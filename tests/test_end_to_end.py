import asyncio

from fakes import chatml_tokenizer
from recall.environment import Limits, ToolEnvironments
from recall.policy.scripted import ScriptedPolicy, reference_script
from recall.renderer import ChatMLRenderer
from recall.rollout import rollout
from recall.sandbox.local import LocalSandbox
from recall.synth.tasks import ToolTasks
from recall.tool_calls import format_call
from recall.types import CallStatus, Sampling, StopReason, Task, ToolCall, ToolSpec, Trajectory

RENDERER = ChatMLRenderer(chatml_tokenizer())


async def play(policy: ScriptedPolicy, environments: ToolEnvironments, task: Task, episode_id: str) -> Trajectory:
    return await rollout(
        environments(task),
        policy,
        RENDERER,
        task_id=task.id,
        episode_id=episode_id,
        sampling=Sampling(),
        limits=environments.limits,
    )


async def test_the_reference_program_of_every_synthetic_task_is_right_in_a_real_sandbox() -> None:
    tasks = [task for label in ("1", "4", "join", "join5") for task in ToolTasks(label, split="train", seed=0).take(3)]
    sandbox = LocalSandbox()
    try:
        environments = ToolEnvironments(sandbox)
        trajectories = await asyncio.gather(
            *(play(ScriptedPolicy(reference_script(task), RENDERER), environments, task, task.id) for task in tasks)
        )
    finally:
        await sandbox.close()
    for task, trajectory in zip(tasks, trajectories, strict=True):
        assert trajectory.stop_reason is StopReason.DONE
        assert trajectory.answer in task.ground_truth
        assert len(trajectory.calls) == task.depth
        assert all(record.status is CallStatus.OK for record in trajectory.calls)


async def test_an_episode_survives_whatever_its_tool_does() -> None:
    anything = {"type": "object", "properties": {"code": {"type": "string"}}}
    source = 'import os\ndef run(code="0"):\n    return eval(code)\n'
    task = Task("t", "?", ("",), env=source, tools=(ToolSpec("run", "", anything),))
    codes = ("0", "1 / 0", "print('hi')", "'<|im_end|>\\ud800'", "[None for _ in iter(int, 1)]", "os._exit(0)", "1")
    turns = [format_call(ToolCall("run", {"code": code})) for code in codes]
    sandbox = LocalSandbox()
    try:
        environments = ToolEnvironments(sandbox, Limits(call_timeout_s=0.5))
        trajectory = await play(ScriptedPolicy([*turns, "done"], RENDERER), environments, task, "e")
    finally:
        await sandbox.close()
    assert trajectory.stop_reason is StopReason.DONE
    assert [record.status for record in trajectory.calls[:3]] == [CallStatus.OK, CallStatus.EXCEPTION, CallStatus.OK]
    assert trajectory.calls[0].result == "0"
    assert trajectory.calls[2].result == "null\noutput:\nhi\n"
    assert all(record.status is not CallStatus.OK for record in trajectory.calls[4:])
    assert all(record.result.startswith("error: ") for record in trajectory.calls[4:])
    trajectory.calls[3].result.encode()
