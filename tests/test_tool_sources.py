"""Functions, objects, source, a retriever and OpenAPI documents as tools, and the files that name them."""

import asyncio
import dataclasses
import datetime
import enum
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fakes import InProcessSandbox
from recall import tool
from recall.environment import Limits, SourceEnvironment
from recall.errors import ConfigError
from recall.inference.toolfiles import read_tools
from recall.retriever.base import Passage
from recall.retriever.fixed import FixedRetriever
from recall.tools.arguments import Arguments
from recall.tools.collect import sources_of
from recall.tools.functions import tool_from_function
from recall.tools.mcp import MCPTools
from recall.tools.openapi import OpenAPITools
from recall.tools.source import SourceTools
from recall.types import AssistantTurn, CallStatus, Task, ToolCall, ToolSpec


async def told(tools: Sequence[Any], *calls: ToolCall, limits: Limits | None = None) -> list[tuple[CallStatus, str]]:
    """What one turn of a fresh episode is told."""
    env = SourceEnvironment("?", sources_of(tools), limits or Limits(call_timeout_s=20))
    try:
        await env.start()
        step = await env.step(AssistantTurn("", calls=calls))
        return [(record.status, record.result) for record in step.records]
    finally:
        await env.close()


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Place:
    city: str
    floor: int = 0


class Part(BaseModel):
    """A part of an order."""

    name: str = Field(description="What it is.", min_length=1)
    count: Annotated[int, Field(ge=1)] = 1
    place: Place | None = None


class Note(TypedDict):
    text: str


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


def order(
    parts: list[Part],
    size: Size = Size.SMALL,
    due: datetime.date | None = None,
    how: Annotated[Literal["fast", "cheap"], "How it is sent."] = "fast",
    notes: list[Note] | None = None,
) -> dict[str, Any]:
    """Order parts.

    :param parts: what is wanted,
        piece by piece.
    :param size: of the parcel.
    :returns: the order.
    """
    return {
        "parts": parts,
        "size": size,
        "due": due,
        "how": how,
        "types": [type(parts[0]).__name__, type(size).__name__],
    }


def test_a_schema_is_complete_whatever_the_types() -> None:
    found = tool_from_function(order)
    assert found.description == "Order parts."
    place = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "floor": {"type": "integer", "default": 0}},
        "required": ["city"],
    }
    part = {
        "type": "object",
        "description": "A part of an order.",
        "properties": {
            "name": {"type": "string", "description": "What it is.", "minLength": 1},
            "count": {"type": "integer", "minimum": 1, "default": 1},
            "place": {"anyOf": [place, {"type": "null"}], "default": None},
        },
        "required": ["name"],
    }
    note = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    assert found.parameters == {
        "type": "object",
        "properties": {
            "parts": {"type": "array", "items": part, "description": "what is wanted, piece by piece."},
            "size": {
                "type": "string",
                "enum": ["small", "large"],
                "description": "of the parcel.",
                "default": "small",
            },
            "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "how": {"enum": ["fast", "cheap"], "description": "How it is sent.", "default": "fast"},
            "notes": {"anyOf": [{"type": "array", "items": note}, {"type": "null"}]},
        },
        "required": ["parts"],
    }
    Arguments((found,))


async def test_a_function_gets_the_types_that_it_asks_for_and_returns_what_it_likes() -> None:
    right = ToolCall(
        "order", {"parts": [{"name": "nut", "place": {"city": "Bern"}}], "size": "large", "due": "2026-01-02"}
    )
    ((status, text),) = await told([order], right)
    assert status is CallStatus.OK, text
    assert json.loads(text) == {
        "parts": [{"name": "nut", "count": 1, "place": {"city": "Bern", "floor": 0}}],
        "size": "large",
        "due": "2026-01-02",
        "how": "fast",
        "types": ["Part", "Size"],
    }


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"parts": [{"name": "nut", "count": 0}]}, "argument 'parts[0].count': 0 is less than the minimum of 1"),
        ({"parts": [{"count": 1}]}, "argument 'parts[0]': missing 'name'"),
        ({"parts": [{"name": "nut"}], "size": "huge"}, "argument 'size': 'huge' is not one of ['small', 'large']"),
        ({"parts": [{"name": "nut"}], "due": "soon"}, "argument 'due"),
        ({}, "missing argument 'parts'; the arguments are: parts, size, due, how, notes"),
    ],
)
async def test_the_model_is_told_the_field_that_is_wrong(arguments: dict[str, Any], problem: str) -> None:
    ((status, text),) = await told([order], ToolCall("order", arguments))
    assert status is CallStatus.BAD_ARGUMENTS
    assert text.startswith(f"error: {problem}")


async def test_a_type_that_contains_itself_keeps_its_definition() -> None:
    def plant(tree: Tree) -> int:
        """Plant a tree."""
        return 1 + len(tree.children)

    spec = tool_from_function(plant)
    assert "Tree" in spec.parameters["$defs"]
    call = ToolCall("plant", {"tree": {"name": "a", "children": [{"name": "b"}]}})
    wrong = ToolCall("plant", {"tree": {"name": "a", "children": [{"nam": "b"}]}})
    (good, bad) = await told([plant], call, wrong)
    assert good == (CallStatus.OK, "2")
    assert bad[0] is CallStatus.BAD_ARGUMENTS


