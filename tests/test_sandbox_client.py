"""`RemoteSandbox` against real servers: the same seam as the local sandbox, and whose fault what is."""

import asyncio
import importlib
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

for package in ("uvicorn", "httptools", "aiohttp", "prometheus_client"):
    pytest.importorskip(package)

from recall.errors import ConfigError, SandboxBusy, SandboxError  # noqa: E402
from recall.sandbox.base import CallResult, Forkable, Sandbox, SessionOptions  # noqa: E402
from recall.sandbox.client import RemoteSandbox  # noqa: E402
from recall.sandbox.local import LocalSandbox  # noqa: E402
from recall.types import CallStatus  # noqa: E402
from sandbox_server import COUNTER, Server, below, serving, wait_until_gone  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--profiles", "default") as running:
        yield running


@pytest.fixture
async def box(server: Server) -> AsyncIterator[RemoteSandbox]:
    sandbox = RemoteSandbox(server.url)
    yield sandbox
    await sandbox.close()


def requests_counted(server: Server, endpoint: str) -> float:
    rows = server.ask("GET", "/metrics").body.decode().splitlines()
    name = f'recall_sandbox_requests_total{{code="200",endpoint="{endpoint}"}} '
    return sum(float(row.removeprefix(name)) for row in rows if row.startswith(name))


async def test_it_is_a_sandbox_like_the_local_one(box: RemoteSandbox) -> None:
    seam: Sandbox = box
    session: Forkable = await box.open(COUNTER, SessionOptions(forkable=True))
    assert seam is not None
    assert (await session.call("bump", {"by": 3})).result == 3
    copy = await session.fork()
    assert (await copy.call("bump", {})).result == 4
    assert (await session.call("bump", {})).result == 4
    await session.close()
    await session.close()
    assert (await copy.call("bump", {})).result == 5


SCRIPT: list[tuple[str, dict[str, object], float | None]] = [
    ("bump", {}, None),
    ("bump", {"by": 0}, 2.0),
    ("bump", {"no": 1}, None),
    ("nothing", {}, None),
    ("bump", {"by": {1}}, None),
    ("bump", {"by": "x"}, None),
    ("bump", {"by": 2**80}, None),
    ("sleep", {"seconds": 30}, 0.2),
    ("bump", {"by": 0}, None),
    ("die", {}, None),
    ("bump", {}, None),
]


async def test_every_outcome_is_that_of_the_local_sandbox(box: RemoteSandbox) -> None:
    local = LocalSandbox()

    async def outcomes(sandbox: Sandbox) -> list[tuple[object, ...]]:
        session = await sandbox.open(COUNTER)
        results = [await session.call(name, arguments, timeout_s=limit) for name, arguments, limit in SCRIPT]
        broken = await sandbox.open("def f(:\n")
        results.append(await broken.call("f", {}))
        return [(r.status, r.result, r.output, r.error, r.state_lost) for r in results]

    assert await outcomes(box) == await outcomes(local)
    await local.close()


async def test_calls_of_one_moment_travel_together_and_each_comes_back_when_done(
    server: Server, box: RemoteSandbox
) -> None:
    sessions = [await box.open(COUNTER) for _ in range(8)]
    for session in sessions:
        await session.call("bump", {})
    batches, singles = requests_counted(server, "execute_batch"), requests_counted(server, "execute")
    slow = asyncio.create_task(sessions[0].call("sleep", {"seconds": 2}, timeout_s=10))
    began = time.monotonic()
    quick = await asyncio.gather(*[session.call("bump", {}) for session in sessions[1:]])
    assert time.monotonic() - began < 2
    assert [result.result for result in quick] == [2] * 7
    assert (await slow).result == "rested"
    assert requests_counted(server, "execute_batch") - batches == 1
    assert requests_counted(server, "execute") == singles


async def test_calls_of_one_session_run_in_the_order_made(box: RemoteSandbox) -> None:
    session = await box.open(COUNTER)
    results = await asyncio.gather(*[session.call("bump", {}) for _ in range(20)])
    assert [result.result for result in results] == list(range(1, 21))


