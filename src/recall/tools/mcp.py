"""The tools of an MCP server, started as a process or reached by HTTP, through the official client.

A connection that breaks is an answer in words to the calls that were under way, and is made anew by the next one.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TextIO

from recall.errors import ConfigError, RolloutError
from recall.sandbox.base import CallResult
from recall.tools.base import Marks, Tool, Toolbox
from recall.tools.schemas import inlined
from recall.types import CallStatus, ToolSpec

if TYPE_CHECKING:
    from mcp import Client

_CONNECT_S = 30.0
_CLOSE_S = 15.0
_MOST_PAGES = 100


class MCPTools:
    """The tools of one MCP server; implements `recall.tools.base.ToolSource`.

    Episodes share a connection, and with it whatever state the server keeps, unless each is to have its own. A tool
    that the server calls read-only or idempotent is called again where a call timed out or the connection broke.
    """

    def __init__(
        self,
        command: str = "",
        args: Sequence[str] = (),
        *,
        url: str = "",
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cwd: str | None = None,
        only: Sequence[str] = (),
        per_episode: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """Take the server; nothing is started or connected to yet.

        Args:
            command: a program that serves on its standard input and output.
            args: its arguments.
            url: instead, the address of a server by streamable HTTP.
            env: environment variables of the program beside the few that are harmless; the rest of this process's are
                not handed on.
            headers: of every HTTP request, such as `{"authorization": "Bearer …"}`.
            cwd: where the program starts.
            only: the names of the tools that are offered; all without it.
            per_episode: whether each episode has a connection, and a process, of its own.
            timeout_s: seconds for one call; None takes the episode's.

        Raises:
            ConfigError: not exactly one of `command` and `url`, or settings of the other.
        """
        if bool(command) == bool(url):
            raise ConfigError("MCPTools: give either a command or a url")
        if (url and (args or env or cwd)) or (command and headers):
            raise ConfigError("MCPTools: args, env and cwd go with a command, headers with a url")
        self._command, self._args, self._url = command, tuple(args), url
        self._env, self._headers, self._cwd = dict(env or {}), dict(headers or {}), cwd
        self._only, self._per_episode, self._timeout_s = tuple(only), per_episode, timeout_s
        self._shared: _Connection | None = None
        self._opening = asyncio.Lock()
        self._known = False

    @property
    def name(self) -> str:
        """The server, for messages; no secret is in it."""
        return f"MCP server {self._url.partition('?')[0] or self._command}"

    async def open(self) -> Toolbox:
        """The tools, as the server lists them.

        Raises:
            ConfigError: the server was never there, or does not offer a tool of `only`.
            RolloutError: it was there and cannot be reached now.
        """
        try:
            connection = await self._connection()
            try:
                tools = await connection.tools()
            except _ConnectionLostError:  # it broke since it was last used
                connection = await self._connection()
                tools = await connection.tools()
        except _ConnectionLostError as error:
            kind: type[ConfigError | RolloutError] = RolloutError if self._known else ConfigError
            raise kind(f"{self.name}: {error}") from None
        self._known = True
        offered = {tool.name: tool for tool in tools}
        if missing := [name for name in self._only if name not in offered]:
            raise ConfigError(f"{self.name}: offers no tool {missing[0]!r}; it offers {', '.join(offered)}")
        chosen = [offered[name] for name in self._only or offered]
        return Toolbox(tuple(map(self._tool, chosen)), _MCPSession(self, connection if self._per_episode else None))

    async def close(self) -> None:
        """End the connection, and the process behind it. Safe to call twice."""
        connection, self._shared = self._shared, None
        if connection is not None:
            await connection.close()

    async def call(
        self, own: "_Connection | None", name: str, arguments: Mapping[str, Any], timeout_s: float | None
    ) -> CallResult:
        """Call a tool over an episode's own connection, or the shared one, which is made anew where it broke."""
        from mcp import MCPError
        from mcp.types import REQUEST_TIMEOUT

        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                connection = own or await self._connection()
                return _result(await connection.call(name, arguments))
        except TimeoutError:
            return CallResult(CallStatus.TIMEOUT, error=f"the call took longer than {timeout_s:g} s")
        except _ConnectionLostError as error:
            status = CallStatus.CRASHED if own is None else CallStatus.STATE_LOST
            return CallResult(status, error=f"{self.name}: {error}")
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                return CallResult(CallStatus.TIMEOUT, error=error.message)
            return CallResult(CallStatus.EXCEPTION, error=error.message)

    async def _connection(self) -> "_Connection":
        if self._per_episode:
            return await self._connected()
        async with self._opening:
            if self._shared is None or self._shared.ended:
                if self._shared is not None:
                    await self._shared.close()
                    self._shared = None
                self._shared = await self._connected()
            return self._shared

    async def _connected(self) -> "_Connection":
        connection = _Connection(self)
        try:
            await connection.start()
        except BaseException:
            await connection.close()
            raise
        return connection

    def transport(self, stack: AsyncExitStack, errors: TextIO) -> Any:
        """What the client talks through."""
        if self._url:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            client = httpx2.AsyncClient(headers=self._headers, timeout=httpx2.Timeout(_CONNECT_S, read=None))
            stack.push_async_callback(client.aclose)
            return streamable_http_client(self._url, http_client=client)
        from mcp import StdioServerParameters, stdio_client

        started = StdioServerParameters(command=self._command, args=list(self._args), env=self._env, cwd=self._cwd)
        return stdio_client(started, errlog=errors)

    def _tool(self, listed: Any) -> Tool:
        hints = listed.annotations
        again = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        given = {key: value for key, value in listed.input_schema.items() if key not in ("$defs", "$schema")}
        # As a function's: without generated titles, and self-contained, since many templates know no references.
        schema, kept = inlined(given, listed.input_schema.get("$defs", {}))
        if kept:
            schema["$defs"] = kept
        spec = ToolSpec(listed.name, listed.description or listed.title or "", schema)
        return Tool(spec, Marks(idempotent=again, timeout_s=self._timeout_s))


