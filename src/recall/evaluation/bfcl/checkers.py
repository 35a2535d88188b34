"""A process with the leaderboard's own checkers and backends, and what is asked of it."""

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from recall.errors import ConfigError, RolloutError
from recall.evaluation.bfcl import worker

_LINE_BYTES = 1 << 26
"""The longest answer: a long-context listing of files is large."""
_PATIENCE_S = 600.0
"""Seconds without an answer after which the process is taken for stuck and ended."""
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")
"""What the process sees of our environment; keys of services are none of its business."""


class CheckersError(RolloutError):
    """The checkers' process failed: ours, not the model's."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What an episode needs of the backends."""

    classes: tuple[str, ...]
    """Which ones."""
    config: Mapping[str, Any]
    """The state that each starts from, by class."""
    long_context: bool = False
    """Whether they are filled up with what nobody asks for."""
    scenario: str = ""
    """Of a memory: whom it serves; empty for all other backends."""
    conversation: bool = False
    """Of a memory: whether it is filled, rather than asked."""
    watch: bool = False
    """Whether `changes` will be asked for."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the backends of an episode say of themselves."""

    methods: frozenset[str]
    """What can be called."""
    instruction: str = ""
    """Of a memory: the system message that says how to use it, and what it holds."""


class Checkers:
    """One process, as a context manager. It answers in order, and is started with a question where there is none."""

    def __init__(self, interpreter: Path, *, encoder: Path | None = None) -> None:
        """Take the interpreter of an environment that has `bfcl-eval`; see `setup.py`.

        Args:
            interpreter: of that environment.
            encoder: the directory of the model of sentences that the vector memory needs.
        """
        self.interpreter, self.encoder = interpreter, encoder
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> "Checkers":
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the process, where there is one."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _start(self) -> asyncio.subprocess.Process:
        """The running process; a new one where there is none."""
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return self._process
            environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            if self.encoder is not None:
                environment["RECALL_BFCL_ENCODER"] = str(self.encoder)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    self.interpreter,
                    "-I",
                    worker.__file__,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    limit=_LINE_BYTES,
                    env=environment,
                )
            except OSError as fault:
                raise ConfigError(f"{self.interpreter}: cannot be run: {fault.strerror}") from None
            self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "its output is a pipe"
        while line := await process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["n"])
            if not future.done():
                if "error" in answer:
                    future.set_exception(CheckersError(answer["error"]))
                else:
                    future.set_result(answer["result"])
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(CheckersError("the process ended"))

    async def _ask(self, do: str, **request: Any) -> Any:
        process = await self._start()
        assert process.stdin is not None, "its input is a pipe"
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(json.dumps({"n": number, "do": do, **request}).encode() + b"\n")
            await process.stdin.drain()
            return await asyncio.wait_for(future, _PATIENCE_S)
        except ConnectionError:
            raise CheckersError("the process ended") from None
        except TimeoutError:
            process.kill()
            raise CheckersError(f"no answer for {_PATIENCE_S:g} s") from None

    async def package(self) -> Path:
        """Where the package `bfcl_eval` lies.

        Raises:
            ConfigError: the environment does not have it.
        """
        try:
            return Path((await self._ask("data"))["package"])
        except CheckersError as fault:
            raise ConfigError(f"{self.interpreter}: has no bfcl-eval ({fault}); see recall eval bfcl --setup") from None

    async def lacking(self, modules: Sequence[str]) -> list[str]:
        """Which of some modules the environment does not have."""
        found: list[str] = await self._ask("lacking", modules=list(modules))
        return found

    async def usage(self) -> Mapping[str, float]:
        """How many episodes are `open`, and the most memory that the process took, `peak_mib`."""
        found: Mapping[str, float] = await self._ask("usage")
        return found

    async def open(self, episode_id: str, opening: Opening) -> Opened:
        """Make the backends of an episode."""
        found = await self._ask(
            "open",
            id=episode_id,
            classes=list(opening.classes),
            config=dict(opening.config),
            long_context=opening.long_context,
            scenario=opening.scenario,
            conversation=opening.conversation,
            watch=opening.watch,
        )
        return Opened(frozenset(found["methods"]), found["instruction"])

    async def call(self, episode_id: str, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a method of a backend; what it returned, as the leaderboard shows it to a model."""
        return str(await self._ask("call", id=episode_id, name=name, arguments=dict(arguments)))

    async def changes(self, episode_id: str) -> dict[str, Any]:
        """What a watched episode changed in its backends' state: values by path, and None for what is gone."""
        found: dict[str, Any] = await self._ask("changes", id=episode_id)
        return found

    async def flush(self, episode_id: str) -> None:
        """Keep what a memory holds for the episodes that depend on this one."""
        await self._ask("flush", id=episode_id)

    async def close(self, episode_id: str) -> None:
        """Throw the backends of an episode away."""
        await self._ask("close", id=episode_id)

    async def check_turns(
        self, source: Mapping[str, Any], truth: Any, category: str, calls: Sequence[Sequence[Sequence[str]]]
    ) -> dict[str, Any]:
        """The checkers' verdict on an episode of several turns.

        Args:
            source: the entry as it stands in the leaderboard's file.
            truth: its ground truth.
            category: of the entry.
            calls: by turn and by step, the calls as code.
        """
        verdict: dict[str, Any] = await self._ask(
            "multi_turn", entry=dict(source), calls=calls, truth=truth, category=category
        )
        return verdict

    async def check_calls(
        self,
        functions: Sequence[Mapping[str, Any]],
        truth: Any,
        category: str,
        calls: Sequence[Mapping[str, Any]],
        language: str,
    ) -> dict[str, Any]:
        """The checkers' verdict on the calls of a single turn, in `python`, `java` or `javascript`."""
        verdict: dict[str, Any] = await self._ask(
            "ast", functions=list(functions), calls=list(calls), truth=truth, category=category, language=language
        )
        return verdict

    async def check_answer(self, truth: Sequence[str], said: str) -> dict[str, Any]:
        """The checkers' verdict on what an episode ended with."""
        verdict: dict[str, Any] = await self._ask("agentic", truth=list(truth), said=said)
        return verdict
