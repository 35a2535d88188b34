"""Clients of retrieval servers that fail in every way, and the service before it is ready."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvicorn")

from recall.errors import ConfigError, RetrieverBusy, RetrieverError
from recall.retriever.base import Card, Passage, Retriever
from recall.retriever.client import RemoteRetriever, open_client
from recall.retriever.fixed import FixedRetriever
from recall.retriever.service.app import App
from recall.retriever.service.batcher import BatchLimits
from recall.retriever.service.dialects import BodyLimits
from recall.retriever.service.service import Service
from recall.serving.requests import RequestLimits

Answer = tuple[int, Any]
FOUND: Any = [[{"id": "d1", "contents": '"T"\ntext'}], [2.5]]
PASSAGES = [[Passage("d1", '"T"\ntext', 2.5)]]


class Scripted(http.server.ThreadingHTTPServer):
    """Gives its answers one after another, the last one for ever, and knows what it was asked."""

    def __init__(self, answers: Sequence[Answer], headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.headers = list(answers), headers
        self.asked: list[tuple[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, json.loads(body)))
        self._answer()

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self._answer()

    def _answer(self) -> None:
        answers = self.server.answers
        status, value = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:  # hang up
            self.close_connection = True
            return
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in self.server.headers.items():
            self.send_header(name, text)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def scripted(*answers: Answer, **headers: str) -> Iterator[Scripted]:
    with Scripted(answers, headers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


async def ask(retriever: Retriever, *queries: str, k: int = 1) -> list[list[Passage]]:
    try:
        return await retriever.search(queries, k)
    finally:
        await retriever.close()


async def test_what_each_dialect_sends() -> None:
    two = [[FOUND[0]] * 2, [FOUND[1]] * 2]
    result = {"result": [[{"document": FOUND[0][0], "score": 2.5}]] * 2}
    for dialect, one, many in (("recall", FOUND, two), ("flashrag", FOUND, two)):
        with scripted((200, one), (200, many)) as server:
            retriever = RemoteRetriever(server.url, dialect=dialect)
            assert await retriever.search(["a"], 3) == PASSAGES
            assert await ask(retriever, "a", "b", k=3) == PASSAGES * 2
            assert server.asked == [
                ("/search", {"query": "a", "top_n": 3, "return_score": True}),
                ("/batch_search", {"query": ["a", "b"], "top_n": 3, "return_score": True}),
            ]
    with scripted((200, result)) as server:
        assert await ask(RemoteRetriever(server.url, dialect="search-r1"), "a", "b") == PASSAGES * 2
        assert server.asked == [("/retrieve", {"queries": ["a", "b"], "topk": 1, "return_scores": True})]


async def test_blank_queries_are_not_sent_and_equal_ones_once() -> None:
    with scripted((200, FOUND)) as server:
        retriever = RemoteRetriever(server.url)
        assert await retriever.search(["", " \n"], 1) == [[], []]
        assert await ask(retriever, "a", "", "a") == [PASSAGES[0], [], PASSAGES[0]]
        assert len(server.asked) == 1


async def test_many_queries_go_in_parts_and_come_back_in_order() -> None:
    fixed = FixedRetriever({str(n): [Passage(str(n), "c")] for n in range(1000)})
    with serving_app(fixed) as url:
        found = await ask(RemoteRetriever(url, batch=64), *map(str, range(1000)))
    assert [passages[0].id for passages in found] == [str(n) for n in range(1000)]


@pytest.mark.parametrize(
    "trouble", [(503, {"detail": "full"}), (429, b"slow down"), (500, b"oops"), (502, b"<html>"), (0, None)], ids=str
)
async def test_trouble_that_passes_is_waited_out(trouble: Answer) -> None:
    with scripted(trouble, trouble, (200, FOUND)) as server:
        assert await ask(RemoteRetriever(server.url), "a") == PASSAGES
        assert len(server.asked) == 3


async def test_a_server_without_room_is_busy_when_patience_ends() -> None:
    with scripted((503, {"detail": "full"}), **{"retry-after": "7"}) as server:
        with pytest.raises(RetrieverBusy, match="full") as refusal:
            await ask(RemoteRetriever(server.url, patience_s=0.5), "a")
        assert refusal.value.retry_after_s == 7


async def test_a_server_that_keeps_failing_is_ours() -> None:
    with scripted((500, {"detail": "boom"})) as server:
        with pytest.raises(RetrieverError, match=r"boom \(HTTP 500\)"):
            await ask(RemoteRetriever(server.url), "a")
        assert len(server.asked) == 3


async def test_nobody_there_is_ours_after_patience_and_no_longer() -> None:
    with nobody() as url:
        began = asyncio.get_running_loop().time()
        with pytest.raises(RetrieverError, match="cannot be reached"):
            await ask(RemoteRetriever(url, patience_s=0.5), "a")
        assert asyncio.get_running_loop().time() - began < 10
        with pytest.raises(RetrieverError, match="cannot be reached"):
            open_client(url)


async def test_another_server_is_asked_where_one_is_gone() -> None:
    with nobody() as gone, scripted((200, FOUND)) as server:
        retriever = RemoteRetriever([gone, server.url], patience_s=0.0)
        for _ in range(4):
            assert await retriever.search(["a"], 1) == PASSAGES
        await retriever.close()


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(RetrieverError, match="no answer in time"):
            await ask(RemoteRetriever(url, timeout_s=0.2, patience_s=0.0), "a")


GARBAGE: list[Any] = [
    b"", b"<html>", [], {}, None, [[], [], []], [[{"id": "x"}], [1.0]], [[{"contents": 3}], [1.0]], [["a"], [1.0]],
    [[{"contents": "c"}], []], [[{"contents": "c"}], ["high"]], {"result": [[]]}, b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
async def test_an_answer_of_another_form_is_ours(answer: Any) -> None:
    with scripted((200, answer)) as server, pytest.raises(RetrieverError, match=r"127\.0\.0\.1"):
        await ask(RemoteRetriever(server.url), "a")


async def test_too_few_answers_are_ours() -> None:
    with scripted((200, {"result": [[]]})) as server, pytest.raises(RetrieverError, match="1 answers to 2 queries"):
        await ask(RemoteRetriever(server.url, dialect="search-r1"), "a", "b")


async def test_documents_of_other_servers_are_read() -> None:
    documents = [
        {"title": "T", "text": "x", "contents": '"T"\nx'},
        {"title": "T", "text": "x"},
        {"id": 7, "contents": ""},
    ]
    with scripted((200, [documents, [3, 2.0, 1]])) as server:
        found = await ask(RemoteRetriever(server.url), "a", k=3)
    assert found == [[Passage("", '"T"\nx', 3.0), Passage("", '"T"\nx', 2.0), Passage("7", "", 1.0)]]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_wrong_address_or_token_is_the_users(status: int) -> None:
    with scripted((status, {"detail": "no"})) as server, pytest.raises(ConfigError, match=f"HTTP {status}"):
        await ask(RemoteRetriever(server.url), "a")


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host", "http://", "http://host?x=1"])
def test_what_is_no_address_is_the_users(url: str) -> None:
    with pytest.raises(ConfigError):
        RemoteRetriever(url)


def test_a_dialect_that_is_none_is_the_users() -> None:
    with pytest.raises(ConfigError, match="accepted: recall, flashrag, search-r1"):
        RemoteRetriever("http://host", dialect="solr")
    with pytest.raises(ConfigError):
        RemoteRetriever(["http://host", "http://host"])


async def test_k_is_at_least_one_and_a_closed_retriever_is_closed() -> None:
    retriever = RemoteRetriever("http://host")
    with pytest.raises(ValueError, match="k is 0"):
        await retriever.search(["a"], 0)
    await retriever.close()
    with pytest.raises(RetrieverError, match="closed"):
        await retriever.search(["a"], 1)


def test_a_server_that_does_not_say_what_it_is_has_its_address_for_a_card() -> None:
    with scripted((404, {"detail": "Not Found"})) as server:
        assert open_client(f"{server.url}/retrieve").card == Card(server.url.removeprefix("http://"), "search-r1", 0)
    with scripted((200, {"status": "healthy", "retrievers": {"total": 1, "available": 1}})) as server:
        assert open_client(server.url).card.kind == "recall"
        assert server.asked[0][0] == "/health"


def test_the_token_of_the_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_RETRIEVER_TOKEN", "a-token-of-some-length")
    with scripted((200, {})) as server:
        open_client(server.url)
        assert server.asked[0][1]["Authorization"] == "Bearer a-token-of-some-length"


# --- the service, apart from its process


async def request(app: App, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def made(opener: Any) -> tuple[Service, App]:
    service = Service(opener, limits=BatchLimits(), cache_bytes=0)
    return service, App(service, None, RequestLimits(), BodyLimits())


async def test_nothing_is_served_before_a_query_was_answered_or_after_the_end() -> None:
    opened, warmed = threading.Event(), asyncio.Event()

    class Warming(FixedRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            await warmed.wait()
            return await super().search(queries, k)

    retriever = Warming({}, otherwise=[Passage("1", "c")])

    def opener() -> Warming:
        opened.wait(60)
        return retriever

    service, app = made(opener)
    starting = asyncio.create_task(service.start())
    asked = b'{"query": "a"}'
    for step in (opened, warmed):
        await asyncio.sleep(0.05)
        assert (await request(app, "GET", "/health"))[1]["status"] == "starting"
        assert (await request(app, "POST", "/search", asked))[0] == 503
        assert (await request(app, "GET", "/healthz"))[0] == 200
        step.set()
    assert "1 passages" in await starting
    assert (await request(app, "POST", "/search", asked)) == (200, [{"id": "1", "contents": "c"}])
    assert (await request(app, "GET", "/health"))[0] == 200
    service.drain()
    assert (await request(app, "GET", "/health"))[1]["status"] == "stopping"
    assert (await request(app, "POST", "/search", asked))[0] == 503
    await service.close()
    assert retriever.closed


async def test_a_retriever_that_fails_is_a_500_and_a_bug_is_one_too(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FixedRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            if queries == ["bug"]:
                raise ZeroDivisionError("secret")
            if queries == ["down"]:
                raise RetrieverError("the engine is down")
            return await super().search(queries, k)

    service, app = made(lambda: Failing({}))
    await service.start()
    assert await request(app, "POST", "/search", b'{"query": "down"}') == (500, {"detail": "the engine is down"})
    status, body = await request(app, "POST", "/search", b'{"query": "bug"}')
    assert (status, body) == (500, {"detail": "internal error: ZeroDivisionError"})
    assert "ZeroDivisionError at test_retriever_client.py" in caplog.text
    assert "secret" not in caplog.text
    await service.close()


async def test_an_index_that_does_not_open_ends_the_start() -> None:
    def opener() -> FixedRetriever:
        raise ConfigError("no index")

    service, _ = made(opener)
    with pytest.raises(ConfigError, match="no index"):
        await service.start()
    await service.close()


@contextmanager
def serving_app(retriever: FixedRetriever) -> Iterator[str]:
    """The service in a thread of this process."""
    import socket

    import uvicorn

    service, app = made(lambda: retriever)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))

    async def run() -> None:
        await service.start()
        await server.serve(sockets=[listener])
        await service.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
