"""`recall view`: runs in a browser, or in a file that opens from disk. What is shown is `viewer/window`'s."""

from pathlib import Path

from pydantic import Field

from recall.config import Positional, Settings

TOKEN_VARIABLE = "RECALL_VIEW_TOKEN"
"""The environment variable that holds the token where no file is named."""


class View(Settings):
    """Look at runs, trajectories, evaluations and sets in a browser, live while a run writes.

    Listens on this machine only, unless there is a token: in --token-file, or in the environment variable
    RECALL_VIEW_TOKEN. The browser then asks for it as a password. Ctrl-C ends it.
    """

    runs: Positional[Path] = Path("runs")
    """A directory that holds run directories, at any depth, or one run directory."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8910, ge=0, le=65535)
    """The port; 0 takes a free one."""
    token_file: Path | None = None
    """A file with the token that requests must bring."""
    cache: Path | None = None
    """Where indexes of trajectories are kept; by default recall/window in the user's cache directory."""
    export: Path | None = None
    """Write a copy that opens from disk into this directory instead, and end."""
    export_trajectories: int = Field(default=400, ge=0)
    """Trajectories of each run in the copy, spread over steps and splits."""

    def main(self) -> int:
        """Serve, or write the copy."""
        from recall.viewer.window.folder import Folder
        from recall.viewer.window.views import Views

        folder = Folder(self.runs)
        if self.export is not None:
            from recall.viewer.window.export import write_export

            views = Views(folder, self.cache, wait_s=None)
            try:
                path = write_export(views, self.export, self.export_trajectories)
            finally:
                views.close()
            print(path)
            return 0
        import logging

        from recall.serving.access import read_token
        from recall.serving.server import Listening, serve
        from recall.viewer.window.app import Life, make_app

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        token = read_token(self.token_file, TOKEN_VARIABLE)
        views = Views(folder, self.cache)
        listening = Listening(
            name="view",
            host=self.host,
            port=self.port,
            uds=None,
            token=token,
            token_variable=TOKEN_VARIABLE,
            head_timeout_s=30.0,
            grace_s=2.0,
        )
        serve(make_app(views, token), Life(views), listening)
        return 0
