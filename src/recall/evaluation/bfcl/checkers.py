"""A process with the leaderboard's own checkers and backends, and what is asked of it."""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from recall.errors import ConfigError, RolloutError
from recall.evaluation.bfcl import worker
from recall.evaluation.bfcl.entries import Entry

_LINE_BYTES = 1 << 26
"""The longest answer: a long-context listing of files is large."""


class CheckersError(RolloutError):
    """The checkers' process failed: ours, not the model's."""


class Checkers:
    """One process; a context manager. What is asked is answered in order, so several are opened for several cores."""

    def __init__(self, interpreter: Path) -> None:
        """Take the interpreter of an environment that has `bfcl-eval`; see `setup.py`."""
        self.interpreter = interpreter
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Checkers":
        try:
            self._process = await asyncio.create_subprocess_exec(
                self.interpreter, "-I", worker.__file__, stdin=-1, stdout=-1, stderr=-3, limit=_LINE_BYTES
            )
        except OSError as fault:
            raise ConfigError(f"{self.interpreter}: cannot be run: {fault.strerror}") from None
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None, "the process is started first"
        assert self._process.stdout is not None, "its output is a pipe"
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["n"])
            if not future.done():
                if "error" in answer:
                    future.set_exception(CheckersError(answer["error"]))
                else:
                    future.set_result(answer["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CheckersError("the process ended"))
        self._waiting.clear()

    async def _ask(self, do: str, **request: Any) -> Any:
        if self._process is None or self._process.stdin is None or self._process.returncode is not None:
            raise CheckersError("the process is not running")
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"n": number, "do": do, **request}).encode() + b"\n")
        await self._process.stdin.drain()
        return await future

    async def package(self) -> Path:
        """Where the package `bfcl_eval` lies."""
        try:
            return Path((await self._ask("data"))["package"])
        except CheckersError as fault:
            raise ConfigError(f"{self.interpreter}: has no bfcl-eval ({fault}); see recall eval bfcl --setup") from None

    async def open(self, episode_id: str, entry: Entry) -> list[str]:
        """Make the backends of an episode; the names of their methods."""
        found: list[str] = await self._ask(
            "open",
            id=episode_id,
            classes=list(entry.classes),
            config=entry.source.get("initial_config", {}),
            long_context="long_context" in entry.category,
        )
        return found

    async def call(self, episode_id: str, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a method of a backend; what it returned, as the leaderboard shows it to a model."""
        return str(await self._ask("call", id=episode_id, name=name, arguments=dict(arguments)))

    async def close(self, episode_id: str) -> None:
        """Throw the backends of an episode away."""
        await self._ask("close", id=episode_id)

    async def check_turns(self, entry: Entry, calls: Sequence[Sequence[Sequence[str]]]) -> dict[str, Any]:
        """The checkers' verdict on an episode of several turns.

        Args:
            entry: what was played.
            calls: by turn and by step, the calls as code.
        """
        verdict: dict[str, Any] = await self._ask(
            "multi_turn", entry=dict(entry.source), calls=calls, truth=entry.truth, category=entry.category
        )
        return verdict

    async def check_calls(self, entry: Entry, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The checkers' verdict on the calls of a single turn."""
        verdict: dict[str, Any] = await self._ask(
            "ast", functions=list(entry.functions), calls=list(calls), truth=entry.truth, category=entry.category
        )
        return verdict
