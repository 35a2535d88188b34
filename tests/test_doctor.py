"""Faults are planted, one for each check, and the check finds and names it; without them it is content."""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import InProcessSandbox, chatml_tokenizer, tool
from native_models import MODELS, TEMPLATES, tokenizer_of
from recall.cli import main
from recall.doctor import dialogue, engine, machine, tasks
from recall.doctor.examine import examine
from recall.doctor.findings import Finding
from recall.doctor.rehearsal import rehearse
from recall.doctor.tasks import Rehearsed
from recall.environment import Limits, ToolEnvironments
from recall.evaluation.bfcl.training.dialogue import LATER, with_dialogue
from recall.evaluation.local import NANO_LIMITS, LocalPlayer, PolicySettings, SandboxSettings, load
from recall.renderer import ChatMLRenderer, NativeRenderer, ResearchRenderer
from recall.rewards import get
from recall.store import Run
from recall.synth.tasks import ToolTasks
from recall.trainers.recipe import TaskSource, TrainRecipe
from recall.types import (
    AssistantTurn,
    CallStatus,
    Completion,
    Group,
    Message,
    RewardResult,
    Sampling,
    Segment,
    StopReason,
    Task,
    Trajectory,
)

RECALL = ChatMLRenderer(chatml_tokenizer())
TASKS = [ToolTasks(kind, split="train", seed=0)[0] for kind in ("1", "2", "join")]
LIMITS = Limits(max_tokens=4096, max_turn_tokens=512)
RESEARCH_TOOL = tool("wikipedia_search", query="string")


def found(finding: Finding, *parts: str) -> None:
    """The finding is of a fault, says what, what it would have cost and how to mend it, in one line."""
    line = finding.line()
    assert finding.state == "wrong", line
    assert "\n" not in line
    for part in ("It would have cost: ", "To mend it: ", *parts):
        assert part in line


def played(
    some: Sequence[Task] = TASKS, sandbox: InProcessSandbox | None = None, limits: Limits = LIMITS
) -> list[Rehearsed]:
    environments = ToolEnvironments(sandbox or InProcessSandbox(), limits)
    return asyncio.run(tasks.rehearse_all(some, environments, RECALL, limits))


PLAYED = played()


def template(name: str, *changes: tuple[str, str]) -> str:
    text = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text


def broken(name: str, *changes: tuple[str, str], family: str | None = None) -> NativeRenderer:
    return NativeRenderer(tokenizer_of(name), template=template(name, *changes), family=family, verify=False)


@pytest.mark.parametrize("name", [*MODELS, "recall"])
def test_a_renderer_that_is_whole_passes_every_check(name: str) -> None:
    renderer = RECALL if name == "recall" else NativeRenderer(tokenizer_of(name))
    tools = [tool("get_age", name="string", n="integer"), tool("now")]
    findings = [
        dialogue.check_calls(renderer, tools),
        dialogue.check_results(renderer),
        dialogue.check_separator(renderer),
        dialogue.check_prefix(renderer),
        dialogue.check_stop(renderer),
    ]
    assert [finding.line() for finding in findings if finding.state != "ok"] == []


def test_the_dialect_research_passes_with_the_tool_that_it_has() -> None:
    renderer = ResearchRenderer(chatml_tokenizer())
    findings = [
        dialogue.check_calls(renderer, [RESEARCH_TOOL]),
        dialogue.check_results(renderer),
        dialogue.check_separator(renderer, RESEARCH_TOOL),
        dialogue.check_prefix(renderer, RESEARCH_TOOL),
        dialogue.check_stop(renderer),
    ]
    assert [finding.line() for finding in findings if finding.state != "ok"] == []


def test_a_parser_of_another_family_is_found() -> None:
    for family in ("mistral", "llama", "qwen3_coder"):
        found(dialogue.check_calls(broken("qwen2_5", family=family), []), "calls", "the parser reads", "dialect")


def test_a_template_that_shows_no_results_is_found() -> None:
    mute = broken("qwen2_5", ("message.content + '\\n</tool_response>'", "'\\n</tool_response>'"))
    found(dialogue.check_results(mute), "results", "never reads what its tools answer")


def test_a_template_that_drops_a_falsy_result_is_found() -> None:
    class Falsy(ChatMLRenderer):
        def reply(self, messages: Sequence[Message]) -> list[int]:
            return super().reply([replace(m, content="" if m.content == "0" else m.content) for m in messages])

    found(dialogue.check_results(Falsy(chatml_tokenizer())), "results ['0'] are shown as")


