"""The tools of an MCP server, and one question, with smolagents."""

import sys

from mcp import StdioServerParameters
from smolagents import MCPClient, OpenAIModel, ToolCallingAgent

model = OpenAIModel("m", api_base=sys.argv[1], api_key="none")
server = StdioServerParameters(command=sys.executable, args=["tools_server.py"])
with MCPClient(server, structured_output=False) as tools:
    agent = ToolCallingAgent(tools=tools, model=model, verbosity_level=0)
    print(agent.run("How old is Ada?"))
