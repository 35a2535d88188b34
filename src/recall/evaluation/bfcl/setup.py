"""The checkers' own environment: the leaderboard's package pins what no trainer can live with, so it lives alone."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from recall.errors import ConfigError

PACKAGE = "bfcl-eval==2026.3.23"
"""The release whose data, backends and checkers are used."""
_WITH = ("mpmath", "rank_bm25==0.2.2", "overrides", "filelock")
"""What of its dependencies the backends need; most others are the software of every vendor of models."""
_OFFICIAL = ("numpy", "pandas", "tqdm", "python-dotenv", "tenacity", "openai>=1.86")
_PARSERS = ("tree_sitter==0.21.3", "tree-sitter-java==0.21.0", "tree-sitter-javascript==0.21.4")
"""What `bfcl evaluate` itself needs beyond them; see `official.py`."""

NEEDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "memory_kv": {"rank_bm25": "rank_bm25==0.2.2", "overrides": "overrides", "filelock": "filelock"},
        "memory_rec_sum": {"overrides": "overrides", "filelock": "filelock"},
        "memory_vector": {
            "overrides": "overrides",
            "filelock": "filelock",
            "faiss": "faiss-cpu",
            "sentence_transformers": "sentence-transformers",
        },
    }
)
"""By category, the modules that it needs in the checkers' environment, and the package that brings each."""


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

    What only `bfcl evaluate` needs may be missing for a version of Python; the checkers work without.

    Raises:
        ConfigError: it cannot be made, as without a network.
    """
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(home)], [*pip, "--no-deps", PACKAGE], [*pip, *_WITH]):
        if reason := _failure(command):
            raise ConfigError(f"{home}: the checkers cannot be set up: {reason}")
    if reason := _failure([*pip, *_OFFICIAL, *_PARSERS]):
        print(f"{home}: --official will not work there: {reason}", file=sys.stderr)
    return interpreter_of(home)


def _failure(command: list[str]) -> str:
    """Why a command failed; empty when it did not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
