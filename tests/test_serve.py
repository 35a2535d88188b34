"""The endpoint, asked with the official client."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes import chatml_tokenizer
from recall import ReCall
from recall.environment import Limits
from recall.inference.service.app import App
from recall.policy.scripted import Script, ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.serving.access import Token
from recall.serving.requests import RequestLimits
from recall.serving.server import _server
from recall.tool_calls import format_calls
from recall.types import ToolCall

openai = pytest.importorskip("openai")
RENDERER = ChatMLRenderer(chatml_tokenizer())
TOKEN = "a-token-of-the-tests"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def stock(item: str) -> int:
    """How many there are."""
    return {"pear": 3}.get(item, 0)


class Served:
    """The endpoint, its policy and a client of it."""

    def __init__(self, client: Any, app: App, policy: ScriptedPolicy, url: str) -> None:
        self.client, self.app, self.policy, self.url = client, app, policy, url

    async def ask(self, *messages: dict[str, Any], **more: Any) -> Any:
        listed = [{"role": "user", "content": "?"}] if not messages else list(messages)
        return await self.client.chat.completions.create(model="recall", messages=listed, **more)


@asynccontextmanager
async def serving(*turns: str, script: Script | None = None, token: str = TOKEN, **app: Any) -> AsyncIterator[Served]:
    policy = ScriptedPolicy(script or turns, RENDERER)
    agent = ReCall(policy=policy, renderer=RENDERER, tools=[stock], limits=Limits(max_tokens=100_000, max_turns=6))
    made = App(agent, "recall", Token(TOKEN), RequestLimits(), **{"wait_s": 60.0, "at_once": 8, **app})
    await made.start()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = _server(made, 30.0)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=60) as client:
                yield Served(client, made, policy, url)
        finally:
            await made.close()
            server.should_exit = True
            await running


def calls(*made: tuple[str, dict[str, Any]]) -> str:
    return format_calls([ToolCall(name, arguments) for name, arguments in made])


async def test_tools_run_on_our_side_and_the_answer_comes_back() -> None:
    async with serving(calls(("stock", {"item": "pear"})), "There are \\boxed{3}") as served:
        answer = await served.ask({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Pears?"})
        assert [model.id async for model in served.client.models.list()] == ["recall"]
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("There are \\boxed{3}", "stop")
    told = answer.model_extra["recall"]
    assert (told["answer"], told["turns"], told["calls"][0]["status"]) == ("3", 2, "ok")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert served.policy.open_episodes == set()


async def test_a_stream_shows_the_work_and_ends_with_the_answer() -> None:
    async with serving(calls(("stock", {"item": "fig"})), "\\boxed{0}") as served:
        stream = await served.ask(stream=True, stream_options={"include_usage": True})
        pieces = [piece async for piece in stream]
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    assert "".join(delta.content or "" for delta in deltas) == "\\boxed{0}"
    work = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert "<tool_call>" in work
    told = [(piece.model_extra or {}).get("recall") for piece in pieces]
    assert [t["call"]["result"] for t in told if t and "call" in t] == ["0"]
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "stop"
    assert pieces[-1].usage.total_tokens > 0


async def test_a_callers_tool_is_handed_back_and_the_same_episode_goes_on() -> None:
    first = calls(("weather", {"city": "Bern"}), ("stock", {"item": "pear"}), ("weather", {"city": "Rome"}))
    async with serving(first, "Bern \\boxed{rain}") as served:
        user = {"role": "user", "content": "Weather?"}
        asked = await served.ask(user, tools=[WEATHER])
        choice = asked.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [
            {"city": "Bern"},
            {"city": "Rome"},
        ]
        assert len(served.policy.open_episodes) == 1  # it waits
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": text}
            for call, text in zip(choice.message.tool_calls, ("rain", "sun"), strict=True)
        ]
        answer = await served.ask(
            user, choice.message.model_dump(exclude_none=True), *reversed(results), tools=[WEATHER]
        )
    assert answer.choices[0].message.content == "Bern \\boxed{rain}"
    told = answer.model_extra["recall"]
    assert (told["turns"], [call["name"] for call in told["calls"]]) == (2, ["weather", "stock", "weather"])


def reads_history(prompt: str) -> Generator[str, str, None]:
    """Answers with what the history says the tool returned."""
    yield f"\\boxed{{{'rain' if 'it rains' in prompt and 'weather' in prompt else 'nothing'}}}"


async def test_a_conversation_that_is_not_known_is_read_from_its_messages() -> None:
    call = {"id": "call_x", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    async with serving(script=reads_history) as served:
        answer = await served.ask(
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_x", "content": "it rains"},
            tools=[WEATHER],
        )
    assert answer.choices[0].message.content == "\\boxed{rain}"


async def test_a_stream_hands_calls_back_too() -> None:
    async with serving(calls(("weather", {"city": "Bern"})), "\\boxed{x}") as served:
        pieces = [piece async for piece in await served.ask(tools=[WEATHER], stream=True)]
    made = [call for piece in pieces if piece.choices for call in piece.choices[0].delta.tool_calls or []]
    assert [(call.index, call.function.name) for call in made] == [(0, "weather")]
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


async def test_an_episode_whose_caller_does_not_come_back_is_given_up() -> None:
    async with serving(calls(("weather", {"city": "Bern"})), "", wait_s=0.1) as served:
        await served.ask(tools=[WEATHER])
        async with asyncio.timeout(30):
            while served.policy.open_episodes:  # noqa: ASYNC110 - the episode tells nobody
                await asyncio.sleep(0.05)
        assert served.app._conversations.given_up == 1


async def test_what_cannot_be_answered_is_refused_with_its_field() -> None:
    async with serving("\\boxed{x}") as served:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "content"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
            ({"temperature": -1}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"n": 2}, "n"),
            ({"extra_body": {"logit_bias": {}}}, "logit_bias"),
        ]
        for change, field in wrong:
            asked: dict[str, Any] = {"model": "recall", "messages": [{"role": "user", "content": "?"}], **change}
            with pytest.raises(openai.BadRequestError, match=field):
                await served.client.chat.completions.create(**asked)
        clash = {**WEATHER, "function": {**WEATHER["function"], "name": "stock"}}  # type: ignore[dict-item]
        with pytest.raises(openai.BadRequestError, match="two tools are named 'stock'"):
            await served.ask(tools=[clash])
        assert (await served.ask()).choices[0].message.content == "\\boxed{x}"


async def test_only_who_has_the_token_is_served() -> None:
    async with serving("x", token="another-token-than-that") as served:
        with pytest.raises(openai.AuthenticationError, match="bearer token"):
            await served.ask()


async def test_too_many_episodes_are_refused_for_the_moment() -> None:
    async with serving(calls(("weather", {"city": "Bern"})), "", at_once=1) as served:
        await served.ask(tools=[WEATHER])
        with pytest.raises(openai.RateLimitError, match="under way already"):
            await served.ask()


async def test_a_client_that_hangs_up_ends_its_episode() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        """Wait."""
        begun.set()
        await asyncio.sleep(60)

    async with serving(calls(("wait", {}))) as served:
        served.app._agent.sources = ReCall(policy=served.policy, renderer=RENDERER, tools=[wait]).sources
        asking = asyncio.create_task(served.ask())
        await begun.wait()
        asking.cancel()
        async with asyncio.timeout(30):
            while served.policy.open_episodes:  # noqa: ASYNC110 - the episode tells nobody
                await asyncio.sleep(0.05)


async def test_metrics_count_what_happened() -> None:
    import aiohttp

    async with serving(calls(("stock", {"item": "pear"})), "\\boxed{3}") as served:
        await served.ask()
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{served.url}/metrics") as response:
            page = await response.text()
    assert 'recall_agent_requests_total{code="200",endpoint="/v1/chat/completions"} 1.0' in page
    assert 'recall_agent_tool_calls_total{status="ok"} 1.0' in page
    assert "recall_agent_episodes 0.0" in page
