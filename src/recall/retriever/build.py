"""Builds an index directory: the corpus checked, then vectors where they are wanted, then the index, the manifest last.

Each stage leaves what it finished, so the same command goes on after an interruption. A directory holds one corpus, one
set of vectors, and as many kinds of index over them as were built; another kind costs only its own stage.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, field_validator

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever import ann, manifest
from recall.retriever.ann import AnnKind, AnnSettings
from recall.retriever.bm25 import Bm25, Bm25Settings
from recall.retriever.corpus import Corpus, prepare
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.files import FileFacts, sample_of
from recall.retriever.fulltext import AnalyserSettings, FullText
from recall.retriever.manifest import IndexFacts, Kind, Manifest
from recall.retriever.progress import Report, silent
from recall.retriever.tokens import TokenizerSettings
from recall.retriever.vectors import (
    VectorFacts,
    VectorSettings,
    alike,
    begun,
    check_faiss,
    map_vectors,
    read_faiss,
    vectors_of,
)
from recall.store import write_atomic

LIBRARIES: Mapping[Kind, Sequence[str]] = {
    "bm25": ("bm25s", "PyStemmer", "numpy"),
    "tantivy": ("tantivy",),
    "flat": ("torch", "transformers"),
    "hnsw": ("faiss-cpu", "torch", "transformers"),
    "ivf-sq8": ("faiss-cpu", "torch", "transformers"),
    "ivf-pq": ("faiss-cpu", "torch", "transformers"),
    "faiss": ("faiss-cpu", "torch", "transformers"),
    "hybrid": (),
}
"""The distributions that write an index of each kind."""


class BuildSettings(Settings):
    """What is built, over which corpus, and where."""

    corpus: Path
    """The passages, JSON lines of id and contents; .jsonl, .jsonl.gz or .jsonl.zst."""
    index: Path
    """The index directory."""
    kind: Kind = "bm25"
    """The kind of index; faiss takes the file of --vectors.faiss as it is."""
    of: tuple[Kind, ...] = ("bm25", "flat")
    """The two kinds that a hybrid asks."""
    rrf: int = Field(default=60, ge=1)
    """The constant of a hybrid's rank fusion."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """Words, for bm25."""
    bm25: Bm25Settings = Bm25Settings()
    """The formula, for bm25."""
    analyser: AnalyserSettings = AnalyserSettings()
    """Words, for tantivy."""
    encoder: EncoderSettings = EncoderSettings()
    """The model behind all kinds with vectors."""
    vectors: VectorSettings = VectorSettings()
    """How vectors are made and kept."""
    ann: AnnSettings = AnnSettings()
    """The shape of hnsw, ivf-sq8 and ivf-pq."""

    @field_validator("of")
    @classmethod
    def _two_plain_kinds(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if len(set(kinds)) != 2 or len(kinds) != 2 or "hybrid" in kinds:
            raise ValueError("two different kinds are wanted, none of them hybrid")
        return kinds


def build(settings: BuildSettings, report: Report = silent) -> Manifest:
    """Build what is not there yet, and make it the directory's default.

    Raises:
        ConfigError: the corpus, the encoder or a setting does not fit, what is there is of other ones, or somebody
            else is building there.
        RetrieverError: the encoder failed.
    """
    directory = settings.index.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--index {settings.index}: cannot be made: {error.strerror}") from None
    with _alone(directory):
        old = manifest.read(directory) if (directory / manifest.NAME).exists() else None
        corpus = prepare(settings.corpus, directory, report)
        if old is not None and old.corpus.file.sha256 != corpus.facts.file.sha256:
            raise ConfigError(
                f"{directory}: holds an index over another corpus, {old.corpus.path}; choose another --index"
            )
        work = _Work(settings, directory, corpus, dict(old.indexes) if old else {}, report)
        for kind in (*settings.of, settings.kind) if settings.kind == "hybrid" else (settings.kind,):
            work.make(kind)
        corpus.close()
        made = Manifest(corpus=corpus.facts, indexes=work.indexes, default=settings.kind)
        manifest.write(directory, made)
    return made


class _Work:
    """One build: what it is made of, and what is finished."""

    def __init__(
        self, settings: BuildSettings, directory: Path, corpus: Corpus, indexes: dict[Kind, IndexFacts], report: Report
    ) -> None:
        self.settings, self.directory, self.corpus, self.report = settings, directory, corpus, report
        self.indexes = indexes
        self._encoder: Encoder | None = None
        self._vectors: VectorFacts | None = None

    def make(self, kind: Kind) -> None:
        """Build one kind, unless it is there already."""
        parameters = self._parameters(kind)
        old = self.indexes.get(kind)
        if old is not None and old.parameters == parameters and _is_whole(old, self.directory):
            return
        began = time.perf_counter()
        if kind == "faiss":
            path = Path(parameters["path"])
            files = {os.path.relpath(path, self.directory): FileFacts.of(path)}
        elif kind in ("flat", "hybrid"):
            files = {}
        else:
            self._write(kind, parameters)
            files = manifest.files_under(self.directory, kind)
        seconds = time.perf_counter() - began
        self.indexes[kind] = IndexFacts(
            kind=kind,
            parameters=parameters,
            files=files,
            versions=dict(manifest.versions(*LIBRARIES[kind])),
            seconds=round(seconds, 3),
        )

    def _parameters(self, kind: Kind) -> dict[str, Any]:
        """All that decides what an index of this kind finds."""
        settings = self.settings
        if kind == "hybrid":
            return {"of": list(settings.of), "rrf": settings.rrf}
        if kind == "bm25":
            tokenizer = settings.tokenizer.resolved()
            return {"bm25": settings.bm25.model_dump(mode="json"), "tokenizer": tokenizer.model_dump(mode="json")}
        if kind == "tantivy":
            return {"analyser": settings.analyser.resolved().model_dump(mode="json")}
        if kind == "faiss":
            return self._given_faiss()
        vectors = self._embedded()
        parameters: dict[str, Any] = {"vectors": vectors.model_dump(mode="json")}
        if kind in get_args(AnnKind):
            resolved = settings.ann.resolved(kind, vectors.rows, vectors.encoder.dim)  # type: ignore[arg-type]
            parameters["ann"] = resolved.model_dump(mode="json")
        return parameters

    def _write(self, kind: Kind, parameters: Mapping[str, Any]) -> None:
        """Write an index beside its place, and move it there when it is whole."""
        partial, place = self.directory / f"{kind}.partial", self.directory / kind
        begun_with = partial / "parameters.json"
        text = json.dumps(parameters, sort_keys=True)
        if not begun_with.is_file() or begun_with.read_text(encoding="utf-8") != text:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write_atomic(begun_with, lambda file: file.write(text.encode()))
        if kind == "bm25":
            tokenizer = TokenizerSettings.model_validate(parameters["tokenizer"])
            Bm25.build(self.corpus, partial / "index", self.settings.bm25, tokenizer, self.report)
        elif kind == "tantivy":
            FullText.build(self.corpus, partial / "index", self.settings.analyser, self.report)
        else:
            (partial / "index").mkdir(exist_ok=True)
            vectors = map_vectors(self._embedded(), self.directory)
            shape = AnnSettings.model_validate(parameters["ann"])
            ann.build(kind, vectors, partial / "index" / "index.faiss", shape, self.report)  # type: ignore[arg-type]
        shutil.rmtree(place, ignore_errors=True)
        os.replace(partial / "index", place)
        shutil.rmtree(partial)

    def _embedded(self) -> VectorFacts:
        if self._vectors is None:
            self._vectors = vectors_of(self.corpus, self.directory, self._loaded(), self.settings.vectors, self.report)
        return self._vectors

    def _loaded(self) -> Encoder:
        """The encoder; where none is named, the one whose vectors are there."""
        if self._encoder is None:
            settings, known = self.settings.encoder, begun(self.directory)
            self.report("loading the encoder", 0, 1)
            if known is not None and not settings.model:
                settings = known.encoder.again(settings)
            self._encoder = Encoder(settings)
        return self._encoder

    def _given_faiss(self) -> dict[str, Any]:
        """The parameters of a faiss file that is taken as it is, after looking whether it fits."""
        source, corpus = self.settings.vectors.faiss, self.corpus
        if source is None:
            raise ConfigError("--kind faiss takes a file as it is: name it with --vectors.faiss")
        index, where = read_faiss(source), f"--vectors.faiss {source}"
        encoder = self._loaded()
        check_faiss(index, where, len(corpus), encoder)
        if ann.can_reconstruct(index):
            alike(index.reconstruct, corpus, encoder, where)
        shape = self.settings.ann.resolved("hnsw", len(corpus), encoder.facts.dim)
        return {
            "path": str(source.absolute()),
            "sample": sample_of(source),
            "encoder": encoder.facts.model_dump(mode="json"),
            "holds": list(ann.names_of(source)),
            "ann": shape.model_dump(mode="json"),
        }


def _is_whole(facts: IndexFacts, directory: Path) -> bool:
    try:
        for name, file in facts.files.items():
            file.check(directory / name)
    except ConfigError:
        return False
    return True


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory's lock.

    Raises:
        ConfigError: another process holds it.
    """
    with open(directory / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{directory}: another build is running there") from None
        yield
