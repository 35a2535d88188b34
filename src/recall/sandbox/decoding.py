"""Replies of a session, decoded. Every byte may have been written by a tool: it is parsed as JSON and checked."""

import json
import math
import signal
from typing import Any, NamedTuple

from recall.sandbox.base import CallResult
from recall.types import CallStatus

_STATUSES = {
    str(status): status
    for status in (
        CallStatus.OK,
        CallStatus.EXCEPTION,
        CallStatus.OVER_LIMIT,
        CallStatus.UNKNOWN_TOOL,
        CallStatus.BAD_ARGUMENTS,
        CallStatus.TIMEOUT,
    )
}


class Reply(NamedTuple):
    """What a child says of a request."""

    result: CallResult
    """The outcome; of a request that was rolled back, `crashed` with how its process ended."""
    busy: bool = False
    """Whether something of the tools is still running."""
    rolled_back: bool = False
    """Whether the process died that served the request, and the state is as it was before."""


def _no_constant(_: str) -> None:
    """NaN and infinities are not JSON; an honest child sends none."""


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).raw_decode


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def decode_reply(body: bytes, duration_s: float = 0.0) -> Reply | None:
    """The reply in a frame, its result with the `duration_s` that it took; None where it is not one."""
    text = str(body, "utf-8", "replace")
    try:
        reply, end = _decode(text)
        # Only a dishonest child escapes surrogates, and text that holds one cannot be encoded later on.
        if "\\u" in text:
            reply = _without_surrogates(reply)
    except (ValueError, RecursionError):
        return None
    # By hand rather than by patterns, which take twice as long: every call comes by here.
    if end != len(text) or not isinstance(reply, list) or not 4 <= len(reply) <= 5:
        return None
    word, result, output, error, *rest = reply
    if not isinstance(word, str) or not isinstance(output, str) or not (error is None or isinstance(error, str)):
        return None
    status = _STATUSES.get(word)
    if status is None:
        return _rolled_back(reply)
    if (status is CallStatus.OK) != (error is None) or (error is not None and result is not None):
        return None
    if rest and rest[0] is not True:
        return None
    return Reply(CallResult(status, result, output, error, duration_s), bool(rest))


def _rolled_back(reply: list[Any]) -> Reply | None:
    match reply:
        case ["rolled_back", int(exit_code), "", None] if not isinstance(exit_code, bool):
            return Reply(CallResult(CallStatus.CRASHED, error=how_ended(exit_code)), rolled_back=True)
    return None


def how_ended(exit_code: int | None, cpu_s: int | None = None) -> str:
    """In words, from an exit status, negative for a signal; None where nobody saw it."""
    if exit_code == -signal.SIGXCPU and cpu_s is not None:
        return f"the tools used more than {cpu_s} s of CPU time"
    how = "the process of the tools ended"
    if exit_code is None or exit_code == -signal.SIGKILL:
        return how
    if exit_code >= 0:
        return f"{how} with exit status {exit_code}"
    known = -exit_code in set(signal.Signals)
    return f"{how} by {signal.strsignal(-exit_code) if known else f'signal {-exit_code}'}"
