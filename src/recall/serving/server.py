"""Runs a service: listens, prints one line when it is ready, stops cleanly. Answering is the application's."""

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recall.errors import ConfigError
from recall.serving.access import Token, check_bind

if TYPE_CHECKING:
    import uvicorn

_KEEP_ALIVE_S = 120
"""An unused connection is kept for longer than clients keep theirs, so that none is closed under a request."""
_BACKLOG = 2048
_ANSWER_S = 2.0
"""Seconds in which requests that were just failed are answered."""


class Life(Protocol):
    """What is served, from start to end."""

    async def start(self) -> str:
        """Get ready; what the ready line says after the address."""

    def drain(self) -> None:
        """Take nothing new from now on."""

    async def close(self) -> None:
        """Give up what still runs."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a service listens and how it stops."""

    name: str
    """The service, for the line that says that it is ready."""
    host: str
    port: int
    """0 takes a free one."""
    uds: Path | None
    """A unix socket to listen on instead."""
    token: Token | None
    """What requests must bring."""
    token_variable: str
    """The environment variable that could hold it."""
    head_timeout_s: float
    """Seconds in which the head of a request must have come in."""
    grace_s: float
    """Seconds that requests in flight get when the service is told to stop."""


def serve(app: Any, life: Life, listening: Listening) -> None:
    """Serve until a signal says to stop.

    Args:
        app: an ASGI application; it is asked before `life` has started, too.
        life: started and closed here.
        listening: where.

    Raises:
        ConfigError: the address is taken or cannot be had, or it needs a token.
        RecallError: what `life.start` raises.
    """
    with _socket(listening) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Run(app, life, listening, listener).run())


class _Run:
    """One run of the server."""

    def __init__(self, app: Any, life: Life, listening: Listening, listener: socket.socket) -> None:
        self._app, self._life, self._listening, self._listener = app, life, listening, listener
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        server = _server(self._app, self._listening.head_timeout_s)
        # Listening already, it says that it lives and is not ready yet while it starts.
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        try:
            starting = asyncio.create_task(self._life.start())
            await self._either(starting, self._asked)
            if self._asked.is_set():
                starting.cancel()
            else:
                said = await starting
                print(f"recall {self._listening.name}: ready at {self._address()}; {said}", flush=True)
                await self._either(serving, self._asked)
            self._life.drain()
            server.should_exit = True
            await self._either(serving, self._hurried, timeout_s=self._listening.grace_s)
        finally:
            # Whoever still waits is told that it failed through no fault of its own.
            await self._life.close()
            server.should_exit = True
            await asyncio.wait([serving], timeout=_ANSWER_S)
            server.force_exit = True
            await asyncio.wait([serving], timeout=_ANSWER_S)

    def _stop(self) -> None:
        (self._hurried if self._asked.is_set() else self._asked).set()

    async def _either(self, task: "asyncio.Task[Any]", event: asyncio.Event, timeout_s: float | None = None) -> None:
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait((task, waiting), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def _address(self) -> str:
        if self._listening.uds is not None:
            return f"unix:{self._listening.uds}"
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _server(app: Any, head_timeout_s: float) -> "uvicorn.Server":
    import uvicorn

    from recall.serving.connection import connection_class

    class Server(uvicorn.Server):
        """Leaves the signals to us: uvicorn would wait for requests in flight without end."""

        def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
            return nullcontext()

    return Server(
        uvicorn.Config(
            app,
            http=connection_class(head_timeout_s),
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            backlog=_BACKLOG,
        )
    )


@contextmanager
def _socket(listening: Listening) -> Iterator[socket.socket]:
    """The socket, bound; a unix socket is removed in the end."""
    path = listening.uds
    if path is None:
        with _bound(listening) as listener:
            yield listener
        return
    _clear(path)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)  # its owner's alone
        try:
            listener.bind(str(path))
        except OSError as error:
            raise ConfigError(f"--uds {path}: cannot listen there: {error.strerror or error}") from None
        finally:
            os.umask(before)
        try:
            yield listener
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def _bound(listening: Listening) -> Iterator[socket.socket]:
    host, port = listening.host, listening.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such address: {error}") from None
    check_bind(host, str(address[0]), listening.token, listening.token_variable)
    # The protocol is said outright, because asyncio turns Nagle's delays off only where it is.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(f"--port {port}: cannot listen on {host}:{port}: {error.strerror}") from None
        yield listener


def _clear(path: Path) -> None:
    """Remove the socket of a server that is gone.

    Raises:
        ConfigError: it is no socket, or somebody listens on it.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"--uds {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--uds {path}: there is something else of that name")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise ConfigError(f"--uds {path}: another server listens there")
