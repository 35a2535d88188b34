from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from recall.config import Settings, dump, keys, load
from recall.errors import ConfigError


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class Limits:
    max_turns: int = 8
    stop: tuple[str, ...] = field(default_factory=tuple)


class Learner(Settings):
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    batch: int = Field(default=8, ge=1)
    clip: tuple[float, float] = (0.2, 0.28)
    scale_by_std: bool = False
    warmup: int | None = 10
    dtype: Dtype = Dtype.FLOAT32

    @field_validator("batch")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"batch must be even, got {value}")
        return value


class Source(Settings):
    path: Path
    weight: float = 1.0


class Engine(Settings):
    named_by: ClassVar[str] = "name"

    name: Literal["torch", "vllm"] = "torch"
    memory: float = 0.5


class Recipe(Settings):
    name: str = "run"
    engine: Engine = Engine()
    tasks: Path | None = None
    policy: Literal["torch", "vllm"] = "torch"
    steps: tuple[int, ...] = ()
    mix: dict[str, float] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    learner: Learner = Learner(batch=64)
    limits: Limits = Limits()


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def refusal(path: Path | None, *overrides: str, model: type[Settings] = Recipe) -> str:
    with pytest.raises(ConfigError) as caught:
        load(model, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_recipe_and_no_flags_give_the_defaults() -> None:
    assert load(Recipe, None) == Recipe()


def test_flags_go_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'name = "a"\n[learner]\nlearning_rate = 0.5\nscale_by_std = true\n')
    loaded = load(Recipe, path, ["--learner.learning_rate", "1e-3", "--steps=1,2"])
    assert loaded == Recipe(name="a", steps=(1, 2), learner=Learner(batch=64, learning_rate=1e-3, scale_by_std=True))


def test_a_partial_table_keeps_the_values_that_the_table_around_it_sets(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[learner]\nlearning_rate = 0.5\n")
    assert load(Recipe, path).learner.batch == 64
    assert load(Recipe, None, ["--learner.warmup=3"]).learner.batch == 64


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--learner.learning_rate", ".5"], Recipe(learner=Learner(batch=64, learning_rate=0.5))),
        (["--learner.learning-rate=2"], Recipe(learner=Learner(batch=64, learning_rate=2.0))),
        (["--learner.scale_by_std"], Recipe(learner=Learner(batch=64, scale_by_std=True))),
        (["--learner.scale_by_std", "--name", "b"], Recipe(name="b", learner=Learner(batch=64, scale_by_std=True))),
        (["--learner.scale_by_std", "False"], Recipe()),
        (["--learner.warmup", "none"], Recipe(learner=Learner(batch=64, warmup=None))),
        (["--learner.dtype", "bfloat16"], Recipe(learner=Learner(batch=64, dtype=Dtype.BFLOAT16))),
        (["--learner.clip", "[0.1, 0.3]"], Recipe(learner=Learner(batch=64, clip=(0.1, 0.3)))),
        (["--name", "5"], Recipe(name="5")),
        (["--name", "none"], Recipe(name="none")),
        (["--name=--x"], Recipe(name="--x")),
        (["--steps", ""], Recipe()),
        (["--steps", "7"], Recipe(steps=(7,))),
        (["--mix.depth-1", "0.5", "--mix.b=1"], Recipe(mix={"depth-1": 0.5, "b": 1.0})),
        (["--mix", "{a = 1.5}"], Recipe(mix={"a": 1.5})),
        (["--limits.stop", "a,b"], Recipe(limits=Limits(stop=("a", "b")))),
        (["--name", "a", "--name", "b"], Recipe(name="b")),
        (["--tasks", "x/1.jsonl"], Recipe(tasks=Path("x/1.jsonl"))),
        (["--engine", "vllm"], Recipe(engine=Engine(name="vllm"))),
        (["--engine=vllm", "--engine.memory", "0.3"], Recipe(engine=Engine(name="vllm", memory=0.3))),
        (["--engine", "{memory = 0.3}"], Recipe(engine=Engine(memory=0.3))),
        (["--learner.scale_by_std", "--no-learner.scale_by_std"], Recipe()),
    ],
)
def test_a_flag_is_read_as_its_setting_is_typed(flags: list[str], expected: Recipe) -> None:
    assert load(Recipe, None, flags) == expected


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--lerner.batch", "8"], "--lerner.batch: unknown flag; the nearest known one is --learner.batch"),
        (["--learning_rate", "8"], "--learning_rate: unknown flag; the nearest known one is --learner.learning_rate"),
        (["-x"], "-x: unknown flag; the nearest known one is --"),
        (["--name"], "--name: needs a value; it takes text"),
        (["--name", "--steps", "1"], "--name: needs a value; it takes text"),
        (["extra"], "unexpected argument 'extra'; settings are given as --key value"),
        (["--learner.batch", "x"], "--learner.batch: 'x' is not accepted; it takes an integer at least 1"),
        (["--learner.batch=1.5"], "--learner.batch: '1.5' is not accepted; it takes an integer at least 1"),
        (["--learner.batch=7"], "--learner.batch: batch must be even, got 7"),
        (["--learner.learning_rate=0"], "--learner.learning_rate: '0' is not accepted; it takes a number above 0"),
        (["--learner.scale_by_std=2"], "--learner.scale_by_std: '2' is not accepted; it takes true or false"),
        (["--learner.dtype=int"], '--learner.dtype: \'int\' is not accepted; it takes one of "float32", "bfloat16"'),
        (["--policy=jax"], '--policy: \'jax\' is not accepted; it takes one of "torch", "vllm"'),
        (["--engine=jax"], '--engine.name: \'jax\' is not accepted; it takes one of "torch", "vllm"'),
        (["-no-learner.scale_by_std"], "-no-learner.scale_by_std: unknown flag"),
        (["--no-name"], "--no-name: unknown flag; the nearest known one is --name"),
        (["--no-learner.scale_by_std=1"], "--no-learner.scale_by_std: unknown flag"),
        (["--mix.a=x"], "--mix.a: 'x' is not accepted; it takes a number"),
        (["--learner=3"], "--learner: '3' is not accepted; it takes a table of learning_rate, batch, "),
        (["--learner={btch=3}"], "--learner.btch: unknown key; the nearest known one is learner.batch"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line_that_names_it(flags: list[str], line: str) -> None:
    assert refusal(None, *flags).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nmae = 'x'", "{}: nmae: unknown key; the nearest known one is name"),
        ("[lerner]\nbatch = 2", "{}: lerner: unknown key; the nearest known one is learner"),
        ("[learner]\nbtach = 2", "{}: learner.btach: unknown key; the nearest known one is learner.batch"),
        ("[limits]\nturns = 2", "{}: limits.turns: unknown key; the nearest known one is limits.max_turns"),
        ("name = 5", "{}: name: 5 is not accepted; it takes text"),
        ("[learner]\nbatch = '5'", "{}: learner.batch: '5' is not accepted; it takes an integer at least 1"),
        ("learner = 5", "{}: learner: 5 is not accepted; it takes a table of learning_rate"),
        ("steps = [1, 'b']", "{}: steps[1]: 'b' is not accepted; it takes an integer"),
        ("[[sources]]\nweight = 2", "{}: sources[0].path: required; it takes a path"),
        ("[[sources]]\npth = 'x'", "{}: sources[0].pth: unknown key; the nearest known one is sources[0].path"),
        ("name = 5\nsteps = 5", "{}: name: 5 is not accepted; it takes text (and 1 more)"),
        ("name = 'x'\nname 5", "{}: not valid TOML: "),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, line: str) -> None:
    path = recipe(tmp_path, text)
    assert refusal(path).startswith(line.format(path))


