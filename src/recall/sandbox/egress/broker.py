"""Makes the requests that tools ask for, where a rule allows them, and hands back what came of it.

What it is handed was written by a tool: every field is checked, and whatever is wrong becomes an answer, never an
exception. One pooled client without cookies, proxies or logins of its own serves all sessions. A name is resolved once
a connection, its addresses are judged, and the connection is made to one of those. Nothing is cached, nothing logged.
"""

import asyncio
import json
import os
import socket
import time
from binascii import b2a_base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from recall.errors import ConfigError
from recall.sandbox.egress.addresses import Resolver, SystemResolver, kind_of
from recall.sandbox.egress.exchange import (
    ANSWER_HEADERS_BYTES,
    Broken,
    Decoder,
    EgressLimits,
    Malformed,
    Request,
    TooLarge,
)
from recall.sandbox.egress.rules import Refused, Rule, Target, find_rule

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OTHER_ORIGIN_DROPS = ("authorization", "cookie")
# Below what common servers keep an idle connection for (2 to 75 s), so that a request seldom meets one just closed.
_KEEPALIVE_S = 1.5


class _JudgingResolver(AbstractResolver):
    """Resolves for the client, which connects to nothing but what this returns; spelled addresses do not come here."""

    def __init__(self, resolver: Resolver, rules: Sequence[Rule]) -> None:
        self._resolver = resolver
        self._private = {(rule.host, rule.port) for rule in rules if rule.allow_private}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        allowed = {"public"}
        if host == "localhost":
            allowed = {"loopback"}
        elif (host, port) in self._private:
            allowed |= {"loopback", "private"}
        addresses = [ip_address(text) for text in await self._resolver.resolve(host, port)]
        # One bad address spoils the rest: no honest name mixes them.
        if any(kind_of(address) not in allowed for address in addresses):
            raise Refused(f"{host} stands for an address that tools may not reach")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class _Client:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession


@dataclass(slots=True)
class _Outcome:
    """How an answer is counted."""

    host: str = ""
    """Of the rule that was met last; empty where none was, so that a tool cannot make up labels."""
    status: str = "cancelled"


