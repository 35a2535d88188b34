"""The three kinds of failure: the user's, the model's, ours. Anything else is a bug and keeps its traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class RecallError(Exception):
    """The root of every failure that ReCall names."""


class ConfigError(RecallError):
    """The user's failure: a file, a row, a flag. Shown as one line; exit status 2."""


class ToolError(RecallError):
    """The model's failure: a wrong tool or argument, a tool that raised. The model reads the message and goes on."""


class RolloutError(RecallError):
    """Our failure: sandbox, engine or retriever down. Recorded on the trajectory and left out of the gradient."""


class SandboxError(RolloutError):
    """The sandbox itself failed: it could not start, or a session was lost through no fault of the model."""


class SandboxBusy(SandboxError):  # noqa: N818 - a state, not an error of anyone
    """The sandbox has no room now; nothing was started, so trying again later is safe."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which trying again makes sense."""


class RetrieverError(RolloutError):
    """The retriever failed: its index, its encoder, or the service that it lives in."""


class RetrieverBusy(RetrieverError):  # noqa: N818 - a state, not an error of anyone
    """The retriever has no room now; nothing was searched, so trying again later is safe."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which trying again makes sense."""


class PolicyError(RolloutError):
    """The engine behind a policy failed to sample."""


@contextmanager
def boundary(error: type[RolloutError], doing: str, *faults: type[Exception]) -> Iterator[None]:
    """Turn `faults`, the failures known to happen while `doing`, into `error`.

    Raises:
        RolloutError: of type `error`, with `doing` and the fault in its message.
    """
    try:
        yield
    except faults as fault:
        raise error(f"{doing}: {type(fault).__name__}: {fault}") from fault
