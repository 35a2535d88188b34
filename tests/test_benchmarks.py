"""The parts of the engine benchmark that need no TRL: peers compute the same, and TRL is given the same prompts."""

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fakes import InProcessSandbox  # noqa: E402
from recall.nano.pretrain import PretrainSettings, nano_model, nano_tokenizer, save_model  # noqa: E402

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def part(name: str) -> Any:
    """A module of `benchmarks/`, which is no package of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of nano's kind, smaller, with random weights."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = nano_tokenizer(documents=60)
    settings = PretrainSettings(layers=2, hidden=64, feed_forward=64)
    made = nano_model(settings, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    save_model(made, tokenizer, path)
    return path


@pytest.fixture
def bench(model: Path) -> Any:
    threads = torch.get_num_threads()
    setting = part("parts.setting")
    yield setting.Bench(setting.Setting(str(model), threads=1, repeats=1, groups=2, group_size=3))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", ["2:1", "nano"])
def test_padded_update_has_the_gradient_of_the_learner(bench: Any, shape: str) -> None:
    measured = part("parts.update").measure(bench, shape)
    assert measured["gradient_difference"] < 1e-4
    assert measured["recall"]["tokens_per_s"] > 0


def test_generate_plays_the_greedy_episodes_of_the_engine(bench: Any) -> None:
    measured = asyncio.run(part("parts.sampling").measure(bench))
    assert measured["same_when_greedy"] == 1.0


def test_parts_of_a_step_add_up_to_its_wall_time(bench: Any) -> None:
    measured = asyncio.run(part("parts.step").measure(bench))
    parts = ("sampling_s", "tools_and_loop_s", "reward_s", "update_s", "storing_s")
    assert sum(measured[name] for name in parts) == pytest.approx(measured["wall_s"])
    assert all(measured[name] >= 0 for name in parts)


def test_a_step_says_what_the_tools_cost(bench: Any) -> None:
    measured = asyncio.run(part("parts.step").measure(bench))
    assert measured["tools_share"] == measured["tools_s"] / measured["wall_s"]
    assert measured["tools_s"] < measured["wall_s"]


async def test_a_remembered_call_is_answered_without_the_sandbox() -> None:
    sandbox = InProcessSandbox()
    memory = part("parts.remembered").Remembered(sandbox)
    source = "def double(n):\n    return 2 * n\n"
    for _ in range(2):
        session = await memory.open(source)
        assert (await session.call("double", {"n": 3})).result == 6
        await session.close()
    assert (memory.asked, sandbox.opened) == (1, 1)
    assert (await memory.result(source, "double", {"n": 4})).result == 8
    assert memory.asked == 2


def test_peak_memory_counts_what_was_freed_again() -> None:
    with part("parts.memory").Peak() as peak:
        bytearray(b"x" * 2**26)
    assert 60 < peak.grown_mb < 400


def test_trl_is_given_the_prompts_of_the_renderer(bench: Any) -> None:
    trl_step = part("parts.trl_step")
    given = json.loads(json.dumps(part("parts.tasks_file").tasks_of(bench)))
    assert len(given["tasks"]) == 6
    bench.tokenizer.chat_template = trl_step.template(given["system"])
    trl_step.check_prompts(trl_step.jointed(bench.tokenizer), given["tasks"])


def test_trl_is_given_the_replies_of_the_renderer(bench: Any) -> None:
    from recall.types import Message

    results = ('{"name": "Bani"}', '{"a": {"b": 1}}', "")
    expected = bench.renderer.reply([Message("tool", result) for result in results])
    trl_step = part("parts.trl_step")
    bench.tokenizer.chat_template = trl_step.template("{func_schemas}")
    tokenizer = trl_step.jointed(bench.tokenizer)
    start = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    tools = [{"role": "tool", "name": "f", "content": result} for result in results]
    before = tokenizer.apply_chat_template(start, return_dict=False)
    after = tokenizer.apply_chat_template(start + tools, add_generation_prompt=True, return_dict=False)
    # TRL cuts at the end of the assistant's turn, before the line break that the template writes after it.
    assert tokenizer.decode(after[len(before) - 1 :]) == bench.renderer.decode(expected)
    assert after[len(before) - 1 :] == expected


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["engine.py", "--model", str(model), "--trl-micro-batches", "7"])
    assert part("engine").main() == 2
    assert "--trl-micro-batches 7: does not divide the batch of 192" in capsys.readouterr().err


def test_the_benchmark_of_the_sandbox_knows_a_live_session_from_its_zygote() -> None:
    found = asyncio.run(part("parts.sandbox_many").living(10))
    assert 0.1 < found["session_mb"] < 40
    assert found["open_ms"] > 0


def test_a_bare_fork_is_timed_in_an_interpreter_like_the_zygote() -> None:
    found = part("parts.sandbox_local").bare_forks(20)
    assert 0 < found["p50_ms"] <= found["p99_ms"]


@pytest.mark.parametrize("hostile", [False, True])
def test_clean_calls_come_back_whatever_is_beside_them(hostile: bool) -> None:
    found = asyncio.run(part("parts.sandbox_many").mixed(40, width=2, hostile=hostile))
    assert found["clean"] == 40
    assert found["others"] > 0
