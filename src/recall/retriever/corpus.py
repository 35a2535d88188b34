"""A corpus in FlashRAG's format: JSON lines of `id` and `contents`, read by row number through memory-mapped offsets.

A plain file is used where it lies. One in gzip or zstandard is expanded into the index directory once: neither can be
read from the middle, and a search wants five rows from anywhere. Compressing in blocks that can would save some 60 % of
that file (wiki-18: 14 GB), and cost a decompression a row and a format of our own; where disk is short, drop the
compressed file. Every row is checked when the offsets are made, before anything slow is begun.
"""

import gzip
import hashlib
import json
import mmap
import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recall.config import Settings
from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Passage
from recall.retriever.files import FileFacts
from recall.retriever.progress import Report, silent
from recall.store import write_atomic

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_ACCEPTED = 'accepted: {"id": text, "contents": text}, or text, with or without title, in place of contents'


class CorpusFacts(Settings):
    """What an index remembers of its corpus."""

    path: str
    """The plain file, absolute."""
    relative: str
    """The same, seen from the index directory, so that both may be moved together."""
    rows: int
    """How many passages it has."""
    file: FileFacts
    """The plain file's size and checksums."""
    source: str
    """The file that was given; the plain one, or the compressed one that it was expanded from."""
    source_bytes: int
    """Its size then."""
    source_mtime_ns: int
    """Its time of change then, so that an unchanged one need not be read again."""


class Corpus:
    """The passages of a plain file, by row; safe to read from many threads."""

    def __init__(self, path: Path, offsets: "np.ndarray[Any, np.dtype[np.int64]]", facts: CorpusFacts) -> None:
        self.path = path
        """The plain file."""
        self.facts = facts
        """What is known of it."""
        self._offsets = offsets
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> Passage:
        """The passage of row `row`, counted from 0.

        Raises:
            RetrieverError: the file changed under us.
        """
        line = self._bytes[int(self._offsets[row]) : int(self._offsets[row + 1])]
        try:
            return passage_of(line, f"{self.path} row {row + 1}")
        except ConfigError as error:
            raise RetrieverError(f"{error}: the corpus changed while it was open") from None

    def contents(self, start: int, stop: int) -> Iterator[str]:
        """The contents of the rows from `start` up to `stop`."""
        for row in range(start, stop):
            yield self[row].contents

    def close(self) -> None:
        """Unmap the file. Safe to call twice."""
        self._bytes.close()


def prepare(source: Path, directory: Path, report: Report = silent) -> Corpus:
    """Check a corpus, expand it where it is compressed, and write its offsets into `directory`; once.

    Args:
        source: `.jsonl`, `.jsonl.gz` or `.jsonl.zst`.
        directory: the index's; `corpus/` is made in it.
        report: told of bytes.

    Raises:
        ConfigError: the corpus cannot be read, a row is bad, or there is none.
    """
    source, home = source.absolute(), directory.absolute() / "corpus"
    try:
        status = source.stat()
    except OSError as error:
        raise ConfigError(f"{source}: the corpus cannot be read: {error.strerror}") from None
    known = _known(home / "corpus.json")
    given = (str(source), status.st_size, status.st_mtime_ns)
    if known is None or (known.source, known.source_bytes, known.source_mtime_ns) != given or not _whole(known, home):
        home.mkdir(parents=True, exist_ok=True)
        plain = source
        if source.suffix in _READERS:
            plain = home / "corpus.jsonl"
            _expand(source, plain, report)
        offsets, sha256 = _scan(plain, report)
        write_atomic(home / "offsets.npy", lambda file: np.save(file, np.frombuffer(offsets, np.int64)))
        known = CorpusFacts(
            path=str(plain),
            relative=os.path.relpath(plain, directory.absolute()),
            rows=len(offsets) - 1,
            file=FileFacts.of(plain, sha256),
            source=str(source),
            source_bytes=status.st_size,
            source_mtime_ns=status.st_mtime_ns,
        )
        text = known.model_dump_json(indent=1)
        write_atomic(home / "corpus.json", lambda file: file.write(text.encode()))
    return open_corpus(known, directory)


