"""What sessions can do besides keeping state: roll back, be copied, be interrupted, be had at once, run programs."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from recall.errors import ConfigError, SandboxError
from recall.sandbox.base import SessionOptions
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.sandbox.profiles import PROFILES, Profile
from recall.sandbox.session import LocalSession
from recall.types import CallStatus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux")

SOURCE = """
import os, random, signal, threading
n = 0
def bump(by=1):
    global n
    n += by
    return n
def half(code=0):
    global n
    n = 1000
    os._exit(code)
def spin():
    global n
    n = 1000
    while True: pass
def deaf():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True: pass
def fill():
    global n
    n = 1000
    return [bytes(1 << 26) for _ in range(1000)]
def draw(): return random.random()
def burn():
    def loop():
        while True: pass
    threading.Thread(target=loop, daemon=True).start()
def used(): return sum(os.times()[:2])
"""
TRANSACTIONAL = SessionOptions(transactional=True)
FORKABLE = SessionOptions(forkable=True)


@pytest.fixture(scope="module")
def box() -> Iterator[LocalSandbox]:
    """One sandbox for all tests, each with a loop of its own."""
    sandbox = LocalSandbox(SandboxLimits(call_timeout_s=20.0, memory_bytes=256 << 20))
    yield sandbox
    asyncio.run(sandbox.close())


@contextlib.asynccontextmanager
async def opened(box: LocalSandbox, options: SessionOptions, source: str = SOURCE) -> AsyncIterator[LocalSession]:
    session = await box.open(source, options)
    try:
        yield session
    finally:
        await session.close()


async def value(session: LocalSession, name: str, **arguments: Any) -> Any:
    result = await session.call(name, arguments)
    assert result.status is CallStatus.OK, result
    return result.result


# --- interrupts


async def test_a_call_that_takes_too_long_is_interrupted_and_the_state_stays(box: LocalSandbox) -> None:
    async with opened(box, SessionOptions()) as session:
        await value(session, "bump")
        result = await session.call("spin", {}, timeout_s=0.2)
        assert (result.status, result.state_lost) == (CallStatus.TIMEOUT, False)
        assert await value(session, "bump") == 1001


async def test_a_tool_that_swallows_the_interrupt_is_killed(box: LocalSandbox) -> None:
    async with opened(box, SessionOptions()) as session:
        result = await session.call("deaf", {}, timeout_s=0.2)
        assert (result.status, result.state_lost) == (CallStatus.TIMEOUT, True)
        assert (await session.call("bump", {})).status is CallStatus.STATE_LOST


# --- transactions


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("half", {}, CallStatus.CRASHED),
        ("half", {"code": 7}, CallStatus.CRASHED),
        ("spin", {}, CallStatus.TIMEOUT),
        ("deaf", {}, CallStatus.TIMEOUT),
    ],
)
async def test_a_call_that_dies_leaves_the_state_as_it_was(
    box: LocalSandbox, name: str, arguments: dict[str, Any], status: CallStatus
) -> None:
    async with opened(box, TRANSACTIONAL) as session:
        assert await value(session, "bump") == 1
        result = await session.call(name, arguments, timeout_s=0.3)
        assert (result.status, result.state_lost) == (status, False)
        assert "as it was before the call" in (result.error or "")
        assert await value(session, "bump") == 2


async def test_a_call_that_raises_is_no_death_and_keeps_what_it_did(box: LocalSandbox) -> None:
    async with opened(box, TRANSACTIONAL) as session:
        assert (await session.call("fill", {})).status is CallStatus.EXCEPTION
        assert await value(session, "bump") == 1001


async def test_a_long_transactional_session_leaves_no_process_behind(box: LocalSandbox) -> None:
    async with opened(box, TRANSACTIONAL) as session:
        for count in range(1, 31):
            assert await value(session, "bump") == count
        assert box.stats("default").live == 1
    for _ in range(500):
        if not box.stats("default").live:
            break
        await asyncio.sleep(0.01)
    assert box.stats("default").live == 0


# --- copies


async def test_a_copy_has_the_state_and_then_a_life_of_its_own(box: LocalSandbox) -> None:
    async with opened(box, FORKABLE) as session:
        await value(session, "bump", by=5)
        copy = await session.fork()
        assert await value(copy, "bump") == 6
        assert await value(session, "bump", by=10) == 15
        second = await copy.fork()
        assert [await value(second, "bump"), await value(copy, "bump")] == [7, 7]
        await copy.close()
        assert await value(second, "bump") == 8
        await second.close()


async def test_a_session_can_be_copied_any_number_of_times(box: LocalSandbox) -> None:
    async with opened(box, FORKABLE) as session:
        for _ in range(200):
            copy = await session.fork()
            assert await value(copy, "bump") == 1
            await copy.close()


async def test_the_death_of_one_of_a_family_leaves_the_others(box: LocalSandbox) -> None:
    async with opened(box, FORKABLE) as session:
        copy, other = await session.fork(), await session.fork()
        assert (await session.call("half", {})).state_lost
        assert (await copy.call("deaf", {}, timeout_s=0.2)).state_lost
        assert await value(other, "bump") == 1
        await copy.close()
        await other.close()


async def test_copies_of_a_transactional_session_roll_back_alone(box: LocalSandbox) -> None:
    async with opened(box, TRANSACTIONAL) as session:
        copy = await session.fork()
        slow = asyncio.create_task(copy.call("spin", {}, timeout_s=0.3))
        assert await value(session, "bump") == 1
        assert (await slow).status is CallStatus.TIMEOUT
        assert [await value(copy, "bump"), await value(session, "bump")] == [1, 2]
        await copy.close()


async def test_a_plain_session_cannot_be_copied(box: LocalSandbox) -> None:
    async with opened(box, SessionOptions()) as session:
        with pytest.raises(SandboxError, match="forkable"):
            await session.fork()


async def test_a_dead_zygote_fails_copies_too() -> None:
    sandbox = LocalSandbox()
    session = await sandbox.open(SOURCE, FORKABLE)
    copy = await session.fork()
    assert sandbox.pid is not None
    os.kill(sandbox.pid, 9)
    with pytest.raises(SandboxError):
        await copy.call("deaf", {})
    await sandbox.close()


@pytest.mark.parametrize("options", [TRANSACTIONAL, FORKABLE])
async def test_a_session_that_starts_programs_cannot_be_copied(box: LocalSandbox, options: SessionOptions) -> None:
    with pytest.raises(ConfigError, match="subprocess"):
        await box.open(SOURCE, SessionOptions("subprocess", options.transactional, options.forkable))


# --- seeds, threads, the pool


async def test_a_seed_makes_random_numbers_repeat(box: LocalSandbox) -> None:
    drawn = []
    for seed in (1, 1, 2):
        async with opened(box, SessionOptions(seed=seed)) as session:
            drawn.append(await value(session, "draw"))
    assert drawn[0] == drawn[1] != drawn[2]


async def test_a_seed_makes_random_numbers_repeat_where_each_call_is_served_by_a_copy(box: LocalSandbox) -> None:
    drawn = []
    for options in (SessionOptions(seed=1), SessionOptions(seed=1, transactional=True)):
        async with opened(box, options) as session:
            drawn.append([await value(session, "draw") for _ in range(3)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


@pytest.mark.parametrize("seed", [None, 1])
async def test_a_copy_draws_numbers_of_its_own_unless_they_are_to_repeat(box: LocalSandbox, seed: int | None) -> None:
    async with opened(box, SessionOptions(forkable=True, seed=seed)) as session:
        copy = await session.fork()
        same = await value(session, "draw") == await value(copy, "draw")
        await copy.close()
    assert same is (seed is not None)


@pytest.mark.parametrize("options", [SessionOptions(), FORKABLE, TRANSACTIONAL])
async def test_a_thread_gets_no_time_between_calls(box: LocalSandbox, options: SessionOptions) -> None:
    if "seccomp" not in box.isolation_of("default"):
        await box.start()
        if "seccomp" not in box.isolation_of("default"):
            pytest.skip("no thread can be started where system calls cannot be filtered")
    async with opened(box, options) as session:
        await value(session, "burn")
        before = await value(session, "used")
        await asyncio.sleep(1.0)
        assert await value(session, "used") - before < 0.5


async def test_sessions_come_from_the_pool_and_it_fills_up_again() -> None:
    sandbox = LocalSandbox(pool=3)
    await sandbox.start()
    for _ in range(500):
        if sandbox.stats().pooled == 3:
            break
        await asyncio.sleep(0.01)
    session = await sandbox.open(SOURCE)
    assert sandbox.stats().pooled == 2
    assert await value(session, "bump") == 1
    for _ in range(500):
        if sandbox.stats().pooled == 3:
            break
        await asyncio.sleep(0.01)
    assert (sandbox.stats().pooled, sandbox.stats().live) == (3, 1)
    await session.close()
    await sandbox.close()


async def test_several_zygotes_share_the_sessions() -> None:
    sandbox = LocalSandbox(zygotes=2)
    sessions = [await sandbox.open(SOURCE) for _ in range(6)]
    assert [await value(session, "bump") for session in sessions] == [1] * 6
    assert sandbox.stats().live == 6
    await sandbox.close()


# --- profiles


async def test_an_unknown_profile_names_those_there_are(box: LocalSandbox) -> None:
    with pytest.raises(ConfigError, match="default, numpy, subprocess, code"):
        await box.open(SOURCE, SessionOptions(profile="fast"))


async def test_a_listed_package_can_be_imported_and_no_other() -> None:
    profiles = {"default": PROFILES["default"], "listed": Profile(packages=("pydantic",))}
    sandbox = LocalSandbox(profiles=profiles)
    source = "def f(module):\n    return __import__(module).__name__\n"
    async with opened(sandbox, SessionOptions("listed"), source) as session:
        assert await value(session, "f", module="pydantic") == "pydantic"
        assert (await session.call("f", {"module": "rich"})).status is CallStatus.EXCEPTION
    async with opened(sandbox, SessionOptions(), source) as session:
        assert (await session.call("f", {"module": "pydantic"})).status is CallStatus.EXCEPTION
    await sandbox.close()


async def test_numpy_and_pandas_are_there_already_behind_the_same_walls(box: LocalSandbox) -> None:
    pytest.importorskip("pandas")
    source = (
        "import numpy as np\nimport pandas as pd\n"
        "def f(): return float(np.random.rand()), int(pd.Series([1, 2]).sum()), str(pd.Timestamp('2024-01-02'))\n"
    )
    drawn = []
    for _ in range(2):
        async with opened(box, SessionOptions("numpy"), source) as session:
            drawn.append(await value(session, "f"))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1:] == [3, "2024-01-02 00:00:00"]
    await box.start("default")
    assert box.isolation_of("numpy") == box.isolation_of("default")


def test_a_package_that_is_not_installed_is_named() -> None:
    sandbox = LocalSandbox(profiles={"default": Profile(packages=("no-such-package",))})
    with pytest.raises(ConfigError, match="no-such-package"):
        asyncio.run(sandbox.start())


def test_an_unknown_requirement_is_refused() -> None:
    with pytest.raises(ConfigError, match="magic"):
        LocalSandbox(require=("magic",))


# --- programs


async def test_a_program_runs_as_the_interpreter_would_run_it(box: LocalSandbox) -> None:
    code = "import sys\nif __name__ == '__main__':\n    print(sys.stdin.read().upper())\n    sys.exit(3)\n"
    result = await box.run_code(code, stdin="hello")
    assert (result.status, result.return_code, result.stdout, result.stderr) == ("finished", 3, "HELLO\n", "")


async def test_an_error_of_a_program_is_a_traceback_and_status_1(box: LocalSandbox) -> None:
    result = await box.run_code("print('before')\n1/0\n")
    assert (result.status, result.return_code, result.stdout) == ("finished", 1, "before\n")
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert 'File "main.py", line 2' in result.stderr


async def test_a_program_that_runs_too_long_is_stopped(box: LocalSandbox) -> None:
    assert (await box.run_code("while True: pass", timeout_s=0.3)).status == "timeout"


async def test_files_go_in_and_come_out_where_there_is_room_for_them(box: LocalSandbox) -> None:
    await box.start("code")
    if "scratch" not in box.isolation_of("code"):
        with pytest.raises(ConfigError, match="files"):
            await box.run_code("", files={"a": b"1"})
        return
    code = "import os\nopen('b', 'wb').write(open('d/a', 'rb').read() * 2)\nprint(os.listdir())\n"
    result = await box.run_code(code, files={"d/a": b"\0\xff"}, fetch=["b", "missing"])
    assert result.files == {"b": b"\0\xff\0\xff"}
    assert (await box.run_code("import os\nprint(os.listdir())")).stdout == "[]\n"
