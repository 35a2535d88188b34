"""A policy behind SGLang's own `/generate`: token ids in, token ids and their log-probabilities out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from recall.errors import ConfigError
from recall.policy.server import ModelServer
from recall.types import Completion, Sampling


class SGLangPolicy:
    """Samples turns from an SGLang server; implements `recall.policy.base.Policy` and `Streams`.

    Its log-probabilities are those at the sampling temperature, as `Completion` wants them, as long as the server is
    not told otherwise (`SGLANG_RETURN_ORIGINAL_LOGPROB`).
    """

    def __init__(
        self,
        url: str,
        *,
        stop_token_ids: Sequence[int],
        stop_texts: Sequence[str] = (),
        attempts: int = 6,
        timeout_s: float = 600.0,
        api_key: str | None = None,
    ) -> None:
        """Take the address; nothing is connected to yet.

        Args:
            url: of the server, without a path, such as `http://127.0.0.1:30000`.
            stop_token_ids: the tokens that end a turn.
            stop_texts: texts that end a turn as well; they come back as they were sampled.
            attempts: how often a request is made of which nothing came back.
            timeout_s: seconds for one attempt.
            api_key: what the server asks for; None takes the environment's `RECALL_POLICY_API_KEY`, if there is one.

        Raises:
            ConfigError: the address is none, or nothing ends a turn.
        """
        if not stop_token_ids:
            raise ConfigError("policy: no token ends a turn")
        self._server = ModelServer(url, attempts=attempts, timeout_s=timeout_s, api_key=api_key)
        self.url = self._server.url
        self._stop_token_ids, self._stop_texts = tuple(stop_token_ids), tuple(stop_texts)
        self._listeners: dict[str, Callable[[str], None]] = {}

    def begin(self, episode_id: str) -> None:
        """Announce an episode; the server finds the prefix of a context in its cache by itself."""

    def listen(self, episode_id: str, heard: Callable[[str], None]) -> None:
        """Have the turns of an episode streamed; see `recall.policy.base.Streams`."""
        self._listeners[episode_id] = heard

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Sample one turn; see `Policy.sample`.

        Raises:
            PolicyError: the server cannot be reached, refuses, or does not return what is needed.
        """
        body = self._request(prompt_ids, sampling)
        heard = self._listeners.get(episode_id)
        answer = await (self._server.ask("/generate", body) if heard is None else self._streamed(body, heard))
        try:
            said = answer["meta_info"]
            ended, pairs = said["finish_reason"]["type"], said["output_token_logprobs"]
            logprobs = tuple(min(0.0, float(pair[0])) for pair in pairs)
            ids = tuple(int(pair[1]) for pair in pairs)
        except (KeyError, IndexError, TypeError, ValueError):
            raise self._server.failure(
                "/generate", "the answer has no meta_info with finish_reason and output_token_logprobs"
            ) from None
        if ended not in ("stop", "length"):
            reason = said["finish_reason"].get("message", ended)
            raise self._server.failure("/generate", f"the server gave the turn up: {reason}")
        if not ids or len(ids) > sampling.max_tokens:
            raise self._server.failure(
                "/generate", f"{len(ids)} tokens came back where 1 to {sampling.max_tokens} were asked for"
            )
        return Completion(ids, logprobs, "stop" if ended == "stop" else "length")

    def end(self, episode_id: str) -> None:
        """Forget who listens to the episode; nothing else is kept of it."""
        self._listeners.pop(episode_id, None)

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._server.close()

    def _request(self, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        how: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_token_ids": list(self._stop_token_ids),
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "no_stop_trim": True,
        }
        if self._stop_texts:
            how["stop"] = list(self._stop_texts)
        if sampling.seed is not None:
            how["sampling_seed"] = sampling.seed & (2**31 - 1)
        return {"input_ids": list(prompt_ids), "sampling_params": how, "return_logprob": True}

    async def _streamed(self, body: Mapping[str, Any], heard: Callable[[str], None]) -> Any:
        """The last event, which holds the whole answer; what each adds to the text is passed on."""
        last: Any = None
        shown = 0
        async with aclosing(self._server.stream("/generate", {**body, "stream": True})) as events:
            async for event in events:
                last = event
                text = event.get("text", "") if isinstance(event, dict) else ""
                if len(text) > shown:
                    heard(text[shown:])
                    shown = len(text)
        return last
