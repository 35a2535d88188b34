"""A policy behind an HTTP server that speaks OpenAI's completions: vLLM, SGLang, llama.cpp and others.

The prompt goes out as token ids, and what was sampled comes back as token ids, so a trajectory is made of what the
server really read and wrote. A server that only returns text cannot do that. It is refused, unless the caller says
`from_text`: then the ids are this side's reading of the text, which is good enough to measure an answer and never to
learn from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from recall.errors import ConfigError, PolicyError
from recall.policy.server import KEY_VARIABLE, ModelServer
from recall.types import Completion, Sampling

__all__ = ["KEY_VARIABLE", "OpenAIPolicy"]


class OpenAIPolicy:
    """Samples turns from a server; implements `recall.policy.base.Policy`.

    Asking twice samples twice and changes nothing else, so a request that failed is made again. A server that answers
    with something that cannot be used is a `PolicyError` at once, with what is missing in its message.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        stop_token_ids: Sequence[int],
        stop_texts: Sequence[str] = (),
        from_text: Callable[[str], Sequence[int]] | None = None,
        logprobs: bool = True,
        attempts: int = 6,
        timeout_s: float = 600.0,
        api_key: str | None = None,
    ) -> None:
        """Take the address; nothing is connected to yet.

        Args:
            url: up to and with the version, such as `http://127.0.0.1:8000/v1`.
            model: the name that the server knows the model by.
            stop_token_ids: the tokens that end a turn; the first one is written where a server keeps to itself at
                which it stopped.
            stop_texts: texts that end a turn as well. A server of text is not told of them, since it would cut them
                off; so wrap the policy in `StopAtText`.
            from_text: reads text as token ids; allows a server that returns no ids, and makes no logprobs.
            logprobs: whether the server has to return them. Without, those that it does not return are 0.0.
            attempts: how often a request is made that fails for lack of room or of a connection.
            timeout_s: seconds for one attempt.
            api_key: what the server asks for; None takes the environment's `RECALL_POLICY_API_KEY`, if there is one.

        Raises:
            ConfigError: the address is none, or logprobs are wanted of text.
        """
        self._server = ModelServer(url, attempts=attempts, timeout_s=timeout_s, api_key=api_key)
        if not stop_token_ids:
            raise ConfigError("policy: no token ends a turn")
        if from_text is not None and logprobs:
            raise ConfigError("policy: text that is read as token ids has no logprobs to learn from; ask for none")
        self.url, self.model = self._server.url, model
        self._stop_token_ids, self._stop_texts = tuple(stop_token_ids), tuple(stop_texts)
        self._from_text, self._logprobs = from_text, logprobs
        self._listeners: dict[str, Callable[[str], None]] = {}

    def begin(self, episode_id: str) -> None:
        """Announce an episode; servers find the prefix of a context in their cache by themselves."""

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            PolicyError: the server cannot be reached, refuses, or does not return what is needed.
        """
        body = self._request(prompt_ids, sampling)
        heard = self._listeners.get(episode_id)
        answer = await (self._server.ask("/completions", body) if heard is None else self._streamed(body, heard))
        try:
            choice = answer["choices"][0]
            finish = choice["finish_reason"]
        except (KeyError, IndexError, TypeError):
            raise self._failure("the answer has no choices[0] with a finish_reason") from None
        if finish not in ("stop", "length"):
            raise self._failure(f"the turn ended with finish_reason {finish!r}; accepted: stop, length")
        ids, logprobs = self._sampled(choice)
        from_text = self._from_text is not None
        if len(ids) > sampling.max_tokens:
            raise self._failure(f"{len(ids)} tokens came back where at most {sampling.max_tokens} were asked for")
        if finish == "stop" and not (ids and ids[-1] in self._stop_token_ids):
            ids, logprobs = self._with_stop(choice, ids, logprobs)
        if not ids:
            raise self._failure("no token came back")
        if len(ids) > sampling.max_tokens:  # by the token that ended it, for which there was no room
            return Completion(tuple(ids[:-1]), tuple(logprobs[:-1]), "length", from_text=from_text)
        ended = finish == "stop" or ids[-1] in self._stop_token_ids
        return Completion(tuple(ids), tuple(logprobs), "stop" if ended else "length", from_text=from_text)

    def listen(self, episode_id: str, heard: Callable[[str], None]) -> None:
        """Have the turns of an episode streamed; see `recall.policy.base.Streams`."""
        self._listeners[episode_id] = heard

    def end(self, episode_id: str) -> None:
        """Forget who listens to the episode; nothing else is kept of it."""
        self._listeners.pop(episode_id, None)

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._server.close()

    async def _streamed(self, body: dict[str, Any], heard: Callable[[str], None]) -> Any:
        """The answer as one, put together from its events, each of whose texts is passed on."""
        whole: dict[str, Any] = {"text": "", "finish_reason": None}
        ids: list[Any] = []
        values: list[Any] = []
        async with aclosing(self._server.stream("/completions", {**body, "stream": True})) as events:
            async for event in events:
                if not (isinstance(event, dict) and event.get("choices")):
                    continue
                choice = event["choices"][0]
                text = choice.get("text") or ""
                whole |= {key: value for key, value in choice.items() if value is not None and key != "text"}
                whole["text"] += text
                ids += choice.get("token_ids") or choice.get("tokens") or []
                found = choice.get("logprobs")
                values += (found.get("token_logprobs") or []) if isinstance(found, Mapping) else []
                if text:
                    heard(text)
        if ids:
            whole |= {"token_ids": ids, "logprobs": {"token_logprobs": values}}
        return {"choices": [whole]}

    def _request(self, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": self.model,
            "prompt": list(prompt_ids),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if self._from_text is None:
            # Extensions that vLLM, SGLang and llama.cpp know, each some of them; a server that checks refuses by name.
            asked |= {
                "logprobs": 0,
                "stop_token_ids": list(self._stop_token_ids),
                "skip_special_tokens": False,
                "spaces_between_special_tokens": False,
                "return_token_ids": True,
                "return_tokens": True,
                "add_special_tokens": False,
            }
            if self._stop_texts:
                asked |= {"stop": list(self._stop_texts), "include_stop_str_in_output": True}
        if sampling.seed is not None:
            asked["seed"] = sampling.seed & (2**31 - 1)  # some servers keep it in 32 bits
        return asked

    def _sampled(self, choice: Mapping[str, Any]) -> tuple[list[int], list[float]]:
        """The ids and logprobs of an answer."""
        ids = next((choice[key] for key in ("token_ids", "tokens") if isinstance(choice.get(key), list)), None)
        if ids is None or not all(type(i) is int for i in ids):
            if self._from_text is None:
                raise self._failure(
                    "it returns text without token ids; ReCall keeps what was sampled as ids (vLLM 0.10.2 and later "
                    "return them). To measure answers only, with ids read from the text, set policy.from_text"
                )
            text = choice.get("text")
            if not isinstance(text, str):
                raise self._failure("the answer has neither token ids nor text")
            ids = list(self._from_text(text))
            return ids, [0.0] * len(ids)
        found = choice.get("logprobs")
        values = found.get("token_logprobs") if isinstance(found, Mapping) else None
        if isinstance(values, list) and len(values) == len(ids) and all(_is_logprob(value) for value in values):
            return ids, [min(0.0, float(value)) for value in values]
        if self._logprobs:
            raise self._failure(f"it returns no logprobs.token_logprobs of the {len(ids)} sampled tokens")
        return ids, [0.0] * len(ids)

    def _with_stop(
        self, choice: Mapping[str, Any], ids: list[int], logprobs: list[float]
    ) -> tuple[list[int], list[float]]:
        """The turn of a server that stopped and returned no token that ends one: at a text, or at a token it kept."""
        if self._from_text is None and self._stop_texts:
            said = choice.get("stop_reason", choice.get("matched_stop"))
            if said in self._stop_texts:
                return ids, logprobs
            if said not in self._stop_token_ids:
                raise self._failure(
                    "it does not say at what it stopped (vLLM: stop_reason), so the turn cannot be kept"
                )
        if self._logprobs:
            raise self._failure("the token that ended the turn did not come back, and neither did its logprob")
        # The context needs it before a reply.
        return [*ids, self._stop_token_ids[0]], [*logprobs, 0.0]

    def _failure(self, problem: str) -> PolicyError:
        return self._server.failure("/completions", problem)


def _is_logprob(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
