"""The window as an HTTP application: addresses, parameters, statuses. What is answered is `views.py`'s."""

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from recall.errors import ConfigError
from recall.serving.access import Token
from recall.serving.requests import report
from recall.viewer.index.find import Filter
from recall.viewer.window.assets import page_files
from recall.viewer.window.guard import Guard
from recall.viewer.window.views import Views

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.responses import Response

_log = logging.getLogger("recall.window")

BODY_BYTES = 1 << 20
"""The largest body of a request: a note."""


class Life:
    """The window from start to end, for `serve`."""

    def __init__(self, views: Views) -> None:
        """Answer by `views`, which is closed in the end."""
        self._views = views

    async def start(self) -> str:
        """Nothing is read before somebody looks."""
        counted = len(self._views.folder.entries())
        return f"{counted} to look at in {self._views.folder.root}; Ctrl-C ends it"

    def drain(self) -> None:
        """There is nothing to finish."""

    async def close(self) -> None:
        """End the work on indexes."""
        self._views.close()


def make_app(views: Views, token: Token | None) -> Guard:
    """The application, behind its guard."""
    from fastapi import FastAPI, Request
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    files = page_files()

    def answer(value: Any, status: int = 200) -> Response:
        return Response(to_json(value), status, media_type="application/json")

    async def told(view: Callable[[], Any]) -> Response:
        try:
            return answer(await run_in_threadpool(view))
        except ConfigError as refusal:
            return answer({"detail": str(refusal)}, 400)
        except Exception as error:  # noqa: BLE001 - the one place where a bug becomes an answer
            report(_log, "view", error, b"")
            return answer({"detail": f"internal error: {type(error).__name__}"}, 500)

    @app.get("/api/{view}")
    async def read(view: str, request: Request) -> Response:
        asked = request.query_params
        name = asked.get("run", "")
        if view == "text":
            return await _text(views, name, asked, told)
        known = _views(views, name, asked)
        if view not in known:
            return answer({"detail": f"there is no {view!r}; there are {', '.join(known)}"}, 404)
        return await told(known[view])

    @app.post("/api/note")
    async def note(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return answer({"detail": "a note comes as application/json"}, 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                return answer({"detail": "a note has a megabyte at most"}, 413)
        return await told(lambda: _annotate(views, body))

    @app.get("/{path:path}")
    async def page(path: str) -> Response:
        found = files.get(path or "index.html")
        if found is None:
            return answer({"detail": "there is no such page"}, 404)
        content, kind = found
        return Response(content, media_type=kind)

    return Guard(app, token)


def to_json(value: Any) -> bytes:
    """JSON that every browser reads: ASCII, so that lone surrogates stay escaped; no NaN."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def filter_of(asked: "QueryParams") -> Filter:
    """The filter in the parameters of a request.

    Raises:
        ConfigError: a parameter is not accepted.
    """
    fields: dict[str, Any] = {}
    for name, info in Filter.model_fields.items():
        values = [value for value in asked.getlist(name) if value != ""]
        if values:
            fields[name] = values if info.annotation == tuple[str, ...] else values[-1]
    try:
        return Filter.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['input']!r} is not accepted: {first['msg']}") from error


def _views(views: Views, name: str, asked: "QueryParams") -> dict[str, Callable[[], Any]]:
    return {
        "runs": views.runs,
        "run": lambda: views.run(name),
        "metrics": lambda: views.metrics(name),
        "list": lambda: views.listing(name, filter_of(asked)),
        "trajectory": lambda: views.trajectory(name, _row(asked)),
        "raw": lambda: views.raw(name, _row(asked)),
        "group": lambda: views.group(name, _row(asked)),
        "task": lambda: views.task(name, asked.get("task", "")),
        "health": lambda: views.health(name),
        "pair": lambda: views.pair(name, asked.get("other", ""), asked.get("split", "")),
        "evaluation": lambda: views.evaluation(name),
        "dataset": lambda: views.dataset(name),
        "pulse": lambda: views.pulse(name),
    }


def _row(asked: "QueryParams") -> int:
    text = asked.get("row", "")
    if not text.isdecimal() or len(text) > 12:
        raise ConfigError(f"row: {text[:40]!r} is not accepted; it takes a number")
    return int(text)


async def _text(views: Views, name: str, asked: "QueryParams", told: Callable[..., Any]) -> "Response":
    """A whole text, as text: whatever it says, a browser shows it and runs nothing."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    try:
        text = await run_in_threadpool(lambda: views.text(name, _row(asked), asked.get("part", "")))
    except ConfigError as refusal:
        return Response(to_json({"detail": str(refusal)}), 400, media_type="application/json")
    return Response(text.encode("utf-8", "replace"), media_type="text/plain; charset=utf-8")


def _annotate(views: Views, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError("a note is a JSON object with run, tags and note")
    run, tags, note = value.get("run"), value.get("tags", []), value.get("note", "")
    if not isinstance(run, str) or not isinstance(note, str) or not isinstance(tags, list):
        raise ConfigError("a note is a JSON object with run, tags and note")
    return views.annotate(run, [tag for tag in tags if isinstance(tag, str)], note)
