"""An MCP server for tests: `python mcp_server.py stdio`, or `http PORT`."""

import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("for-tests")
notes: list[str] = []


class Item(BaseModel):
    name: str
    count: int = 1


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def order(items: list[Item]) -> str:
    """Order items."""
    return ", ".join(f"{item.count} {item.name}" for item in items)


@server.tool()
def note(text: str) -> int:
    """Write a note down; how many there are."""
    notes.append(text)
    return len(notes)


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("nothing to be had")


@server.tool()
def sleep(seconds: float) -> str:
    """Take a while."""
    time.sleep(seconds)
    return "slept"


@server.tool()
def die() -> str:
    """End the server in the middle of the call."""
    os._exit(3)


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def die_once(mark: str) -> str:
    """End the server at the first call, and answer the second."""
    if os.path.exists(mark):
        return "alive again"
    with open(mark, "w", encoding="utf-8"):
        pass
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
