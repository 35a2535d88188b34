"""A real vLLM server on the CPU with nano, started here and killed in the end: ids, chat, `recall run`, failures.

It runs in ReCall's own environment; RECALL_VLLM_PYTHON names the python of one with vLLM.
"""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch

from recall import ReCall
from recall.cli import main
from recall.environment import Limits
from recall.errors import ConfigError, PolicyError
from recall.evaluation.local import NANO_LIMITS, PolicySettings, load
from recall.inference import EpisodeDone, TurnText
from recall.policy.chat import ChatPolicy
from recall.policy.chat_ids import ChatRenderer
from recall.policy.openai import OpenAIPolicy
from recall.policy.torch.loading import resolve
from recall.trainers.learner import Learner, LearnerSettings
from recall.types import Group, Message, RewardResult, Sampling, Task, Trajectory

pytestmark = pytest.mark.timeout(900)
NATS = 1e-3
"""How far the server's log-probabilities may be from the model's own."""
CONTEXT = 1024
SUPPLIERS = {"Kizedi": "Tota", "Tota": "Gebe", "Gebe": "Soti", "Soti": "Tilodi"}


def lookup_supplier(name: str) -> str:
    """Supplier of a company."""
    return SUPPLIERS[name]


class Server:
    """The server and its address."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}/v1", log
        # Not `vllm serve`: that looks for a package named vllm, and the one for the CPU is named otherwise.
        command = [
            os.environ["RECALL_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(resolve("nano")), "--served-model-name", "nano", "--host", "127.0.0.1", "--port", str(port),
            "--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager",
            "--logprobs-mode", "processed_logprobs", "--kv-cache-memory-bytes", str(1 << 30), "--block-size", "32",
            "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        ]  # fmt: skip
        env = os.environ | {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.5)
        self.kill()
        said = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line or "Error" in line]
        raise AssertionError("the server does not listen:\n" + "\n".join(said[:60]))

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("vllm") / "log")
    yield made
    made.kill()


def agent(server: Server, **settings: object) -> ReCall:
    return ReCall(policy=server.url, tools=[lookup_supplier], limits=NANO_LIMITS, **settings)


async def test_token_for_token_it_plays_as_the_model_in_this_process_does(server: Server) -> None:
    async with agent(server) as served, ReCall(policy="nano", tools=[lookup_supplier]) as here:
        assert isinstance((await served.model()).policy, OpenAIPolicy)
        for question in ("Find Kizedi's supplier.", "What is the supplier of Tota?"):
            theirs, ours = await served.ask(question), await here.ask(question)
            assert theirs.fault is None
            assert theirs.token_ids == ours.token_ids
            assert theirs.answer == SUPPLIERS[question.split()[-1 if "?" in question else 1].strip("?'s.")]
            assert not theirs.from_text


async def test_logprobs_are_those_of_the_model_at_the_temperature(server: Server) -> None:
    loaded = load(PolicySettings(device="cpu"))
    stops = sorted(loaded.renderer.stop_token_ids)
    policy = OpenAIPolicy(server.url, "nano", stop_token_ids=stops)
    prompt = loaded.renderer.prompt([Message("user", "Find Kizedi's supplier.")], [])
    sampling = Sampling(temperature=2.0, max_tokens=40, seed=5)
    found = await policy.sample(prompt, sampling, episode_id="a")
    again = await policy.sample(prompt, sampling, episode_id="b")
    await policy.close()
    assert found.token_ids == again.token_ids
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*prompt, *found.token_ids]])).logits[0].float()
    rows = (logits / sampling.temperature).log_softmax(-1)[len(prompt) - 1 : -1]
    own = rows.gather(1, torch.tensor(found.token_ids)[:, None])[:, 0].tolist()
    assert max(abs(a - b) for a, b in zip(own, found.logprobs, strict=True)) < NATS
    assert min(own) < -0.1


async def test_a_turn_is_heard_as_it_comes_and_many_are_played_at_once(server: Server) -> None:
    async with agent(server) as served:
        told = [event async for event in served.stream("Find Kizedi's supplier.")]
        played = await served.batch([f"Find {name}'s supplier." for name in SUPPLIERS] * 8)
    pieces = [event.text for event in told if isinstance(event, TurnText)]
    end = told[-1]
    assert isinstance(end, EpisodeDone)
    assert len(pieces) > 4
    assert "".join(pieces) in "".join(s.text.removesuffix("<|im_end|>") for s in end.trajectory.segments if s.sampled)
    assert [trajectory.answer for trajectory in played] == [*SUPPLIERS.values()] * 8


async def test_its_chat_endpoint_calls_tools_and_is_refused_for_training(server: Server) -> None:
    def supplier(name: Literal["Kizedi"]) -> str:
        """Supplier of a company."""
        return SUPPLIERS[name]

    # Nano's chat template knows no tools, so the server is told to have this one called, which its grammar sees to.
    # What the arguments are is nano's guess.
    named = {"tool_choice": {"type": "function", "function": {"name": "supplier"}}}
    policy = ChatPolicy(server.url, "nano", extra=named)
    limits = Limits(max_turns=2, max_tokens=10_000, max_turn_tokens=48)
    async with ReCall(policy=policy, renderer=ChatRenderer(), tools=[supplier], limits=limits) as served:
        trajectory = await served.ask("Find Kizedi's supplier.")
    await policy.close()
    assert trajectory.fault is None
    assert [record.name for record in trajectory.calls[:1]] == ["supplier"]
    assert trajectory.from_text
    group = Group(Task("t", "?", ("Tota",)), [trajectory], [RewardResult(1.0, correct=True)])
    learner = Learner(load(PolicySettings(device="cpu")).model, LearnerSettings())
    with pytest.raises(ConfigError, match="returns text only cannot be trained on"):
        learner.update([group], step=0, total_steps=1, seed=0)


@pytest.mark.parametrize("api", ["completions", "chat"])
async def test_a_context_that_is_too_long_is_a_fault_that_says_so(server: Server, api: str) -> None:
    limits = Limits(max_tokens=100_000, max_turn_tokens=48)
    async with ReCall(policy=server.url, api=api, limits=limits) as served:
        trajectory = await served.ask("hi " * CONTEXT)
    assert trajectory.fault is not None
    assert "the context is too long for the server; lower limits.max_tokens" in trajectory.fault
    assert f"maximum context length is {CONTEXT}" in trajectory.fault


@pytest.mark.parametrize("api", ["completions", "chat"])
async def test_a_wrong_name_is_refused_with_the_right_one(server: Server, api: str) -> None:
    async with ReCall(policy=server.url, api=api, model="wrong", tokenizer=resolve("nano")) as served:
        with pytest.raises(ConfigError, match="knows no model 'wrong'; it serves 'nano'"):
            await served.ask("?")


def test_recall_run_asks_it(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = tmp_path / "tools.py"
    tools.write_text('def lookup_supplier(name: str) -> str:\n    """Supplier of a company."""\n    return "Tota"\n')
    limits = [f"--limits.{name}={value}" for name, value in NANO_LIMITS.model_dump(exclude_none=True).items()]
    assert main(["run", "Find Kizedi's supplier.", "--url", server.url, "--tools", str(tools), *limits]) == 0
    assert "answer: Tota" in capsys.readouterr().out.splitlines()


async def test_a_server_that_is_killed_in_the_middle_of_an_answer_says_so_and_is_asked_once(server: Server) -> None:
    policy = ChatPolicy(server.url, "nano", extra={"ignore_eos": True, "min_tokens": 900})
    heard = asyncio.Event()
    policy.begin("e")
    policy.listen("e", lambda text: heard.set())
    prompt = ChatRenderer().prompt([Message("user", "hi")], [])
    asking = asyncio.create_task(policy.sample(prompt, Sampling(max_tokens=900), episode_id="e"))
    await asyncio.wait([asking, asyncio.create_task(heard.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert heard.is_set()
    assert not asking.done()
    server.kill()
    with pytest.raises(PolicyError, match="the server died"):
        await asking
    gone: Trajectory = await ReCall(policy=policy, renderer=ChatRenderer()).ask("?")
    await policy.close()
    assert gone.fault is not None
    assert "ClientConnectorError" in gone.fault
