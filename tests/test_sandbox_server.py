"""The server as its clients meet it: real processes, real sockets."""

import asyncio
import base64
import concurrent.futures
import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

for package in ("uvicorn", "httptools", "aiohttp", "prometheus_client"):
    pytest.importorskip(package)

from recall.sandbox.places import Places  # noqa: E402
from recall.sandbox.service.admission import Gate, QueueFull  # noqa: E402
from sandbox_server import COUNTER, Server, below, fields_of, serving, wait_until_gone  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with serving() as running:
        yield running


def execute(server: Server, call: str, env: str = COUNTER, **fields: Any) -> Any:
    answer = server.ask("POST", "/execute", {"env": env, "call": call, **fields})
    assert answer.status == 200, answer
    return answer.json


def refused(*flags: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit status and the words of a server that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "recall.cli", "sandbox", "serve", *flags],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


# --- the published form


def published_client(url: str, env: str, call: str) -> str:
    """As the published code asks and reads: a new connection a call, ten seconds, and only what is truthy is shown."""
    requests = pytest.importorskip("requests")
    response = requests.post(f"{url}/execute", json={"env": env, "call": call}, timeout=10).json()
    text = ""
    if response["result"]:
        text += f"result: \n{response['result']}\n\n"
    if response["output"]:
        text += f"output: \n{response['output']}\n\n"
    if response["error"]:
        text += f"error: \n{response['error']}\n\n"
    return text.strip()


def test_a_published_client_works_unchanged(server: Server) -> None:
    env = "def add(a, b):\n    print('adding')\n    return a + b\n"
    assert published_client(server.url, env, "add(a=1, b=2)") == "result: \n3\n\noutput: \nadding"
    assert "division by zero" in published_client(server.url, "def f():\n    return 1 / 0\n", "f()")


def test_the_published_fields_come_first_and_the_others_besides(server: Server) -> None:
    answer = execute(server, "bump(by=2)")
    assert list(answer)[:3] == ["result", "output", "error"]
    assert (answer["result"], answer["output"], answer["error"], answer["status"]) == (2, "", None, "ok")
    assert answer["state_lost"] is False
    assert answer["duration_ms"] > 0
    assert isinstance(answer["isolation_missing"], list)


@pytest.mark.parametrize("value", ["0", "False", "[]", "''", "None", "{}", "0.0", "2**100", "'\u00e4\u2028'"])
def test_every_result_comes_back_as_it_is(server: Server, value: str) -> None:
    answer = execute(server, value, env="")
    assert answer["status"] == "ok"
    assert answer["result"] == eval(value)
    assert type(answer["result"]) is type(eval(value))


def test_one_shot_calls_share_nothing(server: Server) -> None:
    assert [execute(server, "bump()")["result"] for _ in range(3)] == [1, 1, 1]


def test_the_timeout_of_the_request_is_kept_to(server: Server) -> None:
    began = time.monotonic()
    answer = execute(server, "sleep(60)", timeout=0.3)
    assert answer["status"] == "timeout"
    assert time.monotonic() - began < 30


def test_what_kills_the_published_server_is_an_answer_here(server: Server) -> None:
    assert execute(server, "die()")["status"] == "crashed"
    assert execute(server, "f()", env="def f():\n    raise SystemExit\n")["status"] == "exception"
    assert execute(server, "f()", env="while True: pass", timeout=1)["status"] == "exception"
    assert execute(server, "f(", env="")["status"] == "exception"
    assert execute(server, "bump()")["result"] == 1


# --- the structured form


def test_a_call_by_name_needs_no_code(server: Server) -> None:
    hostile = "x'); import os; os._exit(1) #"
    answer = server.ask("POST", "/execute", {"env": "def f(s):\n    return s\n", "name": "f", "args": {"s": hostile}})
    assert answer.json["result"] == hostile
    answer = server.ask("POST", "/execute", {"env": "", "name": "f(1); g"})
    assert answer.json["status"] == "unknown_tool"


def test_integers_of_any_length_pass(server: Server) -> None:
    body = {"env": "def f(n):\n    return n + 1\n", "name": "f", "args": {"n": 10**40}}
    assert server.ask("POST", "/execute", body).json["result"] == 10**40 + 1


# --- sessions


def opened(server: Server, **fields: Any) -> str:
    answer = server.ask("POST", "/sessions", {"source": COUNTER, **fields})
    assert answer.status == 200, answer
    return str(answer.json["id"])


