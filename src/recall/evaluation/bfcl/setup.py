"""The checkers' own environment: the leaderboard's package pins what no trainer can live with, so it lives alone."""

import os
import subprocess
import sys
from pathlib import Path

from recall.errors import ConfigError

PACKAGE = "bfcl-eval==2026.3.23"
"""The release whose data, backends and checkers are used."""
_WITH = ("mpmath",)
"""What of its dependencies the offline categories need; the others are the software of every vendor of models."""


def default_home() -> Path:
    """Where the environment is unless it is said otherwise: in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "recall" / PACKAGE.replace("==", "-")


def interpreter_of(home: Path) -> Path:
    """The interpreter of the environment.

    Raises:
        ConfigError: there is none.
    """
    path = home / "bin" / "python"
    if not path.exists():
        raise ConfigError(f"{path}: no checkers there; make them with: recall eval bfcl --setup")
    return path


def make(home: Path) -> Path:
    """Make the environment and put the package into it; its interpreter.

    Raises:
        ConfigError: it cannot be made, as without a network.
    """
    commands = (
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE, *_WITH],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigError(f"{home}: the checkers cannot be set up: {reason}")
    return interpreter_of(home)
