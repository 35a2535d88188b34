"""Every attack of the list, in every style, as root and as somebody else with and without namespaces."""

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import unprivileged
from attacks import ATTACKS, ELSEWHERE, Attack
from recall.errors import SandboxError
from recall.sandbox.base import SessionOptions
from recall.sandbox.bubblewrap import BubblewrapSandbox
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.sandbox.profiles import PROFILES
from recall.types import CallStatus

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the local sandbox needs Linux"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks make system calls by their x86-64 numbers"),
]

TESTS = Path(__file__).parent
RUNNER = TESTS / "attack_runner.py"
MODES = ("root", "namespaces", "plain", "bubblewrap")
"""As root; as nobody with user namespaces, or without them as in a container; in bubblewrap, as whoever we are."""
STYLES = {
    "root": ("oneshot", "session", "transactional"),
    "namespaces": ("oneshot", "session"),
    "plain": ("oneshot", "session"),
    "bubblewrap": ("oneshot",),
}
BUBBLED = {"files", "other processes", "new processes", "network", "channel", "runner"}
"""The groups of attacks that are made on bubblewrap too, where each one takes an interpreter's start."""
ENDS = {"timeout", "crashed"}
"""A call that rolls back runs in a copy: that the copy is of no use any more may be seen by its end or by the clock."""
TIMEOUT_S = 280


@dataclass(frozen=True, slots=True)
class Report:
    """What all attacks of one run came to."""

    outcomes: dict[tuple[str, str], dict[str, Any]]
    """By style and attack."""
    isolation: dict[str, list[str]]
    """The layers that held, by profile."""
    refused: dict[str, str]
    """Why a profile cannot be had on this host, by profile."""
    noise: str
    """What was printed that the runner did not print, and how it ended."""


class Reports:
    """Runs the attacks in the modes that are wanted, two at a time, each once."""

    def __init__(self, modes: Iterable[str]) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._running = {mode: self._pool.submit(_run, mode) for mode in modes}

    def of(self, mode: str) -> Report:
        """What came of one mode; skips the test where there is no such mode here."""
        result = self._running[mode].result()
        if isinstance(result, str):
            pytest.skip(result)
        return result


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> Reports:
    """The reports of all modes that a test asks for."""
    chosen = {item.callspec.params.get("mode") for item in request.session.items if hasattr(item, "callspec")}
    return Reports([mode for mode in MODES if mode in chosen])


def _run(mode: str) -> Report | str:
    """Run the attacks in one mode; in words, why that cannot be done."""
    backend = "bubblewrap" if mode == "bubblewrap" else "local"
    arguments = (backend, ",".join(STYLES[mode]), *(name for name in ATTACKS if made(ATTACKS[name], mode)))
    if mode in ("root", "bubblewrap"):
        refusal = ("not root" if os.geteuid() != 0 else None) if mode == "root" else bubblewrap_refusal()
        command = [sys.executable, str(RUNNER), *arguments]
    else:
        refusal = unprivileged.refusal(namespaces=mode == "namespaces")
        command = unprivileged.command(RUNNER, *arguments, namespaces=mode == "namespaces")
    if refusal is not None:
        return refusal
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, stdout=output, stderr=errors, timeout=TIMEOUT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
        output.seek(0)
        errors.seek(0)
        return _read(output.read().splitlines(), "" if code == 0 else f"it ended with {code}\n" + errors.read())


def _read(lines: list[str], noise: str) -> Report:
    outcomes: dict[tuple[str, str], dict[str, Any]] = {}
    isolation: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            noise += line + "\n"
            continue
        if "attack" in row:
            outcomes[row["style"], row["attack"]] = row
        else:
            isolation, refused = row["isolation"], row["refused"]
    return Report(outcomes, isolation, refused, noise)


def made(attack: Attack, mode: str, style: str = "oneshot") -> bool:
    """Whether an attack is made at all."""
    if PROFILES[attack.profile].processes and (style == "transactional" or mode == "bubblewrap"):
        return False
    return mode != "bubblewrap" or attack.group in BUBBLED


def bubblewrap_refusal() -> str | None:
    """Why bubblewrap cannot be used here, or None."""
    try:
        asyncio.run(BubblewrapSandbox().start())
    except SandboxError as error:
        return str(error)
    return None


