"""The namespace of one session's tools, and what may be asked of it. Child's side; it reads and writes no channel."""

import _thread
import marshal
import sys
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from .entropy import renew
from .replies import SOURCE, Output, ReplyLimits, describe, encode, encode_result

_CALL = "<call>"


class _InterruptError(TimeoutError):
    """Raised in a tool whose time is up."""


def _defined_here(value: object) -> bool:
    """Whether `value` is a function of the source, decorated or not."""
    for _ in range(16):
        if isinstance(value, FunctionType) and value.__code__.co_filename == SOURCE:
            return True
        value = getattr(value, "__wrapped__", None)
        if value is None:
            return False
    return False


class Tools:
    """The source of a session, once it has run, and the state that it keeps."""

    def __init__(self, limits: ReplyLimits) -> None:
        self.limits = limits
        self._output = Output(limits.output_chars)
        self._module = ModuleType("tools")
        self._namespace = self._module.__dict__
        self._running = False
        self.loaded = False
        """Whether the source has run to its end."""

    def interrupt(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """End the call in progress by an exception; a handler of signals. Between calls it does nothing."""
        if self._running:
            self._running = False
            raise _InterruptError("the call took too long")

    def load(
        self,
        source: str | None,
        seed: int | None = None,
        *,
        code: str | None = None,
        tell: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """Run the source; the reply says whether it ran to its end.

        Args:
            source: Python, or None with `code`.
            seed: of everything random.
            code: what the source compiled to in another child.
            tell: is given what the source compiled to, before it runs.
        """
        # Dataclasses and type hints look their module up by name.
        sys.modules["tools"] = self._module
        sys.stdout = self._output
        if seed is not None:
            renew(seed)
        try:
            if code is None:
                compiled: CodeType = compile(source or "", SOURCE, "exec", dont_inherit=True)
                if tell is not None:
                    tell(b2a_base64(marshal.dumps(compiled), newline=False))
            else:
                compiled = marshal.loads(a2b_base64(code))
            exec(compiled, self._namespace)
        except BaseException as error:  # noqa: BLE001  # whatever the source raises is its outcome
            return self.reply("exception", error=describe(error, self.limits.error_chars))
        self._output.take()
        self.loaded = True
        return self.reply("ok")

    def call(self, name: str, arguments: Mapping[str, Any]) -> bytes:
        """Call a function of the source; the reply says what came of it, whatever it was."""
        function = self._namespace.get(name)
        if function is None or not _defined_here(function):
            return self.reply("unknown_tool", error=f"there is no tool named {name!r}"[: self.limits.error_chars])
        sys.stdout = self._output
        try:
            self._running = True
            result = encode_result(function(**arguments), self.limits.output_chars)
            self._running = False
        except BaseException as error:  # noqa: BLE001  # whatever the tool raises is its outcome
            self._running = False
            inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            return self._failed(error, "bad_arguments" if isinstance(error, TypeError) and not inside else "exception")
        return self._returned(result)

    def evaluate(self, expression: str) -> bytes:
        """The value of an expression over the namespace, such as `f(a=1)`."""
        sys.stdout = self._output
        try:
            self._running = True
            code: CodeType = compile(expression.strip(), _CALL, "eval", dont_inherit=True)
            result = encode_result(eval(code, self._namespace), self.limits.output_chars)
            self._running = False
        except BaseException as error:  # noqa: BLE001  # whatever the tool raises is its outcome
            self._running = False
            return self._failed(error, "exception")
        return self._returned(result)

    def reply(self, status: str, result: str = "null", *, error: str | None = None) -> bytes:
        """The body of a reply, with what was printed since the last one."""
        output = self._output.take()
        said = encode(output) if output else '""'
        went_wrong = "null" if error is None else encode(error)
        others = ",true" if _thread._count() else ""
        return f'["{status}",{result},{said},{went_wrong}{others}]'.encode("utf-8", "replace")

    def _failed(self, error: BaseException, status: str) -> bytes:
        status = "timeout" if isinstance(error, _InterruptError) else status
        return self.reply(status, error=describe(error, self.limits.error_chars))

    def _returned(self, result: str) -> bytes:
        size = len(result) if result.isascii() else len(result.encode("utf-8", "replace"))
        if size > self.limits.result_bytes:
            message = f"the result is {size} bytes of JSON, the limit is {self.limits.result_bytes}"
            return self.reply("over_limit", error=message)
        return self.reply("ok", result)