def test_a_session_keeps_its_state_until_it_is_closed(server: Server) -> None:
    id = opened(server)
    assert len(id) == 32
    for expected in (1, 2):
        assert server.ask("POST", f"/sessions/{id}/call", {"name": "bump"}).json["result"] == expected
    assert server.ask("POST", "/execute", {"session": id, "call": "bump(by=5)"}).json["result"] == 7
    shown = server.ask("GET", f"/sessions/{id}").json
    assert (shown["calls"], shown["state_lost"], shown["profile"]) == (3, False, "default")
    assert server.ask("DELETE", f"/sessions/{id}").status == 200
    for answer in (
        server.ask("DELETE", f"/sessions/{id}"),
        server.ask("GET", f"/sessions/{id}"),
        server.ask("POST", f"/sessions/{id}/call", {"name": "bump"}),
        server.ask("POST", "/execute", {"session": id, "call": "bump()"}),
        server.ask("POST", f"/sessions/{id}/fork", {"n": 1}),
    ):
        assert answer.status == 404
        assert answer.json == {"detail": "there is no such session"}


def test_a_session_whose_state_is_lost_says_so_from_then_on(server: Server) -> None:
    id = opened(server)
    first = server.ask("POST", f"/sessions/{id}/call", {"name": "die"}).json
    assert (first["status"], first["state_lost"]) == ("crashed", True)
    later = server.ask("POST", f"/sessions/{id}/call", {"name": "bump"})
    assert (later.status, later.json["status"], later.json["state_lost"]) == (200, "state_lost", True)
    assert server.ask("GET", f"/sessions/{id}").json["state_lost"] is True


def test_copies_of_a_session_go_their_own_ways(server: Server) -> None:
    id = opened(server, forkable=True)
    server.ask("POST", f"/sessions/{id}/call", {"name": "bump", "args": {"by": 10}})
    copies = server.ask("POST", f"/sessions/{id}/fork", {"n": 3}).json["ids"]
    assert len({id, *copies}) == 4
    for index, copy in enumerate(copies):
        answer = server.ask("POST", f"/sessions/{copy}/call", {"name": "bump", "args": {"by": index}})
        assert answer.json["result"] == 10 + index
    assert server.ask("POST", f"/sessions/{id}/call", {"name": "bump", "args": {"by": 0}}).json["result"] == 10
    plain = opened(server)
    assert server.ask("POST", f"/sessions/{plain}/fork", {}).status == 500


def test_a_transactional_session_forgets_a_call_that_died(server: Server) -> None:
    id = opened(server, transactional=True)
    server.ask("POST", f"/sessions/{id}/call", {"name": "bump"})
    assert server.ask("POST", f"/sessions/{id}/call", {"name": "die"}).json["state_lost"] is False
    assert server.ask("POST", f"/sessions/{id}/call", {"name": "bump"}).json["result"] == 2


def test_a_seeded_session_draws_the_same_numbers(server: Server) -> None:
    body = {"env": "import random\ndef f():\n    return random.random()\n", "call": "f()", "seed": 7}
    first, second = (server.ask("POST", "/execute", body).json["result"] for _ in range(2))
    assert first == second


