"""Stands before the page and its data: who is let in, and what a browser may do with what it gets.

Without a token only this machine asks, and only for itself: a page from elsewhere that points a name of its own at this
machine is refused by the name. What is served loads nothing from anywhere else and runs no script but its own.
"""

from urllib.parse import urlsplit

from recall.serving.access import Token
from recall.serving.requests import Message, Receive, Scope, Send, detail

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of everything that is served."""
_OWN = ("localhost", "127.0.0.1", "::1")
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)


class Guard:
    """The application behind its guard, an ASGI application itself."""

    def __init__(self, app: object, token: Token | None) -> None:
        """Guard `app`; with a token, requests must bring it, and their names are not looked at."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, guarded)  # type: ignore[operator]
            return
        status, words = refused
        headers = [(b"content-type", b"application/json")]
        if status == 401:
            headers.append((b"www-authenticate", b'Basic realm="recall view: any name, and the token as the password"'))
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await guarded({"type": "http.response.body", "body": detail(words)})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._token is not None and not self._token.admits(scope["headers"]):
            return 401, "the token is needed: any name, and the token as the password"
        if self._token is None and _hostname(host) not in _OWN:
            return 403, "only this machine is served without a token, by the name localhost or its address"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests from pages of others are not served"
        followed = scope["path"] == "/" and headers.get(b"sec-fetch-mode") == "navigate"  # a link to the page is fine
        if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none") and not followed:
            return 403, "requests from pages of others are not served"
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