def test_a_template_that_drops_the_separator_is_found() -> None:
    # The line break after an assistant's message with calls, which verl lost until July 2026.
    dropped = broken(
        "qwen2_5",
        (
            "{{- '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add",
            "{{- '<|im_end|>' + ('' if message.tool_calls else '\\n') }}\n    {%- endif %}\n{%- endfor %}\n{%- if add",
        ),
    )
    found(dialogue.check_separator(dropped), "separator", "'<|im_end|>'", "followed by ''", "'\\n'")

    class Dropped(ChatMLRenderer):
        def reply(self, messages: Sequence[Message]) -> list[int]:
            return super().reply(messages)[len(self._tokens.encode("\n")) :]

    found(dialogue.check_separator(Dropped(chatml_tokenizer())), "separator")


def test_a_prompt_that_changes_is_found() -> None:
    changing = broken("qwen2_5", ("{%- if tools %}", "{{- range(100000) | random }}{%- if tools %}"))
    found(dialogue.check_prefix(changing), "prefix", "differs from one time to the next")


def test_a_turn_whose_end_the_engine_does_not_know_is_found() -> None:
    class Endless(ChatMLRenderer):
        def turn(self, text: str) -> list[int]:
            return super().turn(text)[:-1]

    found(dialogue.check_stop(Endless(chatml_tokenizer())), "stop token", "the engine stops at <|im_end|>")


def test_rehearsals_that_go_well_are_content() -> None:
    findings = [
        tasks.check_budget(TASKS, RECALL, LIMITS, 8192),
        tasks.check_tools(PLAYED),
        tasks.check_length(PLAYED, LIMITS),
        tasks.check_mask([(one.good, one.written) for one in PLAYED]),
        tasks.check_ends([one.good for one in PLAYED], RECALL),
        tasks.check_reward(PLAYED, get("exact"), "exact"),
        tasks.check_reward(PLAYED, get("outcome"), "outcome"),
    ]
    assert [finding.line() for finding in findings if finding.state != "ok"] == []


def test_a_rehearsal_speaks_the_native_dialect_too() -> None:
    renderer = NativeRenderer(tokenizer_of("gemma4"))
    environments = ToolEnvironments(InProcessSandbox(), LIMITS)
    some = asyncio.run(tasks.rehearse_all(TASKS, environments, renderer, LIMITS))
    assert [call.status for one in some for call in one.good.calls].count(CallStatus.OK) >= 6
    assert tasks.check_reward(some, get("exact"), "exact").state == "ok"


def test_a_budget_that_is_too_small_is_found() -> None:
    found(tasks.check_budget(TASKS, RECALL, Limits(max_tokens=600, max_turn_tokens=512), None), "budget", "at least")
    found(tasks.check_budget(TASKS, RECALL, LIMITS, 2048), "the model reads 2048 tokens")


def test_limits_that_no_policy_could_keep_are_found() -> None:
    for limits, setting in (
        (Limits(max_tokens=4096, max_turns=1), "max_turns"),
        (Limits(max_tokens=4096, max_calls=0), "max_calls"),
        (Limits(max_tokens=4096, max_turn_tokens=3), "max_turn_tokens"),
    ):
        found(tasks.check_length(played(limits=limits), limits), "length", f"rollout.limits.{setting}")


def test_a_tool_that_raises_is_found() -> None:
    task = TASKS[0]
    name = task.reference[0]["name"]
    raising = replace(task, env=f"{task.env}\ndef {name}(**_):\n    raise ValueError('planted')\n")
    found(tasks.check_tools(played([raising])), "tools", repr(task.id), name, "planted")


def test_a_tool_of_a_row_without_a_reference_that_cannot_work_is_found() -> None:
    spec = tool("get_age", name="string")
    row = Task("row", "How old?", ("36",), env="def get_age(name):\n    return ages[name]\n", tools=(spec,))
    fine = replace(row, env="def get_age(name):\n    raise KeyError(name)\n")  # nobody of the name: no fault of its own

    async def look(task: Task) -> Finding:
        sandbox = SandboxSettings().open()
        try:
            return tasks.check_tools(
                await tasks.rehearse_all([task], ToolEnvironments(sandbox, LIMITS), RECALL, LIMITS)
            )
        finally:
            await sandbox.close()

    found(asyncio.run(look(row)), "tools", "NameError")
    assert asyncio.run(look(fine)).state == "ok"


