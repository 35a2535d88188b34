"""What the pages say is so: their code runs, their commands are accepted, their links lead somewhere."""

import ast
import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import InProcessSandbox, chatml_tokenizer
from recall import cli
from recall.config import Settings, keys, load, split_arguments
from recall.environment import ToolEnvironments
from recall.evaluation.play import Player
from recall.policy.scripted import ScriptedPolicy, reference_script
from recall.renderer import ChatMLRenderer
from recall.rewards import get
from recall.store import Run
from recall.synth.procedural.skins import reader as skins
from recall.synth.tasks import ToolTasks
from recall.trainers.recipe import TrainRecipe
from recall.types import Sampling

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LEFT_OUT = {
    "train", "eval", "run", "nano pretrain", "sandbox serve", "synth llm", "synth paraphrase", "data download",
    "data corpus", "data qa", "retriever build", "retriever inspect", "retriever search", "retriever serve", "eval qa",
    "eval compare", "eval bfcl", "eval bfcl compare", "synth bfcl", "serve", "view", "replay", "doctor", "export",
    "synth encyclopedia",
}  # fmt: skip
"""Commands that train, load a model, serve, or need what is not here (a network, a corpus). Their settings are
read here, and they are run by their own tests."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language; `""` for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def command_lines(text: str) -> list[list[str]]:
    """The arguments of every `recall …` line in the blocks of a page."""
    lines = [line for block in blocks(text, "") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("recall ")]


COMMAND_LINES = command_lines(README)
ALL_COMMAND_LINES = [line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))]


def settings_of(arguments: list[str]) -> Settings:
    name = cli._command_name(arguments)
    return cli.settings_from(name, cli._model(cli.COMMANDS[name]), arguments[len(name.split()) :])


async def a_run(path: Path) -> None:
    """A run whose trajectories are those of the reference programs of two tasks."""
    run, sandbox, renderer = Run.create(path, ""), InProcessSandbox(), ChatMLRenderer(chatml_tokenizer())
    run.append_metrics({"step": 280, "reward/mean": 1.0})
    groups = []
    for task in ToolTasks("2", split="train", seed=0).take(2):
        environments = ToolEnvironments(sandbox)
        policy = ScriptedPolicy(reference_script(task), renderer)
        player = Player(policy, renderer, environments, get("outcome"), environments.limits)
        groups += await player.play([task], samples=2, sampling=Sampling())
    run.write_groups(280, groups)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    relative = [target.partition("#")[0] for target in targets if not re.match(r"https?://|mailto:|#", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("arguments", ALL_COMMAND_LINES, ids=" ".join)
def test_every_command_line_is_accepted(arguments: list[str]) -> None:
    settings_of(arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_in_running_text_is_known(page: Path) -> None:
    for span in re.findall(r"`recall ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        words = shlex.split(span)
        name = max((name for name in cli.COMMANDS if words[: len(name.split())] == name.split()), key=len, default="")
        if name and "[" not in span:
            arguments = [word for word in words[len(name.split()) :] if word != "--help"]
            value = ["x"] if arguments and arguments[-1].startswith("--") else []  # a flag named without its value
            split_arguments(cli._model(cli.COMMANDS[name]), arguments + value)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"\btest_[a-z_]+\.py", page.read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / "tests" / name).is_file()} == set()


def test_the_readme_shows_every_command() -> None:
    assert {cli._command_name(arguments) for arguments in COMMAND_LINES} | {"train"} == set(cli.COMMANDS)


def test_the_commands_of_the_readme_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    asyncio.run(a_run(tmp_path / "runs" / "nano"))
    for arguments in COMMAND_LINES:
        if cli._command_name(arguments) not in LEFT_OUT:
            assert cli.main(arguments) == 0, arguments


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_the_python_of_the_readme_runs(block: str) -> None:
    ast.parse(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" 1.0\n")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_recipe_is_accepted(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "toml"):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(block, encoding="utf-8")
        if "[[entity]]" in block:
            skins.read(recipe)
        else:
            load(TrainRecipe, recipe)


def test_the_tree_of_the_readme_is_that_of_the_package() -> None:
    shown = re.findall(r"^[├└]── ([\w.]+?)/? ", README, re.MULTILINE)
    package = ROOT / "src" / "recall"
    there = [path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert sorted(shown) == sorted(name for name in there if not name.startswith("_"))


def test_every_setting_of_a_recipe_is_described() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z_]+)`", text))
    assert {key.name.rpartition(".")[2] for key in keys(TrainRecipe)} - described == set()


def test_every_metric_is_described() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/recall/trainers").glob("*.py"))
    written = set(re.findall(r'"((?:reward|success|rollout|groups|learner|policy|time|memory)/[a-z_]+)[/"]', source))
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert {name for name in written if f"`{name}" not in text} == set()
    assert len(written) > 20
