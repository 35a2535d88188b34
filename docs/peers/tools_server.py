"""An MCP server with the tools of the other programs here."""

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:  # versions 1
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("ages")


@server.tool()
def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


server.run("stdio")
