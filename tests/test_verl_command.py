"""A recipe in verl's words: what each setting becomes, and what verl would do otherwise is refused by name."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from recall.config import load
from recall.errors import ConfigError
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.command import command
from recall.trainers.verl.honours import check
from recall.trainers.verl.services import check_addresses, problem_of

ROOT = Path(__file__).parent.parent
SEVEN = ROOT / "recipes" / "qwen2.5-7b-8gpu.toml"


def recipe(*flags: str) -> TrainRecipe:
    return load(TrainRecipe, SEVEN, flags)


def settings(*flags: str, address: str = "", resumed: bool = False) -> Mapping[str, str]:
    """Verl's settings by name; the last word counts."""
    read = recipe(*flags)
    check(read)
    written = command(
        read, Path("/runs/x"), Path("/models/x"), python="python", ray_address=address, resumed=resumed
    ).arguments
    assert written[:3] == ("python", "-m", "verl.trainer.main_ppo")
    pairs = [word.lstrip("+").partition("=") for word in written[3:]]
    names = [name for name, _, _ in pairs]
    assert len(names) == len(set(names))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    ("algorithm", "estimator", "mode", "average"),
    [
        ("grpo", "grpo", "vanilla", "seq-mean-token-mean"),
        ("dr_grpo", "grpo", "vanilla", "seq-mean-token-sum-norm"),
        ("dapo", "grpo", "vanilla", "token-mean"),
        ("gspo", "grpo", "gspo", "seq-mean-token-mean"),
        ("cispo", "grpo", "cispo", "token-mean"),
        ("rloo", "rloo", "vanilla", "seq-mean-token-sum-norm"),
        ("reinforce_pp", "reinforce_plus_plus", "vanilla", "token-mean"),
        ("reinforce_pp_baseline", "reinforce_plus_plus_baseline", "vanilla", "token-mean"),
    ],
)
def test_algorithms_are_said_in_the_words_of_verl(algorithm: str, estimator: str, mode: str, average: str) -> None:
    said = settings(f"--learner.algorithm={algorithm}", "--verl.overrides=[]")
    assert said["algorithm.adv_estimator"] == estimator
    assert said["actor_rollout_ref.actor.policy_loss.loss_mode"] == mode
    assert said["actor_rollout_ref.actor.loss_agg_mode"] == average
    assert said["algorithm.norm_adv_by_std_in_grpo"] == str(algorithm in ("grpo", "dapo", "gspo", "cispo"))
    assert said["actor_rollout_ref.actor.use_kl_loss"] == str(algorithm == "grpo")


def test_what_was_measured_before_is_not_measured_again_when_a_run_goes_on() -> None:
    assert settings()["trainer.val_before_train"] == "True"
    assert settings(resumed=True)["trainer.val_before_train"] == "False"


def test_an_override_has_the_last_word_and_a_cluster_that_is_there_is_not_sized() -> None:
    flags = ('--verl.overrides=["trainer.save_freq=7", "ray_kwargs.ray_init.num_cpus=16"]',)
    assert settings(*flags)["trainer.save_freq"] == "7"
    assert settings(*flags)["ray_kwargs.ray_init.num_cpus"] == "16"
    joined = settings(*flags, address="10.0.0.1:6379")
    assert "ray_kwargs.ray_init.num_cpus" not in joined
    assert joined["ray_kwargs.ray_init.address"] == "'10.0.0.1:6379'"


@pytest.mark.parametrize(
    ("flags", "setting"),
    [
        (["--policy.engine=vllm"], "policy.engine"),
        (["--learner.minibatches=3"], "learner.minibatches"),
        (["--learner.final_rate=0.1"], "learner.final_rate"),
        (["--learner.warmup_steps=5"], "learner.initial_rate"),
        (["--learner.micro_tokens=512"], "learner.micro_tokens"),
        (["--validation.patience=2"], "validation.patience"),
        (["--shuffle_rewards"], "shuffle_rewards"),
        (["--deterministic=true"], "deterministic"),
        (["--tasks.source=synth", "--curriculum.by=none"], "tasks.revisit"),
        (["--tasks.source=procedural"], "curriculum.by"),
        (["--verl.tensor_parallel=3"], "verl.tensor_parallel"),
        (["--verl.mode=separate_async"], "verl.rollout_nodes"),
        (["--rollout.limits.episode_timeout_s=none"], "rollout.limits.episode_timeout_s"),
        (["--cluster.retrievers=1"], "cluster.retrievers"),
        (["--cluster.sandboxes=1", '--sandbox.urls=["http://127.0.0.1:1"]'], "cluster.sandboxes"),
    ],
)
def test_what_verl_would_do_otherwise_is_refused_by_name(flags: list[str], setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}: engine verl "):
        check(recipe(*flags))


def test_a_server_that_is_not_there_is_told_before_training() -> None:
    assert problem_of("http://127.0.0.1:9") is not None
    with pytest.raises(ConfigError, match=r"sandbox\.urls: http://127\.0\.0\.1:9 is not well"):
        check_addresses(recipe('--sandbox.urls=["http://127.0.0.1:9"]'))