async def test_hundreds_of_sessions_at_once_are_not_mixed_up(box: RemoteSandbox) -> None:
    async def episode(number: int) -> list[object]:
        session = await box.open(COUNTER)
        results = [(await session.call("bump", {"by": number})).result for _ in range(3)]
        await session.close()
        return results

    for number, results in enumerate(await asyncio.gather(*map(episode, range(200)))):
        assert results == [number, 2 * number, 3 * number]


async def test_closing_ends_the_processes(server: Server, box: RemoteSandbox) -> None:
    before = below(server.process.pid)
    sessions = [await box.open(COUNTER) for _ in range(3)]
    await asyncio.gather(*[session.call("bump", {}) for session in sessions])
    new = below(server.process.pid) - before
    assert len(new) == 3
    await sessions[0].close()
    await box.close()
    assert await asyncio.to_thread(wait_until_gone, new) == set()
    with pytest.raises(SandboxError, match="closed"):
        await sessions[1].call("bump", {})
    with pytest.raises(SandboxError, match="closed"):
        await box.open(COUNTER)


async def test_a_cancelled_call_ends_its_session_and_no_other(server: Server, box: RemoteSandbox) -> None:
    session, other = await box.open(COUNTER), await box.open(COUNTER)
    await asyncio.gather(session.call("bump", {}), other.call("bump", {}))
    calls = [asyncio.create_task(each.call("sleep", {"seconds": 1.5}, timeout_s=20)) for each in (session, other)]
    await asyncio.sleep(0.3)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    later = await session.call("bump", {})
    assert (later.status, later.state_lost) == (CallStatus.STATE_LOST, True)
    assert (await calls[1]).result == "rested"
    assert (await other.call("bump", {})).result == 2


async def test_what_no_server_will_ever_do_is_the_users_fault(server: Server, box: RemoteSandbox) -> None:
    with pytest.raises(ConfigError, match="profile"):
        await box.open(COUNTER, SessionOptions(profile="numpy"))
    for urls in ([], ["127.0.0.1:8900"], [server.url, server.url]):
        with pytest.raises(ConfigError):
            RemoteSandbox(urls)


async def test_the_token_comes_from_the_caller_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    monkeypatch.delenv("RECALL_SANDBOX_TOKEN", raising=False)
    with serving("--profiles", "default", "--token-file", str(file)) as server:
        without = RemoteSandbox(server.url)
        with pytest.raises(ConfigError, match="401"):
            await without.open(COUNTER)
        await without.close()
        given = RemoteSandbox(server.url, TOKEN)
        monkeypatch.setenv("RECALL_SANDBOX_TOKEN", TOKEN)
        for box in (given, RemoteSandbox(server.url)):
            session = await box.open(COUNTER)
            assert (await session.call("bump", {})).result == 1
            await box.close()


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    with serving("--profiles", "default", "--uds", str(tmp_path / "s")) as server:
        box = RemoteSandbox(server.url)
        session = await box.open(COUNTER)
        assert (await session.call("bump", {})).result == 1
        await box.close()


async def test_no_room_is_waited_for_and_then_said() -> None:
    with serving("--profiles", "default", "--max-sessions", "1") as server:
        box, hasty = RemoteSandbox(server.url), RemoteSandbox(server.url, queue_timeout_s=0.2)
        first = await box.open(COUNTER)
        with pytest.raises(SandboxBusy):
            await hasty.open(COUNTER)
        waiting = asyncio.create_task(box.open(COUNTER))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await first.close()
        assert (await (await waiting).call("bump", {})).result == 1
        await box.close()
        await hasty.close()


async def test_a_call_that_finds_no_place_is_tried_again_and_costs_no_state() -> None:
    flags = ("--profiles", "default", "--max-running", "1", "--max-queue", "0")
    with serving(*flags) as server:
        box = RemoteSandbox(server.url)
        sessions = [await box.open(COUNTER) for _ in range(3)]
        slow = asyncio.create_task(sessions[0].call("sleep", {"seconds": 1}, timeout_s=10))
        await asyncio.sleep(0.3)
        results = await asyncio.gather(*[session.call("bump", {}) for session in sessions[1:]])
        assert [result.result for result in results] == [1, 1]
        assert (await slow).status is CallStatus.OK
        await box.close()