class _ConnectionLostError(Exception):
    """There is no connection; the message says why."""


class _Connection:
    """One connection. The client's scopes belong to the task that enters them, so a task of its own holds them."""

    def __init__(self, server: MCPTools) -> None:
        self._server = server
        self._client: Client | None = None
        self._ready: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._why = "the connection is closed"

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._task is None or self._task.done() or self._stop.is_set()

    async def start(self) -> None:
        """Connect.

        Raises:
            _ConnectionLostError: it cannot be done.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold())
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.wait([self._ready, self._task], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise _ConnectionLostError(f"does not answer within {_CONNECT_S:g} s") from None
        if self._client is None:
            raise _ConnectionLostError(self._why)

    async def tools(self) -> list[Any]:
        """All tools of the server.

        Raises:
            _ConnectionLostError: it went away.
        """
        from mcp import MCPError

        found: list[Any] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            try:
                page = await self._within(self._live().list_tools(cursor=cursor))
            except MCPError as error:
                self._stop.set()
                raise _ConnectionLostError(f"cannot list its tools: {error.message}") from None
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool.

        Raises:
            _ConnectionLostError: the connection broke.
            MCPError: the server says that the call failed.
        """
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        try:
            return await self._within(self._live().call_tool(name, dict(arguments)))
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise
            self._stop.set()  # the client itself goes on as if nothing had happened
            raise _ConnectionLostError("went away during the call") from None

    async def close(self) -> None:
        """End it. Safe to call twice."""
        self._stop.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task], timeout=_CLOSE_S)
            task.cancel()

    def _live(self) -> "Client":
        if self._client is None or self.ended:
            raise _ConnectionLostError(self._why)
        return self._client

    async def _within(self, work: Any) -> Any:
        """Wait for `work`, and no longer than the connection lasts."""
        assert self._task is not None, "the connection was started"
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait([working, self._task], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _ConnectionLostError(self._why)
            return working.result()
        finally:
            if not working.done():
                working.cancel()

    async def _hold(self) -> None:
        """Hold the connection open until it is told to end, or breaks."""
        from mcp import Client

        assert self._ready is not None, "start has made it"
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            try:
                async with AsyncExitStack() as stack:
                    transport = self._server.transport(stack, errors)
                    self._client = await stack.enter_async_context(Client(transport, cache=None))
                    self._ready.set_result(None)
                    await self._stop.wait()
            except Exception as error:  # noqa: BLE001 - whatever breaks a connection ends it, with its words
                faults = _leaves(error)
                words = "; ".join(f"{type(f).__name__}: {f}" for f in faults if str(f)) or type(faults[0]).__name__
                words = f"cannot be reached, or speaks no MCP ({' '.join(words.split())[:300]})"
                if any(isinstance(fault, FileNotFoundError | PermissionError) for fault in faults):
                    words = "no such program"
                self._why = words + _last_line(errors)
            finally:
                self._client = None


class _MCPSession:
    """The session of one episode."""

    def __init__(self, server: MCPTools, own: _Connection | None) -> None:
        self._server, self._own = server, own

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call a tool; see `recall.sandbox.base.Session.call`."""
        return await self._server.call(self._own, name, arguments, timeout_s)

    async def close(self) -> None:
        """End the episode's own connection, if it has one."""
        if self._own is not None:
            await self._own.close()


def _result(answer: Any) -> CallResult:
    """What a server's result says: its text; what is no text is named."""
    texts = [_block(block) for block in answer.content]
    text: Any = "\n".join(texts)
    if not texts and answer.structured_content is not None:
        text = answer.structured_content
    if answer.is_error:
        return CallResult(CallStatus.EXCEPTION, error=text or "the tool failed and does not say why")
    return CallResult(CallStatus.OK, text)


def _block(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return str(text) if text is not None else f"[resource {block.resource.uri}]"
    if block.type == "resource_link":
        return f"[resource {block.uri}]"
    return f"[{block.type}, {getattr(block, 'mime_type', 'unknown')}, {len(getattr(block, 'data', ''))} characters]"


def _leaves(error: BaseException) -> list[BaseException]:
    """The exceptions of nested groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _last_line(errors: TextIO) -> str:
    """The last thing that the server's program said."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read()[-2000:].splitlines() if line.strip()]
    return f"; it said: {lines[-1][:300]}" if lines else ""
