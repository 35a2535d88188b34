"""Tools of an MCP server, here one of our own that is started as a process; `MCPTools(url=…)` reaches one by HTTP.

`python examples/mcp_server.py [MODEL]`; needs `pip install recall[mcp]`. With `--serve` it is the server.
"""

import asyncio
import sys

from recall import ReCall
from recall.inference import CallDone, EpisodeDone, TurnText
from recall.tools.mcp import MCPTools


def serve() -> None:
    """The server: one tool, on standard input and output."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("companies")

    @server.tool()
    def lookup_supplier(name: str) -> str:
        """Supplier of a company."""
        return {"Kizedi": "Tota", "Tota": "Gebe"}[name]

    server.run("stdio")


async def main(model: str = "nano") -> None:
    """Ask, and show what happens as it happens."""
    tools = MCPTools(sys.executable, [__file__, "--serve"])
    async with ReCall(policy=model, tools=[tools]) as agent:
        async for event in agent.stream("Find Kizedi's supplier."):
            match event:
                case TurnText(text=text):
                    print(text, end="")
                case CallDone(record=record):
                    print(f"\n[{record.name}: {record.status}, {record.result}]")
                case EpisodeDone(trajectory=played):
                    print("\nanswer:", played.answer)


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else asyncio.run(main(*sys.argv[1:]))
