"""`recall plan`: what it counts is what the models have, and what does not fit is named with its cure."""

import json
from pathlib import Path
from typing import Any

import pytest

from recall import cli
from recall.config import load
from recall.errors import ConfigError
from recall.trainers.plan import Machines, Plan, plan
from recall.trainers.recipe import TrainRecipe
from recall.trainers.size import KNOWN, ModelSize, size_of

RECIPES = Path(__file__).parent.parent / "recipes"
SEVEN = RECIPES / "qwen2.5-7b-8gpu.toml"


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = cli.main(["plan", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def totals(found: dict[str, Any]) -> dict[str, float]:
    return {name: sum(parts.values()) for name, parts in found["phases"].items()}


def model_like(size: ModelSize) -> Any:
    """The model of `transformers` that has this size, without memory."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    kind: Any = Qwen3Config if size.head_norms else Qwen2Config
    config = kind(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        tie_word_embeddings=size.tied,
    )
    with torch.device("meta"):
        return (Qwen3ForCausalLM if size.head_norms else Qwen2ForCausalLM)(config)


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B", "Qwen2.5-7B", "Qwen3-0.6B", "Qwen3-8B"])
def test_a_model_has_as_many_parameters_as_are_counted(name: str) -> None:
    assert sum(weight.numel() for weight in model_like(KNOWN[name]).parameters()) == KNOWN[name].parameters


@pytest.mark.parametrize(
    ("name", "published"),
    [("Qwen2.5-7B", 7_615_616_512), ("Qwen2.5-32B", 32_763_876_352), ("Qwen3-0.6B", 596_049_920)],
)
def test_known_names_have_the_published_number_of_parameters(name: str, published: int) -> None:
    assert KNOWN[name].parameters == published


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft's, not ours
def test_an_adapter_has_as_many_parameters_as_are_counted() -> None:
    from recall.policy.torch.loading import with_lora

    size = KNOWN["Qwen3-0.6B"]
    model = with_lora(model_like(size), 16)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == size.adapter(16)


def test_a_directory_is_read_and_nano_is_one() -> None:
    from safetensors import safe_open

    from recall.policy.torch.loading import resolve

    weights = resolve("nano") / "model.safetensors"
    with safe_open(weights, "numpy") as file:
        stored = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 - no mapping
    assert size_of("nano").parameters == size_of(str(weights.parent)).parameters == stored


def test_names_may_have_endings_and_paths_and_unknown_ones_are_refused() -> None:
    assert size_of("models/qwen2.5-7b-instruct") == size_of("Qwen2.5-7B") == size_of("/x/Qwen2.5-7B-Base")
    with pytest.raises(ConfigError, match=r"policy\.model: models/Other: .* accepted are Qwen2\.5-0\.5B"):
        size_of("models/Other")


MIXTURES: dict[str, dict[str, Any]] = {
    "Qwen3MoeForCausalLM": {"num_experts": 6, "moe_intermediate_size": 24, "head_dim": 8, "tie_word_embeddings": False},
    "MixtralForCausalLM": {"num_local_experts": 5, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_has_as_many_parameters_as_are_counted(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2}
    config = getattr(transformers, name.replace("ForCausalLM", "Config"))(**sizes, **heads, **MIXTURES[name])
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = getattr(transformers, name)(config)
    size = size_of(str(tmp_path))
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    idle = sum(w.numel() for key, w in model.named_parameters() if ".experts." in key) * (1 - 2 / size.experts)
    assert size.active_parameters == size.parameters - round(idle)
    with pytest.raises(ConfigError, match="adapters of a mixture"):
        size.adapter(8)


def test_a_known_mixture_has_the_published_numbers() -> None:
    size = KNOWN["Qwen3-30B-A3B"]
    assert size.parameters == 30_532_122_624
    assert 3.2e9 < size.active_parameters < 3.4e9


@pytest.mark.parametrize(
    "more",
    [
        {"model_type": "olmoe"},
        {"model_type": "qwen3_moe", "decoder_sparse_step": 2},
        {"model_type": "qwen3_moe", "mlp_only_layers": [1]},
    ],
)
def test_other_mixtures_are_refused(more: dict[str, Any], tmp_path: Path) -> None:
    config = {"num_attention_heads": 4, "hidden_size": 8, "num_experts": 8, **more}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="accepted are dense models and, with experts in every layer, qwen3_moe and"):
        size_of(str(tmp_path))


def test_the_published_run_fits_eight_gpus_and_not_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, eight = planned(capsys, str(SEVEN), "--gpus", "8", "--gpu-memory", "80")
    assert status == 0
    assert eight["problems"] == []
    status, one = planned(capsys, str(SEVEN), "--gpus", "1", "--gpu-memory", "80", "--verl.tensor_parallel", "1")
    assert status == 1
    assert any(problem.startswith("update: ") and "more GPUs" in problem for problem in one["problems"])


def test_weights_gradients_and_moments_take_sixteen_bytes_a_parameter_over_all_gpus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, found = planned(capsys, str(SEVEN))
    parts = found["phases"]["update"]
    held = 8 * sum(parts[name] for name in ("weights", "gradients", "moments")) * 2**30
    assert held == pytest.approx(16 * found["parameters"])


def test_the_engine_gives_its_memory_back_unless_it_is_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    _, gives = planned(capsys, str(SEVEN))
    _, keeps = planned(capsys, str(SEVEN), "--verl.overrides", "actor_rollout_ref.rollout.free_cache_engine=False")
    assert totals(keeps)["update"] - totals(gives)["update"] == pytest.approx(0.6 * 80)


@pytest.mark.parametrize(
    ("flags", "smaller"),
    [
        (["--verl.offload_optimizer"], "sample"),
        (["--learner.micro_tokens", "8192"], "update"),
        (["--policy.lora_rank", "16"], "update"),
        (["--gpus", "16"], "update"),
    ],
)
def test_what_saves_memory_saves_it(capsys: pytest.CaptureFixture[str], flags: list[str], smaller: str) -> None:
    _, before = planned(capsys, str(SEVEN))
    _, after = planned(capsys, str(SEVEN), *flags)
    assert totals(after)[smaller] < totals(before)[smaller]


def test_a_cache_without_room_for_one_episode_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--verl.engine_memory", "0.12", "--gpu-memory", "80", "--verl.tensor_parallel", "1"]
    status, found = planned(capsys, str(SEVEN), *flags)
    assert status == 1
    assert any(problem.startswith("verl.engine_memory: ") for problem in found["problems"])


def test_heads_that_cannot_be_split_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = planned(capsys, str(SEVEN), "--verl.tensor_parallel", "8")
    assert status == 1
    assert any("28 attention heads" in problem for problem in found["problems"])


def test_the_local_trainer_has_no_use_for_more_gpus() -> None:
    found: Plan = plan(TrainRecipe(), Machines(4, 80.0))
    assert any(problem.startswith("gpus: the local trainer") for problem in found.problems)


def trl(**settings: Any) -> TrainRecipe:
    return load(
        TrainRecipe,
        None,
        ["--engine", "trl", "--curriculum.by", "none", "--tasks.revisit", "0", "--policy.model", "Qwen3-1.7B"]
        + [f"--{name.replace('__', '.')}={value}" for name, value in settings.items()],
    )


def test_with_trl_each_gpu_holds_the_weights_and_zero_shares_out_the_rest(tmp_path: Path) -> None:
    parameters, zero = KNOWN["Qwen3-1.7B"].parameters, tmp_path / "zero.json"
    phases: list[dict[str, float]] = []
    for stage in (0, 1, 2):
        zero.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        more = {"trl__args": f"{{deepspeed = '{zero}'}}"} if stage else {}
        phases.append(dict(plan(trl(**more), Machines(4, 80.0)).phases[-1].parts))
    gib = parameters / 2**30
    assert [found["weights"] for found in phases] == pytest.approx([4 * gib] * 3)
    assert [found["moments"] for found in phases] == pytest.approx([8 * gib, 2 * gib, 2 * gib])
    assert [found["gradients"] for found in phases] == pytest.approx([4 * gib, 4 * gib, gib])
    assert ["buckets" in found for found in phases] == [True, False, False]


def test_with_trl_passes_and_the_engine_are_its_own() -> None:
    few, many = (plan(trl(trl__pass_trajectories=n), Machines(1, 80.0)).phases[-1].parts for n in (2, 8))
    assert many["logits"] == pytest.approx(4 * few["logits"])
    assert many["activations"] == pytest.approx(4 * few["activations"])
    colocated = plan(trl(trl__sampler="colocate", trl__engine_memory=0.25), Machines(2, 80.0))
    assert [phase.parts["engine"] for phase in colocated.phases] == pytest.approx([20.0, 20.0])
    assert colocated.step["engines"] == 2
    with pytest.raises(ConfigError, match=r"trl\.args\.deepspeed: nowhere\.json: cannot be read"):
        plan(trl(trl__args="{deepspeed = 'nowhere.json'}"), Machines(1, 80.0))


def test_of_a_mixture_the_table_says_how_much_a_token_is_computed_with(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "--policy.model=Qwen3-30B-A3B"])
    assert "Qwen3-30B-A3B: 30.53 billion parameters (3.35 billion for a token), local on" in capsys.readouterr().out


def test_what_verl_refuses_is_refused_here() -> None:
    with pytest.raises(ConfigError, match=r"policy\.engine: engine verl"):
        plan(load(TrainRecipe, SEVEN, ["--policy.engine=vllm"]), Machines(8, 80.0))


def test_the_table_names_parts_load_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(SEVEN)]) == 0
    said = capsys.readouterr().out
    assert "7.62 billion parameters, verl on 8 GPUs of 80 GiB" in said
    for name in (
        "logits",
        "moments",
        "tokens, at most",
        "sandbox sessions at once",
        "searches a step",
        "all of it fits",
    ):
        assert name in said