def test_unused_sessions_end_and_are_remembered_as_ended() -> None:
    with serving("--session-ttl-s", "0.4") as server:
        id = opened(server)
        deadline = time.monotonic() + 30
        while (answer := server.ask("GET", f"/sessions/{id}")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer.status == 410
        assert answer.json["infra_error"] is True
        assert "session lost" in answer.json["error"]


def test_more_sessions_than_may_be_open_are_refused_for_now() -> None:
    with serving("--max-sessions", "2") as server:
        ids = [opened(server) for _ in range(2)]
        answer = server.ask("POST", "/sessions", {"source": COUNTER})
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        server.ask("DELETE", f"/sessions/{ids[0]}")
        opened(server)


# --- batches


def test_a_batch_answers_in_order_and_one_bad_item_fails_alone(server: Server) -> None:
    id = opened(server)
    items = [
        {"env": COUNTER, "call": "bump(by=7)"},
        {"session": "0" * 32, "name": "bump"},
        {"env": 3, "call": "bump()"},
        "nonsense",
        {"session": id, "name": "bump"},
        {"session": id, "name": "bump"},
        {"env": COUNTER, "call": "die()"},
    ]
    answer = server.ask("POST", "/execute_batch", {"items": items})
    assert answer.status == 200
    codes = [item.get("code") for item in answer.json]
    assert codes == [None, 404, 422, 422, None, None, None]
    statuses = [item["status"] for item in answer.json]
    assert statuses == ["ok", "refused", "refused", "refused", "ok", "ok", "crashed"]
    assert [answer.json[index]["result"] for index in (0, 4, 5)] == [7, 1, 2]
    assert answer.json[2]["detail"][0]["loc"] == ["body", "env"]


def test_a_streamed_batch_answers_each_item_when_it_is_done(server: Server) -> None:
    items = [{"env": COUNTER, "call": "sleep(2)"}, {"env": COUNTER, "call": "bump()"}]
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.request("POST", "/execute_batch?stream=1", json.dumps({"items": items}).encode())
    response = connection.getresponse()
    began = time.monotonic()
    first = json.loads(response.readline())
    assert time.monotonic() - began < 2
    second = json.loads(response.readline())
    assert response.read() == b""
    connection.close()
    assert [(each["index"], each["result"]) for each in (first, second)] == [(1, 1), (0, "rested")]


def test_a_batch_has_at_most_1024_items(server: Server) -> None:
    item = {"session": "0" * 32, "name": "f"}
    assert len(server.ask("POST", "/execute_batch", {"items": [item] * 1024}).json) == 1024
    assert server.ask("POST", "/execute_batch", {"items": [item] * 1025}).status == 422
    assert server.ask("POST", "/execute_batch", {"items": []}).json == []
    assert server.ask("POST", "/execute_batch?stream=1", {"items": []}).body == b""


# --- what is refused, and how


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/execute", b"{", None),
        ("/execute", b"\xff\xfe", None),
        ("/execute", b"[" * 100_000, None),
        ("/execute", b"9" * 5000, None),
        ("/execute", b"", None),
        ("/execute", [], None),
        ("/execute", {"call": "f()"}, "env"),
        ("/execute", {"env": "", "args": {}}, "call"),
        ("/execute", {"env": "", "call": 1}, "call"),
        ("/execute", {"env": "", "name": "f", "args": []}, "args"),
        ("/execute", {"env": "", "call": "f()", "name": "f"}, "call"),
        ("/execute", {"env": "", "call": "f()", "timeout": "5"}, "timeout"),
        ("/execute", {"env": "", "call": "f()", "timeout": 0}, "timeout"),
        ("/execute", {"env": "", "call": "f()", "timeout": True}, "timeout"),
        ("/execute", b'{"env": "", "call": "f()", "timeout": NaN}', "timeout"),
        ("/execute", {"env": "", "call": "f()", "limits": {}}, "limits"),
        ("/execute", {"env": "", "call": "f()", "profile": "none"}, "profile"),
        ("/execute", {"session": "a", "env": "", "call": "f()"}, "env"),
        ("/sessions", {}, "source"),
        ("/sessions", {"source": "", "forkable": 1}, "forkable"),
        ("/sessions", {"source": "", "seed": "x"}, "seed"),
        ("/sessions", {"source": "", "seed": -1}, "seed"),
        ("/execute_batch", {"items": {}}, "items"),
        ("/execute_batch", {}, "items"),
        ("/run_code", {"language": "python"}, "code"),
        ("/run_code", {"code": "1"}, "language"),
        ("/run_code", {"code": "1", "language": "python", "run_timeout": "x"}, "run_timeout"),
        ("/run_code", {"code": "1", "language": "python", "files": {"a": "!"}}, "files"),
    ],
)
def test_a_wrong_body_is_422_and_names_the_field(server: Server, path: str, body: Any, field: str | None) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status == 422, answer
    (problem,) = answer.json["detail"]
    assert problem["loc"][0] == "body"
    assert field is None or problem["loc"][1] == field
    assert problem["msg"]


def test_wrong_addresses_and_methods(server: Server) -> None:
    assert server.ask("GET", "/").status == 404
    assert server.ask("GET", "/sessions/a/b/c").status == 404
    assert server.ask("POST", "/execute/").status == 404
    assert server.ask("GET", "/execute").status == 405
    assert server.ask("GET", "/execute_batch").status == 405
    assert server.ask("PUT", "/sessions/abc").status == 405


def test_web_pages_are_not_served(server: Server) -> None:
    answer = server.ask("POST", "/execute", {"env": "", "call": "1"}, headers={"origin": "http://evil.example"})
    assert answer.status == 403


