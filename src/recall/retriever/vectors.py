"""The vectors of a corpus, row by row in one memory-mapped file: embedded once, indexed as often as wanted.

Embedding is what takes the hours, so it is done in shards and goes on after the last whole one. A flat faiss file, such
as FlashRAG's `e5_Flat.index`, is the same thing with a header, and is mapped where it lies.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError, RetrieverError
from recall.retriever.corpus import Corpus
from recall.retriever.encoder import Encoder, EncoderFacts
from recall.retriever.files import FileFacts
from recall.retriever.progress import Report, silent
from recall.store import write_atomic

Array = np.ndarray[Any, np.dtype[Any]]
PROBES = 8
"""Rows that are encoded again when vectors from elsewhere are taken over."""
_ALIKE = 0.95
"""The least cosine of such a row with its vector: a wrong model, prefix or pooling, or shifted rows, stay well below,
another cut of long passages and float16 well above."""
_NEAR = 0.01
"""How much nearer to a vector another of these rows may be, where encoders put all texts close together."""


class VectorSettings(Settings):
    """How the vectors of a corpus are made and kept."""

    dtype: Literal["float32", "float16"] = "float32"
    """What they are kept in; float16 halves the file, and costs a flat search on the CPU the conversion."""
    shard_rows: int = Field(default=8192, ge=1)
    """Passages after which the work so far is safe."""
    faiss: Path | None = None
    """A flat faiss file over the same corpus, row by row, such as FlashRAG's e5_Flat.index, that has them already."""


class VectorFacts(Settings):
    """What an index remembers of its vectors."""

    encoder: EncoderFacts
    """Who made them."""
    dtype: Literal["float32", "float16"]
    """What they are kept in."""
    rows: int
    """How many there are."""
    path: str
    """Their file, absolute."""
    relative: str
    """The same, seen from the index directory."""
    offset: int
    """Bytes before the first."""
    file: FileFacts | None = None
    """The file's size and checksums; None while it is being filled."""
    corpus_sha256: str
    """The corpus that they were made of."""


def vectors_of(
    corpus: Corpus, directory: Path, encoder: Encoder, settings: VectorSettings, report: Report = silent
) -> VectorFacts:
    """The vectors of a corpus in an index directory: those that are there, gone on with where they are unfinished.

    Raises:
        ConfigError: those that are there are of another encoder or kept otherwise, or a faiss file does not fit.
        RetrieverError: the encoder gave something that is no number.
    """
    home = directory / "vectors"
    wanted = VectorFacts(
        encoder=encoder.facts,
        dtype=settings.dtype,
        rows=len(corpus),
        path=str((home / "vectors.bin").absolute()),
        relative="vectors/vectors.bin",
        offset=0,
        corpus_sha256=corpus.facts.file.sha256,
    )
    if settings.faiss is not None:
        wanted = _taken_over(settings.faiss, corpus, encoder, wanted, directory)
    home.mkdir(parents=True, exist_ok=True)
    found = begun(directory)
    if found is not None:
        _same(found, wanted, directory)
        if found.file is not None:
            found.file.check(place(found, directory))
            return found
    if wanted.file is None:
        _embed(corpus, home, encoder, wanted, settings.shard_rows, report)
        wanted = wanted.model_copy(update={"file": FileFacts.of(home / "vectors.bin")})
    _write(home / "vectors.json", wanted)
    (home / "begun.json").unlink(missing_ok=True)
    return wanted


def place(facts: VectorFacts, directory: Path) -> Path:
    """Where the vectors are, from the index directory first, so that both may be moved together."""
    moved = directory / facts.relative
    return moved if moved.is_file() else Path(facts.path)


def map_vectors(facts: VectorFacts, directory: Path) -> Array:
    """The vectors, [rows, dim], memory-mapped.

    Raises:
        ConfigError: the file is missing, or is another one.
    """
    path = place(facts, directory)
    if facts.file is None:
        raise ConfigError(f"{path}: the vectors are unfinished; run the same build again to go on")
    facts.file.check(path)
    return np.memmap(path, facts.dtype, "r", facts.offset, (facts.rows, facts.encoder.dim))


def blocks(vectors: Array, rows: int, report: Report = silent, doing: str = "") -> Iterator[Array]:
    """The vectors in float32, so many rows at a time."""
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows], np.float32)
        report(doing, min(start + rows, len(vectors)), len(vectors))


