"""Every recipe of recipes/ loads, says what it takes, and is one that its engine accepts."""

import re
import shlex
from pathlib import Path

import pytest

from recall.cli.train import Train
from recall.config import load, split_arguments
from recall.trainers.plan import Machines, plan
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.command import command
from recall.trainers.verl.honours import check

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
by_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def header(path: Path, name: str) -> str:
    found = re.search(rf"^# {name}: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{path}: no line '# {name}: '"
    return found[1]


def test_there_are_recipes_for_the_sizes_that_are_promised() -> None:
    names = {path.stem for path in RECIPES}
    small = {f"qwen3-{size}{way}" for size in ("0.6b", "1.7b") for way in ("", "-lora")}
    assert {"nano", "qwen2.5-7b-4gpu", "qwen2.5-7b-8gpu", "qwen2.5-32b-8x8", *small} <= names


@by_recipe
def test_a_recipe_loads_and_its_command_is_one(path: Path) -> None:
    words = shlex.split(header(path, "Command"))
    assert words[:3] == ["recall", "train", f"recipes/{path.name}"]
    positionals, flags = split_arguments(Train, words[2:])
    assert positionals == [f"recipes/{path.name}"]
    load(Train, path, [f"--{name}={text}" for name, text in flags])
    assert header(path, "Hardware")
    assert header(path, "Curve")


@by_recipe
def test_a_recipe_fits_the_hardware_and_the_memory_that_it_names(path: Path) -> None:
    recipe = load(TrainRecipe, path)
    gpus = recipe.cluster.nodes * recipe.cluster.gpus_per_node if recipe.engine == "verl" else 1
    found = plan(recipe, Machines(gpus, 80.0))
    assert found.problems == ()
    most = max(phase.total for phase in found.phases)
    assert header(path, "Memory").startswith(f"{most:.1f} GiB ")


@by_recipe
def test_an_engine_accepts_its_recipes(path: Path) -> None:
    recipe = load(TrainRecipe, path)
    recipe.learner.chosen()
    if recipe.engine == "verl":
        check(recipe)
        written = command(recipe, Path("/runs/x"), Path("/models/x"), python="python").arguments
        assert f"data.train_batch_size={recipe.rollout.groups}" in written


@by_recipe
def test_the_page_lists_every_recipe(path: Path) -> None:
    assert f"](../recipes/{path.name})" in PAGE


def test_the_published_settings_reach_verl() -> None:
    recipe = load(TrainRecipe, ROOT / "recipes" / "qwen2.5-7b-8gpu.toml")
    written = set(command(recipe, Path("/runs/x"), Path("/models/x"), python="python").arguments)
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    assert written >= {
        "algorithm.adv_estimator=grpo",
        "algorithm.norm_adv_by_std_in_grpo=True",
        "data.train_batch_size=256",
        "data.max_prompt_length=1536",
        "data.max_response_length=6656",
        f"{actor}.optim.lr=1e-06",
        f"{actor}.ppo_mini_batch_size=64",
        f"{actor}.use_kl_loss=True",
        f"{actor}.kl_loss_coef=0.001",
        f"{actor}.kl_loss_type=low_var_kl",
        f"{actor}.ppo_max_token_len_per_gpu=16384",
        f"{actor}.entropy_coeff=0.001",
        f"{actor}.loss_agg_mode=token-mean",
        f"{actor}.clip_ratio_c=3.0",
        f"{rollout}.n=5",
        f"{rollout}.tensor_model_parallel_size=2",
        f"{rollout}.log_prob_max_token_len_per_gpu=32768",
        "actor_rollout_ref.ref.fsdp_config.param_offload=True",
        "trainer.n_gpus_per_node=8",
        "trainer.save_freq=10",
        "trainer.test_freq=10",
    }
