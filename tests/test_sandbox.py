import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recall.errors import ConfigError, SandboxError
from recall.sandbox.base import CallResult
from recall.sandbox.decoding import decode_reply
from recall.sandbox.local import LocalSandbox, SandboxLimits
from recall.sandbox.profiles import Profile
from recall.sandbox.session import LocalSession
from recall.types import CallStatus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")

LIMITS = SandboxLimits(
    call_timeout_s=5.0, open_timeout_s=1.0, cpu_s=20, memory_bytes=256 << 20, output_chars=1000, result_bytes=20_000
)
COUNTER = """
count = 0
def bump(by=1):
    global count
    count += by
    return count
"""


@pytest.fixture(scope="module")
def box() -> Iterator[LocalSandbox]:
    """One sandbox for all tests, each with a loop of its own: what one attack leaves behind, the next test meets."""
    sandbox = LocalSandbox(LIMITS)
    yield sandbox
    asyncio.run(sandbox.close())


def fields_of(pid: int) -> list[str]:
    """State, parent, … of a process, as in `/proc/PID/stat` after the name; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def runs(pid: int) -> bool:
    """Whether a process lives. An orphan that has ended stays on as a zombie until something reaps it."""
    return fields_of(pid)[:1] not in ([], ["Z"])


def children_of(parent: int) -> set[int]:
    pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return {pid for pid in pids if fields_of(pid)[1:2] == [str(parent)]}


def zygote_of(sandbox: LocalSandbox) -> int:
    assert sandbox.pid is not None
    return sandbox.pid


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not become true in time"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def opened(sandbox: LocalSandbox, source: str) -> AsyncIterator[LocalSession]:
    session = await sandbox.open(source)
    try:
        yield session
    finally:
        await session.close()


async def run(sandbox: LocalSandbox, source: str, name: str = "f", **arguments: Any) -> CallResult:
    """One call in a session of its own."""
    async with opened(sandbox, source) as session:
        return await session.call(name, arguments)


async def result_of(sandbox: LocalSandbox, body: str) -> CallResult:
    return await run(sandbox, "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines()))


# --- what a session is for


async def test_state_lasts_from_call_to_call(box: LocalSandbox) -> None:
    session = await box.open(COUNTER)
    assert [(await session.call("bump", {"by": by})).result for by in (1, 2, 3)] == [1, 3, 6]
    await session.close()


async def test_sessions_share_nothing(box: LocalSandbox) -> None:
    first, second = await box.open(COUNTER), await box.open(COUNTER)
    await first.call("bump", {"by": 100})
    assert (await second.call("bump", {})).result == 1
    await first.close()
    await second.close()


async def test_calls_of_one_session_run_in_the_order_made(box: LocalSandbox) -> None:
    session = await box.open("log = []\ndef f(i):\n    log.append(i)\n    return list(log)\n")
    results = await asyncio.gather(*(session.call("f", {"i": i}) for i in range(20)))
    assert [result.result for result in results] == [list(range(i + 1)) for i in range(20)]
    await session.close()


async def test_sessions_run_at_the_same_time(box: LocalSandbox) -> None:
    sessions = [await box.open("import time\ndef f():\n    time.sleep(0.2)\n") for _ in range(20)]
    began = time.monotonic()
    await asyncio.gather(*(session.call("f", {}) for session in sessions))
    assert time.monotonic() - began < 2.0
    await asyncio.gather(*(session.close() for session in sessions))


@pytest.mark.parametrize("value", [0, False, "", [], {}, None, 0.0])
async def test_falsy_results_are_results(box: LocalSandbox, value: object) -> None:
    result = await result_of(box, f"return {value!r}")
    assert (result.status, result.result, result.error) == (CallStatus.OK, value, None)
    assert type(result.result) is type(value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(1, (2, 3))", [1, [2, 3]]),
        ("{3, 1, 2}", [1, 2, 3]),
        ("{'a': {('x', 1): 2, 5: frozenset('b')}}", {"a": {"('x', 1)": 2, "5": ["b"]}}),
        ("float('nan')", None),
        ("[float('inf'), 1.5]", [None, 1.5]),
        ("b'x'", "b'x'"),
        ("[1, 2j]", [1, "2j"]),
        ("__import__('datetime').date(2024, 2, 29)", "2024-02-29"),
        ("len", "<built-in function len>"),
        ("'naïve \\U0001f600'", "naïve 😀"),
        ("'\\ud800x'", "?x"),
        ("10**4000 % 10**30", 0),
    ],
)
async def test_a_result_is_a_json_value_or_a_repr(box: LocalSandbox, expression: str, value: object) -> None:
    result = await result_of(box, f"return {expression}")
    assert (result.status, result.result) == (CallStatus.OK, value)


@pytest.mark.parametrize("body", ["x = []\nx.append(x)\nreturn x", "x = []\nfor _ in range(100000): x = [x]\nreturn x"])
async def test_a_result_without_an_end_costs_nothing_but_the_call(box: LocalSandbox, body: str) -> None:
    assert (await result_of(box, body)).status in (CallStatus.OK, CallStatus.EXCEPTION)


async def test_a_result_over_the_limit_is_refused_and_the_state_stays(box: LocalSandbox) -> None:
    session = await box.open(COUNTER + "def big():\n    bump()\n    return 'x' * 50_000_000\n")
    result = await session.call("big", {})
    assert result.status is CallStatus.OVER_LIMIT
    assert "20000" in (result.error or "")
    assert (await session.call("bump", {})).result == 2
    await session.close()


async def test_output_is_kept_per_call_and_cut_with_a_note(box: LocalSandbox) -> None:
    session = await box.open("def f(n):\n    print('x' * n, end='')\n    return n\n")
    assert (await session.call("f", {"n": 3})).output == "xxx"
    flood = await session.call("f", {"n": 50_000_000})
    assert flood.output == "x" * 1000 + "\n[49999000 more characters were cut]"
    assert flood.result == 50_000_000
    assert (await session.call("f", {"n": 0})).output == ""
    await session.close()


async def test_an_exception_is_told_with_its_type_and_line(box: LocalSandbox) -> None:
    result = await run(box, "def f(x):\n    y = 1\n    return y / x\n", x=0)
    assert (result.status, result.error) == (CallStatus.EXCEPTION, "ZeroDivisionError: division by zero (line 3)")


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('x')"])
async def test_no_exception_of_a_tool_ends_its_session(box: LocalSandbox, raised: str) -> None:
    session = await box.open(COUNTER + f"def f():\n    raise {raised}\n")
    await session.call("bump", {})
    result = await session.call("f", {})
    assert result.status is CallStatus.EXCEPTION
    assert (result.error or "").startswith(raised.partition("(")[0])
    assert (await session.call("bump", {})).result == 2
    await session.close()


async def test_a_long_error_is_cut(box: LocalSandbox) -> None:
    result = await result_of(box, "raise ValueError('x' * 10_000_000)")
    assert len(result.error or "") < 2100


async def test_wrong_arguments_are_told_apart_from_a_type_error_inside(box: LocalSandbox) -> None:
    source = "def f(a):\n    return a + 1\n"
    assert (await run(box, source, b=1)).status is CallStatus.BAD_ARGUMENTS
    assert (await run(box, source)).status is CallStatus.BAD_ARGUMENTS
    assert (await run(box, source, a="x")).status is CallStatus.EXCEPTION


@pytest.mark.parametrize(
    "name", ["len", "join", "path.join", "os", "Thing", "VALUE", "__import__", "", "f()", "é", "none"]
)
async def test_only_functions_of_the_source_can_be_called(box: LocalSandbox, name: str) -> None:
    source = "import os\nfrom os import path\nfrom os.path import join\nclass Thing: pass\nVALUE = 1\ndef f(): pass\n"
    assert (await run(box, source, name)).status is CallStatus.UNKNOWN_TOOL


async def test_a_decorated_function_of_the_source_can_be_called(box: LocalSandbox) -> None:
    source = "from functools import cache\n@cache\ndef f(a):\n    return a + 1\n"
    assert (await run(box, source, a=1)).result == 2


async def test_arguments_reach_the_tool_as_they_were(box: LocalSandbox) -> None:
    value = {"a": [1, 2.5, None, True, "naïve \ud800"], "long": "x" * 500_000}
    result = await run(box, "def f(v):\n    return [v['a'][:4], len(v['a'][4]), len(v['long'])]\n", v=value)
    assert result.result == [[1, 2.5, None, True], 7, 500_000]


@pytest.mark.parametrize("value", [object(), "x" * (2 << 20)])
async def test_arguments_that_cannot_be_sent_are_refused_and_the_session_lives(box: LocalSandbox, value: Any) -> None:
    session = await box.open(COUNTER)
    assert (await session.call("bump", {"by": value})).status is CallStatus.BAD_ARGUMENTS
    assert (await session.call("bump", {})).result == 1
    await session.close()


async def test_dataclasses_and_annotations_work_in_a_source(box: LocalSandbox) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import asdict, dataclass\n"
        "@dataclass\nclass P:\n    x: int\ndef f(x: int) -> dict:\n    return asdict(P(x))\n"
    )
    assert (await run(box, source, x=3)).result == {"x": 3}


async def test_the_standard_library_can_be_imported(box: LocalSandbox) -> None:
    body = "import csv, decimal, statistics, uuid\nreturn [statistics.mean([1, 3]), str(decimal.Decimal('0.1') * 3)]"
    assert (await result_of(box, body)).result == [2, "0.3"]


async def test_the_order_of_a_set_is_the_same_in_every_sandbox() -> None:
    orders = []
    for _ in range(2):
        sandbox = LocalSandbox(LIMITS)
        orders.append((await result_of(sandbox, "return [x for x in {'a', 'b', 'c', 'd', 'e', 'f'}]")).result)
        await sandbox.close()
    assert orders[0] == orders[1]


FORGER = """
import os, struct
body = b"C" + b"eA=="
os.write(3, struct.pack(">II", len(body), 0) + body)
def f():
    return 1
