"""A client's side of a model's server: requests that are made again only while nothing of an answer has come.

Asking twice samples twice and changes nothing else, so a request without an answer is made again. Once a part of an
answer is there it is not: a server that dies in the middle is a failure that says so.
"""

import asyncio
import codecs
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from recall.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    import aiohttp

KEY_VARIABLE = "RECALL_POLICY_API_KEY"
"""The environment variable with the key that the server asks for."""
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_SHOWN_CHARS = 300
_OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|model|input) length|max_model_len|too many tokens|"
    r"longer than the model|exceeds? the (available )?context|prompt is too long",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"model\b.*\b(not (exist|found|available)|does ?n.t exist|unknown)|unknown model", re.IGNORECASE)


class ModelServer:
    """The server at one address, asked by many episodes at a time."""

    def __init__(self, url: str, *, attempts: int = 6, timeout_s: float = 600.0, api_key: str | None = None) -> None:
        """Take the address; nothing is connected to yet.

        Args:
            url: what paths are put after, such as `http://127.0.0.1:8000/v1`.
            attempts: how often a request is made of which nothing came back.
            timeout_s: the deadline of one attempt, from the request to the last token.
            api_key: what the server asks for; None takes the environment's `RECALL_POLICY_API_KEY`, if there is one.

        Raises:
            ConfigError: it is no address.
        """
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"policy.url: {url!r} is not accepted; it takes an address such as http://127.0.0.1:8000/v1"
            )
        self.url = url.rstrip("/")
        """The address."""
        self._attempts, self._timeout_s = attempts, timeout_s
        self._key = api_key or os.environ.get(KEY_VARIABLE) or None
        self._http: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON value that the server answers.

        Raises:
            ConfigError: the server does not know the model.
            PolicyError: no answer came, or none that can be read.
        """
        async with aclosing(self._pieces(path, body)) as pieces:
            text = "".join([piece async for piece in pieces])
        try:
            return json.loads(text)
        except ValueError:
            raise self.failure(path, "the answer is not JSON") from None

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """The JSON values of an answer that comes as server-sent events.

        Raises:
            ConfigError: the server does not know the model.
            PolicyError: no answer came, it broke off, or a part of it cannot be read.
        """
        rest, count, ended = "", 0, False
        async with aclosing(self._pieces(path, body)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split("\n")
                for line in lines:
                    data = line.strip().removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data == "[DONE]":
                        ended = True
                    elif data:
                        yield self._event(path, data)
                        count += 1
        if (
            rest.strip() and count == 0
        ):  # an answer that is no stream: a refusal with status 200, or a server of the old
            yield self._event(path, rest.strip())
        elif not ended:
            raise self.failure(path, f"the answer broke off after {count} events; the server died, or was stopped")

    async def get(self, path: str) -> Any:
        """The JSON value at a path, or None where the server has nothing there.

        Raises:
            PolicyError: the server cannot be reached.
        """
        import aiohttp

        try:
            async with asyncio.timeout(30.0), self._session().get(self.url + path) as response:
                return json.loads(await response.text()) if response.status == 200 else None
        except ValueError:
            return None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self.failure(path, f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def failure(self, path: str, problem: str) -> PolicyError:
        """A failure of the server, with its address."""
        return PolicyError(f"{self.url}{path}: {problem}")

    async def _pieces(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The text of the answer in pieces, the first of which ends the attempts."""
        import aiohttp

        data = json.dumps(body, separators=(",", ":")).encode()
        pause_s, problem = _FIRST_PAUSE_S, ""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            came, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
            try:
                async with self._session().post(self.url + path, data=data) as response:
                    if response.status == 200:
                        async for piece in response.content.iter_any():
                            came += len(piece)
                            yield decoder.decode(piece)
                        return
                    problem = await self._refusal(path, response, body)
                    if response.status not in _RETRIED:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
                if isinstance(error, TimeoutError):
                    problem = f"no whole answer in {self._timeout_s:g} s"
                    break
                if came:
                    problem = f"the server died in the middle of an answer, after {came} bytes: {problem}"
                    break
        raise self.failure(path, problem)

    async def _refusal(self, path: str, response: "aiohttp.ClientResponse", body: Mapping[str, Any]) -> str:
        """What a refusal says."""
        said = " ".join((await response.text()).split())
        if response.status == 404 and _NO_MODEL.search(said):
            known = await self.models()
            names = f"; it serves {', '.join(map(repr, known))}" if known else ""
            raise ConfigError(f"policy.model: {self.url} knows no model {body.get('model')!r}{names}")
        if response.status in (400, 413, 422) and _OVERFLOW.search(said):
            return (
                f"the context is too long for the server; lower limits.max_tokens, or serve with a longer context: "
                f"status {response.status}: {said[:_SHOWN_CHARS]}"
            )
        return f"status {response.status}: {said[:_SHOWN_CHARS]}"

    async def models(self) -> list[str]:
        """The names of the models that it serves, as far as it says."""
        found = await self.get("/models")
        listed = found.get("data") if isinstance(found, dict) else None
        return [str(item["id"]) for item in listed or [] if isinstance(item, dict) and "id" in item]

    def _event(self, path: str, data: str) -> Any:
        try:
            event = json.loads(data)
        except ValueError:
            raise self.failure(path, "a part of the answer is not JSON") from None
        if isinstance(event, dict) and "error" in event and "choices" not in event:
            said = " ".join(json.dumps(event["error"]).split())[:_SHOWN_CHARS]
            raise self.failure(path, f"the server failed in the middle of an answer: {said}")
        return event

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            headers = {"content-type": "application/json"}
            if self._key is not None:
                headers["authorization"] = f"Bearer {self._key}"
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http
