"""`recall sandbox`: the sandbox as a service. What it serves is `sandbox/`'s; here are its flags."""

from pathlib import Path

from pydantic import Field

from recall.config import Settings


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
    """Zygotes of each profile; one is good for about four cores."""
    profiles: tuple[str, ...] = ("default", "code")
    """The profiles that are served; the first is used where a request names none. `code` is that of /run_code."""
    require: tuple[str, ...] = ()
    """Refuse to serve without these: fs, net, proc."""
    max_sessions: int = Field(default=1024, ge=1, le=4096)
    """Sessions open at once."""
    pool: int = Field(default=0, ge=0, le=1024)
    """Processes that wait for a session, of each profile."""
    session_ttl_s: float = Field(default=900.0, gt=0)
    """Seconds without a call after which a session ends."""
    max_running: int = Field(default=256, ge=1)
    """Calls at once."""
    max_queue: int = Field(default=4096, ge=0)
    """Calls that wait for a place; those beyond are answered 429."""
    queue_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that a call may wait for a place; after that it is answered 503."""
    max_body_mb: int = Field(default=8, ge=1, le=1024)
    """MiB of a request's body; larger ones are answered 413."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that calls in flight get to finish when the server is told to stop."""

    def main(self) -> int:
        """Serve."""
        import logging

        from recall.sandbox.access import read_token
        from recall.sandbox.app import AppLimits
        from recall.sandbox.local import LocalSandbox
        from recall.sandbox.profiles import PROFILES
        from recall.sandbox.server import ServerSettings, serve
        from recall.sandbox.service import Service, ServiceLimits

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        token = read_token(self.token_file)
        sandbox = LocalSandbox(require=self.require, zygotes=self.workers, pool=self.pool)
        service = Service(
            sandbox,
            self.profiles,
            limits=ServiceLimits(
                running=self.max_running,
                waiting=self.max_queue,
                queue_timeout_s=self.queue_timeout_s,
                sessions=self.max_sessions,
                idle_s=self.session_ttl_s,
            ),
            require=self.require,
        )
        memory_mb = PROFILES["code"].limits.memory_bytes >> 20
        limits = AppLimits(body_bytes=self.max_body_mb << 20, code_memory_mb=memory_mb)
        serve(service, ServerSettings(self.host, self.port, self.uds, token, self.grace_s, limits))
        return 0
