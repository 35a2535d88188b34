"""Runs that do not go through at once: troubled, failing, out of budget, killed; and what a later run makes of them."""

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llm_author import ScriptedAuthor, step_of
from llm_server import ChatServer, Fault, serving
from llm_sets import ONE_TASK, QUICK, asked_once, make, verdicts
from recall.datasets.rows import read_tasks
from recall.errors import ConfigError, RolloutError
from recall.types import Task


class Calm(NamedTuple):
    """A run of two rows that nothing disturbed."""

    tasks: list[Task]
    tokens: int
    requests: int


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    out = tmp_path_factory.mktemp("calm")

    async def run() -> Calm:
        async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
            outcome = await make(server, out, rows=2)
            return Calm(read_tasks(out), outcome.tokens, len(server.requests))

    return asyncio.run(run())


async def test_full_and_failing_endpoints_change_nothing(tmp_path: Path, calm: Calm) -> None:
    author = ScriptedAuthor(tasks=ONE_TASK)
    now = {"Retry-After": "0"}
    faults = [Fault(429, b"", now), Fault(drop=True), Fault(500, b"", now), Fault(200, b"{")]
    seen: set[str] = set()

    def troubled(body: Mapping[str, Any]) -> str | Fault:
        written = json.dumps(body, sort_keys=True)
        fresh, number = written not in seen, len(seen)
        seen.add(written)
        return faults.pop() if fresh and number % 3 == 0 and faults else author(body)

    async with serving(troubled) as server:
        await make(server, tmp_path)
    assert not faults
    assert read_tasks(tmp_path) == calm.tasks[:1]


async def test_an_endpoint_that_goes_down_ends_the_run_and_what_is_finished_stays(tmp_path: Path, calm: Calm) -> None:
    author = ScriptedAuthor(tasks=ONE_TASK)

    def failing(body: Mapping[str, Any]) -> str | Fault:
        second = step_of(body) == "setting" and body["seed"] == 1
        return Fault(503, b"down", {"Retry-After": "0"}) if second else author(body)

    async with serving(failing) as server:
        with pytest.raises(RolloutError, match="status 503: down"):
            await make(server, tmp_path, rows=2, attempts=2)
    assert read_tasks(tmp_path) == calm.tasks[:1]


async def test_a_wrong_key_ends_the_run_with_a_line_for_the_user(tmp_path: Path) -> None:
    async with serving(lambda body: Fault(401, b"who are you")) as server:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
            await make(server, tmp_path)


async def test_an_endpoint_that_refuses_everything_is_the_users_error(tmp_path: Path) -> None:
    async with serving(lambda body: Fault(400, b"seed is not supported")) as server:
        with pytest.raises(ConfigError, match="seed is not supported"):
            await make(server, tmp_path, rows=9)
        assert len(server.requests) == 3


async def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(tmp_path: Path, calm: Calm) -> None:
    async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
        limit = calm.tokens // 2 + 10_000
        first = await make(server, tmp_path, rows=2, cost={"worlds_at_once": 1, "max_tokens": limit})
        assert first.tokens <= limit
        assert "tokens are spent" in first.ended
        assert read_tasks(tmp_path) == calm.tasks[:1]
        second = await make(server, tmp_path, rows=2)
        assert (second.ended, second.tokens) == ("", calm.tokens)
        assert asked_once(server)
    assert read_tasks(tmp_path) == calm.tasks


async def test_a_set_grows_without_asking_again(tmp_path: Path, calm: Calm) -> None:
    async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
        await make(server, tmp_path, rows=1)
        await make(server, tmp_path, rows=2)
        assert read_tasks(tmp_path) == calm.tasks
        assert asked_once(server)
        with pytest.raises(ConfigError, match="was made with"):
            await make(server, tmp_path, rows=2, recipe={**QUICK, "variants": 2})


async def until(server: ChatServer, requests: int) -> None:
    while len(server.requests) < requests:  # noqa: ASYNC110 - the server knows nothing of events
        await asyncio.sleep(0.005)


async def test_a_killed_run_goes_on_and_loses_and_repeats_nothing(tmp_path: Path, calm: Calm) -> None:
    program = (
        "import sys; from recall.cli import settings_from; from recall.cli.synth_llm import LLM\n"
        "sys.exit(settings_from('synth llm', LLM, sys.argv[1:]).main())"
    )
    recipe = tmp_path / "recipe.toml"
    lines = [f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in QUICK[name].items()) for name in QUICK]
    recipe.write_text("\n".join(lines))

    async def run(server: ChatServer, kill_after: int | None) -> int:
        arguments = ["--base-url", server.url, "--model", "m", "--rows", "2", "--out", str(tmp_path / "set")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            str(recipe),
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
        )
        if kill_after is not None:
            await until(server, kill_after)
            process.send_signal(signal.SIGKILL)
        return await process.wait()

    async with serving(ScriptedAuthor(tasks=ONE_TASK)) as server:
        assert await run(server, 5) == -signal.SIGKILL
        assert await run(server, 12) == -signal.SIGKILL
        assert await run(server, None) == 0
        # What was under way when the process was killed was not written down; everything else was asked once.
        assert calm.requests <= len(server.requests) <= calm.requests + 2 * 16
    assert read_tasks(tmp_path / "set") == calm.tasks
    worlds = [world["world"] for world in verdicts(tmp_path / "set")]
    assert sorted(worlds) == list(range(len(worlds)))
