"""All checks of a recipe, one after another: what costs nothing first, the model last."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from recall.doctor import dialogue, engine, machine, tasks
from recall.doctor.dialogue import Writer
from recall.doctor.findings import Finding, ok, refused, skipped, wrong
from recall.environment import ToolEnvironments
from recall.errors import ConfigError, RolloutError
from recall.evaluation.bfcl.training.dialogue import with_dialogue
from recall.evaluation.local import LocalPlayer, load
from recall.renderer import Renderer, build
from recall.rewards import get
from recall.sandbox.base import SessionOptions
from recall.trainers.recipe import TrainRecipe
from recall.trainers.tasks import check_validation_file, prompt_tokens, training_tasks
from recall.types import Sampling, Task, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SAMPLED_TASKS = 64
"""Tasks whose prompts are looked at."""
EXTRAS = {"local": ("train",), "trl": ("train", "trl"), "verl": ("verl",)}
"""By engine: the extras that it needs."""


async def examine(recipe: TrainRecipe, directory: Path, *, ports: Sequence[int] = ()) -> AsyncIterator[Finding]:
    """Every check of the recipe, as it is done; what a wrong one makes pointless is left out.

    Args:
        recipe: of the run.
        directory: where the run goes.
        ports: that something of the run will listen on.
    """
    yield machine.check_versions(EXTRAS[recipe.engine])
    yield machine.check_ports(ports)
    yield machine.check_servers(machine.addresses_of(recipe))
    try:
        check_validation_file(recipe)
        source, tokenizer = _tokenizer(recipe)
        trained = 0 if recipe.policy.lora_rank else machine.parameters_of(source)
        yield machine.check_disk(directory, machine.run_bytes(recipe, trained))
        renderer = cast(Writer, build(tokenizer, recipe.policy.dialect, recipe.policy.template))
        limits = recipe.rollout.limits
        stream, _ = training_tasks(
            recipe, lambda task: prompt_tokens(task, renderer) + limits.max_turn_tokens <= limits.max_tokens
        )
        # Tasks that come without end are passed over where they do not fit, so there are none to look at beforehand.
        some = stream.sample(SAMPLED_TASKS) or stream.at(0, SAMPLED_TASKS)
        get(recipe.reward)
    except ConfigError as fault:
        yield refused("recipe", str(fault))
        return
    yield _template(renderer, tokenizer)
    try:
        for finding in _renderer(renderer, some):
            yield finding
        room = tasks.check_budget(some, renderer, recipe.rollout.limits, _context(source))
        yield room
    except ConfigError as fault:
        yield refused("dialect", f"{recipe.policy.dialect!r} has no words for these tasks: {fault}")
        return
    if room.state == "wrong":
        return  # no episode could be played
    async for finding in _rehearse(recipe, renderer, some):
        yield finding
    async for finding in _sample(recipe, stream.at):
        yield finding


def _tokenizer(recipe: TrainRecipe) -> tuple[Path, "PreTrainedTokenizerFast"]:
    from recall.policy.torch.loading import load_tokenizer, resolve

    source = resolve(recipe.policy.model)
    return source, load_tokenizer(source)


def _context(source: Path) -> int | None:
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(source, local_files_only=True).get_text_config()
    return getattr(found, "max_position_embeddings", None)


def _template(renderer: Renderer, tokenizer: "PreTrainedTokenizerFast") -> Finding:
    """What the dialect makes of a conversation, beside what the model's own chat template does."""
    from recall.renderer import NativeRenderer

    if isinstance(renderer, NativeRenderer):
        return ok("template", f"the model's own chat template, calls in the format of {renderer.family.models}")
    if not tokenizer.chat_template:
        return skipped("template", "the tokenizer has no chat template to compare with")
    return ok(
        "template", "the model has a chat template of its own, and the dialect is not native: see docs/renderers.md"
    )


def _renderer(renderer: Writer, some: Sequence[Task]) -> list[Finding]:
    known: dict[str, ToolSpec] = {tool.name: tool for task in some for tool in task.tools}
    tools = list(known.values())[:32]
    return [
        dialogue.check_calls(renderer, tools),
        dialogue.check_results(renderer),
        dialogue.check_separator(renderer),
        dialogue.check_prefix(renderer),
        dialogue.check_stop(renderer),
    ]


async def _rehearse(recipe: TrainRecipe, renderer: Writer, some: Sequence[Task]) -> AsyncIterator[Finding]:
    settings, limits = recipe.sandbox, recipe.rollout.limits
    try:
        sandbox = settings.open_all()
    except ConfigError as fault:
        yield refused("sandbox", str(fault))
        return
    options = SessionOptions(settings.profile, transactional=settings.transactional)
    try:
        step = max(1, len(some) // tasks.MOST_REHEARSED)
        environments = with_dialogue(ToolEnvironments(sandbox, limits, options))
        played = await tasks.rehearsals(some[::step], environments, renderer, limits)
    finally:
        await sandbox.close()
    if isinstance(played, Finding):
        yield played
        return
    yield tasks.check_tools(played)
    yield tasks.check_length(played, limits)
    yield tasks.check_mask([(one.good, one.written) for one in played])
    yield tasks.check_reward(played, get(recipe.reward), recipe.reward)


async def _sample(recipe: TrainRecipe, tasks_at: Callable[[int, int], list[Task]]) -> AsyncIterator[Finding]:
    if recipe.engine != "local":
        why = f"the engine {recipe.engine} samples where it trains; these checks are those of a local run"
        for check in ("parsed calls", "variance", "logprobs"):
            yield skipped(check, why)
        return
    sampling = Sampling(
        temperature=recipe.rollout.temperature,
        top_p=recipe.rollout.top_p,
        max_tokens=recipe.rollout.limits.max_turn_tokens,
    )
    at_once = min(recipe.rollout.groups, engine.GROUPS_AT_ONCE)
    try:
        loaded = load(recipe.policy)
        local = LocalPlayer(
            loaded,
            reward=recipe.reward,
            limits=recipe.rollout.limits,
            sandbox=recipe.sandbox,
            max_batch=recipe.policy.max_batch,
            deterministic=recipe.deterministic,
        )
        async with local as player:
            groups = await engine.sample_groups(
                player,
                tasks_at(0, at_once * engine.MOST_ROUNDS),
                at_once=at_once,
                group_size=recipe.rollout.group_size,
                sampling=sampling,
                seed=recipe.seed,
            )
    except ConfigError as fault:
        yield refused("engine", str(fault))
        return
    except RolloutError as fault:
        yield wrong("engine", str(fault), cost="a run that fails at its first step", cure="mend what it says")
        return
    yield engine.check_faults(groups)
    yield engine.check_parsed(groups)
    yield tasks.check_ends([t for group in groups for t in group.trajectories], loaded.renderer)
    yield engine.check_variance(groups)
    yield engine.check_logprobs(loaded.model, groups, sampling)