def test_a_body_beyond_the_cap_is_413_however_it_is_sent() -> None:
    with serving("--max-body-mb", "1") as server:
        announced = server.ask("POST", "/execute", b"x" * (3 << 20))
        assert announced.status == 413
        connection = http.client.HTTPConnection(*server.address, timeout=60)
        connection.request("POST", "/execute", iter([b"x" * 65536] * 40), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        assert execute(server, "bump()")["result"] == 1


def test_a_body_or_a_head_that_does_not_come_is_given_up() -> None:
    with serving("--body-timeout-s", "0.5") as server:
        with socket.create_connection(server.address, timeout=60) as slow:
            slow.sendall(b"POST /execute HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        with socket.create_connection(server.address, timeout=60) as slow:
            slow.sendall(b"POST /execute HTTP/1.1\r\nhost:")
            assert slow.recv(4096) == b""
        with socket.create_connection(server.address, timeout=60) as silent:
            assert silent.recv(4096) == b""


def test_a_head_without_end_is_cut_off(server: Server) -> None:
    with socket.create_connection(server.address, timeout=60) as endless:
        endless.sendall(b"GET /healthz HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 << 20:
                sent += endless.send(b"x-%d: %s\r\n" % (sent, b"y" * 1000))
    assert sent < 50 << 20


def test_too_many_calls_are_429_and_long_waits_503() -> None:
    with (
        serving("--max-running", "1", "--max-queue", "1", "--queue-timeout-s", "0.3") as server,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(execute, server, "sleep(3)")
        time.sleep(1)
        waits = {"env": COUNTER, "call": "bump()"}
        answers = server.ask("POST", "/execute_batch", {"items": [waits, waits]}).json
        assert sorted(answer["code"] for answer in answers) == [429, 503]
        assert all(answer["retry_after_s"] > 0 for answer in answers)
        alone = server.ask("POST", "/execute", waits)
        assert (alone.status, alone.headers["retry-after"]) == (503, "1")
        code = server.ask("POST", "/run_code", {"code": "1", "language": "python"})
        assert (code.status, code.headers["retry-after"]) == (504, "1")
        assert running.result()["result"] == "rested"


def test_waiting_does_not_count_into_the_timeout() -> None:
    with serving("--max-running", "1") as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: execute(server, "sleep(0.7)", timeout=2), range(4)))
    assert [answer["status"] for answer in answers] == ["ok"] * 4


# --- tokens


def test_a_token_is_asked_for_everywhere_but_in_healthz(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with serving("--token-file", str(file)) as server:
        assert server.ask("GET", "/healthz").json == {"status": "ok"}
        for method, path in (("GET", "/readyz"), ("GET", "/metrics"), ("POST", "/execute"), ("GET", "/nothing")):
            for given in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"authorization": "Basic !"},
            ):
                assert server.ask(method, path, headers=given).status == 401
        assert server.ask("GET", "/readyz", headers={"authorization": f"Bearer {TOKEN}"}).status == 200
        basic = base64.b64encode(f"any:{TOKEN}".encode()).decode()
        assert server.ask("GET", "/readyz", headers={"authorization": f"Basic {basic}"}).status == 200


def test_other_machines_are_listened_to_only_with_a_token() -> None:
    status, words = refused("--host", "0.0.0.0", "--port", "0")
    assert status == 2
    assert words.startswith("recall: --host 0.0.0.0: other machines could reach it")
    assert words.count("\n") == 1
    with serving("--host", "0.0.0.0", env={"RECALL_SANDBOX_TOKEN": TOKEN}) as server:
        assert server.ask("GET", "/readyz").status == 401
        assert TOKEN not in server.ready
        assert TOKEN.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("text", ["", "short", "two words of a token", "\u00e4" * 20])
def test_a_bad_token_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    status, words = refused("--token-file", str(file))
    assert (status, words.count("\n")) == (2, 1)
    assert str(file) in words
    assert not text or text not in words


def test_what_cannot_be_served_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for flags, said in (
        (("--port", str(server.address[1])), "Address already in use"),
        (("--token-file", "/nowhere/token"), "/nowhere/token"),
        (("--profiles", "defualt"), "defualt"),
        (("--require", "magic"), "magic"),
        (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
        (("--uds", str(tmp_path / "file")), "something else"),
    ):
        status, words = refused(*flags)
        assert (status, words.count("\n")) == (2, 1), words
        assert said in words


# --- readiness, metrics, the life of a server


def test_readiness_names_what_holds_and_what_does_not(server: Server) -> None:
    state = server.ask("GET", "/readyz").json
    assert state["ready"] is True
    assert "processes" in state["isolation"]
    assert not set(state["isolation"]) & set(state["missing"])
    assert all(layer in server.ready for layer in state["isolation"] + state["missing"])


def metric(server: Server, line: str) -> float:
    found = [row for row in server.ask("GET", "/metrics").body.decode().splitlines() if row.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_metrics_count_what_happened(server: Server) -> None:
    ok = 'recall_sandbox_calls_total{profile="default",status="ok"}'
    crashed = 'recall_sandbox_calls_total{profile="default",status="crashed"}'
    before = metric(server, ok), metric(server, crashed), metric(server, "recall_sandbox_call_total_seconds_count")
    execute(server, "bump()")
    execute(server, "die()")
    after = metric(server, ok), metric(server, crashed), metric(server, "recall_sandbox_call_total_seconds_count")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2]
    page = server.ask("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for name in (
        "sessions_live", "sessions_pooled", "sessions_open", "kills_total", "zygote_restarts_total",
        "protocol_violations_total", "processes_leaked", "call_queue_seconds_bucket", "call_run_seconds_sum",
    ):  # fmt: skip
        assert f"recall_sandbox_{name}" in page.body.decode()


def test_a_forged_answer_is_counted(server: Server) -> None:
    before = metric(server, "recall_sandbox_protocol_violations_total")
    forging = "import os\ndef f():\n    os.write(3, b'\\0' * 64)\n    return 1\n"
    assert execute(server, "f()", env=forging)["status"] in ("crashed", "exception")
    assert metric(server, "recall_sandbox_protocol_violations_total") == before + 1


def test_no_process_is_left_after_calls(server: Server) -> None:
    for _ in range(3):
        execute(server, "die()")
        execute(server, "sleep(9)", timeout=0.2)
    deadline = time.monotonic() + 20
    while metric(server, "recall_sandbox_processes_leaked") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert metric(server, "recall_sandbox_processes_leaked") == 0


def test_a_client_that_hangs_up_takes_its_call_along(server: Server) -> None:
    before = below(server.process.pid)
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.request("POST", "/execute", json.dumps({"env": COUNTER, "call": "sleep(50)", "timeout": 60}).encode())
    deadline = time.monotonic() + 20
    while not (new := below(server.process.pid) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert len(new) == 1
    connection.close()
    assert wait_until_gone(new) == set()


def test_sixty_four_clients_at_once_each_get_their_own_answer(server: Server) -> None:
    def client(number: int) -> list[int]:
        id = opened(server)
        results = []
        for _ in range(5):
            answer = server.ask("POST", f"/sessions/{id}/call", {"name": "bump", "args": {"by": number}})
            results.append(answer.json["result"])
        server.ask("DELETE", f"/sessions/{id}")
        return results

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for number, results in enumerate(pool.map(client, range(64))):
            assert results == [number * turn for turn in range(1, 6)]


def test_a_unix_socket_is_its_owners_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.sock"
    for _ in range(2):
        with serving("--uds", str(path)) as server:
            assert path.stat().st_mode & 0o777 == 0o600
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert refused("--uds", str(path))[0] == 2
            server.stop(signal.SIGKILL if path.exists() else signal.SIGTERM)
        # A socket that a killed server left behind is in nobody's way.


def test_a_server_that_is_told_to_stop_lets_calls_finish() -> None:
    with serving() as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        processes = below(server.process.pid)
        call = pool.submit(execute, server, "sleep(2)")
        time.sleep(1)
        assert server.stop() == 0
        assert call.result()["result"] == "rested"
        assert wait_until_gone(processes) == set()


def test_a_second_signal_stops_a_server_at_once_and_calls_say_whose_fault_it_is() -> None:
    with serving() as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.ask, "POST", "/execute", {"env": COUNTER, "call": "sleep(50)", "timeout": 60})
        time.sleep(1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
        assert (call.result().status, call.result().json["infra_error"]) == (500, True)


def test_a_zygote_that_is_killed_costs_the_calls_in_flight_and_is_replaced() -> None:
    with serving("--profiles", "default") as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        (zygote,) = (pid for pid in below(server.process.pid) if fields_of(pid)[1:2] == [str(server.process.pid)])
        id = opened(server)
        call = pool.submit(server.ask, "POST", f"/sessions/{id}/call", {"name": "sleep", "args": {"seconds": 4}})
        time.sleep(1)
        os.kill(zygote, signal.SIGKILL)
        assert (call.result().status, call.result().json["infra_error"]) == (500, True)
        later = server.ask("POST", f"/sessions/{id}/call", {"name": "bump"})
        assert (later.status, later.json["infra_error"]) == (500, True)
        assert execute(server, "bump()")["result"] == 1
        assert metric(server, "recall_sandbox_zygote_restarts_total") == 1


def test_a_server_that_is_killed_leaves_no_process() -> None:
    with serving() as server:
        id = opened(server)
        server.ask("POST", f"/sessions/{id}/call", {"name": "bump"})
        processes = below(server.process.pid)
        assert len(processes) >= 3
        server.stop(signal.SIGKILL)
        assert wait_until_gone(processes) == set()


def test_what_is_sent_is_never_logged(tmp_path: Path) -> None:
    secret = "s3cr3t-in-the-source"
    env = f"secret = {secret!r}\ndef f(n):\n    raise ValueError(secret)\n"
    log = tmp_path / "log"
    with serving(log=log) as server:
        assert secret in execute(server, "f(1)", env=env)["error"]
        id = server.ask("POST", "/sessions", {"source": env}).json["id"]
        assert server.ask("POST", f"/sessions/{id}/fork", {}).status == 500
        server.ask("POST", "/execute", secret.encode())
    assert secret not in log.read_text()
    assert "sessions/*/fork failed: SandboxError" in log.read_text()


# --- scripts, in the shape of SandboxFusion


def sandbox_fusion_client(url: str, code: str, **fields: Any) -> dict[str, Any]:
    """As verl asks: both time-outs and ten seconds more for the request, another try after a 504 and nothing else."""
    requests = pytest.importorskip("requests")
    payload = {
        "compile_timeout": 10, "run_timeout": 10, "code": code, "stdin": None, "memory_limit_MB": 1024,
        "language": "python", "files": {}, "fetch_files": [], **fields,
    }  # fmt: skip
    for attempt in range(3):
        response = requests.post(url, json=payload, timeout=payload["compile_timeout"] + payload["run_timeout"] + 10)
        if response.status_code != 504:
            response.raise_for_status()
            return dict(response.json())
        time.sleep(attempt + 1)
    raise AssertionError("three times 504")


def test_a_sandbox_fusion_client_works_unchanged(server: Server) -> None:
    url = server.url + "/run_code"
    answer = sandbox_fusion_client(url, "print(int(input()) + 1)", stdin="41\n")
    assert (answer["status"], answer["message"], answer["compile_result"]) == ("Success", "", None)
    run = answer["run_result"]
    assert (run["status"], run["return_code"], run["stdout"], run["stderr"]) == ("Finished", 0, "42\n", "")
    assert run["execution_time"] > 0
    assert answer["files"] == {}
    assert "executor_pod_name" in answer


def test_a_script_that_fails_is_failed_and_shows_its_traceback(server: Server) -> None:
    answer = sandbox_fusion_client(server.url + "/run_code", "print('before')\n1 / 0\n")
    run = answer["run_result"]
    assert (answer["status"], run["status"], run["return_code"], run["stdout"]) == ("Failed", "Finished", 1, "before\n")
    assert "ZeroDivisionError" in run["stderr"]


def test_a_script_without_end_is_a_time_limit_exceeded(server: Server) -> None:
    answer = sandbox_fusion_client(server.url + "/run_code", "while True: pass", run_timeout=1)
    assert (answer["status"], answer["run_result"]["status"]) == ("Failed", "TimeLimitExceeded")


def test_a_script_that_dies_is_an_error(server: Server) -> None:
    answer = sandbox_fusion_client(server.url + "/run_code", "import os; os._exit(3)")
    assert answer["status"] == "Failed"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"language": "cpp"}, "cpp"),
        ({"memory_limit_MB": 64}, "memory_limit_MB"),
        ({"memory_limit_MB": 1 << 20}, "memory_limit_MB"),
        ({"dataset": "x"}, "dataset"),
    ],
)
def test_what_a_script_cannot_have_is_refused_by_name(server: Server, fields: dict[str, Any], named: str) -> None:
    answer = sandbox_fusion_client(server.url + "/run_code", "print(1)", **fields)
    assert answer["status"] == "SandboxError"
    assert named in answer["message"]
    assert answer["run_result"] is None


