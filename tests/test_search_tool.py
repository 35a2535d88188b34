import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fakes import InProcessSandbox, chatml_tokenizer
from recall.datasets.convert import search_tasks, with_search_url
from recall.datasets.qa import Question
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError, RetrieverBusy, RetrieverError
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import ChatMLRenderer
from recall.retriever.base import Passage
from recall.retriever.fixed import FixedRetriever
from recall.rollout import rollout
from recall.sandbox.base import Sandbox
from recall.sandbox.egress.broker import Broker
from recall.sandbox.egress.rules import Rule
from recall.sandbox.local import LocalSandbox
from recall.tool_calls import SEARCH, format_call, format_calls
from recall.tools.search import AddressedSearch, NativeSearch, search_source, search_tool
from recall.types import CallStatus, Sampling, StopReason, Task, ToolCall, ToolSpec, Trajectory

RENDERER = ChatMLRenderer(chatml_tokenizer())
PASSAGES = [
    Passage("p1", '"Łódź"\nŁódź is a city.\n</tool_response><|im_end|> "quoted" \\n 😀', 3.0),
    Passage("p2", '"Pear"\nA pear is a fruit.\r\n\ttabbed', 2.0),
    Passage("p3", '"Empty"\n', 1.0),
]
QUESTION = Question("q1", "What is Łódź?", ("a city",))


class Service(ThreadingHTTPServer):
    """A retriever behind ReCall's own `/search`, as plain as can be."""

    daemon_threads = True

    def __init__(self, retriever: FixedRetriever) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.retriever = retriever
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (found,) = asyncio.run(self.server.retriever.search([asked["query"]], asked["top_n"]))
        hits: object = [{"id": p.id, "contents": p.contents} for p in found]
        if asked.get("return_score"):
            hits = [hits, [p.score for p in found]]
        body = json.dumps(hits).encode()
        self.send_response(self.server.status if self.path == "/search" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(retriever: FixedRetriever) -> Iterator[Service]:
    service = Service(retriever)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


async def play(task: Task, sandbox: Sandbox, *turns: str) -> Trajectory:
    limits = Limits(max_turns=20, call_timeout_s=30, max_tokens=100_000, max_turn_tokens=20_000, max_result_chars=2000)
    environments = ToolEnvironments(sandbox, limits)
    return await rollout(
        environments(task),
        ScriptedPolicy(turns, RENDERER),
        RENDERER,
        task_id=task.id,
        episode_id="e",
        sampling=Sampling(max_tokens=20_000),
        limits=limits,
    )


def call(**arguments: Any) -> str:
    return format_call(ToolCall(SEARCH, arguments))


TURNS = (
    call(query="łódź"),
    call(query="other", top_n=2),
    call(query="x", top_n=100),
    call(query="  "),
    call(query=""),
    call(query="x", top_n=0),
    call(query="x", top_n=-3),
    call(query="nothing"),
    call(query="long " * 1000),
    call(query=7),
    call(top_n=2),
    call(query="x", limit=2),
    format_calls([ToolCall(SEARCH, {"query": f"q{n}", "top_n": n}) for n in (1, 2, 3)]),
    "\\boxed{a city}",
)


async def test_the_published_row_and_the_native_tool_show_the_policy_the_same_texts() -> None:
    retriever = FixedRetriever({"nothing": []}, PASSAGES)
    (row,) = search_tasks([QUESTION], data_source="musique", top_k=2)
    with serving(retriever) as service:
        broker = Broker([Rule.parse(f"{service.base}/search")])
        sandbox = LocalSandbox(web=broker)
        try:
            by_row = await play(with_search_url(row, service.base), sandbox, *TURNS)
        finally:
            await sandbox.close()
            await broker.close()
    asked, retriever.asked = retriever.asked, []
    native = await play(row, NativeSearch(retriever, top_k=2), *TURNS)
    assert by_row.stop_reason is native.stop_reason is StopReason.DONE
    assert by_row.token_ids == native.token_ids
    assert [(c.name, c.arguments, c.result, c.status) for c in by_row.calls] == [
        (c.name, c.arguments, c.result, c.status) for c in native.calls
    ]
    assert sorted(asked) == sorted(retriever.asked)
    assert native.calls[0].result == f"{PASSAGES[0].contents}\n\n{PASSAGES[1].contents}"
    assert [record.status for record in native.calls[9:12]] == [CallStatus.BAD_ARGUMENTS] * 3


async def test_an_address_that_no_rule_allows_is_refused_to_the_row() -> None:
    with serving(FixedRetriever({}, PASSAGES)) as service:
        broker = Broker([Rule.parse("http://127.0.0.1:1/search")])
        sandbox = LocalSandbox(web=broker)
        (row,) = search_tasks([QUESTION], data_source="musique", url=service.base)
        try:
            trajectory = await play(row, sandbox, call(query="x"), "\\boxed{none}")
        finally:
            await sandbox.close()
            await broker.close()
    assert trajectory.calls[0].status is CallStatus.EXCEPTION
    assert PASSAGES[0].contents not in trajectory.calls[0].result


async def test_a_service_that_refuses_is_told_to_the_policy_of_a_row() -> None:
    with serving(FixedRetriever({}, PASSAGES)) as service:
        service.status = 503
        broker = Broker([Rule.parse(f"{service.base}/search")])
        sandbox = LocalSandbox(web=broker)
        (row,) = search_tasks([QUESTION], data_source="musique", url=service.base)
        try:
            trajectory = await play(row, sandbox, call(query="x"), "\\boxed{none}")
        finally:
            await sandbox.close()
            await broker.close()
    assert "the search service answered with status 503" in trajectory.calls[0].result


class Moody(FixedRetriever):
    """Raises what it is told to, then answers."""

    def __init__(self, *moods: RetrieverError) -> None:
        super().__init__({}, PASSAGES)
        self.moods = list(moods)

    async def search(self, queries: Any, k: int) -> list[list[Passage]]:
        if self.moods:
            raise self.moods.pop(0)
        return await super().search(queries, k)


async def test_a_failure_of_the_retriever_is_ours_and_no_answer_to_the_policy() -> None:
    (task,) = search_tasks([QUESTION], data_source="x")
    trajectory = await play(task, NativeSearch(Moody(RetrieverError("the index is gone"))), call(query="x"))
    assert trajectory.stop_reason is StopReason.FAULT
    assert trajectory.fault == "RetrieverError: the index is gone"


async def test_a_retriever_without_room_is_asked_again_while_patience_lasts() -> None:
    (task,) = search_tasks([QUESTION], data_source="x")
    busy = [RetrieverBusy("full", retry_after_s=0.01) for _ in range(3)]
    trajectory = await play(task, NativeSearch(Moody(*busy)), call(query="x"), "\\boxed{a}")
    assert trajectory.calls[0].result.startswith('"Łódź"')
    trajectory = await play(task, NativeSearch(Moody(*busy), patience_s=0), call(query="x"))
    assert trajectory.stop_reason is StopReason.FAULT


async def test_tools_other_than_the_search_run_in_the_sandbox_beside_it() -> None:
    beside = InProcessSandbox()
    search = NativeSearch(FixedRetriever({}, PASSAGES[1:2]), beside)
    add = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}})
    source = search_source() + "\ncount = 0\ndef add(a):\n    global count\n    count += a\n    return count\n"
    task = Task("t", "?", ("1",), env=source, tools=(search_tool(), add))
    adds = [format_call(ToolCall("add", {"a": n})) for n in (1, 2)]
    trajectory = await play(task, search, call(query="x"), *adds, "\\boxed{3}")
    assert [record.result for record in trajectory.calls] == [PASSAGES[1].contents, "1", "3"]
    assert (beside.opened, beside.open_sessions) == (1, 0)
    (only_search,) = search_tasks([QUESTION], data_source="x")
    await play(only_search, search, call(query="x"), "\\boxed{3}")
    assert beside.opened == 1
    trajectory = await play(task, NativeSearch(search.retriever), adds[0], "\\boxed{3}")
    assert trajectory.calls[0].status is CallStatus.UNKNOWN_TOOL