"""


SHARED = """
import random
lucky = random.random()
def luck():
    return lucky
def fail():
    raise KeyError("é")
"""


async def test_sessions_of_one_source_share_what_it_compiled_to_and_nothing_else() -> None:
    sandbox = LocalSandbox()
    source = COUNTER + SHARED
    sessions = [await sandbox.open(source) for _ in range(3)]
    for session in sessions:  # the first one tells the code before the second is opened below
        assert (await session.call("bump", {"by": 2})).result == 2
    late = await sandbox.open(source)
    assert (await late.call("bump", {})).result == 1
    everyone = [*sessions, late]
    assert len({(await session.call("luck", {})).result for session in everyone}) == 4
    assert len({(await session.call("fail", {})).error for session in everyone}) == 1
    await sandbox.close()


async def test_a_source_cannot_tell_a_code_itself() -> None:
    sandbox = LocalSandbox()
    for _ in range(2):
        forging = await sandbox.open(FORGER)
        error = (await forging.call("f", {})).error
        assert error is not None
        assert "own channel" in error
    await sandbox.close()


async def test_random_numbers_differ_between_sessions(box: LocalSandbox) -> None:
    assert len({(await result_of(box, "import random\nreturn random.random()")).result for _ in range(4)}) == 4


# --- a source that cannot be loaded


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(:\n", "SyntaxError"),
        ("x = 1\nraise ValueError('no')\n", "ValueError: no (line 2)"),
        ("import not_a_module\n", "ModuleNotFoundError"),
        ("import os\nos._exit(7)\n", "exit status 7"),
        ("while True: pass\n", "longer than 1 s"),
        ("import sys\nsys.exit()\n", "SystemExit"),
        ("x = '\0'\n", "null"),
        ("(" * 10_000, ""),
        ("import os\nos.write(3, b'x' * 100)\n", "channel"),
        ("#" * (2 << 20), "limit"),
    ],
)
async def test_every_call_reports_a_source_that_fails(box: LocalSandbox, source: str, words: str) -> None:
    session = await box.open(source)
    results = [await session.call("f", {}) for _ in range(2)]
    await session.close()
    assert [result.status for result in results] == [CallStatus.EXCEPTION] * 2
    assert words in (results[0].error or "")
    assert results[0].error == results[1].error


# --- attacks: each costs its call, perhaps its session, and nothing else

ATTACKS = {
    "endless loop": ("while True: pass", "timeout"),
    "endless sleep": ("import time\ntime.sleep(1e6)", "timeout"),
    "endless arithmetic": ("return 7 ** 10 ** 10 % 3", "timeout exception"),
    "endless expression": ("import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')", "timeout"),
    "deaf to signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\n"
        "while True: pass",
        "timeout",
    ),
    "swallows everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "timeout",
    ),
    "endless repr": ("class R:\n    def __repr__(self):\n        while True: pass\nreturn R()", "timeout"),
    "endless message": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E()",
        "timeout",
    ),
    "raising repr": ("class R:\n    def __repr__(self): raise SystemExit('x')\nreturn R()", "exception"),
    "raising message": ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E()", "exception"),
    "_exit": ("import os\nos._exit(0)", "crashed"),
    "abort": ("import os\nos.abort()", "crashed"),
    "null pointer": ("import ctypes\nctypes.string_at(0)", "crashed"),
    "kill itself": ("import os\nos.kill(os.getpid(), 9)", "crashed exception"),
    "kill its group": ("import os\nos.killpg(0, 9)", "crashed exception"),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef r(): return r()\nr()",
        "crashed exception timeout",
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", "exception"),
    "fork": ("import os\nos.fork()", "exception"),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/true'])", "exception"),
    "shell": ("import os\nif os.system('/bin/true') != 0: raise OSError('refused')", "exception"),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
        "exception",
    ),
    "memory hog": ("return len(bytearray(1 << 30))", "exception"),
    "slow memory hog": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "exception timeout"),
    "many small objects": ("x = []\nwhile True: x.append([])", "exception timeout crashed"),
    "descriptor hog": ("import os\nx = []\nwhile True: x.append(os.dup(0))", "exception"),
    "output flood": ("for _ in range(200000): print('x' * 1000)", "ok timeout"),
    "raw output flood": ("import os\nfor _ in range(1000): os.write(1, b'x' * 65536); os.write(2, b'x')", "ok timeout"),
    "closed channel": ("import os\nos.close(3)", "crashed"),
    "closed channel, alive": ("import os, time\nos.close(3)\ntime.sleep(1e6)", "crashed"),
    "replaced channel": ("import os\nos.dup2(0, 3)", "crashed"),
    "all descriptors closed": ("import os\nos.closerange(0, 64)", "crashed"),
    "giant frame": ("import os\nos.write(3, b'\\xff' * 8)", "crashed"),
    "giant frame, filled": (
        "import os\nos.write(3, b'\\xff\\xff\\xff\\xff\\0\\0\\0\\1')\nwhile True: os.write(3, b'x' * 65536)",
        "crashed",
    ),
    "garbage": ("import os\nos.write(3, b'hello, world' * 9)", "crashed"),
    "frame that is not JSON": ("import os\nos.write(3, b'\\0\\0\\0\\4\\0\\0\\0\\1nope')", "crashed"),
    "deep frame": (
        "import os\nos.write(3, (100000).to_bytes(4) + (1).to_bytes(4))\nos.write(3, b'[' * 100000)",
        "crashed",
    ),
    "half a frame": ("import os, time\nos.write(3, b'\\0\\0\\0\\4\\0\\0\\0\\1no')\ntime.sleep(1e6)", "crashed"),
    "dripping frame": (
        "import os, time\nos.write(3, b'\\0\\0\\0\\xff\\0\\0\\0\\1')\n"
        "while True: os.write(3, b'[') and time.sleep(0.05)",
        "timeout crashed",
    ),
    "forged frame": (
        'import os\nb = b\'["ok",42,"",null]\'\nos.write(3, len(b).to_bytes(4) + (1).to_bytes(4) + b)',
        "ok",
    ),
    "forged flood": (
        "import os\nb = b'[\"ok\",42,\"' + b'x' * 5000 + b'\",null]'\n"
        "os.write(3, len(b).to_bytes(4) + (1).to_bytes(4) + b)",
        "crashed",
    ),
    "frame of another call": (
        'import os\nb = b\'["ok",42,"",null]\'\nos.write(3, len(b).to_bytes(4) + (2).to_bytes(4) + b)',
        "crashed",
    ),
    "poisoned builtins": (
        "import builtins\nbuiltins.len = builtins.type = builtins.repr = None",
        "ok crashed exception",
    ),
    "poisoned json": (
        "import json\njson.loads = json.dumps = None\njson.JSONEncoder.encode = None",
        "ok crashed exception",
    ),
    "raised limits": ("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (99, 99))", "exception"),
    "become root": ("import os\nos.setresuid(0, 0, 0)", "exception"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_costs_only_its_own_session(box: LocalSandbox, name: str) -> None:
    body, statuses = ATTACKS[name]
    if name == "become root" and os.geteuid() != 0:
        pytest.skip("only root has this to give up")
    async with opened(box, COUNTER) as victim:
        assert (await victim.call("bump", {"by": 41})).result == 41
        zygote, before = zygote_of(box), descriptors()
        await eventually(lambda: len(children_of(zygote)) == 1)
        async with opened(box, "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())) as attacker:
            began = time.monotonic()
            result = await attacker.call("f", {}, timeout_s=1.0)
            assert result.status in statuses.split(), result
            assert time.monotonic() - began < 3
            assert (result.error is None) == (result.status is CallStatus.OK)
            if result.state_lost:
                assert (await attacker.call("f", {})).status is CallStatus.STATE_LOST
            assert (await victim.call("bump", {})).result == 42
        await eventually(lambda: len(children_of(zygote)) == 1)
        assert descriptors() == before
        assert zygote_of(box) == zygote


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read(5)",
        "import os\nreturn os.listdir('/var')",
        "import os\nreturn os.listdir('/proc')",
        "return open('/proc/self/environ').read()",
        "open('/tmp/recall-sandbox-test', 'w').write('x')",
        "import os\nos.symlink('a', '/tmp/recall-sandbox-test')",
        "import os\nos.execv('/bin/true', ['true'])",
    ],
)
async def test_the_file_system_is_closed(box: LocalSandbox, body: str) -> None:
    await (await box.open("")).close()
    if "landlock:fs" not in box.isolation:
        pytest.skip("this kernel has no Landlock")
    result = await result_of(box, body)
    assert result.status is CallStatus.EXCEPTION
    assert "Error" in (result.error or "")


async def test_a_server_of_this_machine_cannot_be_reached(box: LocalSandbox) -> None:
    await (await box.open("")).close()
    if not {"network", "landlock:tcp"} & set(box.isolation):
        pytest.skip("this host closes no network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        assert (await result_of(box, body)).status is CallStatus.EXCEPTION


async def test_another_session_and_the_zygote_cannot_be_signalled(box: LocalSandbox) -> None:
    await (await box.open("")).close()
    if not {"uid", "landlock:scope"} & set(box.isolation):
        pytest.skip("this host does not keep sessions apart")
    victim = await box.open("import os\ndef pid(): return os.getpid()\n")
    pid = (await victim.call("pid", {})).result
    for target in (pid, zygote_of(box), os.getpid()):
        result = await run(box, "import os\ndef f(pid): os.kill(pid, 9)\n", pid=target)
        assert "PermissionError" in (result.error or "")
    await result_of(box, "import os\nos.kill(-1, 9)")
    assert (await victim.call("pid", {})).result == pid
    await victim.close()


async def test_a_session_sees_nothing_of_its_launcher(box: LocalSandbox) -> None:
    body = "import os, sys\nreturn [dict(os.environ), sys.argv, sys.orig_argv, os.getcwd(), os.getuid()]"
    environ, *arguments, directory, uid = (await result_of(box, body)).result
    assert (environ, arguments, directory) == ({}, [[""], [""]], "/")
    assert os.geteuid() != 0 or uid > 0


async def test_a_session_has_no_descriptors_but_its_own(box: LocalSandbox) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        body = (
            "import os\ndef has(n):\n    try:\n        os.fstat(n)\n        return True\n"
            "    except OSError:\n        return False\nreturn [n for n in range(2000) if has(n)]"
        )
        assert (await result_of(box, body)).result == [0, 1, 2, 3]
    finally:
        os.close(reader)
        os.close(writer)


async def test_cpu_time_is_limited_over_the_life_of_a_session() -> None:
    sandbox = LocalSandbox(SandboxLimits(cpu_s=1))
    result = await result_of(sandbox, "while True: pass")
    assert (result.status, "1 s of CPU" in (result.error or "")) == (CallStatus.CRASHED, True)
    await sandbox.close()


async def test_bytes_between_calls_end_the_session(box: LocalSandbox) -> None:
    source = (
        "import os, threading, time\n"
        "def late():\n    while True:\n        time.sleep(0.01)\n        os.write(3, b'x')\n"
        "def f():\n    threading.Thread(target=late).start()\n    time.sleep(0.005)\ndef g(): time.sleep(0.1)\n"
    )
    session = await box.open(source)
    assert (await session.call("f", {})).status is CallStatus.OK
    await asyncio.sleep(0.1)
    # A process with threads left is stopped between calls, so that they may come to it only in the next one.
    assert (await session.call("g", {})).status in (CallStatus.STATE_LOST, CallStatus.CRASHED)
    await session.close()


# --- time


@pytest.mark.parametrize("timeout_s", [0.1, 0.4])
async def test_a_call_ends_at_its_time_out(box: LocalSandbox, timeout_s: float) -> None:
    session = await box.open("def f():\n    while True: pass\ndef g(): pass\n")
    await session.call("g", {})
    result = await session.call("f", {}, timeout_s=timeout_s)
    assert result.status is CallStatus.TIMEOUT
    assert timeout_s <= result.duration_s < 3 * timeout_s
    assert result.state_lost is False
    await session.close()


async def test_waiting_for_earlier_calls_does_not_count(box: LocalSandbox) -> None:
    session = await box.open("import time\ndef f():\n    time.sleep(0.2)\n    return 1\n")
    results = await asyncio.gather(*(session.call("f", {}, timeout_s=0.5) for _ in range(4)))
    assert [result.result for result in results] == [1] * 4
    await session.close()


async def test_calls_that_wait_behind_a_lost_one_report_the_lost_state(box: LocalSandbox) -> None:
    session = await box.open("import os\ndef f(): os._exit(0)\n")
    results = await asyncio.gather(*(session.call("f", {}) for _ in range(3)))
    assert [result.status for result in results] == [CallStatus.CRASHED, CallStatus.STATE_LOST, CallStatus.STATE_LOST]
    await session.close()


async def test_an_answer_that_is_there_counts_though_the_loop_was_busy(box: LocalSandbox) -> None:
    session = await box.open(COUNTER)
    await session.call("bump", {})
    pending = asyncio.create_task(session.call("bump", {}, timeout_s=0.1))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251  # the loop is held on purpose, as in-process sampling does
    assert (await pending).result == 2
    await session.close()


async def test_cancelling_a_call_ends_its_process(box: LocalSandbox) -> None:
    session = await box.open("def f():\n    while True: pass\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(session.call("f", {}), 0.2)
    assert (await session.call("f", {})).status is CallStatus.STATE_LOST
    await eventually(lambda: not children_of(zygote_of(box)))
    await session.close()


# --- closing, faults, loops


async def test_closing_a_session_ends_its_process_and_its_call(box: LocalSandbox) -> None:
    session = await box.open("def f():\n    while True: pass\n")
    call = asyncio.create_task(session.call("f", {}))
    await asyncio.sleep(0.05)
    await session.close()
    await session.close()
    with pytest.raises(SandboxError, match="closed"):
        await call
    with pytest.raises(SandboxError, match="closed"):
        await session.call("f", {})
    await eventually(lambda: not children_of(zygote_of(box)))


async def test_closing_the_sandbox_leaves_neither_processes_nor_descriptors() -> None:
    before = descriptors()
    sandbox = LocalSandbox(LIMITS)
    sessions = [await sandbox.open("def f():\n    while True: pass\n") for _ in range(8)]
    calls = [asyncio.create_task(session.call("f", {})) for session in sessions]
    await eventually(lambda: len(children_of(zygote_of(sandbox))) == 8)
    zygote = zygote_of(sandbox)
    pids = children_of(zygote) | {zygote}
    await sandbox.close()
    await sandbox.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, SandboxError) for outcome in outcomes)
    assert not any(fields_of(pid) for pid in pids)
    assert descriptors() == before
    with pytest.raises(SandboxError, match="closed"):
        await sandbox.open(COUNTER)


async def test_a_dead_zygote_fails_its_sessions_and_is_replaced() -> None:
    sandbox = LocalSandbox(LIMITS)
    idle, busy = await sandbox.open(COUNTER), await sandbox.open("def f():\n    while True: pass\n")
    await idle.call("bump", {})
    call = asyncio.create_task(busy.call("f", {}))
    await asyncio.sleep(0.1)
    children = children_of(zygote_of(sandbox))
    os.kill(zygote_of(sandbox), signal.SIGKILL)
    with pytest.raises(SandboxError):
        await call
    with pytest.raises(SandboxError):
        await idle.call("bump", {})
    sessions = await asyncio.gather(*(sandbox.open(COUNTER) for _ in range(4)))
    assert [(await session.call("bump", {})).result for session in sessions] == [1] * 4
    await eventually(lambda: not any(runs(pid) for pid in children))
    await sandbox.close()


async def test_open_waits_for_room() -> None:
    sandbox = LocalSandbox(SandboxLimits(max_sessions=2))
    first, _ = await sandbox.open(COUNTER), await sandbox.open(COUNTER)
    third = asyncio.create_task(sandbox.open(COUNTER))
    await asyncio.sleep(0.05)
    assert not third.done()
    await first.close()
    assert (await (await third).call("bump", {})).result == 1
    await sandbox.close()


def test_a_sandbox_outlives_a_loop() -> None:
    sandbox = LocalSandbox(LIMITS)
    session = asyncio.run(sandbox.open(COUNTER))
    zygote = zygote_of(sandbox)
    assert [asyncio.run(session.call("bump", {})).result for _ in range(3)] == [1, 2, 3]
    assert asyncio.run(run(sandbox, COUNTER, "bump")).result == 1
    assert zygote_of(sandbox) == zygote
    asyncio.run(sandbox.close())


def test_a_process_that_ends_between_loops_is_reported_in_the_next() -> None:
    sandbox = LocalSandbox(LIMITS)
    session = asyncio.run(sandbox.open("import os\nos._exit(4)\n"))
    time.sleep(0.1)
    assert "exit status 4" in (asyncio.run(session.call("f", {})).error or "")
    asyncio.run(sandbox.close())


def test_the_thread_that_started_it_may_end() -> None:
    sandbox = LocalSandbox(LIMITS)
    thread = threading.Thread(target=lambda: asyncio.run(run(sandbox, COUNTER, "bump")))
    thread.start()
    thread.join()
    assert asyncio.run(run(sandbox, COUNTER, "bump")).result == 1
    asyncio.run(sandbox.close())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_sandbox_ends_its_processes() -> None:
    async def forget() -> tuple[int, set[int]]:
        sandbox = LocalSandbox(LIMITS)
        session = await sandbox.open(COUNTER)
        await session.call("bump", {})
        return zygote_of(sandbox), children_of(zygote_of(sandbox))

    zygote, children = asyncio.run(forget())
    gc.collect()
    assert not fields_of(zygote)
    asyncio.run(eventually(lambda: not any(runs(pid) for pid in children)))


def test_nothing_survives_the_death_of_the_parent() -> None:
    program = (
        "import asyncio\nfrom recall.sandbox.local import LocalSandbox\n"
        "async def main():\n"
        "    sandbox = LocalSandbox()\n"
        "    sessions = [await sandbox.open('def f():\\n    while True: pass\\n') for _ in range(3)]\n"
        "    calls = [asyncio.create_task(session.call('f', {})) for session in sessions]\n"
        "    await asyncio.sleep(0.3)\n    print(sandbox.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        zygote = int(parent.stdout.readline())
        pids = {zygote} | children_of(zygote)
        assert len(pids) == 4
        parent.kill()
    asyncio.run(eventually(lambda: not any(runs(pid) for pid in pids)))


async def test_many_sessions_at_once_leak_nothing(box: LocalSandbox) -> None:
    before = descriptors()

    async def one(number: int) -> Any:
        session = await box.open(COUNTER)
        await session.call("bump", {"by": number})
        result = await session.call("bump", {})
        await session.close()
        return result.result

    for _ in range(2):
        assert await asyncio.gather(*(one(number) for number in range(100))) == list(range(1, 101))
    await eventually(lambda: not children_of(zygote_of(box)))
    assert descriptors() == before


# --- the parent's side of the channel


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b'["ok"]',
        b'["fine",1,"",null]',
        b'["timeout",1,"",null]',
        b'["ok",1,2,null]',
        b'["ok",1,"",3]',
        b'["ok",1,"","no"]',
        b'["exception",null,"",null]',
        b'["exception",1,"","no"]',
        b'["ok",' + b"9" * 5000 + b',"",null]',
        b"[" * 50_000,
        b"\xff",
    ],
)
def test_a_body_that_is_no_reply_is_none(body: bytes) -> None:
    assert decode_reply(body) is None


def test_text_from_a_reply_can_always_be_encoded() -> None:
    reply = decode_reply(b'["ok",{"\\ud800":["\\uDFFFx","\\ud83d\\ude00"]},"\\ud800\xff",null]')
    assert reply is not None
    assert reply.result.result == {"\ufffd": ["\ufffdx", "😀"]}
    reply.result.output.encode()


def test_numbers_that_json_lacks_are_none() -> None:
    reply = decode_reply(b'["ok",[NaN,-Infinity],"",null]')
    assert reply is not None
    assert reply.result.result == [None, None]


# --- settings


@pytest.mark.parametrize("setting", [{"cpu_s": 0}, {"memory_bytes": 1}, {"call_timeout_s": 0}, {"nofile": 4096}])
def test_a_limit_out_of_range_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        SandboxLimits(**setting)


def test_only_the_standard_library_can_be_preloaded() -> None:
    with pytest.raises(ConfigError, match="numpy"):
        Profile(preload=("math", "numpy"))


async def test_nothing_starts_before_the_first_open() -> None:
    sandbox = LocalSandbox(LIMITS)
    assert (sandbox.isolation, sandbox.pid) == ((), None)
    await sandbox.close()
    with contextlib.suppress(SandboxError):
        await sandbox.open(COUNTER)
    assert sandbox.pid is None
