"""The retriever service as its clients meet it: a real process, a real index, real sockets."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

for package in ("uvicorn", "httptools", "aiohttp", "prometheus_client", "bm25s", "Stemmer"):
    pytest.importorskip(package)

import requests  # noqa: E402

from recall.cli import main  # noqa: E402
from recall.errors import ConfigError  # noqa: E402
from recall.retriever.base import Passage  # noqa: E402
from recall.retriever.client import RemoteRetriever, open_client  # noqa: E402
from recall.retriever.open import open_retriever  # noqa: E402
from retriever_server import PLACES, ROWS, made_index, metric, place, serving, start  # noqa: E402
from sandbox_server import Answer, Server, below, wait_until_gone  # noqa: E402

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_index(tmp_path_factory.mktemp("retriever"))


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with serving(str(index)) as running:
        yield running


@pytest.fixture(scope="module")
def found_here(index: Path) -> Any:
    """What the index says without a server."""

    def find(query: str, k: int) -> list[Passage]:
        async def ask() -> list[Passage]:
            retriever = open_retriever(index)
            try:
                return (await retriever.search([query], k))[0]
            finally:
                await retriever.close()

        return asyncio.run(ask())

    return find


# --- the three dialects, asked as their projects ask


def published_search(url: str, query: str, top_n: int = 5) -> str:
    """As the published `wikipedia_search` tool does."""
    response = requests.post(f"{url}/search", json={"query": query, "top_n": top_n})
    text = ""
    for line in response.json():
        text += f"{line['contents']}\n\n"
    return text.strip()


def research_batch(url: str, queries: list[str], top_n: int = 5) -> list[str]:
    """As ReSearch's rollout does for the queries of a whole batch."""
    response = requests.post(f"{url}/batch_search", json={"query": queries, "top_n": top_n})
    return ["\n\n".join(line["contents"] for line in item).strip() for item in response.json()]


def flashrag_remote(url: str, path: str, query: Any, num: int = 5) -> tuple[Any, Any]:
    """As FlashRAG's remote retriever does: always with scores."""
    response = requests.post(f"{url}{path}", json={"query": query, "top_n": num, "return_score": True})
    results, scores = response.json()
    return results, scores


def search_r1(url: str, queries: list[str], topk: int = 3) -> list[str]:
    """As Search-R1's generation loop does."""
    payload = {"queries": queries, "topk": topk, "return_scores": True}
    texts = []
    for hits in requests.post(f"{url}/retrieve", json=payload).json()["result"]:
        reference = ""
        for number, hit in enumerate(hits):
            content = hit["document"]["contents"]
            title, *text = content.split("\n")
            reference += f"Doc {number + 1}(Title: {title}) {' '.join(text)}\n"
        texts.append(reference)
    return texts


def test_the_published_tool_works_unchanged(server: Server, found_here: Any) -> None:
    text = published_search(server.url, "Who designed the Analytical Engine?")
    passages = found_here("Who designed the Analytical Engine?", 5)
    assert text == "\n\n".join(passage.contents for passage in passages)
    assert text.startswith('"Charles Babbage"\n')


def test_a_batch_of_the_published_dialect_is_the_single_searches(server: Server) -> None:
    queries = ["radium on watches", "number17", "capital of Japan"]
    assert research_batch(server.url, queries) == [published_search(server.url, query) for query in queries]


def test_flashrags_remote_retriever_works_unchanged(server: Server, found_here: Any) -> None:
    passages = found_here("Nobel prizes for radium", 4)
    expected = [{"id": p.id, "contents": p.contents} for p in passages], [p.score for p in passages]
    assert flashrag_remote(server.url, "/search", "Nobel prizes for radium", 4) == expected
    documents, scores = flashrag_remote(server.url, "/batch_search", ["Nobel prizes for radium", "number3"], 4)
    assert (documents[0], scores[0]) == expected
    assert (documents[1][0]["id"], len(scores[1])) == (place(3), len(documents[1]))


def test_search_r1_works_unchanged(server: Server) -> None:
    first, second = search_r1(server.url, ["number5", "Vistula"], 1)
    assert first == 'Doc 1(Title: "Place 5") The mill number5 of district 0 traded in copper since 1505.\n'
    assert second.startswith('Doc 1(Title: "Kraków") ')


