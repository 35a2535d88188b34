"""Asks an OpenAI-compatible endpoint for chat completions: remembered, retried, within a budget, so many at once.

Every answer is kept with its request under the hash of the request, and the same request is never sent twice, by this
run or a later one. The key comes from an environment variable and goes nowhere but into the header of a request.
"""

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from recall.config import Settings
from recall.errors import ConfigError
from recall.synth.llm.budget import Budget, Usage, estimate, usage_of
from recall.synth.llm.errors import EndpointError, RefusedError
from recall.synth.llm.sidecar import Lines

if TYPE_CHECKING:
    import aiohttp

ChatMessage = Mapping[str, str]
"""`{"role", "content"}`."""

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which asking again may help."""
_MOST_BYTES = 16 << 20
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
_SHOWN_CHARS = 300


class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint, and how it is asked."""

    base_url: str
    """Where it is, such as http://127.0.0.1:8000/v1; `/chat/completions` is put behind it."""
    model: str
    """The model's name there."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; where it is not set, no key is sent."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Requests at once."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds that one answer may take."""
    attempts: int = Field(default=6, ge=1, le=100)
    """How often a request is sent that meets a full or failing endpoint, with growing pauses between."""
    body: dict[str, Any] = Field(default_factory=dict)
    """Further members of every request, such as --body.reasoning_effort low; the value none takes a member out."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not accepted; it takes http://HOST/v1 or https://HOST/v1")
        if "@" in parts.netloc:
            raise ValueError("user and password do not belong into the address, which is written into files")
        return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    messages: tuple[ChatMessage, ...]
    """The conversation so far."""
    temperature: float
    """Of the sampling."""
    max_tokens: int
    """The longest answer."""
    seed: int = 0
    """Tells samples of one prompt apart, also to the endpoint."""
    step: str = ""
    """What it is for, in the file of replies; no part of the request."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are left out of it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint answered."""

    text: str
    """What the model wrote."""
    finish_reason: str
    """`stop`, or `length` where it ran into `max_tokens`."""
    key: str
    """The hash of the request, by which the file of replies knows it."""


class Replies:
    """The file of all requests and what was answered."""

    def __init__(self, path: Path) -> None:
        """Open it and read which requests it answers.

        Raises:
            ConfigError: it cannot be used.
        """
        self._lines = Lines(path)
        self._places: dict[str, int] = {}
        self.tokens = 0
        """What all of them have cost."""
        for place, line in self._lines:
            self._count(line, place)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Reply | None:
        """The answer to a request, if there is one."""
        place = self._places.get(key)
        if place is None:
            return None
        line = self._lines.read(place)
        return Reply(line["text"], line["finish_reason"], key)

    def add(self, ask: Ask, body: Mapping[str, Any], reply: Reply, usage: Usage) -> None:
        """Keep an answer."""
        line = {
            "key": reply.key,
            "step": ask.step,
            "request": dict(body),
            "text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": asdict(usage),
        }
        self._count(line, self._lines.append(line))

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def _count(self, line: Mapping[str, Any], place: int) -> None:
        self._places[line["key"]] = place
        self.tokens += line["usage"]["prompt_tokens"] + line["usage"]["completion_tokens"]