def open_corpus(facts: CorpusFacts, directory: Path, *, at: Path | None = None, verify: bool = False) -> Corpus:
    """The corpus that an index was built over.

    Args:
        facts: what the index remembers of it.
        directory: the index's.
        at: where the plain file is now; None looks where it was, from the index directory first.
        verify: compare the checksum of the whole.

    Raises:
        ConfigError: it is missing or another one, or its offsets are.
    """
    moved = directory / facts.relative
    path = at or (moved if moved.is_file() else Path(facts.path))
    facts.file.check(path, verify=verify)
    where = directory / "corpus" / "offsets.npy"
    try:
        offsets = np.load(where, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{where}: not readable: {error}; build the index again") from None
    if offsets.shape != (facts.rows + 1,) or offsets[-1] > facts.file.bytes:
        raise ConfigError(f"{where}: not the offsets of {path}; build the index again")
    return Corpus(path, offsets, facts)


def passage_of(line: bytes, where: str) -> Passage:
    """The passage that a line of a corpus holds.

    Raises:
        ConfigError: it holds none; `where` and the field are named.
    """
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON: {error}" if line.strip() else f"{where}: empty line") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: not an object; {_ACCEPTED}")
    name, contents = row.get("id"), row.get("contents")
    if contents is None and isinstance(row.get("text"), str):
        title = row.get("title")
        contents = f'"{title}"\n{row["text"]}' if isinstance(title, str) else row["text"]
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    for field, value in (("id", name), ("contents", contents)):
        if not isinstance(value, str):
            problem = "missing" if value is None else f"must be text, not {type(value).__name__}"
            raise ConfigError(f"{where}: {field}: {problem}; {_ACCEPTED}")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(f"{where}: {field}: holds half of a surrogate pair; accepted: text that UTF-8 can say")
    return Passage(name, contents)  # type: ignore[arg-type]  # both were seen to be text


def _known(path: Path) -> CorpusFacts | None:
    try:
        return CorpusFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _whole(known: CorpusFacts, home: Path) -> bool:
    return Path(known.path).is_file() and (home / "offsets.npy").is_file()


def _scan(path: Path, report: Report) -> "tuple[array[int], str]":
    """Where each row begins, the end of the last at the end, and the checksum of the file."""
    offsets, digest, end, blank = array("q"), hashlib.sha256(), 0, 0
    total = path.stat().st_size
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            digest.update(line)
            start = end + (len(_BOM) if number == 1 and line.startswith(_BOM) else 0)
            end += len(line)
            if line.isspace():
                blank = blank or number
                continue
            if blank:  # an empty line after the last row is none; one before it would shift the rows of a faiss file
                raise ConfigError(f"{path} row {blank}: empty line")
            passage_of(line[start - end :], f"{path} row {number}")
            offsets.append(start)
            last = end
            if number % 4096 == 0:
                report("reading the corpus", end, total)
    if not offsets:
        raise ConfigError(f"{path}: the corpus has no rows")
    offsets.append(last)
    report("reading the corpus", total, total)
    return offsets, digest.hexdigest()


def _expand(source: Path, plain: Path, report: Report) -> None:
    import zstandard

    def write(file: Any) -> None:
        with open(source, "rb") as compressed:
            for chunk in _READERS[source.suffix](compressed):
                file.write(chunk)
                report("expanding the corpus", compressed.tell(), total)

    total = source.stat().st_size
    try:
        write_atomic(plain, write)
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise ConfigError(f"{source}: not a whole {source.suffix} file: {error}") from None


def _gzip_chunks(file: Any) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _zstd_chunks(file: Any) -> Iterator[bytes]:
    """The contents of all frames; zstandard's own reader takes a frame that is cut short for the end."""
    import zstandard

    frame = None
    while chunk := file.read(_CHUNK):
        while chunk:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends in the middle of a frame")


_READERS = {".gz": _gzip_chunks, ".zst": _zstd_chunks}
