"""Many agents at once with slow tools: wall time beside the critical path, the time that one agent cannot do without.

`python benchmarks/agents.py [--agents 500] [--turns 3] [--slow_s 5]`. The policy is scripted and needs no time, so what
is above the critical path is the loop's own: rendering, parsing, checking arguments, threads and the event loop.
"""

import argparse
import asyncio
import time
from collections.abc import Generator
from typing import Any

from recall import ReCall
from recall.environment import Limits
from recall.policy.chat_ids import ChatRenderer
from recall.policy.scripted import ScriptedPolicy
from recall.tool_calls import format_calls
from recall.types import ToolCall

WIDTH = 2
"""Calls of one turn, which run at the same time."""


async def sleeps(seconds: float, number: int) -> int:
    """Wait, without holding a thread."""
    await asyncio.sleep(seconds)
    return number


def blocks(seconds: float, number: int) -> int:
    """Wait, in a thread that is held."""
    time.sleep(seconds)
    return number


TOOLS = {"coroutine": sleeps, "blocking": blocks}


async def wall_s(tool: Any, agents: int, turns: int, slow_s: float) -> float:
    """Seconds from the first question to the last answer; every agent makes `turns` turns of `WIDTH` slow calls."""

    def script(prompt: str) -> Generator[str, str, None]:
        for turn in range(turns):
            calls = [ToolCall(tool.__name__, {"seconds": slow_s, "number": WIDTH * turn + n}) for n in range(WIDTH)]
            yield format_calls(calls)
        yield "\\boxed{done}"

    renderer = ChatRenderer()
    limits = Limits(max_turns=turns + 1, max_tokens=100_000, call_timeout_s=60 + 10 * slow_s, max_calls=WIDTH * turns)
    policy = ScriptedPolicy(script, renderer)
    async with ReCall(policy=policy, renderer=renderer, tools=[tool], limits=limits, at_once=agents) as agent:
        started = time.perf_counter()
        played = await agent.batch(["?"] * agents)
        wall = time.perf_counter() - started
    for trajectory in played:
        assert trajectory.answer == "done"
        assert [record.result for record in trajectory.calls] == [str(number) for number in range(WIDTH * turns)]
    return wall


def main() -> None:
    """Print a row for each kind of tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--agents", type=int, default=500, help="how many run at once")
    parser.add_argument("--turns", type=int, default=3, help="turns with calls, of each")
    parser.add_argument("--slow_s", type=float, default=5.0, help="seconds that a call takes")
    asked = parser.parse_args()
    critical = asked.turns * asked.slow_s
    print(f"{asked.agents} agents, {asked.turns} turns of {WIDTH} calls of {asked.slow_s:g} s")
    for kind, tool in TOOLS.items():
        used = time.process_time()
        wall = asyncio.run(wall_s(tool, asked.agents, asked.turns, asked.slow_s))
        used = time.process_time() - used
        ratio = f"{wall / critical:.3f}" if critical else "none"
        print(f"{kind:10} wall {wall:6.2f} s  critical path {critical:6.2f} s  ratio {ratio}  CPU {used:.2f} s")


if __name__ == "__main__":
    main()
