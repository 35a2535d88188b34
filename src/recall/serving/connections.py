"""A client's connections to one server: kept open, made when first needed, in the event loop that asks.

It says what the server answered, and of what it did not answer whether it can have arrived.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from recall.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

_KEEP_ALIVE_S = 30.0
"""Shorter than the server's: a connection that it closes under a request would look like a server that is down."""


class UnreachableError(Exception):
    """The server could not be connected to; nothing was sent."""


class BrokenError(Exception):
    """The connection broke, or no answer came in time; what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    """Seconds after which it wants to be asked again, where it says so."""


class Connections:
    """The connections to the server at one address."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connect_timeout_s: float) -> None:
        """Take the address, `http://host:port/path`, and what goes along with every request."""
        self.url = url.rstrip("/")
        """The address."""
        self._headers = {"content-type": "application/json", **headers}
        self._connect_timeout_s = connect_timeout_s
        self._http: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Reply:
        """Ask, and wait for the whole answer.

        Raises:
            UnreachableError: nothing was sent.
            BrokenError: it may have been done.
        """
        with self._faults():
            async with asyncio.timeout(timeout_s):
                async with self._session().request(method, self.url + path, data=body) as response:
                    return Reply(response.status, await response.read(), _seconds(response.headers.get("retry-after")))
        raise AssertionError("every fault was raised")

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
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


def split_secret(url: str) -> tuple[str, dict[str, str]]:
    """A URL without the name and the password in it, and the headers that bring them, if there are any.

    Raises:
        ConfigError: it is no address of an HTTP server.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"server {parts.hostname or url!r}: accepted is http://host:port")
    _, at, host = parts.netloc.rpartition("@")
    address = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    secret = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return address, {"authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"} if at else {}


def _seconds(text: str | None) -> float | None:
    """What a `Retry-After` says; its other form, a date, is for caches."""
    return float(text) if text is not None and text.strip().isdecimal() else None
