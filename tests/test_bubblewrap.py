import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import unprivileged
from recall.errors import ConfigError, SandboxError
from recall.sandbox.base import DEFAULT_OPTIONS, SessionOptions
from recall.sandbox.bubblewrap import BubblewrapSandbox
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.profiles import Profile
from recall.sandbox.session import LocalSession
from recall.types import CallStatus

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap needs Linux"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

LIMITS = SandboxLimits(call_timeout_s=10.0, open_timeout_s=10.0, memory_bytes=256 << 20, max_sessions=8)
COUNTER = "count = 0\ndef bump(by=1):\n    global count\n    count += by\n    return count\n"
LOOP = "def f():\n    while True: pass\n"


@pytest.fixture(scope="module")
def box() -> Iterator[BubblewrapSandbox]:
    sandbox = BubblewrapSandbox(LIMITS)
    try:
        asyncio.run(sandbox.start())
    except SandboxError as error:
        pytest.skip(str(error))
    yield sandbox
    asyncio.run(sandbox.close())


@contextlib.asynccontextmanager
async def opened(
    sandbox: BubblewrapSandbox, source: str, options: SessionOptions = DEFAULT_OPTIONS
) -> AsyncIterator[LocalSession]:
    session = await sandbox.open(source, options)
    try:
        yield session
    finally:
        await session.close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def at_rest(sandbox: BubblewrapSandbox) -> None:
    """Wait until no session is left."""
    await sandbox.start()
    deadline = time.monotonic() + 20
    while sandbox.stats().live:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_state_lasts_from_call_to_call_and_sessions_share_none(box: BubblewrapSandbox) -> None:
    async with opened(box, COUNTER) as first, opened(box, COUNTER) as second:
        assert [(await first.call("bump", {"by": by})).result for by in (1, 2, 3)] == [1, 3, 6]
        assert (await second.call("bump", {})).result == 1


async def test_a_call_that_takes_too_long_is_interrupted_and_the_state_stays(box: BubblewrapSandbox) -> None:
    async with opened(box, COUNTER + LOOP) as session:
        await session.call("bump", {})
        assert (await session.call("f", {}, timeout_s=0.3)).status is CallStatus.TIMEOUT
        assert (await session.call("bump", {})).result == 2


async def test_a_call_that_will_not_be_interrupted_is_killed(box: BubblewrapSandbox) -> None:
    source = "import signal\ndef f():\n    signal.signal(signal.SIGALRM, signal.SIG_IGN)\n    while True: pass\n"
    async with opened(box, source) as session:
        await session.call("none", {})
        result = await session.call("f", {}, timeout_s=0.3)
        assert (result.status, result.state_lost) == (CallStatus.TIMEOUT, True)
        assert (await session.call("f", {})).status is CallStatus.STATE_LOST


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os._exit(3)", "exit status 3"),
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
        ("import os; os.write(3, b'x' * 99)", "channel"),
    ],
)
async def test_a_crash_is_told_with_its_cause(box: BubblewrapSandbox, body: str, words: str) -> None:
    async with opened(box, f"def f():\n    {body}\n") as session:
        result = await session.call("f", {})
        assert result.status is CallStatus.CRASHED
        assert words in (result.error or "")


@pytest.mark.parametrize(
    ("source", "words"),
    [("def f(:\n", "SyntaxError"), ("raise ValueError('no')\n", "no"), ("import os\nos._exit(7)\n", "exit status 7")],
)
async def test_every_call_reports_a_source_that_fails(box: BubblewrapSandbox, source: str, words: str) -> None:
    async with opened(box, source) as session:
        results = [await session.call("f", {}) for _ in range(2)]
    assert [result.status for result in results] == [CallStatus.EXCEPTION] * 2
    assert words in (results[0].error or "")


async def test_the_rest_of_the_standard_library_can_be_imported(box: BubblewrapSandbox) -> None:
    async with opened(
        box, "def f():\n    import csv, decimal\n    return str(decimal.Decimal('0.1') * 3)\n"
    ) as session:
        assert (await session.call("f", {})).result == "0.3"


async def test_a_session_sees_nothing_of_its_launcher(box: BubblewrapSandbox) -> None:
    body = "import os, sys\n    return [dict(os.environ), sys.argv, sys.orig_argv, os.getcwd(), os.getpid()]"
    async with opened(box, f"def f():\n    {body}\n") as session:
        assert (await session.call("f", {})).result == [{}, [""], [""], "/", 1]


