"""Where generated code is tried: worlds, reference programs and self-tests, each in a sandbox session of its own.

What the code does is a value here; only the sandbox's own failure raises.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.environment import CHANGES
from recall.programs import ProgramError, resolve
from recall.sandbox.base import CallResult, SessionOptions
from recall.sandbox.local import LocalSandbox, LocalSession
from recall.synth.llm.source import NOTICED, World, foreign_program, with_search, with_tests
from recall.tools.arguments import Arguments
from recall.tools.results import as_text
from recall.types import CallStatus

_OTHER_HASHES = "7"
"""The hash seed of the second process; the sandbox's own is 0."""
_FOREIGN_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Played:
    """What a reference program came to."""

    values: tuple[Any, ...] = ()
    """The JSON value of each item that was worked out."""
    observations: tuple[str, ...] = ()
    """What a policy would have read of each call, uncut."""
    arguments: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Each call as it was made."""
    changes: Mapping[str, Any] | None = None
    """What it changed, by path; None where it did not come to its end."""
    changing: frozenset[int] = frozenset()
    """The items whose calls changed something, where that was watched."""
    noticed: tuple[str, ...] = ()
    """What a traced source noted."""
    problem: str | None = None
    """Why it did not come to its end."""
    died: bool = False
    """Whether that is because a call took too long, or ended the process, which no other anchors will mend."""

    @property
    def answer(self) -> Any:
        """The value of the last item."""
        return self.values[-1]


class Bench:
    """Tries generated code in a sandbox, so many sessions at once."""

    def __init__(self, sandbox: LocalSandbox, *, at_once: int = 8, call_timeout_s: float = 5.0) -> None:
        """Take the sandbox.

        Args:
            sandbox: with the profiles `default` and `subprocess`.
            at_once: sessions at once.
            call_timeout_s: of one call.
        """
        self._sandbox, self._timeout_s = sandbox, call_timeout_s
        self._room = asyncio.Semaphore(at_once)

    async def value(self, source: str, expression: str) -> CallResult:
        """What an expression over the names of a source comes to."""
        async with self._room:
            session = await self._sandbox.open(source)
            try:
                return await session.evaluate(expression, timeout_s=self._timeout_s)
            finally:
                await session.close()

    async def world(self, world: World, seed: int) -> CallResult:
        """The tables of a seed, as JSON."""
        return await self.value(world.source(seed), "WORLD")

    async def play(
        self,
        world: World,
        source: str,
        program: Sequence[Mapping[str, Any]],
        *,
        chance: int | None = None,
        watch: bool = False,
    ) -> Played:
        """Run a program over a source call by call, through the boundary that a policy's calls pass.

        Args:
            world: its tools check the arguments.
            source: of `World.stateful`, traced or not.
            program: without anchors.
            chance: seeds the session's `random`, which nothing should depend on.
            watch: find out which calls change something.
        """
        async with self._room:
            session = await self._sandbox.open(source, SessionOptions(seed=chance))
            try:
                return await self._played(session, Arguments(world.tools), program, NOTICED in source, watch)
            finally:
                await session.close()

    async def _played(
        self,
        session: LocalSession,
        accepted: Arguments,
        program: Sequence[Mapping[str, Any]],
        traced: bool,
        watch: bool,
    ) -> Played:
        values: list[Any] = []
        observations: list[str] = []
        made: list[tuple[str, Mapping[str, Any]]] = []
        changing: set[int] = set()
        changes: Any = {}
        last = max(number for number, item in enumerate(program) if "name" in item)

        def stopped(problem: str, *, died: bool = False) -> Played:
            return Played(tuple(values), tuple(observations), tuple(made), problem=problem, died=died)

        for number, item in enumerate(program):
            try:
                if "name" not in item:
                    values.append(resolve(item["value"], values))
                    continue
                arguments = {name: resolve(value, values) for name, value in item["arguments"].items()}
            except ProgramError as fault:
                return stopped(f"item {number}: {fault}")
            name = item["name"]
            problem = accepted.problem(name, arguments)
            if problem is not None:
                return stopped(f"item {number}: {name}: {problem}")
            made.append((name, arguments))
            result = await session.call(name, arguments, timeout_s=self._timeout_s)
            if result.status is not CallStatus.OK:
                died = result.status in (CallStatus.TIMEOUT, CallStatus.CRASHED, CallStatus.OVER_LIMIT)
                return stopped(f"item {number}: {name}: {result.status.value}: {result.error}", died=died)
            values.append(result.result)
            observations.append(as_text(result.result))
            if number != last and not watch:
                continue
            found = await session.call(CHANGES, {}, timeout_s=self._timeout_s)
            if not isinstance(found.result, Mapping):
                return stopped(f"item {number}: {name}: the world is no longer one of tables of rows: {found.error}")
            if found.result != changes:
                changing.add(number)
                changes = found.result
        noticed = await session.call(NOTICED, {}, timeout_s=self._timeout_s) if traced else CallResult(CallStatus.OK)
        return Played(
            tuple(values),
            tuple(observations),
            tuple(made),
            changes,
            frozenset(changing),
            tuple(map(str, noticed.result or ())),
        )

    async def elsewhere(self, source: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str] | str:
        """Hashes of the world and of what each call returns, in a fresh interpreter with other hashes; or a problem."""
        job = json.dumps({"source": source, "calls": [[name, dict(arguments)] for name, arguments in calls]})
        launcher = (
            "import subprocess, sys\n"
            f"done = subprocess.run([sys.executable, '-S', '-s', '-P', '-B', '-c', {foreign_program()!r}], "
            f"input=sys.stdin.read(), capture_output=True, text=True, env={{'PYTHONHASHSEED': {_OTHER_HASHES!r}}})\n"
            "print(done.stdout or done.stderr[-500:])\n"
        )
        async with self._room:
            done = await self._sandbox.run_code(launcher, profile="subprocess", stdin=job, timeout_s=_FOREIGN_TIMEOUT_S)
        try:
            outcome = json.loads(done.stdout)
        except ValueError:
            outcome = None
        match outcome:
            case {"hashes": list(hashes)}:
                return [str(each) for each in hashes]
            case {"problem": str(problem)}:
                return problem
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        return f"a second process gave no answer ({done.status}): {said}"

    async def self_test(self, world: World, code: str, seed: int, test: str) -> tuple[str | None, list[Any]]:
        """What is wrong after a self-test ran, or None; and the calls that it made, each with whether it raised."""
        async with self._room:
            session = await self._sandbox.open(with_tests(world, code, seed))
            try:
                done = await session.call(test, {}, timeout_s=self._timeout_s)
                if done.status is not CallStatus.OK:
                    return f"{done.status.value}: {done.error}", []
                counts = await session.call("_counts", {}, timeout_s=self._timeout_s)
                return None, counts.result or []
            finally:
                await session.close()

    async def search(self, world: World, seed: int, arguments: Mapping[str, Any]) -> CallResult:
        """What the search for a shorter way found; see `inside/search.py`."""
        async with self._room:
            session = await self._sandbox.open(with_search(world, seed))
            try:
                return await session.call("_search", arguments, timeout_s=4 * self._timeout_s)
            finally:
                await session.close()


def hash_of(value: Any) -> str:
    """The hash that `inside/foreign.py` gives of the same value."""
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()
