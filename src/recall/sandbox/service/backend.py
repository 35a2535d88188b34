"""What the server needs of a sandbox beyond the seam of `base.py`; `LocalSandbox` has it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Session, SessionOptions
from recall.sandbox.stats import SandboxStats


class ServedSession(Session, Protocol):
    """A session with the published form of a call, and copies."""

    async def evaluate(self, expression: str, *, timeout_s: float | None = None) -> CallResult:
        """The value of a Python expression among the tools, such as `f(a=1)`; otherwise as `call`."""

    async def fork(self) -> "ServedSession":
        """A copy of the session as it is now.

        Raises:
            SandboxError: the session was not opened as forkable, is gone, or could not be copied.
        """


class CodeResult(Protocol):
    """What came of a script."""

    @property
    def status(self) -> str:
        """`finished`, `timeout` or `error`."""

    @property
    def return_code(self) -> int | None:
        """The exit status; None where there is none."""

    @property
    def stdout(self) -> str:
        """What it printed."""

    @property
    def stderr(self) -> str:
        """What it complained of."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files that were asked for and exist."""

    @property
    def duration_s(self) -> float:
        """Wall time, in seconds."""


class Backend(Protocol):
    """A sandbox that can be served."""

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers that hold; empty before `start`."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The layers that do not."""

    async def start(self, *profiles: str) -> None:
        """Get ready.

        Raises:
            ConfigError: there is no such profile.
            SandboxError: it does not start, or a layer that is required does not hold.
        """

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> ServedSession:
        """Open a session; see `recall.sandbox.base.Sandbox.open`."""

    async def run_code(
        self,
        code: str,
        *,
        profile: str = "code",
        stdin: str = "",
        files: Mapping[str, bytes] = ...,
        fetch: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> CodeResult:
        """Run a script in a directory of its own.

        Raises:
            SandboxBusy: there is no room now.
            SandboxError: the sandbox failed.
        """

    def stats(self) -> SandboxStats:
        """What it has done."""

    async def close(self) -> None:
        """End everything. Safe to call twice."""