class Counter:
    """State of an episode."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.busy = False

    def add(self, by: int = 1) -> int:
        """Count."""
        assert not self.busy
        self.busy = True
        time.sleep(0.01)
        self.count += by
        self.busy = False
        return self.count

    def _secret(self) -> int:
        return 0

    @staticmethod
    def zero() -> int:
        """Zero."""
        return 0


@pytest.mark.parametrize("given", [Counter, Counter(0)])
async def test_each_episode_has_an_instance_of_its_own_whose_methods_take_turns(given: Any) -> None:
    for _ in range(2):
        calls = [ToolCall("add", {"by": n}) for n in (1, 2, 3)]
        assert [text for _, text in await told([given], *calls, ToolCall("zero", {}))] == ["1", "3", "6", "0"]
    assert (await told([given], ToolCall("_secret", {})))[0][0] is CallStatus.UNKNOWN_TOOL


async def test_marked_methods_alone_are_tools() -> None:
    class Half:
        @tool(name="shown", description="It is shown.")
        def one(self) -> int:
            return 1

        def two(self) -> int:
            """Hidden."""
            return 2

    found = await told([Half], ToolCall("shown", {}), ToolCall("two", {}))
    assert [status for status, _ in found] == [CallStatus.OK, CallStatus.UNKNOWN_TOOL]


async def test_source_runs_in_the_sandbox_with_state_for_the_episode() -> None:
    sandbox = InProcessSandbox()
    spec = ToolSpec("up", "", {"type": "object", "properties": {}})
    source = SourceTools("n = 0\ndef up():\n    global n\n    n += 1\n    return n\n", [spec], sandbox)
    for _ in range(2):
        assert [text for _, text in await told([source], *[ToolCall("up", {})] * 2)] == ["1", "2"]
    assert (sandbox.opened, sandbox.open_sessions) == (2, 0)


async def test_a_retriever_is_the_search_tool() -> None:
    retriever = FixedRetriever({"capital": [Passage("1", '"Bern"\nThe capital of Switzerland.')]})
    ((status, text),) = await told([retriever], ToolCall("wikipedia_search", {"query": "capital"}))
    assert (status, text) == (CallStatus.OK, '"Bern"\nThe capital of Switzerland.')


async def test_plain_functions_of_one_turn_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet() -> str:
        """Meet."""
        both.wait()
        return "met"

    assert await told([meet], ToolCall("meet", {}), ToolCall("meet", {})) == [(CallStatus.OK, "met")] * 2


async def test_only_what_says_that_it_may_is_tried_again() -> None:
    tries = {"again": 0, "once": 0}

    @tool(idempotent=True)
    async def again() -> str:
        """Reach a server."""
        tries["again"] += 1
        if tries["again"] < 3:
            raise ConnectionResetError("lost")
        return "there"

    async def once() -> str:
        """Reach a server."""
        tries["once"] += 1
        raise ConnectionResetError("lost")

    assert await told([again, once], ToolCall("again", {}), ToolCall("once", {})) == [
        (CallStatus.OK, "there"),
        (CallStatus.CRASHED, "error: ConnectionResetError: lost"),
    ]
    assert tries == {"again": 3, "once": 1}


async def test_a_tool_has_its_own_time_and_its_own_length_of_result() -> None:
    @tool(timeout_s=0.05)
    async def slow() -> None:
        """Take long."""
        await asyncio.sleep(30)

    @tool(max_result_chars=10)
    def long() -> str:
        """Say much."""
        return "a" * 50 + "b" * 50

    assert await told([slow, long], ToolCall("slow", {}), ToolCall("long", {})) == [
        (CallStatus.TIMEOUT, "error: the call took longer than 0.05 s"),
        (CallStatus.OK, "aaaaa[… 90 characters cut …]bbbbb"),
    ]


async def test_a_function_that_ends_its_thread_is_an_answer() -> None:
    def leave() -> None:
        """Leave."""
        raise SystemExit

    assert await told([leave], ToolCall("leave", {})) == [
        (CallStatus.EXCEPTION, "error: RuntimeError: SystemExit was raised")
    ]


API: dict[str, Any] = {
    "openapi": "3.0.3",
    "servers": [{"url": "http://127.0.0.1:1/v1"}],
    "paths": {
        "/users/{name}": {
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "getUser",
                "summary": "A user.",
                "parameters": [
                    {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"$ref": "#/components/parameters/Trace"},
                ],
            },
        },
        "/users": {
            "post": {
                "operationId": "addUser",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}},
                },
            }
        },
    },
    "components": {
        "parameters": {"Trace": {"name": "x-trace", "in": "header", "schema": {"type": "string"}}},
        "schemas": {
            "User": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer", "nullable": True, "minimum": 0, "exclusiveMinimum": True},
                    "friend": {"$ref": "#/components/schemas/User"},
                },
            }
        },
    },
}


class _Echo(BaseHTTPRequestHandler):
    busy = 0

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        size = int(self.headers.get("content-length", 0))
        status = 503 if _Echo.busy else 404 if "nobody" in self.path else 200
        _Echo.busy = max(0, _Echo.busy - 1)
        said = {"path": self.path, "trace": self.headers.get("x-trace"), "body": self.rfile.read(size).decode()}
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815 - the name is the base class's


@contextmanager
def echoing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_an_api_is_called_as_its_document_says_and_within_its_address() -> None:
    with echoing() as url:
        api = OpenAPITools(API, base_url=url)
        found = await told(
            [api],
            ToolCall("getUser", {"name": "a/../b?x=1", "fields": ["a b", "c"], "x-trace": "t"}),
            ToolCall("addUser", {"name": "Ada", "age": None}),
            ToolCall("getUser", {"name": ".."}),
            ToolCall("getUser", {"name": "nobody"}),
            ToolCall("addUser", {"name": "Ada", "age": 0}),
            ToolCall("addUser", {"name": "Ada", "friend": {"name": 3}}),
        )
        await api.close()
    got, added, up, nobody, young, friend = found
    assert json.loads(got[1]) == {
        "path": "/v1/users/a%2F..%2Fb%3Fx%3D1?fields=a%20b&fields=c",
        "trace": "t",
        "body": "",
    }
    assert json.loads(json.loads(added[1])["body"]) == {"name": "Ada", "age": None}
    assert up == (CallStatus.BAD_ARGUMENTS, "error: argument 'name': must be a name")
    assert nobody[0] is CallStatus.EXCEPTION
    assert nobody[1].startswith("error: status 404: ")
    assert [young[0], friend[0]] == [CallStatus.BAD_ARGUMENTS] * 2
    assert "friend.name" in friend[1]


async def test_an_api_without_room_is_asked_again_where_that_changes_nothing() -> None:
    with echoing() as url:
        api = OpenAPITools(API, base_url=url, only=["getUser"])
        _Echo.busy = 2
        assert (await told([api], ToolCall("getUser", {"name": "x"})))[0][0] is CallStatus.OK
        api_all = OpenAPITools(API, base_url=url)
        _Echo.busy = 1
        assert (await told([api_all], ToolCall("addUser", {"name": "x"})))[0][0] is CallStatus.CRASHED
        await api.close()
        await api_all.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"servers": []}, "is no address; give base_url"),
        ({"paths": {}}, "has no operations"),
        ({"paths": 3}, "paths: missing"),
    ],
)
def test_a_document_that_offers_nothing_is_refused(change: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        OpenAPITools({**API, **change})


def test_files_name_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools.py").write_text("import json\ndef f(a: int) -> int:\n    return a\ndef _g(): ...\n")
    (tmp_path / "listed.py").write_text("class C:\n    def m(self) -> int:\n        return 1\nTOOLS = [C]\n")
    (tmp_path / "api.json").write_text(json.dumps(API))
    servers = {
        "a": {"command": "x", "args": ["${HOME_OF_TEST}"]},
        "b": {"type": "http", "url": "http://127.0.0.1:1/mcp"},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    row = {
        "question": "?",
        "reward_model": {"ground_truth": ["1"]},
        "extra_info": {"id": "r", "env": "def f():\n    return 1\n", "func_schemas": [{"name": "f"}]},
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setenv("HOME_OF_TEST", "home")
    functions = read_tools(str(tmp_path / "tools.py"))
    assert isinstance(functions, list)
    assert [function.__name__ for function in functions] == ["f"]
    listed = read_tools(str(tmp_path / "listed.py"))
    assert isinstance(listed, list)
    assert sources_of(listed)[0].tools[0].spec.name == "m"  # type: ignore[attr-defined]
    (api,) = read_tools(str(tmp_path / "api.json"))  # type: ignore[misc]
    assert isinstance(api, OpenAPITools)
    started, reached = read_tools(str(tmp_path / "mcp.json"))  # type: ignore[misc]
    assert isinstance(started, MCPTools)
    assert started._args == ("home",)
    assert isinstance(reached, MCPTools)
    assert reached.name == "MCP server http://127.0.0.1:1/mcp"
    task = read_tools(f"{tmp_path / 'rows.jsonl'}#0")
    assert isinstance(task, Task)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("none.py", None, "no such file; accepted: tools.py"),
        ("a.py", "x = (", "SyntaxError"),
        ("b.py", "x = 1\n", "defines no public function and no TOOLS"),
        ("c.json", "{}", "has neither mcpServers nor paths"),
        (
            "d.json",
            '{"mcpServers": {"s": {"comand": "x"}}}',
            r"mcpServers\.s\.comand: unknown; accepted: args, command",
        ),
        ("e.json", '{"mcpServers": {"s": {"command": "${NOT_THERE_AT_ALL}"}}}', "no such environment variable"),
        ("f.txt", "", "accepted: tools.py"),
        ("g.jsonl", "", "say which row"),
    ],
)
def test_a_file_that_names_no_tools_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_tools(str(tmp_path / name))