def test_a_sandbox_that_is_not_there_is_found() -> None:
    found(tasks.check_tools(played(sandbox=InProcessSandbox(broken=True))), "tools", "no process could be had")


def constant(task: Task, trajectory: Trajectory) -> RewardResult:
    return RewardResult(1.0, correct=True)


def test_a_reward_that_is_constant_is_found() -> None:
    found(tasks.check_reward(PLAYED, constant, "constant"), "reward", "as much as to a good one")


def test_a_reward_that_does_not_know_a_good_trajectory_is_found() -> None:
    unanswerable = [replace(one, task=replace(one.task, ground_truth=("another",))) for one in PLAYED]
    found(tasks.check_reward(unanswerable, get("exact"), "exact"), "reward", "gives 0 to a good trajectory")


def test_a_mask_that_is_off_by_one_is_found() -> None:
    one = PLAYED[0]
    first, second, *rest = one.good.segments
    assert second.logprobs is not None
    for shifted in (
        # The first sampled token is taken for the environment's, or the environment's last one for sampled.
        (Segment((*first.token_ids, second.token_ids[0])), Segment(second.token_ids[1:], second.logprobs[1:])),
        (
            Segment(first.token_ids[:-1]),
            Segment((first.token_ids[-1], *second.token_ids), (0.0, *second.logprobs)),
        ),
    ):
        trajectory = replace(one.good, segments=(*shifted, *rest))
        assert trajectory.token_ids == one.good.token_ids
        found(tasks.check_mask([(trajectory, one.written)]), "mask", "other tokens than were sampled")


def test_a_stop_token_that_is_not_trained_is_found() -> None:
    one = PLAYED[0].good
    cut = [
        replace(s, token_ids=s.token_ids[:-1], logprobs=s.logprobs[:-1]) if s.logprobs is not None else s
        for s in one.segments
    ]
    found(tasks.check_ends([replace(one, segments=tuple(cut))], RECALL), "ends", "no stop token")


def test_turns_that_never_end_are_found() -> None:
    cut = Trajectory("t", (Segment((1, 2)), Segment((3,), (0.0,), "a")), StopReason.MAX_TOKENS)
    found(tasks.check_ends([cut, cut], RECALL), "ends", "none of 2 sampled turns ended")


@pytest.fixture(scope="module")
def sampled() -> "tuple[Any, list[Group], Sampling]":
    """Nano, and two groups that it sampled."""
    loaded = load(PolicySettings(device="cpu"))
    sampling = Sampling(max_tokens=NANO_LIMITS.max_turn_tokens)

    async def play() -> list[Group]:
        async with LocalPlayer(loaded, reward="exact") as player:
            return await engine.sample_groups(player, TASKS[:2], at_once=2, group_size=4, sampling=sampling, seed=0)

    return loaded.model, asyncio.run(play()), sampling