def test_search_r1_without_scores_answers_bare_documents(server: Server) -> None:
    answer = server.ask("POST", "/retrieve", {"queries": ["number5", "number6"], "topk": 1}).json
    assert [[hit["id"] for hit in hits] for hits in answer["result"]] == [[place(5)], [place(6)]]
    assert set(answer["result"][0][0]) == {"id", "contents"}


def test_what_is_left_out_is_ten_passages_and_three_of_search_r1s(server: Server) -> None:
    assert len(server.ask("POST", "/search", {"query": "harbour"}).json) == 10
    assert len(server.ask("POST", "/batch_search", {"query": ["harbour"]}).json[0]) == 10
    for topk in ({}, {"topk": None}, {"topk": 0}):
        assert len(server.ask("POST", "/retrieve", {"queries": ["harbour"], **topk}).json["result"][0]) == 3


def test_numbers_are_read_as_the_published_servers_read_them(server: Server) -> None:
    for written in (2, 2.0, "2"):
        assert len(server.ask("POST", "/search", {"query": "harbour", "top_n": written}).json) == 2


def test_health_has_the_published_form_and_says_what_is_served(server: Server, index: Path) -> None:
    health = server.ask("GET", "/health").json
    assert (health["status"], health["retrievers"]) == ("healthy", {"total": 1, "available": 1})
    card = open_retriever(index).card
    assert health["retriever"]["id"] == card.id
    assert health["retriever"]["passages"] == ROWS
    assert health["retriever"]["corpus_sha256"] == card.corpus_sha256
    assert server.ask("GET", "/healthz").json == {"status": "ok"}


# --- queries of every sort

ODD = [
    "東京", "Kraków university", "\uff46\uff55\uff4c\uff4c", "a\x00b", "\u2028\u200b", "🦊" * 50, "\ud800 half",
    "'; DROP TABLE", "<search>", "number9 " * 2, "x" * 5000, "harbour mill tower " * 263,
]  # fmt: skip


@pytest.mark.parametrize("query", ODD, ids=ascii)
def test_any_text_is_a_query(server: Server, found_here: Any, query: str) -> None:
    answer = server.ask("POST", "/search", {"query": query, "top_n": 7})
    assert answer.status == 200
    assert [hit["id"] for hit in answer.json] == [passage.id for passage in found_here(query, 7)]


@pytest.mark.parametrize("query", ["", " ", "\n\t\r", "\u3000\u00a0"], ids=ascii)
def test_an_empty_query_is_a_400_alone_and_finds_nothing_among_others(server: Server, query: str) -> None:
    answer = server.ask("POST", "/search", {"query": query})
    assert (answer.status, answer.json) == (400, {"detail": "query: it is empty"})
    many = server.ask("POST", "/batch_search", {"query": [query, "number1"], "return_score": True}).json
    assert (many[0][0], many[1][0], many[0][1][0]["id"]) == ([], [], place(1))
    assert server.ask("POST", "/retrieve", {"queries": [query]}).json == {"result": [[]]}


def test_no_queries_have_no_answers(server: Server) -> None:
    assert server.ask("POST", "/batch_search", {"query": []}).json == []
    assert server.ask("POST", "/batch_search", {"query": [], "return_score": True}).json == [[], []]
    assert server.ask("POST", "/retrieve", {"queries": []}).json == {"result": []}


def test_ten_thousand_queries_in_one_request(server: Server) -> None:
    asked = [number * 7 % PLACES for number in range(10_000)]
    answer = server.ask("POST", "/batch_search", {"query": [f"number{n}" for n in asked], "top_n": 1}, timeout_s=250)
    assert [hits[0]["id"] for hits in answer.json] == [place(number) for number in asked]


def test_more_passages_than_there_are_is_all_that_fit(server: Server, found_here: Any) -> None:
    for k in (ROWS, ROWS + 1, 10**6, 10**30):
        answer = server.ask("POST", "/search", {"query": "district", "top_n": k})
        assert len(answer.json) == PLACES
    assert len(found_here("district", ROWS)) == PLACES


# --- what is refused, in one line

