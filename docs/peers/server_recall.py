"""The tools of an MCP server, and one question, with ReCall."""

import sys

from recall import ReCall
from recall.tools.mcp import MCPTools

agent = ReCall(sys.argv[1], tools=[MCPTools(sys.executable, ["tools_server.py"])])
print(agent.ask_sync("How old is Ada?").answer)
agent.close_sync()
