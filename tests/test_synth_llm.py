"""Sets made by a scripted model behind a real server: a good run whole, and every sort of broken reply."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_author import ScriptedAuthor, step_of
from llm_marina import LICENCE, MOVE, SCHEMA, TOOLS, WORLD, fenced
from llm_server import Fault, serving
from llm_sets import CERTIFICATES, ONE_TASK, QUICK, SOLVERS, asked_once, make, replies, verdicts
from recall.cli.synth_llm import LLM
from recall.datasets.rows import read_tasks
from recall.environment import Limits, ToolEnvironment
from recall.errors import ConfigError
from recall.policy.scripted import ScriptedPolicy, reference_script
from recall.rewards import solved
from recall.rollout import rollout
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.chat_policy import TextRenderer
from recall.types import Sampling, Task


async def replayed(tasks: list[Task]) -> list[bool]:
    """Whether each task's reference program, played by the agent that knows it, solves the task."""
    sandbox, renderer = LocalSandbox(), TextRenderer()
    limits = Limits(max_tokens=10**6, max_turn_tokens=10**5)

    async def one(task: Task) -> bool:
        trajectory = await rollout(
            ToolEnvironment(task, sandbox, limits),
            ScriptedPolicy(reference_script(task), renderer),
            renderer,
            task_id=task.id,
            episode_id=task.id,
            sampling=Sampling(max_tokens=10**5),
            limits=limits,
        )
        return solved(task, trajectory)

    try:
        return [await one(task) for task in tasks]
    finally:
        await sandbox.close()


async def test_a_good_run_writes_rows_that_replay_in_the_sandbox(tmp_path: Path) -> None:
    worlds = {**CERTIFICATES, "counterfactual_worlds": 6}
    recipe = {"certificates": worlds, "solvers": {"guesses": 3, "solvers": 4, "most_solved": 3}}
    async with serving(ScriptedAuthor()) as server:
        outcome = await make(server, tmp_path / "set", rows=4, recipe=recipe)
        assert (outcome.ended, outcome.manifest.rows, outcome.worlds) == ("", 4, 1)
        assert asked_once(server)
    tasks = read_tasks(tmp_path / "set")
    assert sorted(task.kind for task in tasks) == ["chain3", "chain3", "difference4", "update2"]
    assert await replayed(tasks) == [True] * 4
    assert {task.data_source for task in tasks} == {"recall_llm"}
    assert [task.ground_truth == () for task in tasks] == [task.changes is not None for task in tasks]
    facts = [task.extra["synth"] for task in tasks]
    assert len({fact["structure"] for fact in facts}) == 3
    assert min(fact["counterfactual"] for fact in facts) >= 0.95
    assert [fact["calls"] for fact in facts] == [task.depth for task in tasks]


async def test_the_sidecar_holds_every_reply_and_every_verdict(tmp_path: Path) -> None:
    async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
        await make(server, tmp_path)
        lines = replies(tmp_path)
        assert len(lines) == len(server.requests)
    assert all(line["text"] and line["usage"]["prompt_tokens"] > 0 for line in lines)
    (world,) = verdicts(tmp_path)
    assert {entry["reply"] for entry in world["verdicts"]} - {""} <= {line["key"] for line in lines}
    accepted = [entry["step"] for entry in world["verdicts"] if entry["accepted"]]
    assert accepted[:5] == ["setting", "schema", "world", "tools", "tests"]
    assert world["verdicts"][-1] == {"step": "row", "accepted": True, "reply": "", "task": read_tasks(tmp_path)[0].id}


def put(code: str, old: str, new: str) -> str:
    assert old in code
    return fenced("python", code.replace(old, new))


def world_with(*lines: str) -> str:
    """The world's code with lines after its generator was made."""
    made = "    rng = random.Random(seed)\n"
    return put(WORLD, made, made + "".join(f"    {line}\n" for line in lines))


SEVEN = put(TOOLS, 'dict(WORLD["berths"][berth_id])', '{**WORLD["berths"][berth_id], "rate": 7}')
BROKEN: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "bad JSON": ({"schema": fenced("json", '{"tables": [')}, "reply", "not JSON"),
    "no code": ({"world": "I would rather not."}, "reply", "no code"),
    "endless loop": ({"world": world_with("while True:", "    pass")}, "load", "takes too long"),
    "order of a set": (
        {"world": put(WORLD, "sorted(berths)", "list(set(berths))")},
        "deterministic",
        "another world in another process",
    ),
    "chance": (
        {"world": put(WORLD, "random.Random(seed)", "random.Random()")},
        "pure",
        "files, network, clock or chance",
    ),
    "file": ({"world": world_with('open("/etc/passwd")')}, "lint", "forbidden name"),
    "socket": ({"world": put(WORLD, "import random\n", "import random\nimport socket\n")}, "lint", "import"),
    "tools that nobody uses": ({"tasks": fenced("json", json.dumps([MOVE]))}, "tools", "too many used by no task"),
    "an answer that never changes": (
        {"tools": SEVEN, "tasks": ONE_TASK},
        "counterfactual",
        "the answer stays the same",
    ),
    "no tasks": ({"tasks": fenced("json", "[]")}, "tasks", "none holds"),
    "refused": ({"schema": Fault(400, b"too long")}, "endpoint", "refused"),
}


