"""The server as an ASGI application: addresses, statuses, bodies in and out. Searching is `service.py`'s.

Of what comes in, only sizes and checksums are ever logged.
"""

import json
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from recall.errors import RetrieverBusy, RetrieverError
from recall.retriever.service.dialects import (
    Asked,
    BodyError,
    BodyLimits,
    batch_body,
    parse,
    retrieve_body,
    search_body,
)
from recall.retriever.service.service import Service
from recall.serving.access import Token
from recall.serving.metrics import TYPE
from recall.serving.requests import (
    JSON,
    HungUpError,
    Receive,
    RefusedError,
    RequestLimits,
    Scope,
    Send,
    admit,
    detail,
    read_body,
    report,
    respond,
    watched,
)

_log = logging.getLogger("recall.retriever")

SEARCHES: Mapping[str, Callable[[Any, BodyLimits, int], Asked]] = MappingProxyType(
    {"/search": search_body, "/batch_search": batch_body, "/retrieve": retrieve_body}
)
"""What reads the body of each address that searches."""
OTHERS = frozenset({"/health", "/healthz", "/metrics"})
"""The addresses that are asked by GET."""


class App:
    """The application."""

    def __init__(self, service: Service, token: Token | None, requests: RequestLimits, bodies: BodyLimits) -> None:
        """Serve `service` to whoever has the token, or to everybody where there is none."""
        self._service, self._token, self._requests, self._bodies = service, token, requests, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        path, method = scope["path"], scope["method"]
        name = path[1:] if path in SEARCHES or path in OTHERS else "unknown"
        kind, retry_after_s, body = JSON, None, b""
        try:
            if path != "/healthz":
                admit(scope, self._token)
            if path in SEARCHES:
                _allow(method, "POST")
                body = await read_body(scope, receive, self._requests)
                status, answer = 200, await watched(receive, self._search(path, body))
            elif path in OTHERS:
                _allow(method, "GET")
                status, answer, kind = self._tell(path)
            else:
                raise RefusedError(
                    404, f"there is no such address; there are {', '.join([*SEARCHES, *sorted(OTHERS)])}"
                )
        except HungUpError:
            self._service.requests[name, 499] += 1
            return
        except (RefusedError, BodyError) as refusal:
            status, answer = refusal.status, detail(str(refusal))
        except RetrieverBusy as busy:
            status, answer, retry_after_s = 503, detail(str(busy)), busy.retry_after_s
        except RetrieverError as error:
            report(_log, path, error, body)
            status, answer = 500, detail(str(error))
        except Exception as error:  # noqa: BLE001 - the one place where a bug becomes an answer
            report(_log, path, error, body)
            status, answer = 500, detail(f"internal error: {type(error).__name__}")
        self._service.requests[name, status] += 1
        await respond(send, status, answer, kind, retry_after_s)

    async def _search(self, path: str, body: bytes) -> bytes:
        asked = SEARCHES[path](parse(body), self._bodies, self._service.passages)
        return asked.write(await self._service.search(asked.queries, asked.k))

    def _tell(self, path: str) -> tuple[int, bytes, bytes]:
        if path == "/metrics":
            return 200, self._service.page(), TYPE
        if path == "/healthz":
            return 200, b'{"status":"ok"}', JSON
        health = self._service.health()
        return 200 if health["status"] == "healthy" else 503, json.dumps(health).encode(), JSON


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise RefusedError(405, f"{method[:20]} is not served here; {allowed} is")
