"""The seam to a sandbox: open a session on source text, call a function in it, close it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from recall.types import CallStatus


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call in a sandbox came to. A value whatever the tool did; only the sandbox's own failure raises."""

    status: CallStatus
    """`ok`, `exception`, `unknown_tool` (the source defines no such function), `bad_arguments` (it takes other ones),
    `timeout`, `crashed` (the process died), `over_limit` (the result was too large) or `state_lost` (an earlier call
    ended the process, so the session's state is gone)."""
    result: Any = None
    """The JSON value that the function returned; None unless the status is `ok`."""
    output: str = ""
    """What the tool printed, cut with a note where it was too long."""
    error: str | None = None
    """What went wrong, in words for the model; None when the status is `ok`."""
    duration_s: float = 0.0
    """Wall time from the request to the answer, in seconds."""
    state_lost: bool = False
    """Whether what the tools remembered is gone, by this call or an earlier one; further calls report `state_lost`."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What sort of session is opened."""

    profile: str = "default"
    """The name of a profile: what may be imported, how much may be used."""
    transactional: bool = False
    """A call that dies (time-out, crash, exit) leaves the state as it was before the call. Costs a fork a call."""
    forkable: bool = False
    """Whether `Session.fork` may be called; a transactional session always is."""
    seed: int | None = None
    """Seeds `random`, and numpy's where the profile has it; None takes fresh entropy."""


DEFAULT_OPTIONS = SessionOptions()
"""A plain session of the default profile."""


class Session(Protocol):
    """One process that holds the state of one episode's tools."""

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call the function `name` with keyword `arguments`.

        Calls of one session run one after another, in the order made, because they share its state.

        Raises:
            SandboxError: the sandbox failed, not the tool.
        """

    async def close(self) -> None:
        """End the process and whatever it started. Safe to call twice."""


class Forkable(Session, Protocol):
    """A session that can be copied, for rollouts that branch."""

    async def fork(self) -> "Forkable":
        """A copy of the session as it is now; from here on the two share nothing.

        Raises:
            SandboxError: the session was not opened as forkable, is gone, or could not be copied.
        """


class Sandbox(Protocol):
    """Opens sessions."""

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        """Run `source` in a fresh confined process and return the session.

        Source that fails (a syntax error, an exception, a time-out) does not raise here: every call of the session
        then reports it.

        Raises:
            ConfigError: there is no such profile.
            SandboxBusy: there is no room now.
            SandboxError: no process could be had.
        """

    async def close(self) -> None:
        """End every session. Safe to call twice."""