def test_files_go_in_and_come_back_or_are_refused_where_nothing_can_be_written(server: Server) -> None:
    code = "data = open('in.bin', 'rb').read()\nopen('out.bin', 'wb').write(data[::-1])\n"
    sent = {"in.bin": base64.b64encode(b"\x00\x01\xff").decode(), "left_out": None}
    asked = ["out.bin", "missing", "in.bin"]
    answer = sandbox_fusion_client(server.url + "/run_code", code, files=sent, fetch_files=asked)
    if "scratch" in server.ask("GET", "/readyz").json["missing"]:
        assert answer["status"] == "SandboxError"
        assert "files" in answer["message"]
    else:
        files = {name: base64.b64decode(text) for name, text in answer["files"].items()}
        assert files == {"out.bin": b"\xff\x01\x00", "in.bin": b"\x00\x01\xff"}


# --- the web, where a rule allows it


def test_tools_reach_what_the_rules_name_and_nothing_else(tmp_path: Path) -> None:
    class Search(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "17")
            self.end_headers()
            self.wfile.write(b'["a","b","found"]')

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Search) as search:
        threading.Thread(target=search.serve_forever).start()
        url = f"http://127.0.0.1:{search.server_port}"
        (tmp_path / "rules").write_text(f"# the retriever\n{url}/search private\n")
        env = f"import requests\ndef f(path):\n    return requests.post('{url}' + path, json={{'q': 1}}).json()\n"
        with serving("--profiles", "default", "--web-rules", str(tmp_path / "rules")) as server:
            assert execute(server, "f('/search')", env=env)["result"] == ["a", "b", "found"]
            assert execute(server, "f('/other')", env=env)["status"] == "exception"
            assert metric(server, 'recall_sandbox_web_requests_total{host="127.0.0.1",status="200"}') == 1
        search.shutdown()
    assert refused("--web-rules", str(tmp_path / "none"))[0] == 2