BAD = [
    ("/search", b"", 422, "not JSON"),
    ("/search", b"{", 422, "not JSON"),
    ("/search", b"\xff\xfe", 422, "not JSON"),
    ("/search", b"[" * 100_000, 422, "not JSON"),
    ("/search", [], 422, "object"),
    ("/search", {}, 422, "query: it is missing"),
    ("/search", {"query": None}, 422, "query: it should be a string"),
    ("/search", {"query": ["a"]}, 422, "query: it should be a string"),
    ("/search", {"query": "a", "top_k": 3}, 422, "top_k: no such field"),
    ("/search", {"query": "a", "top_n": 0}, 422, "top_n: it should be at least 1"),
    ("/search", {"query": "a", "top_n": -5}, 422, "top_n: it should be at least 1"),
    ("/search", {"query": "a", "top_n": None}, 422, "top_n: it should be an integer"),
    ("/search", {"query": "a", "top_n": True}, 422, "top_n: it should be an integer"),
    ("/search", {"query": "a", "top_n": 1.5}, 422, "top_n: it should be an integer"),
    ("/search", {"query": "a", "top_n": "many"}, 422, "top_n: it should be an integer"),
    ("/search", {"query": "a", "return_score": 1}, 422, "return_score: it should be true or false"),
    ("/batch_search", {"query": "a"}, 422, "query: it should be an array of strings"),
    ("/batch_search", {"query": ["a", 3]}, 422, "query[1]: it should be a string"),
    ("/batch_search", {"query": ["a"] * 16_385}, 413, "query: there are 16385"),
    ("/retrieve", {"query": ["a"]}, 422, "query: no such field"),
    ("/retrieve", {"queries": "a"}, 422, "queries: it should be an array of strings"),
    ("/retrieve", {"queries": ["a"], "topk": -1}, 422, "topk: it should be at least 1"),
    ("/retrieve", {"queries": ["a"], "topk": False}, 422, "topk: it should be an integer"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), BAD, ids=range(len(BAD)))
def test_a_body_that_cannot_be_meant_is_a_line(server: Server, path: str, body: Any, status: int, said: str) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status == status
    assert said in answer.json["detail"]
    assert "\n" not in answer.json["detail"]


