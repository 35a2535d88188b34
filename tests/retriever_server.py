"""A real retriever service in a process of its own, on a free port of this machine."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from recall.retriever.build import BuildSettings, build
from retriever_corpora import TEXTS, many, write_corpus
from sandbox_server import Server

PLACES = 400
"""Made-up passages of the index, after those of `retriever_corpora.TEXTS`."""
ROWS = len(TEXTS) + PLACES


def made_index(directory: Path) -> Path:
    """A bm25 index over ROWS passages: `number7` is found in `d13` and nowhere else."""
    corpus = write_corpus(directory / "corpus.jsonl", [*TEXTS, *many(PLACES)])
    build(BuildSettings(corpus=corpus, index=directory / "index", kind="bm25"))
    return directory / "index"


def place(number: int) -> str:
    """The id of the passage that holds `numberN`."""
    return f"d{len(TEXTS) + number}"


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "recall.cli", "retriever", "serve", *flags]


def environment(**extra: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RECALL_RETRIEVER_TOKEN"} | extra


def start(*flags: str, port: int = 0, log: Path | None = None, **env: str) -> Server:
    """Start a server and wait until it says that it is ready; what it complains of goes to `log`, or to ours."""
    with open(log, "w") if log is not None else nullcontext() as errors:
        process = subprocess.Popen(
            command("--port", str(port), *flags),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(**env),
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"ready at (\S+);", line)
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"the server did not start: {line!r}")
    return Server(process, found.group(1), line)


@contextmanager
def serving(*flags: str, port: int = 0, log: Path | None = None, **env: str) -> Iterator[Server]:
    """A server that is ended, if it still runs, when the block is left."""
    server = start(*flags, port=port, log=log, **env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()


def metric(server: Server, line: str) -> float:
    found = [row for row in server.ask("GET", "/metrics").body.decode().splitlines() if row.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0
