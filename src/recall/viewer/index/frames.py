"""Reads the lines of a trajectories file with their places, so that one line can be read again without the others.

A file is one zstd frame or several after one another; a place is the frame's offset in the file and the line's offset
in the frame. A file that ends too early, or that is damaged, gives the lines before that and says what happened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_CHUNK = 128 << 10
_PIECE = 1 << 20


class Place(NamedTuple):
    """Where a line is."""

    frame: int
    """Bytes of the file before the line's frame, compressed."""
    offset: int
    """Bytes of the frame before the line, decompressed."""
    length: int
    """Bytes of the line, without its newline."""


@dataclass(slots=True)
class Ending:
    """How reading a file ended."""

    problem: str = ""
    """What is wrong with its end, in words; empty when it ended as it should."""


def iter_lines(path: Path, ending: Ending) -> Iterator[tuple[Place, bytes]]:
    """The whole lines of a file and their places.

    Args:
        path: the file.
        ending: is told, in the end, whether the file ended as it should.

    Raises:
        OSError: the file cannot be read.
    """
    import zstandard

    with open(path, "rb") as file:
        frame, chunk = 0, file.read(_CHUNK)
        read = len(chunk)
        if not chunk:
            ending.problem = "is empty"
        while chunk:
            decoder = zstandard.ZstdDecompressor().decompressobj()
            parts: list[bytes] = []  # of the line that is not whole yet
            held = start = 0
            try:
                while chunk:
                    *lines, rest = decoder.decompress(chunk).split(b"\n")
                    for line in lines:
                        whole = b"".join([*parts, line]) if parts else line
                        yield Place(frame, start, len(whole)), whole
                        start += len(whole) + 1
                        parts, held = [], 0
                    if rest:
                        parts.append(rest)
                        held += len(rest)
                    if decoder.eof:
                        break
                    chunk = file.read(_CHUNK)
                    read += len(chunk)
            except zstandard.ZstdError as error:
                ending.problem = f"is damaged: {error}"
                return
            if not decoder.eof:
                ending.problem = "is cut short"
                return
            if held:
                ending.problem = "ends in the middle of a line"
            chunk = decoder.unused_data
            frame = read - len(chunk)
            if not chunk:
                chunk = file.read(_CHUNK)
                read += len(chunk)


def read_lines(path: Path, places: Sequence[Place]) -> list[bytes]:
    """The lines at some places of one file, in the order of `places`; each frame is decompressed once.

    Raises:
        OSError: the file cannot be read, or is no longer what it was.
    """
    import zstandard

    found: dict[Place, bytes] = {}
    with open(path, "rb") as file:
        for frame in sorted({place.frame for place in places}):
            file.seek(frame)
            at = 0
            with zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as stream:
                for place in sorted(place for place in set(places) if place.frame == frame):
                    try:
                        while at < place.offset:
                            at += len(stream.read(min(_PIECE, place.offset - at))) or _gone(path)
                        line = b""
                        while len(line) < place.length:
                            line += stream.read(place.length - len(line)) or bytes(_gone(path))
                    except zstandard.ZstdError as error:
                        raise OSError(f"{path}: changed since it was indexed: {error}") from error
                    at += len(line)
                    found[place] = line
    return [found[place] for place in places]


def _gone(path: Path) -> int:
    raise OSError(f"{path}: changed since it was indexed")
