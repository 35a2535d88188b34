"""One server as its client sees it: requests over kept-open connections, calls of the same moment as one batch.

It says what the server answered, and of what it did not answer whether it can have run. What that means for a session
is `client.py`'s.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recall.errors import SandboxError

if TYPE_CHECKING:
    import aiohttp

Reply = tuple[int, Any]
"""An HTTP status and the JSON value of the body."""

MAX_BATCH_ITEMS = 256
"""Calls of one request."""
MAX_BATCH_BYTES = 4 << 20
"""Bytes of their bodies together, from which on they are split."""
_KEEP_ALIVE_S = 30.0
"""Shorter than the server's: a connection that it closes under a request would leave open whether that ran."""
_UNIX = "unix:"


class UnreachableError(SandboxError):
    """The server could not be connected to; nothing was sent."""


class BrokenError(SandboxError):
    """The connection broke, or no answer came in time; what was asked may have run."""


class Endpoint:
    """A server at one address."""

    def __init__(self, url: str, token: str | None, *, connect_timeout_s: float) -> None:
        """Take the address, `http://host:port` or `unix:/path/of/socket`."""
        self.url = url.rstrip("/")
        self._path = url.removeprefix(_UNIX) if url.startswith(_UNIX) else None
        self._base = "http://localhost" if self._path is not None else self.url
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._connect_timeout_s = connect_timeout_s
        self._http: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: list[tuple[bytes, asyncio.Future[Reply]]] = []
        self._batches: set[asyncio.Task[None]] = set()

    async def request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Reply:
        """Ask, and wait for the answer.

        Raises:
            UnreachableError: nothing was sent.
            BrokenError: it may have run.
        """
        with self._faults():
            async with asyncio.timeout(timeout_s):
                async with self._session().request(method, self._base + path, data=body) as response:
                    return response.status, _value(await response.read())
        raise AssertionError("every fault was raised")

    async def call(self, item: bytes, timeout_s: float) -> Reply:
        """Make a call of `/execute_batch`, together with those that are made in the same moment.

        Args:
            item: its JSON.
            timeout_s: seconds after which an answer is not waited for any more; the call goes on.

        Raises:
            UnreachableError: nothing was sent.
            BrokenError: it may have run.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Reply] = loop.create_future()
        self._calls.append((item, waiter))
        if len(self._calls) == 1:
            loop.call_soon(self._depart)
        timer = loop.call_later(timeout_s, self._give_up, waiter, timeout_s)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close the connections; calls in flight fail."""
        for task in tuple(self._batches):
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            connector: aiohttp.BaseConnector
            if self._path is not None:
                connector = aiohttp.UnixConnector(self._path, limit=0, keepalive_timeout=_KEEP_ALIVE_S)
            else:
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
            self._http = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._http

    @contextmanager
    def _faults(self) -> Iterator[None]:
        import aiohttp

        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnreachableError(f"{self.url}: cannot be reached: {error}") from error
        except aiohttp.ClientError as error:
            raise BrokenError(f"{self.url}: the connection broke: {type(error).__name__}: {error}") from error
        except TimeoutError as error:
            raise BrokenError(f"{self.url}: no answer in time") from error

    def _give_up(self, waiter: "asyncio.Future[Reply]", timeout_s: float) -> None:
        if not waiter.done():
            waiter.set_exception(BrokenError(f"{self.url}: no answer in {timeout_s:g} s"))

    def _depart(self) -> None:
        """Send the calls that have gathered since the loop last came by."""
        calls, self._calls = self._calls, []
        batch: list[tuple[bytes, asyncio.Future[Reply]]] = []
        size = 0
        for item, waiter in calls:
            if batch and (len(batch) == MAX_BATCH_ITEMS or size + len(item) > MAX_BATCH_BYTES):
                self._begin(batch)
                batch, size = [], 0
            batch.append((item, waiter))
            size += len(item)
        self._begin(batch)

    def _begin(self, batch: Sequence[tuple[bytes, "asyncio.Future[Reply]"]]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _run(self, batch: Sequence[tuple[bytes, "asyncio.Future[Reply]"]]) -> None:
        waiters = [waiter for _, waiter in batch]
        try:
            with self._faults():
                if len(batch) == 1:
                    async with self._session().post(f"{self._base}/execute", data=batch[0][0]) as response:
                        _resolve(waiters[0], (response.status, _value(await response.read())))
                else:
                    await self._stream(b",".join(item for item, _ in batch), waiters)
        except SandboxError as error:
            _fail(waiters, error)
        finally:
            _fail(waiters, BrokenError(f"{self.url}: the answer broke off"))

    async def _stream(self, items: bytes, waiters: Sequence["asyncio.Future[Reply]"]) -> None:
        async with self._session().post(
            f"{self._base}/execute_batch?stream=1", data=b'{"items":[' + items + b"]}"
        ) as response:
            if response.status != 200:
                reply = response.status, _value(await response.read())
                for waiter in waiters:
                    _resolve(waiter, reply)
                return
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    answer = _value(line)
                    match answer:
                        case {"index": int(index)} if 0 <= index < len(waiters):
                            _resolve(waiters[index], (answer.get("code", 200), answer))
                        case _:
                            raise BrokenError(f"{self.url}: an answer to no call")


def _value(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        return {"status": "over_limit", "error": "the result is nested too deeply"}
    except ValueError:
        return None  # not from our server; whoever reads it says so


def _resolve(waiter: "asyncio.Future[Reply]", reply: Reply) -> None:
    if not waiter.done():
        waiter.set_result(reply)


def _fail(waiters: Sequence["asyncio.Future[Reply]"], error: SandboxError) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(type(error)(str(error)))
