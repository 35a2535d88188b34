"""Tasks over the leaderboard's backends, as far as they need no backend: plans, sources, dialogues, what is held."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fakes import InProcessSandbox
from recall.environment import ToolEnvironments
from recall.errors import ConfigError
from recall.evaluation.bfcl.training.backends import BackendSandbox, config_of, source_of
from recall.evaluation.bfcl.training.dialogue import LATER, with_dialogue
from recall.evaluation.bfcl.training.held import Held
from recall.evaluation.bfcl.training.places import HELD_OUT, TRAINED, WORLDS
from recall.evaluation.bfcl.training.plan import Draw, Plan, Turn
from recall.types import AssistantTurn, Message, StopReason, Task, ToolCall


def plan(names: Sequence[str], seed: int = 0, turns: int = 4) -> Plan:
    return WORLDS.plan(Draw(random.Random(seed)), names, turns)


@pytest.mark.parametrize("name", [*TRAINED, *HELD_OUT])
def test_a_plan_is_a_function_of_its_seed(name: str) -> None:
    assert plan([name]) == plan([name])
    assert plan([name]) != plan([name], seed=1)
    assert plan([name]).kind == f"{name}-4"


@pytest.mark.parametrize("name", [*TRAINED, *HELD_OUT])
def test_what_a_call_says_was_said_or_can_be_found_out(name: str) -> None:
    """Every text of a call stands in what the user said so far, in the state at the start, or is found by a tool."""
    for seed in range(40):
        made = plan([name], seed)
        known = json.dumps(made.config)
        for turn in made.turns:
            known += turn.said
            for call in turn.calls:
                for value in texts(call.arguments):
                    found_out = value.isdigit() or value.startswith("USR") or value in _WORDS_OF_TOOLS
                    assert value in known or json.dumps(value)[1:-1] in known or found_out, (turn, value)


_WORDS_OF_TOOLS = frozenset({"..", "l", "START", "doors", "celsius", "Buy"})


def texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def test_two_backends_take_turns() -> None:
    made = plan(["files", "car"])
    assert list(made.config) == ["GorillaFileSystem", "VehicleControlAPI"]
    assert made.kind == "files+car-4"


def test_names_are_new_and_none_of_the_words_held_out() -> None:
    free = [Draw(random.Random(seed)).name() for seed in range(50)]
    held = Draw(random.Random(0), frozenset(free[:1]))
    drawn = [held.name() for _ in range(500)]
    assert len(set(drawn)) == 500
    assert free[0] not in drawn


def test_what_the_leaderboard_asks_is_refused() -> None:
    turn = Turn("Rename a to b.", (ToolCall("mv", {"source": "a", "destination": "b"}),))
    made = Plan("files-1", {"GorillaFileSystem": {"root": {}}}, (turn,))
    nothing = Held(frozenset(), frozenset(), frozenset(), frozenset())
    assert nothing.why_not(made) == ""
    calls = json.dumps([["mv", {"source": "a", "destination": "b"}]], sort_keys=True)
    for held, told in (
        (Held(frozenset(), frozenset({'{"root": {}}'}), frozenset(), frozenset()), "state"),
        (Held(frozenset(), frozenset(), frozenset({"Rename a to b."}), frozenset()), "asks"),
        (Held(frozenset(), frozenset(), frozenset(), frozenset({calls})), "calls"),
    ):
        assert told in held.why_not(made).split()


def test_a_source_is_python_that_names_its_tools_and_its_state() -> None:
    config: dict[str, Any] = {"GorillaFileSystem": {"root": {'a"b\n': {}}}}
    source = source_of(["ls", "cd"], config)
    compile(source, "source", "exec")
    assert source.startswith("from recall_bfcl_backends import ls, cd, _changes\n")
    assert config_of(source) == config
    assert config_of("def ls(): ...") is None
    with pytest.raises(ConfigError, match="CONFIG cannot be read"):
        config_of("from recall_bfcl_backends import ls\n")


async def test_sources_of_other_tasks_go_to_the_other_sandbox() -> None:
    sandbox = BackendSandbox(InProcessSandbox())
    session = await sandbox.open("def double(x):\n    return 2 * x\n")
    assert (await session.call("double", {"x": 4})).result == 8
    await session.close()
    await sandbox.close()


async def test_the_user_goes_on_where_no_call_is_made_and_the_last_turn_ends_the_episode() -> None:
    task = Task("t", "First.", (), env="def f():\n    return 1\n", extra={LATER: ["Second.", "Third."]})
    env = with_dialogue(ToolEnvironments(InProcessSandbox()))(task)
    assert await env.start() == (Message("user", "First."),)
    for said in ("Second.", "Third."):
        step = await env.step(AssistantTurn("Done."))
        assert (step.messages, step.stop) == ((Message("user", said),), None)
    assert (await env.step(AssistantTurn("Done."))).stop is StopReason.DONE
    await env.close()
