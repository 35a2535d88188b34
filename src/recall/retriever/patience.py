"""Asking a service again until it answers: which failures pass, how long to wait between, when to give up.

A search changes nothing, so asking twice does no harm.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from recall.errors import ConfigError, RetrieverBusy, RetrieverError
from recall.serving.connections import BrokenError, Reply, UnreachableError

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_FAILURES = 3
"""Times that a server may answer 5xx before that is taken for its last word."""


class FailedError(Exception):
    """The server says that it failed; the next time it may not."""


async def patiently(attempt: Callable[[], Awaitable[T]], *, patience_s: float, servers: int = 1) -> T:
    """What `attempt` returns, asked again where it fails in a way that may pass.

    Args:
        attempt: one request; each call asks the next of `servers` servers.
        patience_s: seconds after which no further attempt begins.
        servers: how many there are; where one cannot be reached, the others are asked at once.

    Raises:
        RetrieverBusy: there was no room for as long as patience lasts.
        RetrieverError: nobody could be reached for as long, or a server kept failing.
    """
    deadline = time.monotonic() + patience_s
    chance = random.Random()
    pause_s, failures, unreached = _FIRST_PAUSE_S, 0, 0
    while True:
        wait_s = 0.0
        try:
            return await attempt()
        except UnreachableError as error:
            problem, unreached = RetrieverError(str(error)), unreached + 1
            if unreached % servers:
                continue
        except BrokenError as error:
            problem = RetrieverError(str(error))
        except RetrieverBusy as error:
            problem, wait_s = error, error.retry_after_s
        except FailedError as error:
            problem, failures = RetrieverError(str(error)), failures + 1
            if failures == _FAILURES:
                raise problem from error
        # Clients that failed together must not come back together.
        wait_s = max(wait_s, pause_s) * (0.5 + chance.random())
        if time.monotonic() + wait_s > deadline:
            raise problem
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def check(url: str, reply: Reply) -> None:
    """Raise what a status other than 200 means.

    Raises:
        ConfigError: a wrong token, or no server of this kind at this address.
        RetrieverBusy: no room now.
        FailedError: the server failed.
        RetrieverError: it refuses for good.
    """
    if reply.status == HTTPStatus.OK:
        return
    message = f"{url}: {_said(reply.body) or 'refused'} (HTTP {reply.status})"
    if reply.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        raise RetrieverBusy(message, reply.retry_after_s or 1.0)
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise FailedError(message)
    if reply.status in _CONFIG:
        raise ConfigError(message)
    raise RetrieverError(message)


_CONFIG = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


def json_or_none(data: bytes) -> Any:
    """The JSON value, or None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _said(body: bytes) -> str | None:
    """The reason in the body of a refusal, as FastAPI, our service and Elasticsearch write it."""
    match json_or_none(body):
        case {"detail": str(reason)} | {"error": str(reason)} | {"error": {"reason": str(reason)}}:
            return reason
        case {"status": str(reason)}:
            return reason
    return None