def test_groups_of_nano_are_parsed_and_agree_with_the_trainer(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    model, groups, sampling = sampled
    assert engine.check_parsed(groups).state == "ok"
    assert engine.check_faults(groups).state == "ok"
    assert engine.check_logprobs(model, groups, sampling).state == "ok"


def changed(groups: Sequence[Group], change: Any) -> list[Group]:
    return [replace(group, trajectories=[change(t) for t in group.trajectories]) for group in groups]


def test_engine_logprobs_that_disagree_are_found(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    model, groups, sampling = sampled
    found(engine.check_logprobs(model, groups, replace(sampling, temperature=0.7)), "logprobs", "differ by up to")

    def worse(t: Trajectory) -> Trajectory:
        shifted = [
            s if s.logprobs is None else replace(s, logprobs=tuple(x - 0.01 for x in s.logprobs)) for s in t.segments
        ]
        return replace(t, segments=tuple(shifted))

    found(engine.check_logprobs(model, changed(groups, worse), sampling), "logprobs", "0.01 nats")


def test_a_mask_that_is_off_by_one_disagrees_with_the_trainer(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    model, groups, sampling = sampled

    def off(t: Trajectory) -> Trajectory:
        first, second, *rest = t.segments
        assert second.logprobs is not None
        start = Segment((*first.token_ids, second.token_ids[0]))
        moved = Segment((*second.token_ids[1:], second.token_ids[-1]), second.logprobs)
        return replace(t, segments=(start, moved, *rest))

    found(engine.check_logprobs(model, changed(groups, off), sampling), "logprobs")


def test_a_policy_whose_calls_are_never_parsed_is_found(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    _, groups, _ = sampled
    silent = changed(groups, lambda t: replace(t, calls=()))
    found(engine.check_parsed(silent), "parsed calls", "none of 0 calls in 8 episodes", "<tool_call>")

    def malformed(t: Trajectory) -> Trajectory:
        return replace(t, calls=tuple(replace(call, status=CallStatus.MALFORMED) for call in t.calls))

    found(engine.check_parsed(changed(groups, malformed)), "parsed calls", "none of")


def test_groups_whose_rewards_are_equal_are_found(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    _, groups, _ = sampled
    for score, cure in ((0.0, "easier tasks"), (1.0, "harder tasks")):
        equal = [replace(group, rewards=[RewardResult(score, correct=False)] * 4) for group in groups]
        found(engine.check_variance(equal), "variance", f"seen: {score:g}", cure)
    varied = [replace(groups[0], rewards=[RewardResult(float(n == 0), correct=n == 0) for n in range(4)])]
    assert engine.check_variance(varied).state == "ok"


def test_faults_of_ours_are_found(sampled: "tuple[Any, list[Group], Sampling]") -> None:
    _, groups, _ = sampled
    failing = changed(groups, lambda t: replace(t, fault="SandboxError: gone"))
    found(engine.check_faults(failing), "faults", "8 of 8 episodes failed: SandboxError: gone")


def test_a_port_that_is_taken_is_found() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        found(machine.check_ports([port]), "ports", str(port))
        assert machine.check_servers([f"http://127.0.0.1:{port}"]).state == "ok"
    assert machine.check_ports([port]).state == "ok"
    found(machine.check_servers([f"http://127.0.0.1:{port}"]), "servers", str(port))


def test_a_disk_that_is_too_full_is_found(tmp_path: Path) -> None:
    needed = machine.run_bytes(TrainRecipe(), 1_000_000)
    assert needed > 3 * 12_000_000
    found(machine.check_disk(tmp_path / "not" / "there", needed, free=lambda _: needed - 1), "disk", "make room")
    assert machine.check_disk(tmp_path, needed, free=lambda _: needed).state == "ok"


def test_versions_that_are_too_old_are_found() -> None:
    needed = ["numpy>=1.26", 'torch>=2.6 ; extra == "train"', 'verl>=0.9 ; extra == "verl"']
    assert machine.check_versions(["train"], needed, {"numpy": "2.0", "torch": "2.13.0+cpu"}).state == "ok"
    old = machine.check_versions(["train"], needed, {"numpy": "2.0", "torch": "2.5.1"})
    found(old, "versions", "torch is 2.5.1", "pip install 'torch>=2.6'")
    found(machine.check_versions(["verl"], needed, {"numpy": "2.0"}), "verl is not installed")
    found(machine.check_versions([], needed, {"numpy": "1.0"}), "numpy is 1.0")


def test_the_parameters_of_a_model_are_counted_in_its_files(tiny_model: Path) -> None:
    import torch

    model = load(PolicySettings(model=str(tiny_model), device="cpu")).model
    tied = {id(parameter): parameter.numel() for parameter in model.parameters()}
    assert machine.parameters_of(tiny_model) >= sum(tied.values())
    assert torch.get_num_threads() > 0


def test_example_arguments_are_what_schemas_take() -> None:
    schema = {
        "type": "object",
        "required": ["a", "b", "c", "d", "e", "f"],
        "properties": {
            "a": {"enum": ["red", "blue"]}, "b": {"type": "array", "items": {"type": "integer", "minimum": 3}},
            "c": {"type": "object", "required": ["x"], "properties": {"x": {"type": "boolean"}}},
            "d": {"anyOf": [{"type": "number"}, {"type": "null"}]}, "e": {"type": ["string", "null"], "minLength": 2},
            "f": {"type": "string", "default": "given"}, "g": {"type": "integer"},
        },
    }  # fmt: skip
    spec = replace(tool("f"), parameters=schema)
    assert dialogue.example_call(spec).arguments == {
        "a": "red", "b": [3], "c": {"x": True}, "d": 1, "e": "xx", "f": "given",
    }  # fmt: skip


def test_a_rehearsal_writes_what_the_policy_would_and_no_more() -> None:
    task = TASKS[0]
    environments = ToolEnvironments(InProcessSandbox(), LIMITS)
    trajectory, written = asyncio.run(rehearse(task, environments(task), RECALL, LIMITS))
    assert [s.token_ids for s in trajectory.segments if s.sampled] == [c.token_ids for c in written]
    assert all(isinstance(c, Completion) and c.finish_reason == "stop" for c in written)
    assert isinstance(RECALL.parse(written[0].token_ids), AssistantTurn)


def test_a_rehearsal_goes_on_while_the_user_has_more_to_say() -> None:
    task = replace(TASKS[0], extra={LATER: ["And now?", "Sure?"]})
    environments = with_dialogue(ToolEnvironments(InProcessSandbox(), LIMITS))
    (one,) = asyncio.run(tasks.rehearse_all([task], environments, RECALL, LIMITS))
    assert (one.good.turns, one.bad.turns) == (PLAYED[0].good.turns + 2, 3)
    assert tasks.check_reward([one], get("exact"), "exact").state == "ok"


QUICK = (
    "--steps=1", "--policy.device=cpu", '--tasks.stages=[["1"]]', '--validation.kinds=["1"]',
    "--validation.final_tasks=1", "--tensorboard=false", "--rollout.groups=6",
)  # fmt: skip


def test_the_command_has_a_line_for_each_check_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "true", "--policy.device=cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["state"] for line in lines} == {"ok", "skipped"}
    names = [line["check"] for line in lines]
    assert names == [
        "versions", "ports", "servers", "disk", "template", "calls", "results", "separator", "prefix", "stop token",
        "budget", "tools", "length", "mask", "reward", "faults", "parsed calls", "ends", "variance", "logprobs",
    ]  # fmt: skip


def test_the_command_fails_for_a_recipe_with_a_fault(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--policy.model={tiny_model}", *QUICK[1:], "--rollout.group_size=2"]) == 1
    out = capsys.readouterr().out
    assert "wrong    parsed calls" in out
    assert "wrong    variance" in out
    assert main(["doctor", "--rollout.limits.max_tokens=64"]) == 1
    assert "wrong    budget" in capsys.readouterr().out


def test_tasks_that_come_without_end_are_looked_at_too(tmp_path: Path) -> None:
    recipe = TrainRecipe(tasks=TaskSource(source="procedural", recipe="nano"))

    async def first(check: str) -> Finding:
        async for finding in examine(recipe, tmp_path):
            if finding.check == check:
                return finding
        raise AssertionError(f"no check {check!r}")

    assert asyncio.run(first("budget")).found.startswith("the longest of 64 prompts")


def test_training_starts_nothing_that_the_doctor_advises_against(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--rollout.group_size=2", f"--policy.model={tiny_model}", f"--run={run}"]) == 1
    said = capsys.readouterr()
    assert "wrong    parsed calls" in said.out
    assert "--no-doctor" in said.err
    assert not run.exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "validation.source: name a file of tasks to validate on"),
        (["--validation.source=nowhere.jsonl"], "validation.source: nowhere.jsonl: there is no such file"),
    ],
)
def test_a_file_to_validate_on_that_is_missing_is_refused_before_the_model_is_looked_at(
    flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*flags, f"--tasks.source={tmp_path / 'rows.jsonl'}", "--policy.model=no/model"]
    assert main(["train", *rows, f"--run={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert "doctor" not in said.out + said.err
    assert main(["doctor", *rows]) == 1
    assert reason in capsys.readouterr().out


def test_a_run_is_the_same_bit_for_bit_after_the_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, metrics = [], []
    for number, more in enumerate((["--doctor=true"], ["--doctor=false"])):
        run = tmp_path / str(number)
        assert main(["train", *QUICK, *more, f"--run={run}", '--tasks.stages=[["1","2"]]']) == 0
        assert ("nothing wrong" in capsys.readouterr().out) == (number == 0)
        (file,) = run.glob("checkpoints/*/model.safetensors")
        weights.append(file.read_bytes())
        row = Run(run).read_metrics()[-1]
        clocks = ("time/", "memory/", "speed/", "perf/")
        metrics.append({key: value for key, value in row.items() if not key.startswith(clocks)})
    assert weights[0] == weights[1]
    assert metrics[0] == metrics[1]
