"""Paraphrases: what must survive, what must not appear, and what becomes of a task of which none holds."""

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_author import ScriptedAuthor
from llm_server import Fault, serving
from recall.cli.synth_llm import Paraphrase
from recall.datasets.rows import read_tasks, write_tasks
from recall.errors import ConfigError
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.budget import Budget
from recall.synth.llm.client import ChatClient, EndpointSettings, Replies
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.paraphrase import ParaphraseSettings, check_paraphrase, literals_in, paraphrase
from recall.synth.llm.solvers import Solvers, SolverSettings
from recall.synth.made import Made
from recall.synth.procedural.recipe import recipe_of
from recall.synth.procedural.tasks import ProceduralTasks
from recall.types import AnswerType, Task, ToolSpec

ENV = "def rate_of(code):\n    return {'VM-1799': 40}[code]\n\n\ndef kept(stage, since):\n    return 3\n"
CODE = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
TASK = Task(
    id="t",
    question="What is the rate of wagon VM-1799 of Ruzosh Wheel, if smelted? As YYYY-MM-DD, since 1814-06-09.",
    ground_truth=("40",),
    env=ENV,
    tools=(ToolSpec("rate_of", "The rate of a wagon.", CODE),),
    answer_type=AnswerType("integer"),
    reference=(
        {"name": "rate_of", "arguments": {"code": "VM-1799"}},
        {"name": "kept", "arguments": {"stage": "smelted", "since": "1814-06-09"}},
        {"value": {"$ref": 0}},
    ),
    data_source="test",
)
GOOD = "Since 1814-06-09, in the form YYYY-MM-DD: what rate has VM-1799, the wagon of Ruzosh Wheel, once smelted?"


def test_what_must_survive_is_what_the_program_needs_and_what_looks_like_a_value() -> None:
    assert literals_in(TASK) == ["1814-06-09", "YYYY-MM-DD", "VM-1799", "smelted"]
    check_paraphrase(TASK, GOOD)


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        (GOOD.replace("VM-1799", "VM-1798"), "a value is missing: 'VM-1799'"),
        (GOOD.replace("VM-1799", "XVM-1799"), "a value is missing"),
        (GOOD.replace("smelted", "melted"), "a value is missing: 'smelted'"),
        (GOOD.replace("YYYY-MM-DD", "of a day"), "a value is missing"),
        (GOOD + " It has 17 wheels.", "a value is new: '17'"),
        (GOOD + ' The "blue" one.', "a value is new"),
        (GOOD.replace("what rate", "is 40 the rate"), "a value is new: '40'|states the answer"),
        (TASK.question, "the same words"),
        ("", "no question of like length"),
        (GOOD * 4, "no question of like length"),
        (GOOD + "\n\nI hope this helps.", "no question of like length"),
    ],
)
def test_a_paraphrase_that_does_not_say_the_same_is_rejected(question: str, fault: str) -> None:
    with pytest.raises(RejectedError, match=fault):
        check_paraphrase(TASK, question)


def test_turning_a_procedural_question_around_holds_and_dropping_a_value_does_not() -> None:
    tasks = ProceduralTasks(recipe_of("default"), seed=0, split="train")
    for task in (tasks[number] for number in range(4)):
        check_paraphrase(task, f"Would you be so kind? {task.question}")
        for literal in literals_in(task):
            with pytest.raises(RejectedError):
                check_paraphrase(task, task.question.replace(literal, "it"))


async def run(script: Any, file: Path, tasks: list[Task], agree: bool = False) -> list[Made]:
    sandbox = LocalSandbox()
    async with serving(script) as server:
        client = ChatClient(EndpointSettings(base_url=server.url, model="m"), Replies(file), Budget())
        solvers = Solvers(client, client, sandbox, SolverSettings()) if agree else None
        settings = ParaphraseSettings(attempts=2, at_once=3)
        made = [each async for each in paraphrase(tasks, client, settings, solvers)]
        await client.close()
        await sandbox.close()
        return made


async def test_tasks_come_in_order_each_with_a_question_that_holds_or_its_own(tmp_path: Path) -> None:
    def script(body: Mapping[str, Any]) -> str | Fault:
        text = body["messages"][0]["content"]
        if "VM-1799" not in text or (body["seed"] == 0 and "second" in text):
            return "What is the rate of the wagon of Ruzosh Wheel, once it is smelted, and since when?"
        return GOOD + (" For the second." if "second" in text else "")

    second = dataclasses.replace(TASK, id="u", question=f"{TASK.question} The second.")
    other = dataclasses.replace(TASK, id="v", question="Which one is it now? 5", reference=())
    made = await run(script, tmp_path / "r.jsonl", [TASK, second, other])
    assert [(each.index, each.task.id if each.task else "", each.gate) for each in made] == [
        (0, "t", ""),
        (1, "", "provenance"),
        (1, "u", ""),
        (2, "", "paraphrase"),
        (2, "", "paraphrase"),
        (2, "v", ""),
    ]
    first = made[0].task
    assert first is not None
    assert first.question == GOOD
    assert first.extra["synth"]["paraphrase_of"] == TASK.question
    assert made[-1].task == other


async def test_a_paraphrase_that_another_program_reads_otherwise_is_rejected(tmp_path: Path) -> None:
    program = "```python\ndef solve():\n    return {}\n```"

    def script(body: Mapping[str, Any]) -> str:
        if "# Step: program" in body["messages"][0]["content"]:
            return program.format("rate_of(code='VM-1799')" if "kindly" in str(body) else "7")
        return GOOD if body["seed"] == 0 else f"And kindly: {GOOD}"

    made = await run(script, tmp_path / "r.jsonl", [TASK], agree=True)
    assert [each.gate for each in made] == ["agreement", ""]
    assert made[1].task is not None
    assert made[1].task.question.startswith("And kindly")


async def test_the_command_rewrites_a_file_and_asks_nothing_twice(tmp_path: Path) -> None:
    write_tasks(tmp_path / "in.jsonl", [TASK])
    out = tmp_path / "out.jsonl"
    async with serving(ScriptedAuthor(paraphrase=GOOD)) as server:
        settings = Paraphrase(source=tmp_path / "in.jsonl", out=out, base_url=server.url, model="m")
        assert await asyncio.to_thread(settings.main) == 0
        with pytest.raises(ConfigError, match="exists"):
            settings.main()
        out.unlink()
        assert await asyncio.to_thread(settings.main) == 0
        assert len(server.requests) == 1
    (task,) = read_tasks(out)
    assert task.question == GOOD


async def test_a_spent_budget_is_the_users_error_and_leaves_no_file(tmp_path: Path) -> None:
    write_tasks(tmp_path / "in.jsonl", [TASK])
    out = tmp_path / "out.jsonl"
    async with serving(ScriptedAuthor(paraphrase=GOOD)) as server:
        settings = Paraphrase(source=tmp_path / "in.jsonl", out=out, base_url=server.url, model="m", max_tokens=100)
        with pytest.raises(ConfigError, match="a larger budget goes on"):
            await asyncio.to_thread(settings.main)
    assert not out.exists()