def broken_promises(attack: Attack, outcome: dict[str, Any], style: str) -> list[str]:
    """The calls of an attack that came to something that the layers of this host do not allow."""
    found = []
    for status, error in zip(outcome["statuses"], outcome["errors"], strict=True):
        if status == "state_lost" or (attack.forks and style == "transactional"):
            continue
        allowed = attack.statuses
        if style == "transactional" and allowed & ENDS:
            allowed |= ENDS
        if status not in allowed:
            found.append(f"{status}: {error}")
        elif status == "exception" and not error.startswith(attack.errors):
            found.append(f"an exception that is no refusal: {error}")
    return found


def test_the_list_covers_every_item_of_the_design() -> None:
    held = {item for attack in ATTACKS.values() for item in attack.items} | set(ELSEWHERE)
    assert held == set(range(1, 86))
    for places in ELSEWHERE.values():
        for place in places:
            file, _, test = place.partition("::")
            assert (TESTS / file).exists(), place
            assert f"def {test}(" in (TESTS / file).read_text() if test else True, place


def test_attacks_work_where_there_is_no_sandbox() -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), "bare"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    idle = [row["attack"] for row in rows if not row["worked"]]
    # A container may refuse a few of them by itself.
    assert len(rows) > 15
    assert len(idle) <= len(rows) // 4, idle


@pytest.mark.parametrize("mode", MODES)
def test_no_attack_speaks_on_the_service_or_ends_it(reports: Reports, mode: str) -> None:
    assert reports.of(mode).noise == ""


@pytest.mark.parametrize(
    ("mode", "style", "name"),
    [
        (mode, style, name)
        for mode in MODES
        for style in STYLES[mode]
        for name, attack in ATTACKS.items()
        if made(attack, mode, style)
    ],
)
def test_an_attack_reaches_nothing_but_its_own_session(reports: Reports, mode: str, style: str, name: str) -> None:
    attack, result = ATTACKS[name], reports.of(mode)
    if attack.profile in result.refused:
        assert attack.profile != "default", result.refused
        pytest.skip(result.refused[attack.profile])
    outcome = result.outcomes.get((style, name))
    assert outcome is not None, result.noise or "it was not run"
    held = result.isolation.get(attack.profile, ())
    if attack.needs and not set(attack.needs) & set(held):
        # What was not promised may have been reached; the victim and the service must be well all the same.
        assert [fault for fault in outcome["faults"] if not fault.startswith("ESCAPED")] == []
        pytest.skip(f"this host lacks {' and '.join(attack.needs)}")
    forked = attack.forks and style == "transactional"
    assert [fault for fault in outcome["faults"] if not (forked and fault.startswith("ESCAPED"))] == []
    assert broken_promises(attack, outcome, style) == []


async def test_sessions_that_all_fill_their_memory_leave_the_sandbox_standing() -> None:
    box = LocalSandbox(SandboxLimits(memory_bytes=96 << 20, call_timeout_s=60.0, open_timeout_s=60.0))
    source = "kept = []\ndef fill():\n    while True: kept.append(bytearray(1 << 18))\ndef size(): return len(kept)\n"
    sessions = [await box.open(source) for _ in range(16)]
    results = await asyncio.gather(*(session.call("fill", {}) for session in sessions))
    assert {str(result.error)[:11] for result in results} == {"MemoryError"}
    assert all([(await session.call("size", {})).result > 0 for session in sessions])
    await box.close()


async def test_what_a_session_writes_no_other_finds() -> None:
    box = LocalSandbox()
    await box.start("code")
    source = (
        "import os\nplace = '/private/tmp'\n"
        "def write(): open(f'{place}/x', 'w').write('secret')\ndef look(): return os.listdir(place)\n"
    )
    try:
        if "scratch" not in box.isolation_of("code"):
            pytest.skip("this host has no directories of a session's own")
        first, second = [await box.open(source, SessionOptions("code")) for _ in range(2)]
        assert (await first.call("write", {})).status is CallStatus.OK
        assert ((await first.call("look", {})).result, (await second.call("look", {})).result) == (["x"], [])
        await first.close()
        third = await box.open(source, SessionOptions("code"))
        assert (await third.call("look", {})).result == []
    finally:
        await box.close()


async def test_sessions_differ_in_what_they_draw_by_chance() -> None:
    box = LocalSandbox()
    source = "import random, uuid, os\ndef f(): return [random.random(), str(uuid.uuid4()), os.urandom(8).hex()]\n"
    drawn = [(await (await box.open(source)).call("f", {})).result for _ in range(8)]
    assert len({text for each in drawn for text in map(str, each)}) == 24
    await box.close()