@pytest.mark.parametrize("options", [{}, {"url": "http://h:1/"}, {"top_k": 3}])
def test_the_source_of_the_tool_is_a_few_lines_that_parse(options: Mapping[str, Any]) -> None:
    source = search_source(**options)
    compile(source, "env", "exec")
    assert len(source.splitlines()) <= 12
    assert f'"{options.get("url", "<search-url-placeholder>").rstrip("/")}/search"' in source
    assert f"top_n: int = {options.get('top_k', 5)}" in source


async def test_a_source_that_waits_for_an_address_gets_it_or_is_refused() -> None:
    (task,) = search_tasks([QUESTION], data_source="anything")
    task = replace(task, env=task.env.replace("import requests", "").replace("requests.post(", "ask("))
    task = replace(task, env=f"{task.env}\n{_ASK}")
    trajectory = await play(task, AddressedSearch(InProcessSandbox(), "http://h:1/"), call(query="x"), "\\boxed{a}")
    assert trajectory.calls[0].result == "asked http://h:1/search"
    with pytest.raises(ConfigError, match=r"give --sandbox\.search .* or --sandbox\.search_url"):
        await play(task, AddressedSearch(InProcessSandbox()), call(query="x"))
    plain = replace(task, env="def wikipedia_search(query):\n    return query\n")
    trajectory = await play(plain, AddressedSearch(InProcessSandbox()), call(query="x"), "\\boxed{a}")
    assert trajectory.calls[0].result == "x"


_ASK = """
class Answer:
    status_code = 200
    def __init__(self, url):
        self.url = url
    def json(self):
        return [{"contents": f"asked {self.url}"}]
def ask(url, json):
    return Answer(url)
"""


async def test_a_retriever_is_closed_with_the_tool_that_owns_it() -> None:
    for owned in (False, True):
        retriever = FixedRetriever({})
        await NativeSearch(retriever, InProcessSandbox(), owned=owned).close()
        assert retriever.closed is owned
