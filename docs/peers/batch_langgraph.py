"""Twenty questions, eight at once, each call within two seconds, with LangGraph."""

import asyncio
import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


async def get_age(name: str) -> int:
    """How old somebody is."""
    async with asyncio.timeout(2):  # noqa: ASYNC100 - a tool that takes its time awaits something
        return {"Ada": 36, "Bob": 7}[name]


async def main() -> None:
    """Ask."""
    model = ChatOpenAI(model="m", base_url=sys.argv[1], api_key="none")
    agent = create_agent(model, tools=[get_age])
    asked = [{"messages": [{"role": "user", "content": f"How old is {name}?"}]} for name in ("Ada", "Bob")]
    for played in await agent.abatch(asked * 10, {"max_concurrency": 8}):
        print(played["messages"][-1].content)


asyncio.run(main())
