"""Each option of the published training scripts has its place in a recipe, and what the page names is there."""

import re
from pathlib import Path

from recall.config import find
from recall.trainers.recipe import TrainRecipe

PAGE = (Path(__file__).parent.parent / "docs" / "published-options.md").read_text(encoding="utf-8")
OPTIONS = (
    "train_files", "test_files", "prompt_key", "train_batch_size", "ppo_mini_batch_size", "lr", "max_prompt_length",
    "max_response_length", "use_re_call", "prompt_template_name", "actor_model_path", "rollout_name", "max_turns",
    "reward_manager", "rollout_n", "rollout_tp", "rollout_gpu_util", "search_url", "sandbox_url", "project_name",
    "experiment_name", "nnodes", "n_gpus_per_node", "save_freq", "test_freq", "total_epochs", "wandb_api_key",
    "save_path",
)  # fmt: skip
"""What train.sh and train_multi_node.sh take."""


def rows() -> dict[str, str]:
    """The place of each option, by its name."""
    found: dict[str, str] = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("| `--"):
            found |= dict.fromkeys(re.findall(r"--(\w+)", cells[1]), " ".join(cells[2:]))
    return found


def test_every_option_is_in_the_table_and_no_other() -> None:
    assert sorted(rows()) == sorted(OPTIONS)
    assert all(rows().values())


def test_the_settings_that_the_page_names_are_settings() -> None:
    tables = "policy|tasks|rollout|sandbox|learner|validation|tracking|cluster|verl"
    named = set(re.findall(rf"`((?:{tables})\.[a-z_.]+[a-z_])", PAGE)) - {"verl.trainer"}
    published = {name for name in named if name.startswith("rollout.") and find(TrainRecipe, name) is None}
    assert published <= {"rollout.log_prob_max_token_len_per_gpu", "rollout.enforce_eager", "rollout.free_cache_engine"}
    assert len(named - published) > 20
    assert {name for name in named - published if find(TrainRecipe, name) is None} == set()
