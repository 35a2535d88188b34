"""`recall sandbox`: the sandbox as a service. What it serves is `sandbox/`'s; here are its flags."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from recall.config import Settings
from recall.errors import ConfigError
from recall.sandbox.inside.isolation import unmet

if TYPE_CHECKING:
    from recall.sandbox.egress.broker import Broker
    from recall.sandbox.profiles import Profile


class Serve(Settings):
    """Run tools for others, over HTTP: POST /execute, /execute_batch, /sessions, /run_code.

    Listens on this machine only, unless there is a token: in --token-file, or in the environment variable
    RECALL_SANDBOX_TOKEN. SIGTERM lets calls in flight finish; a second one does not.
    """

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8900, ge=0, le=65535)
    """The port; 0 takes a free one."""
    uds: Path | None = None
    """A unix socket to listen on instead of an address."""
    token_file: Path | None = None
    """A file with the token that requests must bring."""
    workers: int = Field(default=1, ge=1, le=64)
    """Zygotes of each profile, which start the sessions; one is good for about four cores."""
    profiles: tuple[str, ...] = ("default", "code")
    """The profiles that are served, the first where a request names none; /run_code needs `code`."""
    require: tuple[str, ...] = ()
    """Refuse to serve unless these hold: fs, net, proc, or layers by name."""
    max_sessions: int = Field(default=1024, ge=1, le=2560)
    """Sessions open at once."""
    pool: int = Field(default=0, ge=0, le=512)
    """Processes that wait for a session, of each profile."""
    session_ttl_s: float = Field(default=900.0, gt=0)
    """Seconds without a call after which a session ends."""
    max_running: int = Field(default=256, ge=1, le=1024)
    """Calls at once."""
    max_queue: int = Field(default=4096, ge=0)
    """Calls that may wait for a place, those beyond being answered 429."""
    queue_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that a call may wait for a place, before it is answered 503."""
    max_body_mb: int = Field(default=8, ge=1, le=1024)
    """MiB of a request's body, larger ones being answered 413."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds in which the head, and then the body, of a request must have come in."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight get to finish when the server is told to stop."""

    packages: tuple[str, ...] = ()
    """Distributions beside the standard library that tools of the default profile may import."""
    cgroup: Path | None = None
    """A control group, made by whoever runs this host, whose limits hold for all sessions together."""
    web_rules: Path | None = None
    """A file of what tools may reach by `requests` and `urllib`, a URL a line, such as http://host:8000/search."""

    @field_validator("profiles")
    @classmethod
    def _known_profiles(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from recall.sandbox.profiles import PROFILES

        if not names or (unknown := [name for name in names if name not in PROFILES]):
            raise ValueError(f"{unknown[0] if names else 'nothing'!r} is no profile; there are {', '.join(PROFILES)}")
        return names

    @field_validator("require")
    @classmethod
    def _known_requirements(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unmet((), names)  # raises ValueError where one is unknown
        return names

    def main(self) -> int:
        """Serve."""
        import logging

        from recall.sandbox.local import LocalSandbox
        from recall.sandbox.service.access import read_token
        from recall.sandbox.service.app import AppLimits
        from recall.sandbox.service.server import ServerSettings, serve
        from recall.sandbox.service.service import Service, ServiceLimits

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        token = read_token(self.token_file)
        profiles = self._served()
        web = self._broker()
        sandbox = LocalSandbox(
            profiles=profiles,
            require=self.require,
            zygotes=self.workers,
            pool=self.pool,
            web=web,
            cgroup=None if self.cgroup is None else str(self.cgroup),
        )
        limits = ServiceLimits(
            running=self.max_running,
            waiting=self.max_queue,
            queue_timeout_s=self.queue_timeout_s,
            sessions=self.max_sessions,
            idle_s=self.session_ttl_s,
        )
        request_limits = AppLimits(
            body_bytes=self.max_body_mb << 20,
            body_timeout_s=self.body_timeout_s,
            code_memory_mb=profiles["code"].limits.memory_bytes >> 20,
        )
        service = Service(sandbox, self.profiles, limits=limits, require=self.require, web=web)
        serve(service, ServerSettings(self.host, self.port, self.uds, token, self.grace_s, request_limits))
        return 0

    def _broker(self) -> "Broker | None":
        if self.web_rules is None:
            return None
        from recall.sandbox.egress.broker import Broker
        from recall.sandbox.egress.rules import Rule

        try:
            lines = self.web_rules.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--web-rules {self.web_rules}: cannot be read: {error}") from None
        return Broker([Rule.parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")])

    def _served(self) -> "dict[str, Profile]":
        """The profiles, with room for the sessions that are open, the calls that run besides, and the pool."""
        from recall.sandbox.profiles import PROFILES

        room = self.max_sessions + self.max_running + self.pool
        profiles = {
            name: replace(profile, limits=replace(profile.limits, max_sessions=room))
            for name, profile in PROFILES.items()
        }
        default = profiles["default"]
        profiles["default"] = replace(default, packages=(*default.packages, *self.packages))
        return profiles