class Broker:
    """Performs requests of tools under `rules`. Used from one event loop at a time."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        limits: EgressLimits | None = None,
        resolver: Resolver | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Take the rules, and the values of the secrets that they name from `environment`, this process's own if None.

        Raises:
            ConfigError: a secret is not set, or two rules disagree on whether one host may be private.
        """
        self.limits = limits or EgressLimits()
        self.requests: Counter[tuple[str, str]] = Counter()
        """Answers by host and status: the server's status code, or `refused`, `timeout`, `too_large`, `failed`,
        `certificate`, `malformed`, `redirects`, `cancelled`. The host is that of a rule, or empty."""
        self.duration_ms: dict[str, float] = {}
        """Summed time of the answers of each host, in milliseconds, waiting for room included."""
        self.in_flight = 0
        """Requests that now wait or run."""
        environment = os.environ if environment is None else environment
        self._rules = tuple(rules)
        self._secrets = {rule: rule.secrets(environment) for rule in self._rules}
        private: dict[tuple[str, int], bool] = {}
        for rule in self._rules:
            if private.setdefault((rule.host, rule.port), rule.allow_private) != rule.allow_private:
                raise ConfigError(f"egress rules for {rule.host}:{rule.port}: either all or none must say private")
        self._resolver = resolver or SystemResolver()
        self._client: _Client | None = None
        self._closed = False

    async def answer(self, body: bytes, *, timeout_s: float) -> bytes:
        """Perform the request that the JSON `body` describes.

        Args:
            body: `{"method", "url", "headers": {name: text}, "body": base64 or null}`, and optionally `"timeout"`
                (seconds), `"follow"` (redirects, default true) and `"decode"` (undo compression, default true).
            timeout_s: seconds for everything, waiting for room and all redirects included.

        Returns:
            The JSON of `{"status", "reason", "headers": [[name, text], …], "body", "url", "history"}`, or of `{"error":
            text for the tool, "kind": as in `requests`}`.
        """
        began = time.monotonic()
        outcome = _Outcome()
        self.in_flight += 1
        try:
            reply = await self._answer(body, timeout_s, outcome)
        finally:
            self.in_flight -= 1
            self.requests[outcome.host, outcome.status] += 1
            spent = (time.monotonic() - began) * 1000
            self.duration_ms[outcome.host] = self.duration_ms.get(outcome.host, 0.0) + spent
        return json.dumps(reply).encode()

    async def close(self) -> None:
        """End what is under way. Safe to call twice."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.session.close()

    async def _answer(self, body: bytes, timeout_s: float, outcome: _Outcome) -> dict[str, Any]:
        limit = min(timeout_s, self.limits.timeout_s)
        try:
            request = Request.parse(body, self.limits)
            limit = min(limit, request.timeout_s)
            client = await self._open()
            async with asyncio.timeout(limit):
                return await self._perform(client.session, request, outcome)
        except Malformed as fault:
            outcome.status, message = "malformed", str(fault)
        except Refused as refusal:
            outcome.status, message = "refused", str(refusal)
        except TooLarge as fault:
            outcome.status, message = "too_large", str(fault)
        except TimeoutError:
            outcome.status, message = "timeout", f"no full answer within {limit:g} s"
        except aiohttp.TooManyRedirects:
            outcome.status, message = "redirects", f"more than {self.limits.redirects} redirects"
        except Broken as fault:
            outcome.status, message = "failed", str(fault)
        except aiohttp.ClientSSLError:
            outcome.status, message = "certificate", "there is no trusted encryption to the server"
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            # ValueError is the client's word for bytes that it dislikes.
            outcome.status, message = "failed", _in_words(fault)
        return {"error": message, "kind": outcome.status}

    async def _open(self) -> _Client:
        """The client of the running loop.

        Raises:
            ServerDisconnectedError: the broker is closed.
        """
        if self._closed:
            raise aiohttp.ServerDisconnectedError
        loop = asyncio.get_running_loop()
        if self._client is not None and self._client.loop is loop:
            return self._client
        stale, limits = self._client, self.limits
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.concurrency,
                resolver=_JudgingResolver(self._resolver, self._rules),
                use_dns_cache=False,
                keepalive_timeout=_KEEPALIVE_S,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        )
        self._client = _Client(loop, session)
        if stale is not None:
            await stale.session.close()
        return self._client

    async def _perform(self, session: aiohttp.ClientSession, request: Request, outcome: _Outcome) -> dict[str, Any]:
        """One request and the redirects that it leads to; each hop stands before the rules like the first."""
        target, method, body, headers = Target.parse(request.url), request.method, request.body, dict(request.headers)
        history: list[list[object]] = []
        while True:
            rule = find_rule(self._rules, method, target)
            outcome.host = rule.host
            hop = headers | self._secrets[rule]
            if request.decode:
                hop["accept-encoding"] = "gzip, deflate"
            if session.closed:
                raise aiohttp.ServerDisconnectedError
            async with session.request(method, _exactly(target), headers=hop, data=body, allow_redirects=False) as got:
                if len(got.raw_headers) > 256 or sum(map(len, sum(got.raw_headers, ()))) > ANSWER_HEADERS_BYTES:
                    raise Broken("the headers of the answer are too long")
                location = got.headers.get("Location")
                if not request.follow or location is None or got.status not in _REDIRECTS:
                    content = await self._read(got, decode=request.decode)
                    outcome.status = str(got.status) if 100 <= got.status <= 599 else "other"
                    return _reply(got, target, content, history)
                history.append([got.status, target.url])
            if len(history) > self.limits.redirects:
                raise aiohttp.TooManyRedirects(got.request_info, ())
            method, body, headers = _next(method, body, headers, got.status)
            before, target = target, _resolve(target, location)
            if target.origin != before.origin:
                headers = {name: value for name, value in headers.items() if name not in _OTHER_ORIGIN_DROPS}

    async def _read(self, response: aiohttp.ClientResponse, *, decode: bool) -> bytes:
        """The body, given up the moment that it, as sent or as unpacked, is longer than the limit."""
        limit = self.limits.response_bytes
        if (response.content_length or 0) > limit and response.method != "HEAD":
            raise TooLarge(limit)
        decoder = Decoder(response.headers.get("Content-Encoding", "") if decode else "", limit)
        async for chunk in response.content.iter_any():
            decoder.feed(chunk)
        return decoder.finish()


def _exactly(target: Target) -> URL:
    """The URL for the client, which must read it as it was judged.

    Raises:
        Refused: it would not.
    """
    url = URL(target.url, encoded=True)
    if (url.scheme, url.raw_host, url.port, url.raw_path) != (target.scheme, target.host, target.port, target.path):
        raise Refused("the URL can be read in two ways")
    return url


def _resolve(base: Target, location: str) -> Target:
    try:
        return Target.parse(urljoin(base.url, location.strip(" ")))
    except ValueError:
        raise Refused("the server redirects to something that is no URL") from None


def _next(
    method: str, body: bytes | None, headers: dict[str, str], status: int
) -> tuple[str, bytes | None, dict[str, str]]:
    """What is sent after a redirect, as browsers do: 307 and 308 repeat the request, the others turn it into a GET."""
    if status in (307, 308) or method == "HEAD" or (status != 303 and method != "POST"):
        return method, body, headers
    return "GET", None, {name: value for name, value in headers.items() if not name.startswith("content-")}


def _reply(
    response: aiohttp.ClientResponse, target: Target, content: bytes, history: list[list[object]]
) -> dict[str, Any]:
    return {
        "status": response.status,
        "reason": response.reason or "",
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.raw_headers],
        "body": b2a_base64(content, newline=False).decode(),
        "url": target.url,
        "history": history,
    }


def _in_words(fault: Exception) -> str:
    """What failed, without the addresses and headers that the fault's own text may hold."""
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return f"the name {fault.host} cannot be resolved"
    if isinstance(fault, aiohttp.ClientConnectorError):
        return f"no connection to {fault.host}:{fault.port}"
    if isinstance(fault, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(fault, aiohttp.ClientResponseError):
        return "the server's answer is not HTTP, or its headers are too long"
    if isinstance(fault, aiohttp.ClientConnectionError | OSError):
        return "the connection was closed before an answer came"
    return "the exchange with the server failed"
