"""The sandbox's own token: where it is looked for."""

from pathlib import Path

from recall.serving import access

TOKEN_VARIABLE = "RECALL_SANDBOX_TOKEN"
"""The environment variable that holds the token where no file is named."""


def read_token(file: Path | None) -> access.Token | None:
    """The token in `file`, or else in the environment; None where there is neither.

    Raises:
        ConfigError: the file cannot be read, or it is no token.
    """
    return access.read_token(file, TOKEN_VARIABLE)
