"""Answers in the words of OpenAI's chat completions: whole, and in pieces."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recall.inference.service.conversations import HandedBack
from recall.types import CallRecord

Usage = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the answer to one request."""

    model: str
    """The name of what answers."""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, content: str, calls: Sequence[HandedBack], finish: str, usage: Usage, more: Any) -> bytes:
        """The answer as one."""
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return as_json({**self._head("chat.completion"), "choices": [choice], "usage": usage, "recall": more})

    def delta(self, **delta: Any) -> bytes:
        """A piece of the answer."""
        return self._chunk({"index": 0, "delta": delta, "finish_reason": None})

    def calls(self, calls: Sequence[HandedBack]) -> bytes:
        """A piece that hands calls back."""
        return self.delta(tool_calls=[{"index": place, **_call(call)} for place, call in enumerate(calls)])

    def record(self, record: CallRecord) -> bytes:
        """A piece that tells of a call that was made here; clients that do not know the field pass over it."""
        told = {"name": record.name, "arguments": dict(record.arguments), "status": record.status.value}
        shown = {**told, "result": record.result, "seconds": round(record.duration_s, 6)}
        return self._chunk({"index": 0, "delta": {}, "finish_reason": None}, recall={"call": shown})

    def finish(self, finish: str, more: Any) -> bytes:
        """The last piece with a choice."""
        return self._chunk({"index": 0, "delta": {}, "finish_reason": finish}, recall=more)

    def usage(self, usage: Usage) -> bytes:
        """The piece that says how many tokens there were."""
        return _event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})

    def _chunk(self, choice: Mapping[str, Any], **more: Any) -> bytes:
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **more})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


END = b"data: [DONE]\n\n"
"""What ends a stream."""


def error(message: str, status: int, code: str | None = None, param: str | None = None) -> bytes:
    """The body of an answer that is none."""
    return as_json({"error": _error(message, status, code, param)})


def error_event(message: str, status: int) -> bytes:
    """A piece that says that the answer ends here, and why."""
    return _event({"error": _error(message, status, None, None)})


def _error(message: str, status: int, code: str | None, param: str | None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "code": code, "param": param}


def _call(call: HandedBack) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def as_json(value: Any) -> bytes:
    """JSON as UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _event(value: Any) -> bytes:
    return b"data: " + as_json(value) + b"\n\n"
