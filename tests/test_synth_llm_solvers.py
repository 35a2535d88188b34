"""What models are asked about a task, and what their answers decide; episodes through the one loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_author import GIVES_UP, ScriptedAuthor
from llm_marina import MOVE, QUESTIONS, RATE, fenced, marina
from llm_server import Fault, serving
from recall.errors import RolloutError
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.author import Asked, Log
from recall.synth.llm.bench import Bench
from recall.synth.llm.blueprint import read_blueprint
from recall.synth.llm.budget import Budget
from recall.synth.llm.certify import Certifier
from recall.synth.llm.certify_world import CertificateSettings
from recall.synth.llm.chat_policy import ChatPolicy, TextRenderer
from recall.synth.llm.client import ChatClient, EndpointSettings, Replies
from recall.synth.llm.errors import RejectedError, SpentError
from recall.synth.llm.rows import task_of
from recall.synth.llm.solvers import Solvers, SolverSettings
from recall.synth.llm.topics import topic
from recall.types import Message, Sampling, Task

WORLDS = CertificateSettings(counterfactual_worlds=6, guess_worlds=10, most_guessed=0.2, search_calls=0)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    shared = LocalSandbox(SandboxLimits(call_timeout_s=1.0))
    yield shared
    asyncio.run(shared.close())


@pytest.fixture(scope="module")
def tasks(sandbox: LocalSandbox) -> dict[str, Task]:
    """A task that asks and one that changes something."""
    world = marina()

    async def made(value: dict[str, Any]) -> Task:
        certifier = Certifier(Bench(sandbox), world, WORLDS, range(1, 16))
        certified = await certifier.certify(read_blueprint(value, world), 0)
        asked = Asked(certified, tuple(QUESTIONS[value["intent"]]))
        return task_of(world, asked, certified.instances[0], topic=topic(0, 0), split="train", place=(0, 0, 0))

    return {name: asyncio.run(made(value)) for name, value in (("rate", RATE), ("move", MOVE))}


@asynccontextmanager
async def asking(
    sandbox: LocalSandbox, file: Path, script: Any, budget: Budget | None = None, **settings: Any
) -> AsyncIterator[Solvers]:
    async with serving(script) as server:
        endpoint = EndpointSettings(base_url=server.url, model="m", attempts=1)
        replies = Replies(file)
        client = ChatClient(endpoint, replies, budget or Budget())
        try:
            asked = SolverSettings.model_validate({"guesses": 2, "solvers": 2, "most_solved": 2} | settings)
            yield Solvers(client, client, sandbox, asked)
        finally:
            await client.close()
            replies.close()


@pytest.mark.parametrize("name", ["rate", "move"])
async def test_a_good_task_passes(sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path, name: str) -> None:
    log = Log()
    settings: dict[str, Any] = {"solvers": GIVES_UP + 1, "most_solved": GIVES_UP}
    async with asking(sandbox, tmp_path / "r.jsonl", ScriptedAuthor(), **settings) as solvers:
        await solvers.judge(tasks[name], log)
    played = next(entry for entry in log.entries if entry["step"] == "solve")
    assert (played["solved"], played["of"]) == (GIVES_UP, GIVES_UP + 1)


ONE = fenced("python", "def solve():\n    return 1\n")
READS = fenced("python", "import os\n\ndef solve():\n    pass\n")
LOOPS = fenced("python", "def solve():\n    while True:\n        pass\n")
WANTING: dict[str, tuple[str, dict[str, Any], str]] = {
    "solved by none": ("rate", {"solve": "\\boxed{1}"}, "solvers: solved by none"),
    "nothing done": ("move", {"solve": "I did. \\boxed{done}"}, "solvers: solved by none"),
    "never an answer": ("rate", {"solve": "Let me think."}, "solvers: solved by none"),
    "another answer": (
        "rate",
        {"program": ONE},
        "comes to something else",
    ),
    "another change": (
        "move",
        {"program": ONE},
        "comes to something else",
    ),
    "an endless program": ("rate", {"program": LOOPS}, "agreement: another program fails: timeout"),
    "no program": ("rate", {"program": "I cannot."}, "reply: no code"),
    "a program that reads files": (
        "rate",
        {"program": READS},
        "lint: import",
    ),
    "too long for the endpoint": ("rate", {"solve": Fault(400, b"too long")}, "endpoint: refused"),
}


@pytest.mark.parametrize(("name", "instead", "fault"), WANTING.values(), ids=WANTING)
async def test_a_task_that_is_not_what_it_should_be_is_rejected(
    sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path, name: str, instead: dict[str, Any], fault: str
) -> None:
    async with asking(sandbox, tmp_path / "r.jsonl", ScriptedAuthor(**instead)) as solvers:
        with pytest.raises(RejectedError, match=fault):
            await solvers.judge(tasks[name], Log())


async def test_a_task_that_is_answered_without_tools_leaks(
    sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path
) -> None:
    (answer,) = tasks["rate"].ground_truth
    said = ScriptedAuthor(guess=lambda body: f"\\boxed{{{answer if body['seed'] == 1 else 5}}}")
    async with asking(sandbox, tmp_path / "r.jsonl", said) as solvers:
        with pytest.raises(RejectedError, match=f"leak: answered without tools: 1 of 2 say '{answer}'"):
            await solvers.judge(tasks["rate"], Log())


async def test_a_task_that_all_solve_is_too_easy(sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path) -> None:
    async with asking(sandbox, tmp_path / "r.jsonl", ScriptedAuthor(), most_solved=1) as solvers:
        with pytest.raises(RejectedError, match="solvers: solved by too many: 2 of 2"):
            await solvers.judge(tasks["rate"], Log())


async def test_an_endpoint_that_fails_within_an_episode_is_no_fault_of_the_task(
    sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path
) -> None:
    down = ScriptedAuthor(solve=Fault(500, b"down"))
    async with asking(sandbox, tmp_path / "r.jsonl", down) as solvers:
        with pytest.raises(RolloutError, match="down"):
            await solvers.judge(tasks["rate"], Log())


async def test_a_budget_that_is_spent_within_an_episode_ends_it(
    sandbox: LocalSandbox, tasks: dict[str, Task], tmp_path: Path
) -> None:
    async with asking(sandbox, tmp_path / "r.jsonl", ScriptedAuthor(), Budget(max_requests=5)) as solvers:
        with pytest.raises(SpentError):
            await solvers.judge(tasks["rate"], Log())


async def test_an_episode_is_asked_for_as_the_conversation_that_it_is(tmp_path: Path) -> None:
    renderer = TextRenderer()
    said = 'I call.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    async with serving(lambda body: said) as server:
        client = ChatClient(EndpointSettings(base_url=server.url, model="m"), Replies(tmp_path / "r.jsonl"), Budget())
        policy = ChatPolicy(client, max_tokens=50, step="solve")
        context = renderer.prompt([Message("user", "What <|end|> is it?")], ())
        turn = await policy.sample(context, Sampling(temperature=0.5, max_tokens=500, seed=7), episode_id="e")
        reply = renderer.reply([Message("tool", "one"), Message("tool", "two")])
        await policy.sample([*context, *turn.token_ids, *reply], Sampling(max_tokens=500), episode_id="e")
        short = await policy.sample(context, Sampling(max_tokens=5), episode_id="e")
        await client.close()
    assert renderer.parse(turn.token_ids).calls[0].name == "f"  # type: ignore[union-attr]
    assert (turn.finish_reason, short.finish_reason, len(short.token_ids)) == ("stop", "length", 5)
    first, second, _ = server.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["messages"][1]["content"] == "What <|end|> is it?"
    assert (first["temperature"], first["seed"], first["max_tokens"], first["stop"]) == (
        0.5,
        7,
        50,
        ["<tool_response>"],
    )
    assert second["messages"][2] == {"role": "assistant", "content": said}
    assert second["messages"][3]["content"].count("<tool_response>") == 2
