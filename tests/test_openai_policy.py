from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from completions_server import Answer, CompletionsServer, serving
from fakes import InProcessSandbox, chatml_tokenizer
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError, PolicyError
from recall.policy.openai import OpenAIPolicy
from recall.policy.stopping import StopAtText
from recall.renderer import ChatMLRenderer, ResearchRenderer
from recall.rollout import rollout
from recall.tool_calls import SEARCH, format_call
from recall.types import Sampling, StopReason, Task, ToolCall, ToolSpec

TOKENIZER = chatml_tokenizer()
RENDERER = ChatMLRenderer(TOKENIZER)
END = TOKENIZER.get_vocab()["<|im_end|>"]
HI = RENDERER.turn("hi")


def choice(ids: list[int], finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A choice as vLLM returns it."""
    logprobs = {"token_logprobs": [-0.5 * n for n in range(len(ids))]}
    return {"text": "hi", "finish_reason": finish, "token_ids": ids, "logprobs": logprobs, **more}


def says(ids: list[int], finish: str = "stop", **more: Any) -> Answer:
    return lambda body: {"choices": [choice(ids, finish, **more)]}


@asynccontextmanager
async def policy(answer: Answer, **settings: Any) -> AsyncIterator[tuple[OpenAIPolicy, CompletionsServer]]:
    with serving(completions=answer) as server:
        settings = {"stop_token_ids": sorted(RENDERER.stop_token_ids), "attempts": 2, **settings}
        made = OpenAIPolicy(server.url, "m", **settings)
        try:
            yield made, server
        finally:
            await made.close()
            await made.close()


async def sample(made: OpenAIPolicy, **sampling: Any) -> Any:
    return await made.sample([5, 6, 7], Sampling(**{"max_tokens": 50, **sampling}), episode_id="e")


async def test_ids_go_out_and_ids_and_logprobs_come_back() -> None:
    async with policy(says(HI)) as (made, server):
        found = await sample(made, temperature=0.7, top_p=0.9, seed=2**40 + 3)
    assert (found.token_ids, found.finish_reason) == (tuple(HI), "stop")
    assert found.logprobs == tuple(-0.5 * n for n in range(len(HI)))
    asked = server.asked[0]
    assert (asked["prompt"], asked["model"], asked["max_tokens"]) == ([5, 6, 7], "m", 50)
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.7, 0.9, 3)
    assert asked["stop_token_ids"] == sorted(RENDERER.stop_token_ids)
    assert "stop" not in asked


async def test_a_turn_that_ran_out_of_room_says_so() -> None:
    async with policy(says([5, 6, 7], "length")) as (made, _):
        assert (await sample(made, max_tokens=3)).finish_reason == "length"
    async with policy(says([5, END], "length")) as (made, _):  # its last token ended it all the same
        assert (await sample(made, max_tokens=2)).finish_reason == "stop"


async def test_llama_cpps_name_for_ids_is_understood() -> None:
    answer = {"choices": [{"finish_reason": "stop", "tokens": HI, "text": "hi"}]}
    async with policy(lambda body: answer, logprobs=False) as (made, _):
        assert (await sample(made)).token_ids == tuple(HI)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"choices": [{"finish_reason": "stop", "text": "hi"}]}, "returns text without token ids"),
        ({"choices": [choice(HI, logprobs=None)]}, r"no logprobs\.token_logprobs of the \d+ sampled tokens"),
        ({"choices": [choice(HI, logprobs={"token_logprobs": [0.0]})]}, r"no logprobs\.token_logprobs"),
        ({"choices": [choice(HI[:-1])]}, "the token that ended the turn did not come back"),
        ({"choices": [choice([])]}, "the token that ended the turn did not come back"),
        ({"choices": [choice([], "length")]}, "no token came back"),
        ({"choices": [choice([1] * 51, "length")]}, "51 tokens came back where at most 50 were asked for"),
        ({"choices": [choice(HI, "content_filter")]}, "finish_reason 'content_filter'"),
        ({"choices": []}, "no choices"),
        ({"error": "x"}, "no choices"),
        ([], "no choices"),
        (b"<html>", "the answer is not JSON"),
        (400, "status 400: no"),
        (404, "status 404: no"),
        (503, "status 503: no"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_a_failure_of_ours_that_says_why(answer: Any, problem: str) -> None:
    async with policy(lambda body: answer) as (made, server):
        with pytest.raises(PolicyError, match=rf"{server.url}/completions: .*{problem}"):
            await sample(made)
        assert len(server.asked) == (2 if answer == 503 else 1)


async def test_a_server_without_room_is_asked_again() -> None:
    answers = iter([503, 429, {"choices": [choice(HI)]}])
    async with policy(lambda body: next(answers), attempts=3) as (made, server):
        assert (await sample(made)).token_ids == tuple(HI)
        assert len(server.asked) == 3


async def test_a_server_that_is_not_there_is_a_failure_of_ours() -> None:
    made = OpenAIPolicy("http://127.0.0.1:9/v1", "m", stop_token_ids=[END], attempts=2)
    with pytest.raises(PolicyError, match=r"127\.0\.0\.1:9/v1/completions: ClientConnectorError"):
        await sample(made)
    await made.close()


async def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_POLICY_API_KEY", "secret")
    async with policy(says(HI)) as (made, server):
        await sample(made)
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.url: 'localhost:8000'"):
        OpenAIPolicy("localhost:8000", "m", stop_token_ids=[1])
    with pytest.raises(ConfigError, match="no token ends a turn"):
        OpenAIPolicy("http://x", "m", stop_token_ids=[])
    with pytest.raises(ConfigError, match="no logprobs to learn from"):
        OpenAIPolicy("http://x", "m", stop_token_ids=[1], from_text=lambda text: [1])


async def test_a_server_of_text_is_read_where_the_caller_says_so_and_asked_for_nothing_special() -> None:
    answer = {"choices": [{"finish_reason": "stop", "text": "hi"}]}
    settings: dict[str, Any] = {"from_text": RENDERER._tokens.encode, "logprobs": False, "stop_texts": ("x",)}
    async with policy(lambda body: answer, **settings) as (made, server):
        found = await sample(made)
        assert (found.token_ids, found.finish_reason) == (tuple(HI), "stop")
        assert set(found.logprobs) == {0.0}
        assert (await sample(made, max_tokens=len(HI) - 1)).finish_reason == "length"
    assert set(server.asked[0]) == {"model", "prompt", "max_tokens", "temperature", "top_p"}


async def test_a_turn_that_ended_at_a_text_is_kept_and_one_that_ended_at_who_knows_what_is_not() -> None:
    research = ResearchRenderer(TOKENIZER)
    ids = research.turn("<search> a </search>")
    settings = {"stop_texts": research.stop_texts}
    async with policy(says(ids, stop_reason="</search>"), **settings) as (made, server):
        wrapped = StopAtText(made, research.decode, research.stop_texts, piece_tokens=None)
        found = await wrapped.sample([5], Sampling(max_tokens=50), episode_id="e")
        assert (found.token_ids, found.finish_reason) == (tuple(ids), "stop")
        assert (server.asked[0]["stop"], server.asked[0]["include_stop_str_in_output"]) == (["</search>"], True)
    async with policy(says(ids), **settings) as (made, _):
        with pytest.raises(PolicyError, match="does not say at what it stopped"):
            await sample(made)


async def test_an_episode_with_tools_plays_over_http_token_by_token() -> None:
    """The server writes a turn by what it reads, as a model would; ids and mask are those that it saw and wrote."""
    call = format_call(ToolCall("add", {"a": 2, "b": 2}))

    def answer(body: Mapping[str, Any]) -> Any:
        read = RENDERER.decode(body["prompt"])
        ids = RENDERER.turn("\\boxed{4}" if "<tool_response>\n4\n" in read else call)
        return {"choices": [choice(ids)]}

    tool = ToolSpec("add", "", {"type": "object", "properties": {"a": {}, "b": {}}})
    task = Task("t", "2 + 2?", ("4",), env="def add(a, b):\n    return a + b\n", tools=(tool,))
    async with policy(answer) as (made, server):
        trajectory = await rollout(
            ToolEnvironments(InProcessSandbox())(task),
            made,
            RENDERER,
            task_id="t",
            episode_id="e",
            sampling=Sampling(seed=1),
            limits=Limits(),
        )
    assert (trajectory.answer, trajectory.stop_reason) == ("4", StopReason.DONE)
    sent = [asked["prompt"] for asked in server.asked]
    assert sent[0] == list(trajectory.prompt_ids)
    assert sent[1] == trajectory.token_ids[: len(sent[1])]
    assert server.asked[0]["seed"] != server.asked[1]["seed"]
    assert SEARCH not in trajectory.segments[0].text