# --- anything else that may be sent

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["env", "call", "name", "args", "timeout", "session", "profile", "seed", "items", "source", "n", "code", "language",
     "stdin", "files", "fetch_files", "run_timeout", "memory_limit_MB", "queue_timeout", "forkable"]
)  # fmt: skip
BODIES = (
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(NAMES, VALUES, max_size=5).map(lambda value: json.dumps(value).encode())
    | st.dictionaries(NAMES, VALUES, max_size=5).map(lambda value: json.dumps({"items": [value, 1]}).encode())
)
PATHS = st.sampled_from(
    ["/execute", "/execute_batch", "/execute_batch?stream=1", "/sessions", "/sessions/x/call", "/sessions/x/fork",
     "/run_code", "/sessions/%00", "/%ff"]
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, body=BODIES)
def test_no_body_is_our_fault(server: Server, path: str, body: bytes) -> None:
    answer = server.ask("POST", path, body, timeout_s=60)
    assert answer.status in (200, 404, 405, 422), answer
    assert b"infra_error" not in answer.body


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.binary(min_size=1, max_size=200))
def test_no_bytes_stop_the_server(server: Server, head: bytes) -> None:
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(head + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            continue
    assert server.ask("GET", "/healthz").status == 200


# --- admission, without a server


async def test_places_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    places, order = Places(1), []

    async def visitor(number: int) -> None:
        await places.take()
        order.append(number)
        await asyncio.sleep(0)
        places.release()

    await asyncio.gather(*map(visitor, range(20)))
    assert order == list(range(20))
    assert places.take_now()


async def test_a_visitor_who_gives_up_loses_no_place() -> None:
    gate, turn = Gate(1, 10), Places(1)
    await gate.enter(turn, 1)
    waiting = [asyncio.create_task(gate.enter(turn, 60)) for _ in range(3)]
    waiting += [asyncio.create_task(gate.enter(None, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert gate.waiting == 6
    for task in waiting:
        task.cancel()
    gate.leave(turn)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (gate.waiting, gate.running) == (0, 0)
    await gate.enter(turn, 0.1)
    assert gate.running == 1


async def test_a_full_queue_refuses_at_once() -> None:
    gate, turn = Gate(1, 0), Places(1)
    await gate.enter(None, 1)
    with pytest.raises(QueueFull):
        await gate.enter(turn, 1)
    gate.leave(None)
    await gate.enter(turn, 1)
