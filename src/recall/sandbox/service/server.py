"""Runs the service: listens, prints one line when it is ready, stops cleanly. Answering is `app.py`'s."""

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.sandbox.service.access import Token, check_bind
from recall.sandbox.service.app import App, AppLimits
from recall.sandbox.service.service import Service

if TYPE_CHECKING:
    import uvicorn

_KEEP_ALIVE_S = 120
"""An unused connection is kept for longer than clients keep theirs, so that none is closed under a request."""
_BACKLOG = 2048
_ANSWER_S = 2.0
"""Seconds in which requests that were just failed are answered."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and how it stops."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8900
    """The port; 0 takes a free one."""
    uds: Path | None = None
    """A unix socket to listen on instead."""
    token: Token | None = None
    """What requests must bring."""
    grace_s: float = 30.0
    """Seconds that calls in flight get when the server is told to stop."""
    limits: AppLimits = field(default_factory=AppLimits)
    """What one request may be."""


def serve(service: Service, settings: ServerSettings) -> None:
    """Serve until a signal says to stop.

    Raises:
        ConfigError: the address is taken or cannot be had, or it needs a token.
        SandboxError: the sandbox does not start.
    """
    with _listening(settings) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_Serving(service, settings, listener).run())


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


class _Serving:
    """One run of the server."""

    def __init__(self, service: Service, settings: ServerSettings, listener: socket.socket) -> None:
        self._service, self._settings, self._listener = service, settings, listener
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        server = _server(App(self._service, self._settings.token, self._settings.limits))
        # Listening already, it says that it lives and is not ready yet while the sandbox starts.
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        try:
            starting = asyncio.create_task(self._service.start())
            await self._either(starting, self._asked)
            if self._asked.is_set():
                starting.cancel()
            else:
                await starting
                print(self._ready_line(), flush=True)
                await self._either(serving, self._asked)
            self._service.draining = True
            server.should_exit = True
            await self._either(serving, self._hurried, timeout_s=self._settings.grace_s)
        finally:
            # Whoever still waits for a call is told that it failed through no fault of its own.
            await self._service.close()
            server.should_exit = True
            await asyncio.wait([serving], timeout=_ANSWER_S)
            server.force_exit = True
            await asyncio.wait([serving], timeout=_ANSWER_S)

    def _stop(self) -> None:
        (self._hurried if self._asked.is_set() else self._asked).set()

    async def _either(self, task: "asyncio.Task[None]", event: asyncio.Event, timeout_s: float | None = None) -> None:
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait((task, waiting), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def _ready_line(self) -> str:
        sandbox = self._service.sandbox
        if self._settings.uds is not None:
            address = f"unix:{self._settings.uds}"
        else:
            host, port = self._listener.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        layers = ", ".join(sandbox.isolation) or "none"
        missing = ", ".join(sandbox.missing) or "none"
        return f"recall sandbox: ready at {address}; layers: {layers}; missing: {missing}"


def _server(app: App) -> "uvicorn.Server":
    import uvicorn

    from recall.sandbox.service.connection import connection_class

    class Server(uvicorn.Server):
        """Leaves the signals to us: uvicorn would wait for calls in flight without end."""

        def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
            return nullcontext()

    return Server(
        uvicorn.Config(
            app,
            http=connection_class(app.limits.body_timeout_s),
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
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    """The socket, bound; a unix socket is removed in the end."""
    if settings.uds is None:
        with _bound(settings.host, settings.port, settings.token) as listener:
            yield listener
        return
    path = settings.uds
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


def _bound(host: str, port: int, token: Token | None) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such address: {error}") from None
    check_bind(host, str(address[0]), token)
    # The protocol is said outright, because asyncio turns Nagle's delays off only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"--port {port}: cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


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
