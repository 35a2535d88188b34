"""A policy behind any OpenAI-compatible chat endpoint, local or hosted. Text goes out and text comes back.

What the model sampled is not known, so every turn is marked `from_text`: good for answers, never for learning. Tools
are offered in the endpoint's own way and called in the model's; the answer is streamed, so that it can be shown as it
comes, and so that a request is never made again once a token has come.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from recall.errors import ConfigError
from recall.policy.chat_ids import END, MESSAGE, REPLY, TOOLS, ChatRenderer, assistant, parts
from recall.policy.server import ModelServer
from recall.types import Completion, Sampling

_PATH = "/chat/completions"


class ChatPolicy:
    """Samples turns from a chat endpoint; implements `recall.policy.base.Policy` and `Streams`. Its renderer is
    `ChatRenderer`, and no other.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        attempts: int = 6,
        timeout_s: float = 600.0,
        api_key: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the address; nothing is connected to yet.

        Args:
            url: up to and with the version, such as `https://api.openai.com/v1`.
            model: the name that the server knows the model by.
            attempts: how often a request is made of which nothing came back.
            timeout_s: seconds for one attempt, from the request to the last token.
            api_key: what the server asks for; None takes the environment's `RECALL_POLICY_API_KEY`, if there is one.
            extra: goes into every request, over what stands there: `{"reasoning_effort": "low"}`. A value of None takes
                a key out that the server does not accept.

        Raises:
            ConfigError: the address is none, or the model has no name.
        """
        if not model:
            raise ConfigError("policy.model: a chat endpoint needs the name of the model")
        self._server = ModelServer(url, attempts=attempts, timeout_s=timeout_s, api_key=api_key)
        self.url, self.model = self._server.url, model
        self._extra = dict(extra or {})
        self._renderer = ChatRenderer()
        self._listeners: dict[str, Callable[[str], None]] = {}

    def begin(self, episode_id: str) -> None:
        """Announce an episode; nothing is kept of it."""

    def listen(self, episode_id: str, heard: Callable[[str], None]) -> None:
        """Have the text of an episode passed on as it comes; see `recall.policy.base.Streams`."""
        self._listeners[episode_id] = heard

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            ConfigError: the server does not know the model.
            PolicyError: the server cannot be reached, refuses, or dies.
        """
        heard = self._listeners.get(episode_id)
        said = _Said()
        async with aclosing(self._server.stream(_PATH, self._request(prompt_ids, sampling))) as events:
            async for event in events:
                piece = said.take(event)
                if piece and heard is not None:
                    heard(piece)
        if said.finish is None:
            raise self._server.failure(_PATH, "the answer has no choices[0] with a finish_reason")
        if said.finish == "content_filter":
            raise self._server.failure(_PATH, "the server's filter ended the turn")
        ids = self._renderer.spoken(said.message())
        ended = said.finish != "length"
        ids = ids if ended else ids[:-1]
        return Completion(tuple(ids), (0.0,) * len(ids), "stop" if ended else "length", from_text=True)

    def end(self, episode_id: str) -> None:
        """Forget who listens to the episode."""
        self._listeners.pop(episode_id, None)

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._server.close()

    def _request(self, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        messages, tools = conversation(prompt_ids)
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
        }
        if tools:
            asked["tools"] = tools
        if sampling.seed is not None:
            asked["seed"] = sampling.seed & (2**31 - 1)
        asked |= self._extra
        return {key: value for key, value in asked.items() if value is not None}


def conversation(prompt_ids: Sequence[int]) -> tuple[list[dict[str, Any]], list[Any]]:
    """The messages and the schemas of a context, as the wire has them.

    Every call gets an id and every result that of its call, and arguments that are no JSON are wrapped, since some
    servers refuse a whole conversation for less.
    """
    messages: list[dict[str, Any]] = []
    tools: list[Any] = []
    waiting: list[str] = []
    count = 0
    for control, value in parts(prompt_ids):
        if control == TOOLS and isinstance(value, list):
            tools = value
        elif control in (MESSAGE, REPLY) and isinstance(value, dict):
            message = dict(value)
            if calls := message.get("tool_calls"):
                message["tool_calls"] = [_valid(call, f"call_{count + number}") for number, call in enumerate(calls)]
                count += len(calls)
                waiting = [call["id"] for call in message["tool_calls"]]
                message["content"] = message.get("content") or None
            if message.get("role") == "tool" and waiting:
                message["tool_call_id"] = waiting.pop(0)
            message.pop("reasoning_content", None)
            messages.append(message)
        elif control == END:
            continue
    return messages, tools


class _Said:
    """A message as it comes in, piece by piece."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def take(self, event: Any) -> str:
        """Take one event; the text in it."""
        choices = event.get("choices") if isinstance(event, dict) else None
        if not choices or not isinstance(choices[0], dict):
            return ""
        self.finish = choices[0].get("finish_reason") or self.finish
        delta = choices[0].get("delta") or choices[0].get("message") or {}
        text = delta.get("content") or ""
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        self._content.append(text)
        self._thinking.append(thought if isinstance(thought, str) else "")
        for place, piece in enumerate(delta.get("tool_calls") or ()):
            call = self._calls.setdefault(piece.get("index", place), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        return text or self._thinking[-1]

    def message(self) -> dict[str, Any]:
        """The whole."""
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for _, call in sorted(self._calls.items())
        ]
        return assistant("".join(self._content), calls, "".join(self._thinking))


def _valid(call: Any, number: str) -> dict[str, Any]:
    function = dict(call.get("function") or {}) if isinstance(call, dict) else {}
    arguments = function.get("arguments") or "{}"
    try:
        whole = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        whole = False
    function = {
        "name": function.get("name") or "unknown",
        "arguments": arguments if whole else json.dumps({"malformed": arguments}, ensure_ascii=False),
    }
    given = call.get("id") if isinstance(call, dict) else ""
    return {"id": given or number, "type": "function", "function": function}
