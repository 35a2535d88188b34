"""The client of a chat endpoint: what it remembers, when it asks again, what it spends; that the key stays secret."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_server import Fault, in_turn, serving
from recall.errors import ConfigError
from recall.synth.llm.budget import Budget
from recall.synth.llm.client import Ask, ChatClient, EndpointSettings, Replies
from recall.synth.llm.errors import EndpointError, RefusedError, SpentError


def question(text: str = "hello", *, seed: int = 0, max_tokens: int = 10) -> Ask:
    return Ask(({"role": "user", "content": text},), 0.5, max_tokens, seed)


def client_of(url: str, file: Path, budget: Budget | None = None, **settings: Any) -> ChatClient:
    endpoint = EndpointSettings(base_url=url, model="m", **settings)
    return ChatClient(endpoint, Replies(file), budget or Budget())


async def texts(client: ChatClient, asks: Sequence[Ask]) -> list[str]:
    try:
        return [(await client.ask(ask)).text for ask in asks]
    finally:
        await client.close()
        client._replies.close()


async def test_a_request_is_sent_once_in_one_run_and_over_runs(tmp_path: Path) -> None:
    async with serving(in_turn(["one", "two"])) as server:
        asks = [question(), question(), question(seed=1)]
        assert await texts(client_of(server.url, tmp_path / "r.jsonl"), asks) == ["one", "one", "two"]
        assert await texts(client_of(server.url, tmp_path / "r.jsonl"), asks) == ["one", "one", "two"]
        assert len(server.requests) == 2


async def test_the_same_request_twice_at_once_is_sent_once(tmp_path: Path) -> None:
    async with serving(in_turn(["one"])) as server:
        server.delay_s = 0.05
        client = client_of(server.url, tmp_path / "r.jsonl")
        replies = await asyncio.gather(*(client.ask(question()) for _ in range(3)))
        await client.close()
        assert [reply.text for reply in replies] == ["one"] * 3
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, b"slow down", {"Retry-After": "0"}),
        Fault(503, b"overloaded"),
        Fault(drop=True),
        Fault(200, b"not json"),
        Fault(200, b'{"choices": []}'),
    ],
    ids=["429", "503", "dropped", "not json", "no choice"],
)
async def test_what_may_pass_is_asked_again(tmp_path: Path, fault: Fault) -> None:
    async with serving(in_turn([fault, "fine"])) as server:
        assert await texts(client_of(server.url, tmp_path / "r.jsonl"), [question()]) == ["fine"]
        assert len(server.requests) == 2


async def test_an_endpoint_that_stays_down_is_a_failure_of_ours(tmp_path: Path) -> None:
    async with serving(lambda body: Fault(500, b"broken")) as server:
        with pytest.raises(EndpointError, match="2 attempts: status 500: broken"):
            await texts(client_of(server.url, tmp_path / "r.jsonl", attempts=2), [question()])


async def test_an_answer_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async with serving(in_turn([Fault(delay_s=5), "late"])) as server:
        assert await texts(client_of(server.url, tmp_path / "r.jsonl", timeout_s=0.3), [question()]) == ["late"]


async def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    async with serving(in_turn([Fault(400, b"the prompt is too long")])) as server:
        with pytest.raises(RefusedError, match="too long"):
            await texts(client_of(server.url, tmp_path / "r.jsonl"), [question()])


async def test_a_wrong_model_is_the_users_error(tmp_path: Path) -> None:
    async with serving(in_turn([Fault(404, b"no model m")])) as server:
        with pytest.raises(ConfigError, match=r"model 'm' there .*no model m"):
            await texts(client_of(server.url, tmp_path / "r.jsonl"), [question()])


async def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    async with serving(in_turn(["hi", Fault(401, b"wrong key sk-very-secret given")])) as server:
        client = client_of(server.url, tmp_path / "r.jsonl", api_key_env="MY_KEY")
        await client.ask(question())
        with pytest.raises(ConfigError, match="MY_KEY is not accepted: wrong key … given") as refusal:
            await client.ask(question("more"))
        await client.close()
        assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
        for text in (repr(client), repr(client.settings), str(refusal.value), (tmp_path / "r.jsonl").read_text()):
            assert "secret" not in text


async def test_no_key_is_sent_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with serving(in_turn(["hi", Fault(401, b"who are you")])) as server:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY is missing"):
            await texts(client_of(server.url, tmp_path / "r.jsonl"), [question(), question("more")])
        assert "Authorization" not in server.headers[0]


async def test_tokens_are_never_overdrawn(tmp_path: Path) -> None:
    async with serving(lambda body: "x" * 40) as server:
        budget = Budget(max_tokens=200)
        client = client_of(server.url, tmp_path / "r.jsonl", budget)
        asks = [question(seed=seed, max_tokens=20) for seed in range(50)]
        outcomes = await asyncio.gather(*map(client.ask, asks), return_exceptions=True)
        await client.close()
        spent = [outcome for outcome in outcomes if isinstance(outcome, SpentError)]
        assert 0 < len(spent) < 50
        assert budget.tokens == 11 * (50 - len(spent)) <= 200
        assert len(server.requests) == 50 - len(spent)


async def test_failed_requests_count_against_the_budget_of_requests(tmp_path: Path) -> None:
    async with serving(lambda body: Fault(503, b"", {"Retry-After": "0"})) as server:
        with pytest.raises(SpentError, match="3 of 3 requests"):
            await texts(client_of(server.url, tmp_path / "r.jsonl", Budget(max_requests=3)), [question()])
        assert len(server.requests) == 3


async def test_an_endpoint_that_counts_no_tokens_is_booked_by_an_estimate(tmp_path: Path) -> None:
    async with serving(lambda body: "x" * 300) as server:
        server.says_usage = False
        budget = Budget(max_tokens=10_000)
        await texts(client_of(server.url, tmp_path / "r.jsonl", budget), [question("y" * 300)])
        assert 200 <= budget.tokens < 250


async def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    async with serving(lambda body: "x") as server:
        server.delay_s = 0.02
        client = client_of(server.url, tmp_path / "r.jsonl", concurrency=3)
        await asyncio.gather(*(client.ask(question(seed=seed)) for seed in range(12)))
        await client.close()
        assert server.most_at_once == 3


async def test_a_torn_last_reply_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    async with serving(in_turn(["one", "two", "two again"])) as server:
        asks = [question("a"), question("b")]
        await texts(client_of(server.url, file), asks)
        file.write_bytes(file.read_bytes()[:-20])
        assert await texts(client_of(server.url, file), asks) == ["one", "two again"]


async def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    replies = Replies(tmp_path / "r.jsonl")
    with pytest.raises(ConfigError, match="another run writes it"):
        Replies(tmp_path / "r.jsonl")
    replies.close()


async def test_members_of_the_request_can_be_added_and_taken_out(tmp_path: Path) -> None:
    async with serving(in_turn(["one"])) as server:
        extra = {"seed": "none", "reasoning_effort": "low"}
        await texts(client_of(server.url, tmp_path / "r.jsonl", body=extra), [question()])
        assert server.requests[0]["reasoning_effort"] == "low"
        assert "seed" not in server.requests[0]


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://", "http://user:word@host/v1", "host/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"accepted|user and password"):
        EndpointSettings(base_url=url, model="m")
