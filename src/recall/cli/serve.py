"""`recall serve`: an agent behind an OpenAI-compatible endpoint. What it does is `inference/`'s; here are its flags."""

from pathlib import Path

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.inference.models import ModelSettings

TOKEN_VARIABLE = "RECALL_SERVE_TOKEN"
"""The environment variable that holds the token where no file is named."""


class Serve(Settings):
    """Serve a model with its tools to OpenAI's clients: POST /v1/chat/completions; GET /v1/models, /metrics.

    Tools of --tools run on this side. Tools that a request brings are handed back to the caller, whose results let the
    same episode go on. Listens on this machine only, unless there is a token: in --token-file, or in the environment
    variable RECALL_SERVE_TOKEN.
    """

    tools: tuple[str, ...] = ()
    """Tools on this side: tools.py, mcp.json, openapi.json, a search index, or the address of an MCP server."""
    system: str = ""
    """A system message for conversations that bring none."""
    name: str = "recall"
    """What the model is called by clients."""
    policy: ModelSettings = ModelSettings()
    limits: Limits | None = None
    """Of an episode; those that fit the model without it."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8902, ge=0, le=65535)
    """The port; 0 takes a free one."""
    token_file: Path | None = None
    """A file with the token that requests must bring."""
    at_once: int = Field(default=256, ge=1)
    """Episodes that run or wait at the same time, requests beyond being answered 429."""
    wait_s: float = Field(default=600.0, gt=0)
    """Seconds for which an episode waits for the results of its caller's tools."""
    max_body_mb: int = Field(default=8, ge=1, le=1024)
    """MiB of a request's body, larger ones being answered 413."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight get to finish when the server is told to stop."""

    def main(self) -> int:
        """Serve."""
        import logging

        from recall.inference.agent import ReCall
        from recall.inference.service.app import App
        from recall.inference.toolfiles import read_tools
        from recall.serving.access import read_token
        from recall.serving.requests import RequestLimits
        from recall.serving.server import Listening, serve
        from recall.types import Task

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        tools = []
        for named in self.tools:
            found = read_tools(named)
            if isinstance(found, Task):
                raise ConfigError(f"--tools {named}: a row of tasks has state of its own question; recall run asks it")
            tools += found
        agent = ReCall(policy=self.policy, tools=tools, system=self.system, limits=self.limits)
        token = read_token(self.token_file, TOKEN_VARIABLE)
        limits = RequestLimits(body_bytes=self.max_body_mb << 20)
        app = App(agent, self.name, token, limits, wait_s=self.wait_s, at_once=self.at_once)
        listening = Listening(
            name="serve",
            host=self.host,
            port=self.port,
            uds=None,
            token=token,
            token_variable=TOKEN_VARIABLE,
            head_timeout_s=limits.body_timeout_s,
            grace_s=self.grace_s,
        )
        serve(app, app, listening)
        return 0