def test_wrong_addresses_and_methods(server: Server) -> None:
    assert server.ask("POST", "/searches", {}).status == 404
    assert server.ask("GET", "/search").status == 405
    assert server.ask("POST", "/health", {}).status == 405
    assert server.ask("GET", "/health", headers={"origin": "http://evil.example"}).status == 403


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["query", "queries", "top_n", "topk", "return_score", "return_scores", "other"])
BODIES = (
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(NAMES, VALUES, max_size=4).map(lambda value: json.dumps(value).encode())
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/search", "/batch_search", "/retrieve", "/%ff"]), body=BODIES)
def test_no_body_is_our_fault(server: Server, path: str, body: bytes) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status in (200, 400, 404, 413, 422), answer


def test_a_body_that_is_too_large_is_answered(index: Path) -> None:
    with serving(str(index), "--max-body-mb", "1") as server:
        answer = server.ask("POST", "/search", b"x" * (3 << 20))
        assert answer.status == 413
        assert server.ask("POST", "/search", {"query": "number1"}).status == 200


# --- many at once, overload, and the end


async def test_sixty_four_clients_at_once_each_get_their_own_answer(server: Server) -> None:
    retriever = RemoteRetriever(server.url)

    async def client(number: int) -> None:
        chance = random.Random(number)
        for _ in range(20):
            asked = chance.sample(range(PLACES), chance.choice([1, 1, 3]))
            found = await retriever.search([f"number{n}" for n in asked], 2)
            assert [passages[0].id for passages in found] == [place(n) for n in asked]

    before = (
        metric(server, "recall_retriever_search_queries_count"),
        metric(server, "recall_retriever_search_queries_sum"),
    )
    await asyncio.gather(*map(client, range(64)))
    await retriever.close()
    searches = metric(server, "recall_retriever_search_queries_count") - before[0]
    queries = metric(server, "recall_retriever_search_queries_sum") - before[1]
    assert queries <= PLACES
    assert queries >= searches


def test_a_query_asked_before_is_not_searched_again(index: Path) -> None:
    with serving(str(index)) as server:
        answers = [server.ask("POST", "/search", {"query": "number1", "top_n": 2}).body for _ in range(3)]
        assert len(set(answers)) == 1
        assert metric(server, 'recall_retriever_queries_total{how="searched"}') == 1
        assert metric(server, 'recall_retriever_queries_total{how="cached"}') == 2
        assert metric(server, 'recall_retriever_requests_total{code="200",endpoint="search"}') == 3


def test_more_than_may_wait_is_a_503_that_says_when_to_come_back(index: Path) -> None:
    flags = "--max-queue", "20", "--cache-mb", "0"
    with serving(str(index), *flags) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = [f"number{n % PLACES} mill {n}" for n in range(10_000)]
        large = pool.submit(server.ask, "POST", "/batch_search", {"query": asked, "top_n": 1}, timeout_s=250)
        refusals: list[Answer] = []
        while not large.done() and not refusals:
            answer = server.ask("POST", "/search", {"query": "number1"})
            refusals += [answer] if answer.status != 200 else []
        assert [answer.status for answer in refusals] == [503]
        assert int(refusals[0].headers["retry-after"]) >= 1
        assert "waiting" in refusals[0].json["detail"]
        assert len(large.result().json) == 10_000
        assert server.ask("POST", "/search", {"query": "number1"}).status == 200


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_server_that_is_killed_and_started_again_costs_its_clients_time_and_nothing_else(index: Path) -> None:
    port = free_port()
    retriever = RemoteRetriever(f"http://127.0.0.1:{port}", patience_s=120)
    stop = asyncio.Event()
    answers = [0, 0]

    async def client(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            n = chance.randrange(PLACES)
            ((first, *_),) = await retriever.search([f"number{n}"], 2)
            assert first.id == place(n)
            answers[0] += 1

    server = await asyncio.to_thread(start, str(index), port=port)
    clients = asyncio.gather(*map(client, range(64)))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    answers[1] = answers[0]
    assert server.process.stdout is not None
    server.process.stdout.close()
    server = await asyncio.to_thread(start, str(index), port=port)
    try:
        await asyncio.sleep(3)
        stop.set()
        async with asyncio.timeout(120):
            await clients
        assert answers[0] - answers[1] > 64
    finally:
        await retriever.close()
        await asyncio.to_thread(server.stop)
        server.process.stdout.close()  # type: ignore[union-attr]


def test_a_server_that_is_told_to_stop_lets_requests_finish(index: Path) -> None:
    with (
        serving(str(index), "--cache-mb", "0", "--grace-s", "250") as server,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        asked = [f"number{n % PLACES} mill {n}" for n in range(10_000)]
        large = pool.submit(server.ask, "POST", "/batch_search", {"query": asked, "top_n": 1}, timeout_s=250)
        while metric(server, "recall_retriever_queries_waiting") == 0 and not large.done():
            time.sleep(0.01)
        assert server.stop(timeout_s=250) == 0
        assert [hits[0]["id"] for hits in large.result().json][:3] == [place(0), place(1), place(2)]


def test_workers_share_the_work_and_one_that_dies_is_replaced(index: Path) -> None:
    with serving(str(index), "--workers", "2", "--cache-mb", "0") as server:
        assert server.ask("GET", "/health").json["retrievers"] == {"total": 2, "available": 2}
        workers = {
            pid for pid in below(server.process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        }
        assert len(workers) == 2
        asked = [f"number{n}" for n in range(PLACES)]
        expected = [place(n) for n in range(PLACES)]
        for round in range(2):
            found = asyncio.run(_all(RemoteRetriever(server.url, batch=50), asked))
            assert [passages[0].id for passages in found] == expected
            if round == 0:
                os.kill(min(workers), signal.SIGKILL)
        assert server.stop() == 0
        assert wait_until_gone(workers) == set()


async def _all(retriever: RemoteRetriever, queries: list[str]) -> list[list[Passage]]:
    try:
        return await retriever.search(queries, 1)
    finally:
        await retriever.close()


def test_workers_end_with_a_server_that_is_killed(index: Path) -> None:
    with serving(str(index), "--workers", "2") as server:
        workers = below(server.process.pid)
        server.stop(signal.SIGKILL)
        assert wait_until_gone(workers) == set()


def test_a_client_that_hangs_up_takes_its_queries_along(index: Path) -> None:
    with serving(str(index), "--cache-mb", "0") as server:
        asked = [f"number{n % PLACES} mill {n}" for n in range(15_000)]
        connection = http.client.HTTPConnection(*server.address, timeout=60)
        connection.request("POST", "/batch_search", json.dumps({"query": asked}).encode())
        while metric(server, "recall_retriever_queries_waiting") == 0:
            time.sleep(0.01)
        connection.close()
        deadline = time.monotonic() + 20
        while metric(server, "recall_retriever_queries_waiting") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert metric(server, "recall_retriever_queries_waiting") == 0
        assert metric(server, 'recall_retriever_queries_total{how="searched"}') < 15_000


# --- who may ask, and what does not start


def test_a_token_is_needed_for_everything_but_a_sign_of_life(index: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with serving(str(index), "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")) as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        assert requests.post(f"{url}/search", json={"query": "number1"}).status_code == 401
        assert requests.get(f"{url}/metrics").status_code == 401
        assert requests.get(f"{url}/healthz").status_code == 200
        with_token = {"authorization": f"Bearer {TOKEN}"}
        assert requests.post(f"{url}/search", json={"query": "number1"}, headers=with_token).status_code == 200
        named = url.replace("//", f"//any:{TOKEN}@")
        assert published_search(named, "number1", 1).startswith('"Place 1"')
        with pytest.raises(ConfigError, match="HTTP 401"):
            open_client(url)
        retriever = open_client(named)
        assert retriever.card.passages == ROWS
        assert TOKEN not in repr(vars(retriever)["_card"])
        ((first,),) = asyncio.run(_once(retriever, "number2"))
        assert first.id == place(2)


async def _once(retriever: Any, query: str) -> Any:
    try:
        return await retriever.search([query], 1)
    finally:
        await retriever.close()


def test_the_card_of_a_remote_index_is_the_indexs_own(server: Server, index: Path) -> None:
    assert open_client(server.url).card == open_retriever(index).card
    assert open_client(f"{server.url}/retrieve").card == open_retriever(index).card


@pytest.mark.parametrize("dialect", ["recall", "flashrag", "search-r1"])
async def test_every_dialect_finds_what_the_index_finds(server: Server, found_here: Any, dialect: str) -> None:
    retriever = RemoteRetriever(server.url, dialect=dialect)
    queries = ["number7", "", "Who discovered polonium?", "number7", "\ud800"]
    several = await retriever.search(queries, 3)
    one = await retriever.search(queries[2:3], 3)
    await retriever.close()
    expected = [await asyncio.to_thread(found_here, query, 3) if query else [] for query in queries]
    assert several == expected
    assert one == expected[2:3]


def test_what_cannot_be_served_is_one_line(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> tuple[int, str]:
        return main(["retriever", "serve", "--port", "0", *arguments]), capsys.readouterr().err

    (tmp_path / "short").write_text("short\n")
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for flags, said in (
            (("--host", "0.0.0.0"), "--host 0.0.0.0: other machines could reach it"),
            (("--host", "nowhere.invalid"), "no such address"),
            (("--port", port), f"cannot listen on 127.0.0.1:{port}"),
            (("--token-file", str(tmp_path / "short")), "a token is one word"),
            (("--token-file", str(tmp_path / "none")), "cannot be read"),
        ):
            status, line = refused(str(index), *flags)
            assert (status, said in line, line.count("\n")) == (2, True, 1), line
    for arguments, said in (
        ((), "give one of an index directory"),
        ((str(index), "--config", str(tmp_path / "c.yaml")), "give one of"),
        ((str(tmp_path),), "no index"),
        ((str(index), "--open.kind", "flat"), "has no flat index"),
    ):
        status, line = refused(*arguments)
        assert (status, said in line, line.count("\n")) == (2, True, 1), line


def test_what_is_asked_is_never_logged(index: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(str(index), log=log) as server:
        server.ask("POST", "/search", {"query": "s3cr3t"})
        server.ask("POST", "/search", b"s3cr3t")
        server.ask("GET", "/s3cr3t")
    assert "s3cr3t" not in log.read_text()
