import asyncio
import json
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from recall.sandbox.egress.broker import Broker
from recall.sandbox.egress.exchange import EgressLimits
from recall.sandbox.egress.rules import Rule
from recall.sandbox.inside import web
from recall.sandbox.local import LocalSandbox
from recall.types import CallStatus
from web_programs import PRELUDE, REQUESTS, TRIVIA, URLLIB
from web_server import ENCODED, TestServer, serving

Ask = Callable[[bytes], bytes]
LIBRARIES = ("requests", "urllib.request", "urllib.error")

WIKIPEDIA = '''
import requests

def wikipedia_search(query: str, top_n: int = 5):
    """Search Wikipedia; the passages found, best first."""
    url = "<search-url-placeholder>/search"
    if query == "":
        return "invalid query"
    reply = requests.post(url, json={"query": query, "top_n": top_n})
    passages = []
    for passage in reply.json():
        passages.append(passage["contents"])
    return "\\n\\n".join(passages)
'''


@pytest.fixture(scope="module")
def server() -> Iterator[TestServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real libraries take proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def asking(*texts: str, limits: EgressLimits | None = None) -> Iterator[Ask]:
    """An `ask` that a broker with these rules answers, in a thread of its own as the trainer's loop is."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    broker = Broker([Rule.parse(text) for text in texts], limits=limits)
    try:
        yield lambda body: asyncio.run_coroutine_threadsafe(broker.answer(body, timeout_s=20), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(broker.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def installed(ask: Ask) -> Iterator[None]:
    """The stand-ins in place of the real libraries, within the block."""
    ours = [name for name in sys.modules if name in LIBRARIES or name.startswith("requests.")]
    real = {name: sys.modules.pop(name) for name in ours}
    try:
        web.install(ask)
        yield
    finally:
        for name in [name for name in sys.modules if name == "requests" or name.startswith("requests.")]:
            del sys.modules[name]
        sys.modules.update(real)
        for name in ("request", "error"):
            setattr(urllib, name, real[f"urllib.{name}"])


def run(program: str, base: str) -> list[Any]:
    """What a program saw, in order."""
    seen: list[Any] = []
    exec(PRELUDE + program, {"seen": seen, "base": base, "trivia": TRIVIA, "encoded": list(ENCODED)})
    return seen


def every_method(base: str) -> str:
    return f"{base} methods=GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"


@pytest.mark.parametrize("name", [*(f"requests: {name}" for name in REQUESTS), *(f"urllib: {name}" for name in URLLIB)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the real libraries leave connections to the collector
def test_a_program_sees_what_the_real_library_shows(server: TestServer, name: str) -> None:
    library, _, title = name.partition(": ")
    program = (REQUESTS if library == "requests" else URLLIB)[title]
    real = run(program, server.base)
    with asking(every_method(server.base), "http://127.0.0.1:1/") as ask, installed(ask):
        ours = run(program, server.base)
    assert real
    assert ours == real


def test_the_published_search_tool_runs_unmodified(server: TestServer) -> None:
    source = WIKIPEDIA.replace("<search-url-placeholder>", server.base)
    namespaces: list[dict[str, Any]] = [{}, {}]
    exec(source, namespaces[0])
    with asking(f"{server.base}/search") as ask, installed(ask):
        exec(source, namespaces[1])
        ours = [namespaces[1]["wikipedia_search"](*args) for args in (("pears",), ("pears", 2), ("",))]
    real = [namespaces[0]["wikipedia_search"](*args) for args in (("pears",), ("pears", 2), ("",))]
    assert ours == real
    assert ours[0].count("A pear is a fruit") == 5


@pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")
async def test_the_published_search_tool_runs_in_a_sandbox_that_has_no_network(server: TestServer) -> None:
    source = WIKIPEDIA.replace("<search-url-placeholder>", server.base)
    source += "def straight():\n    import socket\n    socket.create_connection(('127.0.0.1', 1), 1)\n"
    source += f"def other():\n    return requests.get('{server.base}/echo').status_code\n"
    broker = Broker([Rule.parse(f"{server.base}/search")])
    box = LocalSandbox(web=broker)
    session = await box.open(source)
    found = await session.call("wikipedia_search", {"query": "pears", "top_n": 2}, timeout_s=60)
    off_list = await session.call("other", {}, timeout_s=60)
    straight = await session.call("straight", {}, timeout_s=60)
    await box.close()
    await broker.close()
    assert (found.status, found.error) == (CallStatus.OK, None)
    assert found.result.count("A pear is a fruit") == 2
    assert "is not among what tools may reach" in (off_list.error or "")
    assert straight.status is CallStatus.EXCEPTION


@pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_behind_a_source_that_asks_is_made_if_that_loads(server: TestServer, fails: bool) -> None:
    source = f"import requests\nfirst = requests.get('{server.base}/echo?first').json()['target']\n"
    source += f"def f():\n    return first, requests.get('{server.base}/echo?second').json()['target']\n"
    if fails:
        source += "raise ValueError('late')\n"
    broker = Broker([Rule.parse(f"{server.base}/echo")])
    box = LocalSandbox(web=broker)
    session = await box.open(source)
    result = await session.call("f", {}, timeout_s=60)
    await box.close()
    await broker.close()
    if fails:
        assert "could not be loaded: ValueError: late" in (result.error or "")
    else:
        assert result.result == ["/echo?first", "/echo?second"], result


@pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")
async def test_without_a_broker_there_is_no_requests_to_import() -> None:
    box = LocalSandbox()
    session = await box.open("def f():\n    import requests\n")
    result = await session.call("f", {}, timeout_s=60)
    await box.close()
    assert "ModuleNotFoundError: No module named 'requests'" in (result.error or "")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (
            "requests.get('http://h.example/')",
            ("requests.exceptions.ConnectionError", "GET http://h.example/ is not among"),
        ),
        (
            "urlopen('http://h.example/')",
            ("urllib.error.URLError", "<urlopen error GET http://h.example/ is not among"),
        ),
        ("requests.get(base + '/echo/../off')", ("requests.exceptions.ConnectionError", "is not among")),
        ("requests.put(base + '/echo')", ("requests.exceptions.ConnectionError", "is not among")),
        ("requests.get(base + '/endless')", ("requests.exceptions.ConnectionError", "longer than")),
        ("requests.post(base + '/echo', data='x' * 10**6)", ("requests.exceptions.ConnectionError", "longer than")),
        ("requests.get(base + '/slow/5', timeout=0.2)", ("requests.exceptions.ReadTimeout", "within 0.2 s")),
        (
            "requests.get(base + '/redirect/302?to=http://h.example/')",
            ("requests.exceptions.ConnectionError", "is not among"),
        ),
    ],
)
def test_what_the_broker_refuses_is_an_error_of_the_library(
    server: TestServer, program: str, expected: tuple[str, str]
) -> None:
    reach = [f"{server.base}/{path}" for path in ("echo", "endless", "slow", "redirect")]
    with asking(*reach) as ask, installed(ask):
        ((name, message, *_),) = run(f"catch(lambda: {program})", server.base)
    assert name == expected[0]
    assert expected[1] in message


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("requests.post(base, files={'f': b'x'})", "files= of requests"),
        ("requests.get(base, proxies={'http': 'http://p'})", "proxies= of requests"),
        ("requests.get(base, cert='x.pem')", "cert= of requests"),
        ("requests.get(base, auth=lambda r: r)", "auth= of requests"),
        ("requests.post(base, data=(b for b in [b'x']))", "a generator as data="),
        ("requests.Session().mount('http://', None)", "requests.Session.mount"),
        ("requests.get(base + '/echo').raw", "requests.Response.raw"),
        ("requests.get(base + '/echo').cookies", "requests.Response.cookies"),
        ("requests.PreparedRequest()", "requests.PreparedRequest"),
        ("requests.adapters", "requests.adapters"),
        ("urllib.request.urlretrieve(base)", "urllib.request.urlretrieve"),
        ("urllib.request.ProxyHandler({})", "urllib.request.ProxyHandler"),
        ("urllib.request.build_opener(1)", "a handler of urllib.request.build_opener"),
        ("urlopen(base, cafile='x')", "cafile="),
    ],
)
def test_what_is_not_offered_says_so_by_name(server: TestServer, program: str, missing: str) -> None:
    with asking(every_method(server.base)) as ask, installed(ask):
        seen: list[Any] = run(f"try: {program}\nexcept NotImplementedError as error: show(str(error))", server.base)
    ((message,),) = seen
    assert missing in message
    assert message.endswith("is not offered in the sandbox")


def test_a_module_that_is_not_offered_is_one_that_is_not_there() -> None:
    with installed(lambda body: body):
        with pytest.raises(ModuleNotFoundError, match=r"requests\.adapters"):
            exec("from requests.adapters import HTTPAdapter", {})
        with pytest.raises(ImportError, match="ProxyHandler"):
            exec("from urllib.request import ProxyHandler", {})
        exec("assert not hasattr(__import__('requests'), 'adapters')", {})


def test_threads_of_a_tool_take_turns(server: TestServer) -> None:
    asked = {"now": 0, "most": 0}
    program = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    show(*pool.map(lambda n: requests.get(f"{base}/echo?n={n}").json()["target"], range(12)))
"""
    with asking(every_method(server.base)) as ask:

        def counted(body: bytes) -> bytes:
            asked["now"] += 1
            asked["most"] = max(asked.values())
            answer = ask(body)
            asked["now"] -= 1
            return answer

        with installed(counted):
            seen = run(program, server.base)
    assert seen == [tuple(f"/echo?n={number}" for number in range(12))]
    assert asked["most"] == 1


def test_a_question_is_one_json_text_that_holds_nothing_but_what_was_asked() -> None:
    asked: list[bytes] = []

    def ask(body: bytes) -> bytes:
        asked.append(body)
        return json.dumps({"error": "no", "kind": "refused"}).encode()

    with installed(ask):
        run("catch(lambda: requests.post('http://h.example/', json={'é': 1}, timeout=2))", "")
    (question,) = [json.loads(body) for body in asked]
    assert (question["method"], question["url"], question["timeout"]) == ("POST", "http://h.example/", 2.0)
    assert set(question) == {"method", "url", "headers", "body", "timeout", "follow", "decode"}


def test_the_real_libraries_are_back_after_the_tests_above() -> None:
    assert requests.get.__module__ == sys.modules["requests.api"].__name__
    assert sys.modules["urllib.request"].__spec__ is not None
    assert urllib.request.urlopen.__module__ == "urllib.request"