def test_a_broken_recipe_is_refused_by_its_line_number(tmp_path: Path) -> None:
    assert "line 3" in refusal(recipe(tmp_path, "name = 'x'\nsteps = [1\n,,"))


def test_a_fault_of_a_flag_is_not_blamed_on_the_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "name = 'x'")
    assert refusal(path, "--steps", "x").startswith("--steps: ")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.toml") == f"{tmp_path}/no.toml: no such recipe file"
    assert refusal(tmp_path) == f"{tmp_path}: no such recipe file"


def test_a_required_setting_is_asked_for_by_name() -> None:
    assert refusal(None, model=Source) == "--path: required; it takes a path"


def test_none_that_is_not_the_default_survives_a_recipe() -> None:
    settings = Recipe(learner=Learner(batch=64, warmup=None))
    assert 'warmup = "none"' in dump(settings)


finite = st.floats(allow_nan=False)
recipes = st.builds(
    Recipe,
    name=st.text(),
    tasks=st.none() | st.text("abc/ü. ", min_size=1).map(Path),
    policy=st.sampled_from(["torch", "vllm"]),
    steps=st.lists(st.integers(-(2**63), 2**63)).map(tuple),
    mix=st.dictionaries(st.text(), finite),
    sources=st.lists(st.builds(Source, path=st.just(Path("a")), weight=finite)).map(tuple),
    learner=st.builds(
        Learner,
        learning_rate=st.floats(min_value=0, exclude_min=True),
        batch=st.integers(1, 99).map(lambda n: 2 * n),
        warmup=st.none() | st.integers(),
        scale_by_std=st.booleans(),
        dtype=st.sampled_from(Dtype),
    ),
    limits=st.builds(Limits, max_turns=st.integers(), stop=st.lists(st.text()).map(tuple)),
)


@given(settings=recipes)
def test_settings_written_and_read_back_are_equal(settings: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = recipe(tmp_path_factory.mktemp("dump"), dump(settings))
    assert load(Recipe, path) == settings


def test_the_keys_of_a_model_show_the_defaults_that_hold() -> None:
    defaults = {key.name: key.default for key in keys(Recipe)}
    assert defaults["learner.batch"] == 64
    assert "learner" not in defaults