async def test_a_closed_session_leaves_neither_process_nor_descriptor(box: BubblewrapSandbox) -> None:
    await at_rest(box)
    before = descriptors(), children()
    async with opened(box, LOOP) as session:
        call = asyncio.create_task(session.call("f", {}))
        await asyncio.sleep(0.2)
        await session.close()
        with pytest.raises(SandboxError, match="closed"):
            await call
    await at_rest(box)
    # Garbage of other tests may close descriptors meanwhile.
    assert descriptors() <= before[0]
    assert children() == before[1]


async def test_sessions_closed_at_once_leave_nothing(box: BubblewrapSandbox) -> None:
    await at_rest(box)
    before = descriptors(), children()
    for _ in range(3):
        await (await box.open(COUNTER)).close()
    await at_rest(box)
    assert (descriptors(), children()) == before


async def test_open_waits_for_room(box: BubblewrapSandbox) -> None:
    sessions = [await box.open(COUNTER) for _ in range(8)]
    ninth = asyncio.create_task(box.open(COUNTER))
    await asyncio.sleep(0.05)
    assert not ninth.done()
    await sessions[0].close()
    assert (await (await asyncio.wait_for(ninth, 20)).call("bump", {})).result == 1
    await (await ninth).close()
    await asyncio.gather(*(session.close() for session in sessions))


def test_a_sandbox_outlives_a_loop(box: BubblewrapSandbox) -> None:
    session = asyncio.run(box.open(COUNTER))
    assert [asyncio.run(session.call("bump", {})).result for _ in range(2)] == [1, 2]
    asyncio.run(session.close())


async def test_listed_packages_and_a_directory_of_its_own() -> None:
    profile = Profile(
        preload=("math",),
        packages=("numpy",),
        limits=SandboxLimits(memory_bytes=2 << 30, file_bytes=1 << 20, open_timeout_s=30.0, call_timeout_s=60.0),
        scratch_bytes=1 << 20,
    )
    sandbox = BubblewrapSandbox(profiles={"science": profile})
    source = (
        "def f():\n    import numpy\n    open('/tmp/x', 'w').write('12')\n    return int(numpy.array([1, 2]).sum())\n"
    )
    source += "def g():\n    import pydantic\n"
    try:
        await sandbox.start("science")
    except SandboxError as error:
        pytest.skip(str(error))
    async with opened(sandbox, source, SessionOptions("science")) as session:
        assert (await session.call("f", {})).result == 3
        assert "ModuleNotFoundError" in ((await session.call("g", {})).error or "")
    assert "x" not in os.listdir("/tmp")
    await sandbox.close()


@pytest.mark.parametrize("options", [SessionOptions(forkable=True), SessionOptions(transactional=True)])
async def test_sessions_that_copy_themselves_are_refused(box: BubblewrapSandbox, options: SessionOptions) -> None:
    with pytest.raises(ConfigError, match="copied"):
        await box.open(COUNTER, options)


async def test_profiles_that_start_programs_are_refused(box: BubblewrapSandbox) -> None:
    with pytest.raises(ConfigError, match="programs"):
        await box.open(COUNTER, SessionOptions("subprocess"))


async def test_a_missing_program_is_told() -> None:
    with pytest.raises(SandboxError, match="not installed"):
        await BubblewrapSandbox(executable="bwrap-that-is-not-there").start()


def test_a_host_that_refuses_is_told_in_its_own_words() -> None:
    if refusal := unprivileged.refusal(namespaces=False):
        pytest.skip(refusal)
    program = (
        "import asyncio\nfrom recall.errors import SandboxError\n"
        "from recall.sandbox.bubblewrap import BubblewrapSandbox\n"
        "try: asyncio.run(BubblewrapSandbox().start())\nexcept SandboxError as error: print(error)\n"
    )
    done = subprocess.run(
        unprivileged.command("-c", program, namespaces=False), capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith("bubblewrap cannot be used on this host: bwrap:")


async def test_a_closed_sandbox_opens_nothing() -> None:
    sandbox = BubblewrapSandbox(LIMITS)
    await sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        await sandbox.open(COUNTER)