class ChatClient:
    """One model at one endpoint. It belongs to one event loop."""

    def __init__(self, settings: EndpointSettings, replies: Replies, budget: Budget) -> None:
        """Take the endpoint, where answers are kept, and what may be spent.

        Raises:
            ConfigError: the key in the environment is no key.
        """
        self.settings, self._replies, self._budget = settings, replies, budget
        self._key = os.environ.get(settings.api_key_env, "").strip() if settings.api_key_env else ""
        if not self._key.isascii() or not self._key.isprintable():
            raise ConfigError(f"{settings.api_key_env}: holds characters that no key has")
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._under_way: dict[str, asyncio.Future[Reply]] = {}
        self._http: aiohttp.ClientSession | None = None
        self._jitter = random.Random()

    def __repr__(self) -> str:
        return f"ChatClient({self.settings.base_url!r}, {self.settings.model!r})"

    async def ask(self, ask: Ask) -> Reply:
        """The answer to a request, from the file of replies or from the endpoint.

        Raises:
            SpentError: the budget does not cover it.
            RefusedError: the endpoint will not answer this request.
            EndpointError: it failed in all attempts.
            ConfigError: it knows no such model, or does not accept the key.
        """
        body = self._body(ask)
        key = hashlib.sha256(json.dumps([body, ask.seed], sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        known = self._replies.get(key)
        if known is not None:
            return known
        if key in self._under_way:
            return await asyncio.shield(self._under_way[key])
        waiting = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._answered(ask, body, key)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                waiting.cancel()
            else:
                waiting.set_exception(error)
                waiting.exception()  # whoever else waits is told; nobody waiting is no reason to complain
            raise
        else:
            waiting.set_result(reply)
            return reply
        finally:
            del self._under_way[key]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in ask.messages],
            "temperature": ask.temperature,
            "max_tokens": ask.max_tokens,
            "seed": ask.seed,
            "stop": list(ask.stop) or None,
        } | self.settings.body
        return {name: value for name, value in body.items() if value not in (None, "none")}

    async def _answered(self, ask: Ask, body: Mapping[str, Any], key: str) -> Reply:
        prompt = [message["content"] for message in ask.messages]
        async with self._slots, self._budget.set_aside(estimate(prompt) + ask.max_tokens) as charge:
            answer = await self._sent(body)
            text, finish_reason = answer["choices"]
            usage = usage_of(answer, prompt, text)
            charge.tokens = usage.tokens
            reply = Reply(text, finish_reason, key)
            self._replies.add(ask, body, reply, usage)
        return reply

    async def _sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint's answer, with its first choice as (text, finish reason) under `choices`."""
        problem = ""
        for attempt in range(self.settings.attempts):
            self._budget.count_request()
            status, data, retry_after_s = await self._post(body)
            if status == 200:
                answer = _completion(data)
                if answer is not None:
                    return answer
                problem = f"an answer that is no chat completion: {self._shown(data)}"
            elif status in _AGAIN or status == 0:
                problem = f"status {status}: {self._shown(data)}" if status else self._shown(data)
            else:
                self._refuse(status, self._shown(data))
            if attempt + 1 < self.settings.attempts:
                await asyncio.sleep(self._pause_s(attempt, retry_after_s))
        times = f"{self.settings.attempts} attempts"
        raise EndpointError(f"{self.settings.base_url}: no answer in {times}: {problem}")

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        if retry_after_s is not None:
            return min(retry_after_s, _LONGEST_WAIT_S)
        longest = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
        pause_s: float = longest * self._jitter.uniform(0.5, 1.0)
        return pause_s

    def _refuse(self, status: int, said: str) -> None:
        url, settings = self.settings.base_url, self.settings
        if status in (401, 403):
            whether = "is not accepted" if self._key else "is missing"
            raise ConfigError(f"{url}: the key in the environment variable {settings.api_key_env} {whether}: {said}")
        if status == 404 or 300 <= status < 400:
            raise ConfigError(f"{url}: no chat completions of model {settings.model!r} there (status {status}): {said}")
        raise RefusedError(f"{url}: refused with status {status}: {said}")

    async def _post(self, body: Mapping[str, Any]) -> tuple[int, bytes, float | None]:
        """Status, body, and what `Retry-After` says; status 0 with a reason where the connection failed."""
        import aiohttp

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with self._session().post(
                f"{self.settings.base_url}/chat/completions", json=body, headers=headers, allow_redirects=False
            ) as response:
                data = await response.content.read(_MOST_BYTES)
                while not response.content.at_eof() and len(data) < _MOST_BYTES:
                    data += await response.content.read(_MOST_BYTES - len(data))
                return response.status, data, _seconds(response.headers.get("Retry-After"))
        except aiohttp.ClientError as error:
            return 0, f"the connection failed: {type(error).__name__}: {error}".encode(), None
        except TimeoutError:
            return 0, f"no answer in {self.settings.timeout_s:g} s".encode(), None

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout_s),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    def _shown(self, data: bytes) -> str:
        """What the endpoint said, short, in one line, and without the key, which some endpoints quote."""
        text = " ".join(data.decode("utf-8", "replace").split())
        text = text.replace(self._key, "…") if self._key else text
        return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _completion(data: bytes) -> dict[str, Any] | None:
    """An answer with its first choice as (text, finish reason); None where it is no chat completion."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match answer:
        case {"choices": [{"message": {"content": str() | None as text}, **choice}, *_]}:
            # Half of a surrogate pair, which JSON can smuggle in and UTF-8 cannot hold, becomes U+FFFD.
            text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return {**answer, "choices": (text, str(choice.get("finish_reason") or "stop"))}
    return None


def _seconds(text: str | None) -> float | None:
    """What a `Retry-After` of seconds says; None for a date, or for nothing."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
