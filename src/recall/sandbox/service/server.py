"""The sandbox's service as `recall.serving.server` runs it."""

from dataclasses import dataclass, field
from pathlib import Path

from recall.sandbox.service.access import TOKEN_VARIABLE
from recall.sandbox.service.app import App, AppLimits
from recall.sandbox.service.service import Service
from recall.serving import server
from recall.serving.access import Token


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
    listening = server.Listening(
        name="sandbox",
        host=settings.host,
        port=settings.port,
        uds=settings.uds,
        token=settings.token,
        token_variable=TOKEN_VARIABLE,
        head_timeout_s=settings.limits.body_timeout_s,
        grace_s=settings.grace_s,
    )
    server.serve(App(service, settings.token, settings.limits), _Life(service), listening)


class _Life:
    """See `recall.serving.server.Life`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def start(self) -> str:
        await self._service.start()
        layers, missing = (", ".join(names) or "none" for names in self._layers())
        return f"layers: {layers}; missing: {missing}"

    def drain(self) -> None:
        self._service.draining = True

    async def close(self) -> None:
        await self._service.close()

    def _layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        sandbox = self._service.sandbox
        return tuple(sandbox.isolation), tuple(sandbox.missing)
