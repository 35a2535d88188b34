"""The examples of deploy/ are files that their readers take, and start commands that there are."""

import shlex
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from recall.cli import COMMANDS
from recall.config import load, split_arguments
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.honours import check

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PODS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def found(value: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from found(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from found(item, key)


def checked(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The arguments and flags of a `recall …` command line, refused where there is no such flag."""
    name = next(name for name in (" ".join(words[1:3]), words[1]) if name in COMMANDS)
    model = getattr(import_module(COMMANDS[name].module), COMMANDS[name].model)
    return split_arguments(model, words[1 + len(name.split()) :])


def trainings(entrypoint: str) -> list[list[str]]:
    """The `recall train` commands of a shell line."""
    parts = [part.strip().removeprefix("then ").removeprefix("else ") for part in entrypoint.split(";")]
    return [shlex.split(part) for part in parts if part.startswith("recall ")]


@pytest.mark.parametrize("path", PODS, ids=lambda path: path.stem)
def test_what_a_pod_starts_is_a_command(path: Path) -> None:
    lines = [args for args in found(documents(path), "args") if args[0] == "recall"]
    lines += [line for entry in found(documents(path), "entrypoint") for line in trainings(entry)]
    assert lines
    for line in lines:
        checked(line)


def test_services_that_listen_to_others_have_a_token_in_a_file() -> None:
    for args in found(documents(DEPLOY / "kubernetes" / "services.yaml"), "args"):
        assert args[args.index("--host") + 1] == "0.0.0.0"
        assert args[args.index("--token-file") + 1].startswith("/run/tokens/")


def test_the_job_trains_by_a_recipe_that_verl_accepts_and_then_goes_on_with_it() -> None:
    (entry,) = found(documents(DEPLOY / "kubernetes" / "train.yaml"), "entrypoint")
    resumed, new = trainings(entry)
    assert "--resume" in resumed
    positionals, flags = checked(new)
    own = [f"--{name}={text}" for name, text in flags if name not in ("run", "ray_address")]
    recipe = load(TrainRecipe, ROOT / "recipes" / Path(positionals[0]).name, own)
    check(recipe)
    assert len(recipe.sandbox.urls) == 4


def test_the_job_has_as_many_nodes_and_gpus_as_its_recipe() -> None:
    (document,) = documents(DEPLOY / "kubernetes" / "train.yaml")
    recipe = load(TrainRecipe, ROOT / "recipes" / "qwen2.5-32b-8x8.toml")
    assert 1 + sum(found(document, "replicas")) == recipe.cluster.nodes
    assert set(found(document, "nvidia.com/gpu")) == {recipe.cluster.gpus_per_node}


def test_the_batch_script_is_one_that_bash_reads() -> None:
    script = DEPLOY / "slurm" / "train.sbatch"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
