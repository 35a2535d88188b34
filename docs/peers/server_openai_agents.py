"""The tools of an MCP server, and one question, with the OpenAI Agents SDK."""

import asyncio
import sys

from agents.mcp import MCPServerStdio

from agents import Agent, AsyncOpenAI, OpenAIChatCompletionsModel, Runner, set_tracing_disabled


async def main() -> None:
    """Ask."""
    model = OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url=sys.argv[1], api_key="none"))
    async with MCPServerStdio({"command": sys.executable, "args": ["tools_server.py"]}) as server:
        agent = Agent("ages", model=model, mcp_servers=[server])
        print((await Runner.run(agent, "How old is Ada?")).final_output)


set_tracing_disabled(True)
asyncio.run(main())
