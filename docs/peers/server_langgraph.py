"""The tools of an MCP server, and one question, with LangGraph."""

import asyncio
import sys

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI


async def main() -> None:
    """Ask."""
    server = {"transport": "stdio", "command": sys.executable, "args": ["tools_server.py"]}
    tools = await MultiServerMCPClient({"ages": server}).get_tools()
    model = ChatOpenAI(model="m", base_url=sys.argv[1], api_key="none")
    agent = create_agent(model, tools=tools)
    played = await agent.ainvoke({"messages": [{"role": "user", "content": "How old is Ada?"}]})
    print(played["messages"][-1].content)


asyncio.run(main())
