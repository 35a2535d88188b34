"""Twenty questions, eight at once, each call within two seconds, with the OpenAI Agents SDK."""

import asyncio
import sys

from agents import Agent, AsyncOpenAI, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled


@function_tool(timeout=2)
async def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


async def main() -> None:
    """Ask."""
    model = OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url=sys.argv[1], api_key="none"))
    agent = Agent("ages", model=model, tools=[get_age])
    room = asyncio.Semaphore(8)

    async def ask(question: str) -> str:
        async with room:
            return (await Runner.run(agent, question)).final_output

    for answer in await asyncio.gather(*map(ask, ["How old is Ada?", "How old is Bob?"] * 10)):
        print(answer)


set_tracing_disabled(True)
asyncio.run(main())