@pytest.mark.parametrize(("instead", "gate", "reason"), BROKEN.values(), ids=BROKEN)
async def test_what_does_not_hold_gives_no_row(
    tmp_path: Path, instead: Mapping[str, Any], gate: str, reason: str
) -> None:
    async with serving(ScriptedAuthor(**instead)) as server:
        outcome = await make(server, tmp_path, cost={"max_worlds": 1})
    assert outcome.manifest.rows == 0
    assert outcome.ended == "1 worlds are made"
    (world,) = verdicts(tmp_path)
    said = [*world["verdicts"], *world["rows"]]
    assert (gate, reason) in {(entry.get("gate"), entry.get("reason")) for entry in said}
    assert all("row" not in row for row in world["rows"])


async def test_a_task_that_solvers_find_wanting_is_no_row(tmp_path: Path) -> None:
    recipe = {**QUICK, "solvers": {**SOLVERS, "most_solved": 1}}
    async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
        outcome = await make(server, tmp_path, recipe=recipe, cost={"max_worlds": 1})
    assert outcome.manifest.rows == 0
    (world,) = verdicts(tmp_path)
    assert world["rows"] == [{"gate": "solvers", "reason": "solved by too many"}]


async def test_a_part_that_does_not_hold_is_mended(tmp_path: Path) -> None:
    author = ScriptedAuthor(tasks="nothing")

    def schema(body: Mapping[str, Any]) -> str:
        if len(body["messages"]) == 2:
            return "{'tables': []}"
        assert "not JSON" in body["messages"][-1]["content"]
        return author.good("schema", body)

    author.instead["schema"] = schema
    async with serving(author) as server:
        await make(server, tmp_path, recipe={**QUICK, "author": {"repairs": 1}}, cost={"max_worlds": 1})
        steps = [step_of(body) for body in server.requests]
        assert (steps.count("schema"), steps.count("world"), steps.count("tasks")) == (2, 1, 2)
    said = [entry["accepted"] for entry in verdicts(tmp_path)[0]["verdicts"] if entry["step"] == "schema"]
    assert said == [False, True]


async def test_repairs_come_to_an_end(tmp_path: Path) -> None:
    async with serving(ScriptedAuthor(world="no code here")) as server:
        await make(server, tmp_path, recipe={**QUICK, "author": {"repairs": 2}}, cost={"max_worlds": 1})
        assert [step_of(body) for body in server.requests].count("world") == 3


async def test_a_model_that_gives_no_row_is_given_up(tmp_path: Path) -> None:
    async with serving(ScriptedAuthor(schema="none")) as server:
        outcome = await make(server, tmp_path, rows=9, cost={"most_barren": 3, "worlds_at_once": 1})
    assert (outcome.worlds, outcome.ended) == (3, "3 worlds one after the other gave no row")


async def test_tools_without_a_task_are_asked_for_again(tmp_path: Path) -> None:
    def tasks(body: Mapping[str, Any]) -> str:
        if len(body["messages"]) == 2:
            return ONE_TASK
        assert "no task that holds uses the tool 'get_owner'" in body["messages"][-1]["content"]
        return fenced("json", json.dumps([LICENCE]))

    async with serving(ScriptedAuthor(tasks=tasks)) as server:
        outcome = await make(server, tmp_path, rows=2, recipe={**QUICK, "author": {"repairs": 1}})
        assert outcome.manifest.rows == 2
    told = {tool.name for task in read_tasks(tmp_path) for tool in task.tools}
    assert told == {"find_boat", "get_boat", "get_berth", "get_owner"}


async def test_a_setting_like_an_earlier_one_is_left_out(tmp_path: Path) -> None:
    same = json.dumps({"title": "A pier", "setting": "Boats lie at berths and people own them, all winter long."})
    async with serving(ScriptedAuthor(setting=same, schema="none")) as server:
        await make(server, tmp_path, rows=2, cost={"max_worlds": 3})
    gates = {world["world"]: world["gate"] for world in verdicts(tmp_path)}
    assert gates == {0: "reply", 1: "novelty", 2: "novelty"}


async def test_splits_share_no_structure_and_variants_are_other_worlds(tmp_path: Path) -> None:
    def schema(body: Mapping[str, Any]) -> str:
        """The marina with more fields in each world, so that its shape is another."""
        tables = json.loads(json.dumps(SCHEMA["tables"]))
        tables[1]["fields"] += [{"name": f"note{number}", "type": "string"} for number in range(body["seed"])]
        return fenced("json", json.dumps({"tables": tables}))

    def world(body: Mapping[str, Any]) -> str:
        notes = "".join(f', "note{number}": "n"' for number in range(body["seed"]))
        return put(WORLD, '"rate": rng.randint(1000, 99999)', f'"rate": rng.randint(1000, 99999){notes}')

    recipe = {**QUICK, "variants": 2, "new_worlds_share": 0.5}
    async with serving(ScriptedAuthor(tasks=ONE_TASK, schema=schema, world=world)) as server:
        outcome = await make(server, tmp_path, rows=4, recipe=recipe)
        assert outcome.ended == ""
    tasks = read_tasks(tmp_path)
    train, new = (
        {t.extra["synth"]["structure"] for t in tasks if t.split == split} for split in ("train", "new_worlds")
    )
    assert train
    assert train.isdisjoint(new)
    assert len({task.env for task in tasks}) == 4


def test_the_command_takes_a_recipe_and_flags() -> None:
    from recall.cli import settings_from

    given = ["--base-url", "http://x/v1", "--model", "m", "--out", "d", "--variants", "2"]
    settings = settings_from("synth llm", LLM, given)
    assert isinstance(settings, LLM)
    assert (settings.variants, settings.author.repairs, settings.api_key_env) == (2, 2, "OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="model"):
        settings_from("synth llm", LLM, ["--base-url", "http://x/v1", "--out", "d"])
    with pytest.raises(ConfigError, match="variants is 9"):
        settings_from("synth llm", LLM, [*given, "--variants", "9"])
