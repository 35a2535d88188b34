"""Python source as tools: it runs in a session of a sandbox, with state for the episode, and nowhere else."""

from collections.abc import Sequence

from recall.errors import ConfigError
from recall.sandbox.base import DEFAULT_OPTIONS, Sandbox, SessionOptions
from recall.tools.base import NO_MARKS, Marks, Tool, Toolbox
from recall.types import ToolSpec


class SourceTools:
    """Functions that source defines, called in a sandbox; implements `recall.tools.base.ToolSource`.

    This is how the tools of a task row run. Calls of one session run one after another: they share its state.
    """

    def __init__(
        self,
        source: str,
        specs: Sequence[ToolSpec],
        sandbox: Sandbox,
        *,
        options: SessionOptions = DEFAULT_OPTIONS,
        marks: Marks = NO_MARKS,
    ) -> None:
        """Take the source.

        Args:
            source: defines the functions that `specs` name.
            specs: what the model is told of them.
            sandbox: where it runs; it stays the caller's to close.
            options: of the session.
            marks: of all of them.

        Raises:
            ConfigError: there is no function to call.
        """
        if not specs:
            raise ConfigError("tools: source without schemas offers nothing that a model could call")
        self._source, self._sandbox, self._options = source, sandbox, options
        self.tools = tuple(Tool(spec, marks) for spec in specs)
        """What is offered."""

    async def open(self) -> Toolbox:
        """A session on the source.

        Raises:
            SandboxError: none could be had.
        """
        return Toolbox(self.tools, await self._sandbox.open(self._source, self._options))

    async def close(self) -> None:
        """The sandbox is the caller's."""
