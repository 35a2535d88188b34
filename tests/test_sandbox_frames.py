"""The parent's end of a session against whatever bytes may come: split anywhere, forged, early, late, or no frames."""

import asyncio
import itertools
import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.errors import SandboxError
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult
from recall.sandbox.channel import FrameError, Frames
from recall.sandbox.codes import Codes
from recall.sandbox.decoding import decode_reply
from recall.sandbox.inside.wire import ASK, CODE, CODE_BYTES, HEADER
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.process import Family
from recall.sandbox.session import LocalSession, Web
from recall.sandbox.stats import SandboxStats
from recall.types import CallStatus

MOST_BYTES = 300
OK = b'["ok",42,"",null]'
bodies = st.binary(max_size=MOST_BYTES)
numbers = st.integers(0, (1 << 32) - 1)


def frame(number: int, body: bytes) -> bytes:
    return HEADER.pack(len(body), number) + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


# --- cutting a stream into frames


@given(st.lists(st.tuples(numbers, bodies), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_come_out_as_they_went_in_however_they_are_split(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    frames = Frames(MOST_BYTES)
    stream = b"".join(frame(number, body) for number, body in sent)
    assert [each for piece in pieces(stream, cuts) for each in frames.take(piece)] == sent
    assert len(frames) == 0


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_is_cut_or_refused_and_never_kept(chunks: list[bytes]) -> None:
    frames = Frames(MOST_BYTES)
    for chunk in chunks:
        try:
            for _, body in frames.take(chunk):
                assert len(body) <= MOST_BYTES
        except FrameError:
            return
        assert len(frames) < HEADER.size + MOST_BYTES


@given(st.integers(MOST_BYTES + 1, (1 << 32) - 1), numbers, st.lists(st.tuples(numbers, bodies), max_size=3))
def test_a_frame_that_is_too_long_is_refused_by_its_header(
    length: int, number: int, before: list[tuple[int, bytes]]
) -> None:
    frames = Frames(MOST_BYTES)
    got: list[tuple[int, bytes]] = []
    stream = b"".join(frame(each, body) for each, body in before) + HEADER.pack(length, number)
    refused = False
    try:
        for each in frames.take(stream):
            got.append(each)  # noqa: PERF402  # what comes before the error counts
    except FrameError:
        refused = True
    assert (refused, got) == (True, before)


# --- decoding a reply


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from([*map(str, CallStatus), "rolled_back", "", "OK"])


def assert_sound(result: CallResult) -> None:
    """What every user of a result relies on."""
    json.dumps([result.result, result.output, result.error], allow_nan=False, ensure_ascii=False).encode()
    assert (result.error is None) == (result.status is CallStatus.OK)
    assert result.error is None or result.result is None


@given(st.binary(max_size=2000))
def test_any_bytes_decode_to_nothing_or_to_a_sound_reply(body: bytes) -> None:
    reply = decode_reply(body)
    if reply is not None:
        assert_sound(reply.result)


@given(st.lists(json_values | words, max_size=6))
def test_any_json_decodes_to_nothing_or_to_a_sound_reply(parts: list[Any]) -> None:
    reply = decode_reply(json.dumps(parts).encode())
    if reply is not None:
        assert_sound(reply.result)
        assert reply.result.status not in (CallStatus.STATE_LOST, CallStatus.MALFORMED)


@given(json_values, st.text())
def test_an_honest_reply_comes_back(value: Any, output: str) -> None:
    encoded = json.dumps(value)
    reply = decode_reply(f'["ok",{encoded},{json.dumps(output)},null]'.encode())
    if any(word in encoded for word in ("NaN", "Infinity", "\\ud")) or "\\ud" in json.dumps(output):
        return
    assert reply is not None
    assert json.dumps(reply.result.result) == encoded
    assert reply.result.output == output


# --- a whole session


class Host:
    """Makes no process: the test is the process. Its end is reported as soon as it is asked for."""

    def __init__(self, codes: Codes | None = None) -> None:
        self.limits = SandboxLimits(output_chars=20, error_chars=20, result_bytes=64 if codes is None else 1 << 17)
        self.stats = SandboxStats()
        self.web: Web | None = None
        self.codes = codes
        self.session: LocalSession | None = None

    def signal(self, kind: bytes, number: int) -> None:
        if kind == b"K" and self.session is not None:
            asyncio.get_running_loop().call_soon(self.session.ended, -9)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None: ...

    def add(self, copy: LocalSession) -> None: ...

    def drop(self, session: LocalSession) -> None: ...


def loaded_with(theirs: socket.socket, reply: bytes) -> bytes:
    """Answer the source with `reply`, the request that came behind it with OK, all at once; what had come."""
    came = theirs.recv(1 << 16)
    theirs.send(frame(0, b"") + frame(0, reply) + frame(1, OK))
    return came


@pytest.mark.parametrize(
    ("reply", "status"),
    [(b'["ok",null,"",null]', CallStatus.OK), (b'["exception",null,"","no"]', CallStatus.EXCEPTION)],
)
async def test_the_first_call_goes_right_behind_the_source(reply: bytes, status: CallStatus) -> None:
    ours, theirs = socket.socketpair()
    host = Host()
    session = host.session = LocalSession(host, Family(1, host), ours)
    session.load("x = 1", DEFAULT_OPTIONS, asyncio.get_running_loop())
    call = asyncio.create_task(session.call("f", {}, timeout_s=30))
    await asyncio.sleep(0)
    came = list(Frames(1 << 16).take(loaded_with(theirs, reply)))
    assert [(number, json.loads(body)[0]) for number, body in came] == [(0, "load"), (1, "call")]
    result = await call
    assert result.status is status
    assert result.result == (42 if status is CallStatus.OK else None)
    await session.close()
    theirs.close()


LOADED = b'["ok",null,"",null]'
UNLOADABLE = "the tools could not be loaded: they wrote to the sandbox's own channel"


async def loaded_by(host: Host, *bodies: bytes) -> tuple[list[Any], str | None]:
    """What a session with the source `x = 1` asks of a process that answers with `bodies`, and the error of a call."""
    ours, theirs = socket.socketpair()
    session = host.session = LocalSession(host, Family(1, host), ours)
    session.load("x = 1", DEFAULT_OPTIONS, asyncio.get_running_loop())
    call = asyncio.create_task(session.call("f", {}, timeout_s=30))
    await asyncio.sleep(0)
    asked = json.loads(next(iter(Frames(1 << 17).take(theirs.recv(1 << 17))))[1])
    theirs.send(frame(0, b"") + b"".join(frame(0, body) for body in bodies) + frame(1, OK))
    error = (await call).error
    await session.close()
    theirs.close()
    return asked, error


async def test_a_code_that_was_told_goes_out_in_the_place_of_the_same_source() -> None:
    host = Host(Codes())
    assert await loaded_by(host, CODE + b"abc=", LOADED) == (["load", "x = 1", False, None, None, True], None)
    assert await loaded_by(host, LOADED) == (["load", None, False, None, "abc=", False], None)


async def test_a_code_comes_before_the_source_has_run_once_and_when_it_was_asked_for() -> None:
    for bodies in ((LOADED,), (CODE, CODE, LOADED), (LOADED, CODE)):
        host = Host(Codes())
        assert (await loaded_by(host, *bodies))[1] == UNLOADABLE
    assert await loaded_by(Host(None), CODE, LOADED) == (["load", "x = 1", False, None, None, False], UNLOADABLE)


async def test_a_source_that_does_not_compile_tells_no_code() -> None:
    host = Host(Codes())
    _, error = await loaded_by(host, b'["exception",null,"","no"]')
    assert error == "the tools could not be loaded: no"
    assert host.codes is not None
    assert len(host.codes) == 0


def test_codes_that_are_too_long_or_no_text_are_not_kept_and_the_oldest_goes_first() -> None:
    codes = Codes(sources=2)
    for source, code in (("a", b""), ("b", b"x" * CODE_BYTES), ("c", b"\xff")):
        codes.keep(source, code)
    assert len(codes) == 0
    for source in ("a", "b", "a", "c"):
        codes.keep(source, b"x")
        codes.get("a")
    assert [codes.get(source) for source in "abc"] == ["x", None, "x"]


writings = st.one_of(
    st.builds(
        lambda body: ("answer", body), st.sampled_from([OK, b'["exception",null,"","no"]', b'["ok",1e999,"",null]'])
    ),
    st.builds(lambda offset: ("other", offset), st.sampled_from([-1, 1, 2, ASK, 1 << 30])),
    st.builds(lambda data: ("raw", data), st.binary(max_size=40)),
    st.sampled_from([("empty", b""), ("huge", b""), ("begin", b""), ("half", b"")]),
)


def written(kind: str, value: Any, request: int) -> bytes:
    match kind:
        case "answer":
            return frame(request, value)
        case "other":
            return frame((request + value) % (1 << 32), OK)
        case "raw":
            return bytes(value)
        case "empty":
            return frame(request, b"")
        case "huge":
            return HEADER.pack((1 << 32) - 1, request)
        case "begin":
            return frame(0, b"")
    return frame(request, OK)[:11]


async def converse(script: list[list[tuple[str, Any]]], cuts: list[int]) -> list[CallResult | None]:
    """Make a call for each part of the script, which is what the process writes when it is called; then it ends."""
    ours, theirs = socket.socketpair()
    host = Host()
    session = host.session = LocalSession(host, Family(1, host), ours)
    session.load("", DEFAULT_OPTIONS, asyncio.get_running_loop())
    theirs.setblocking(False)
    theirs.send(frame(0, b""))
    theirs.send(frame(0, b'["ok",null,"",null]'))
    outcomes: list[CallResult | None] = []
    for request, writing in enumerate(script, 1):
        call = asyncio.create_task(session.call("f", {}, timeout_s=30))
        await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        for piece in pieces(b"".join(written(*each, request) for each in writing), cuts):
            try:
                theirs.send(piece)
            except OSError:
                break
            await asyncio.sleep(0)
        if request == len(script):
            theirs.close()
        elif not call.done():
            done, _ = await asyncio.wait([call], timeout=0.01)
            if not done:
                theirs.close()
        try:
            outcomes.append(await call)
        except SandboxError:
            outcomes.append(None)
    await session.close()
    theirs.close()
    return outcomes


@settings(max_examples=200)
@given(
    st.lists(st.lists(writings, min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_whatever_a_process_writes_costs_its_own_session_alone(
    script: list[list[tuple[str, Any]]], cuts: list[int]
) -> None:
    outcomes = asyncio.run(converse(script, cuts))
    lost = False
    for outcome in outcomes:
        assert outcome is not None, "a tool's bytes were taken for a fault of ours"
        assert_sound(outcome)
        if lost:
            assert outcome.status is CallStatus.STATE_LOST
        lost = lost or outcome.status in (CallStatus.CRASHED, CallStatus.STATE_LOST)


@settings(max_examples=100)
@given(st.integers(1, 5), st.lists(st.integers(0, 200), max_size=4))
def test_honest_answers_arrive_however_they_are_split(calls: int, cuts: list[int]) -> None:
    outcomes = asyncio.run(converse([[("answer", OK)]] * calls, cuts))
    assert [outcome and outcome.result for outcome in outcomes] == [42] * calls