async def test_a_killed_server_loses_its_own_sessions_and_no_others() -> None:
    with serving("--profiles", "default") as doomed, serving("--profiles", "default") as other:
        box = RemoteSandbox([doomed.url, other.url])
        sessions = [await box.open(COUNTER) for _ in range(24)]
        lost = [session for session in sessions if session.url == doomed.url]
        kept = [session for session in sessions if session.url == other.url]
        assert len(lost) >= 2
        assert len(kept) >= 2
        await asyncio.gather(*[session.call("bump", {}) for session in sessions])
        processes = below(doomed.process.pid)
        in_flight = [asyncio.create_task(s.call("sleep", {"seconds": 2}, timeout_s=20)) for s in (*lost[1:], *kept)]
        await asyncio.sleep(0.7)
        doomed.stop(signal.SIGKILL)
        outcomes = await asyncio.gather(*in_flight, return_exceptions=True)
        for outcome in outcomes[: len(lost) - 1]:
            assert isinstance(outcome, SandboxError)
        for outcome in outcomes[len(lost) - 1 :]:
            assert isinstance(outcome, CallResult)
            assert outcome.result == "rested"
        for session in lost:  # the first of them had no call in flight
            with pytest.raises(SandboxError):
                await session.call("bump", {})
            with pytest.raises(SandboxError, match="session lost"):
                await session.call("bump", {})
        new = [await box.open(COUNTER) for _ in range(8)]
        assert {session.url for session in new} == {other.url}
        assert [(await session.call("bump", {})).result for session in (*kept, *new)] == [2] * len(kept) + [1] * 8
        assert await asyncio.to_thread(wait_until_gone, processes) == set()
        await box.close()


async def test_a_restarted_server_has_no_state_and_never_pretends_to() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving("--profiles", "default", port=port) as first:
        box = RemoteSandbox(first.url)
        sessions = [await box.open(COUNTER) for _ in range(4)]
        await asyncio.gather(*[session.call("bump", {}) for session in sessions])
        first.stop(signal.SIGKILL)
        await asyncio.sleep(0.1)  # until then a connection that was kept may look alive
        opening = asyncio.create_task(box.open(COUNTER))
        with serving("--profiles", "default", port=port):
            assert (await (await opening).call("bump", {})).result == 1
            for session in sessions:
                with pytest.raises(SandboxError):
                    await session.call("bump", {})
            await box.close()


async def test_a_server_that_answers_nothing_is_given_up() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/sessions " in head:
            body = b'{"id":"' + b"0" * 32 + b'"}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    box = RemoteSandbox(f"http://127.0.0.1:{port}", queue_timeout_s=0.2, margin_s=0.2)
    session = await box.open(COUNTER)
    with pytest.raises(SandboxError, match="no answer"):
        await session.call("bump", {}, timeout_s=0.1)
    with pytest.raises(SandboxError, match="session lost"):
        await session.call("bump", {})
    listener.close()
    await box.close()


async def test_sessions_spread_evenly_and_a_server_that_is_down_gives_up_only_its_share() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 5)]
    box = RemoteSandbox(urls)
    first = [[endpoint.url for endpoint in box._ranked(b"%d" % key)] for key in range(2000)]
    shares = [sum(ranked[0] == url for ranked in first) for url in urls]
    assert min(shares) > 400
    # Without one server, every session that was not on it stays where it is.
    for ranked in first:
        left = [url for url in ranked if url != urls[0]]
        assert ranked[0] == urls[0] or left[0] == ranked[0]
    await box.close()


async def test_the_benchmark_measures_both_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    part = importlib.import_module("parts.sandbox_http")
    found = await part.compare(calls=48, widths=(2,), rounds=1)
    assert set(found) == {"exec", "session", "batched", "one_shot"}
    assert all(numbers["2"]["calls_per_s"] > 0 and numbers["2"]["server_cpu_ms"] > 0 for numbers in found.values())
    assert "one_shot" in part.table(found)