def _embed(corpus: Corpus, home: Path, encoder: Encoder, wanted: VectorFacts, shard_rows: int, report: Report) -> None:
    path, width = home / "vectors.bin", wanted.encoder.dim * np.dtype(wanted.dtype).itemsize
    if not (home / "begun.json").exists():
        path.unlink(missing_ok=True)
        _write(home / "begun.json", wanted)
    with open(path, "ab") as file:
        done = file.tell() // (width * shard_rows) * shard_rows
        file.truncate(done * width)
        while done < len(corpus):
            report("embedding", done, len(corpus))
            stop = min(done + shard_rows, len(corpus))
            vectors = encoder.encode(list(corpus.contents(done, stop)), "passage")
            if not np.isfinite(vectors).all():
                row = done + int(np.argmin(np.isfinite(vectors).all(axis=1)))
                raise RetrieverError(f"{corpus.path} row {row + 1}: the encoder gave a vector that is not finite")
            file.write(vectors.astype(wanted.dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
            done = stop
    report("embedding", len(corpus), len(corpus))


def _taken_over(source: Path, corpus: Corpus, encoder: Encoder, wanted: VectorFacts, directory: Path) -> VectorFacts:
    """The facts of the vectors in a flat faiss file, after looking whether it belongs to the corpus and the encoder."""
    import faiss

    path = source.absolute()
    index: Any = read_faiss(path)
    where = f"--vectors.faiss {source}"
    if not isinstance(index, faiss.IndexFlat):
        raise ConfigError(f"{where}: {type(index).__name__} keeps no vectors as they are; take it with --kind faiss")
    check_faiss(index, where, len(corpus), encoder)
    stored = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    alike(lambda row: np.array(stored[row]), corpus, encoder, where)
    offset = path.stat().st_size - stored.nbytes
    mapped = np.memmap(path, np.float32, "r", offset, stored.shape)
    if not np.array_equal(mapped[:: max(1, len(mapped) // 16)], stored[:: max(1, len(stored) // 16)]):
        raise ConfigError(f"{where}: this version of faiss keeps vectors otherwise; take it with --kind faiss")
    return wanted.model_copy(
        update={
            "dtype": "float32",
            "path": str(path),
            "relative": os.path.relpath(path, directory.absolute()),
            "offset": offset,
            "file": FileFacts.of(path),
        }
    )


def read_faiss(path: Path) -> Any:
    """A faiss file, memory-mapped.

    Raises:
        ConfigError: it is missing, damaged, or no faiss file.
    """
    import faiss

    if not path.is_file():
        raise ConfigError(f"{path}: no such faiss file")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise ConfigError(f"{path}: not a whole faiss file: {str(error).strip().splitlines()[-1]}") from None


def check_faiss(index: Any, where: str, rows: int, encoder: Encoder) -> None:
    """Refuse a faiss index that is not over this many rows of this encoder, by inner product.

    Raises:
        ConfigError: it is not.
    """
    import faiss

    if index.ntotal != rows:
        raise ConfigError(f"{where}: has {index.ntotal:,} vectors where the corpus has {rows:,} rows")
    if index.d != encoder.facts.dim:
        raise ConfigError(
            f"{where}: its vectors have {index.d} numbers, those of {encoder.facts.model} {encoder.facts.dim}"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ConfigError(f"{where}: compares by another measure than the inner product")


def alike(vector: Any, corpus: Corpus, encoder: Encoder, where: str) -> None:
    """Refuse vectors that are not what the encoder makes of the corpus: another model, prefix or pooling, other rows.

    Args:
        vector: gives the stored vector of a row.
        corpus: the passages.
        encoder: who should have made them.
        where: what is refused.
    """
    rows = sorted({len(corpus) * part // PROBES for part in range(PROBES)})
    made = encoder.encode([corpus[row].contents for row in rows], "passage")
    stored = np.stack([vector(row) for row in rows])
    lengths = np.linalg.norm(stored, axis=1)[:, None] * np.linalg.norm(made, axis=1)[None]
    cosines = stored @ made.T / np.maximum(lengths, 1e-12)
    for place, row in enumerate(rows):
        cosine = cosines[place, place]
        if (
            cosine < _ALIKE or cosine < cosines[place].max() - _NEAR
        ):  # another row may say the same, but not say it better
            raise ConfigError(
                f"{where}: row {row + 1} is not what {encoder.facts.model} makes of it (cosine {cosine:.2f}):"
                " another model, prefix or pooling, or another corpus"
            )


def _same(found: VectorFacts, wanted: VectorFacts, directory: Path) -> None:
    problems = found.encoder.differences(wanted.encoder)
    for name in ("dtype", "rows", "offset", "corpus_sha256"):
        if getattr(found, name) != getattr(wanted, name):
            problems.append(f"{name} {getattr(found, name)!r} is not {getattr(wanted, name)!r}")
    if problems:
        raise ConfigError(f"{directory / 'vectors'}: there are other vectors: {problems[0]}; choose another --index")


def begun(directory: Path) -> VectorFacts | None:
    """The facts of the vectors that an index directory has, finished or not; None where it has none.

    Raises:
        ConfigError: they cannot be read.
    """
    return _read(directory / "vectors" / "vectors.json") or _read(directory / "vectors" / "begun.json")


def _read(path: Path) -> VectorFacts | None:
    try:
        return VectorFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{path}: not readable; remove {path.parent} to embed again") from None


def _write(path: Path, facts: VectorFacts) -> None:
    text = facts.model_dump_json(indent=1)
    write_atomic(path, lambda file: file.write(text.encode()))
