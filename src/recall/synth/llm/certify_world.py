"""Certificates of a generated world and its tools: it loads, fits its schema, is a function of its seed, and works."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from recall.config import Settings
from recall.sandbox.base import CallResult
from recall.synth.llm import lint
from recall.synth.llm.bench import Bench, hash_of
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.schemas import parsed, tools_of
from recall.synth.llm.source import NOTICED, World
from recall.synth.llm.state import problem_of, sameness
from recall.synth.llm.together import together
from recall.types import CallStatus

MAKE_WORLD = "make_world"
"""The function that a world's code defines."""


class CertificateSettings(Settings):
    """How much is asked of what a model wrote."""

    seeds: int = Field(default=5, ge=5, le=50)
    """Worlds in which every certificate is checked."""
    least_tools: int = Field(default=4, ge=1, le=64)
    """Tools of a world at least."""
    most_tools: int = Field(default=16, ge=1, le=64)
    """Tools of a world at most."""
    least_tests: int = Field(default=3, ge=1, le=20)
    """Self-tests that call a tool, of which one sees it refuse something."""
    most_unused: float = Field(default=0.4, ge=0, le=1)
    """The share of a world's tools that may be left without a task; these are taken out."""
    max_calls: int = Field(default=12, ge=1, le=24)
    """Calls of a reference program."""
    max_turns: int = Field(default=8, ge=1, le=24)
    """Turns that a reference program takes when calls that can be made at once are."""
    max_observation_chars: int = Field(default=8000, ge=100)
    """Characters of what one call returns; about four to a token."""
    draws: int = Field(default=30, ge=1, le=1000)
    """How often the anchors of a task are drawn in one world until its program comes to an answer."""
    counterfactual_worlds: int = Field(default=8, ge=2, le=100)
    """Other worlds in which each question is asked again."""
    least_changed: float = Field(default=0.95, ge=0, le=1)
    """The share of these in which the answer is another."""
    guess_worlds: int = Field(default=100, ge=10, le=10_000)
    """Worlds over which guesses are scored."""
    most_guessed: float = Field(default=0.02, ge=0, le=1)
    """The share of them in which a guess may be right."""
    search_calls: int = Field(default=3000, ge=0)
    """Calls after which the search for a shorter way gives up."""


async def certify_world(bench: Bench, world: World, seeds: Sequence[int]) -> None:
    """Check the code that makes a world, before there are tools.

    Args:
        bench: where it runs.
        world: without tools.
        seeds: of the worlds that are made.

    Raises:
        RejectedError: the first certificate that fails.
    """
    lint.check(world.world_code, defines=frozenset({MAKE_WORLD}))
    made = await together(bench.world(world, seed) for seed in seeds)
    for seed, result in zip(seeds, made, strict=True):
        _loaded(result, f"make_world({seed})")
        problem = problem_of(result.result, world.schema)
        if problem is not None:
            raise RejectedError("world", "does not fit the schema", f"make_world({seed}): {problem}")
    problem = sameness([result.result for result in made])
    if problem is not None:
        raise RejectedError("world", "does not depend on the seed", problem)
    await certify_pure(bench, world, seeds[0])
    again = await bench.world(world, seeds[0])
    if again.result != made[0].result:
        raise RejectedError("deterministic", "another world in another process", f"make_world({seeds[0]})")
    elsewhere = await bench.elsewhere(world.source(seeds[0]), ())
    if elsewhere != [hash_of(made[0].result)]:
        detail = elsewhere if isinstance(elsewhere, str) else "the order of sets, or hash(), shows in it"
        raise RejectedError("deterministic", "another world in another process", f"make_world({seeds[0]}): {detail}")


async def certify_pure(bench: Bench, world: World, seed: int) -> None:
    """Check that loading a source reads and uses nothing but its seed.

    Raises:
        RejectedError: it does.
    """
    noticed = await bench.value(world.source(seed, traced=True), f"{NOTICED}()")
    _loaded(noticed, "the code")
    refuse_noticed(noticed.result)


def refuse_noticed(noticed: Sequence[str]) -> None:
    """Reject what noted anything.

    Raises:
        RejectedError: something was noted.
    """
    for what in noticed:
        raise RejectedError("pure", "files, network, clock or chance", what)


async def certify_tools(bench: Bench, world: World, tool_code: str, settings: CertificateSettings, seed: int) -> World:
    """Check the code of the tools and derive their schemas.

    Returns:
        The world with its tools.

    Raises:
        RejectedError: the first certificate that fails.
    """
    lint.check(tool_code, taken=lint.names_of(world.world_code))
    tools = tools_of(tool_code)
    if not settings.least_tools <= len(tools) <= settings.most_tools:
        wanted = f"{len(tools)}; accepted: {settings.least_tools} to {settings.most_tools}"
        raise RejectedError("tools", "too few or too many tools", wanted)
    complete = World(world.schema, world.world_code, tool_code, tools)
    _loaded(await bench.value(complete.stateful(seed), "None"), "the tools")
    await certify_pure(bench, complete, seed)
    return complete


async def certify_tests(
    bench: Bench, world: World, code: str, settings: CertificateSettings, seeds: Sequence[int]
) -> int:
    """Run the self-tests in several worlds, and count what they cover.

    Returns:
        How many there are.

    Raises:
        RejectedError: one fails, or a tool has too few, or none that sees it refuse.
    """
    lint.check(code, taken=lint.names_of(world.world_code) | lint.names_of(world.tool_code))
    functions = [node.name for node in parsed(code).body if hasattr(node, "name")]
    tests = [str(name) for name in functions if str(name).startswith("test_")]
    calls: dict[str, int] = {tool.name: 0 for tool in world.tools}
    refusals = dict(calls)
    jobs = [(seed, test) for seed in seeds for test in tests]
    outcomes = await together(bench.self_test(world, code, seed, test) for seed, test in jobs)
    for (seed, test), (problem, made) in zip(jobs, outcomes, strict=True):
        if problem is not None:
            raise RejectedError("self-tests", "a test fails", f"{test} in the world of seed {seed}: {problem}")
        if seed == seeds[0]:
            for name, count in _covered(made).items():
                calls[name] += 1
                refusals[name] += count
    for name, count in calls.items():
        if count < settings.least_tests:
            raise RejectedError(
                "self-tests", "too few", f"{count} tests call {name!r}, of {settings.least_tests} wanted"
            )
        if not refusals[name]:
            raise RejectedError("self-tests", "no test of an error", f"in no test {name!r} raises")
    return len(tests)


def _covered(made: Sequence[Any]) -> Mapping[str, int]:
    """Each tool that a test called, with 1 where a call of it raised."""
    covered: dict[str, int] = {}
    for name, raised in made:
        covered[name] = max(covered.get(name, 0), int(raised))
    return covered


def _loaded(result: CallResult, what: str) -> None:
    if result.status is CallStatus.TIMEOUT or "took longer" in (result.error or ""):
        raise RejectedError("load", "takes too long", f"{what}: {result.error}")
    if result.status is CallStatus.OVER_LIMIT:
        raise RejectedError("size", "the world is too large", f"{what}: {result.error}")
    if result.status is not CallStatus.OK:
        raise RejectedError("load", "fails", f"{what}: {result.error}")
