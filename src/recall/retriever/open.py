"""Opens a retriever: an index directory, FlashRAG's files, or the address of a service.

Whatever does not fit what the manifest says is refused by name: a file that is missing, torn or another one, a corpus
that changed, an encoder with other weights, prefixes or pooling.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever import manifest
from recall.retriever.ann import Ann, AnnKind, AnnSettings
from recall.retriever.base import Card, Retriever
from recall.retriever.bm25 import Bm25
from recall.retriever.build import BuildSettings, build
from recall.retriever.corpus import Corpus, open_corpus
from recall.retriever.dense import Dense
from recall.retriever.encoder import Encoder, EncoderFacts, EncoderSettings
from recall.retriever.finder import Finder
from recall.retriever.flat import exact
from recall.retriever.fulltext import AnalyserSettings, FullText
from recall.retriever.fusion import Fused
from recall.retriever.indexed import IndexedRetriever
from recall.retriever.manifest import IndexFacts, Kind, Manifest
from recall.retriever.progress import Report, silent
from recall.retriever.rerank import CrossEncoder, Reranked, RerankSettings
from recall.retriever.tokens import Tokenizer, TokenizerSettings
from recall.retriever.vectors import VectorFacts, VectorSettings, map_vectors

_STORAGE = ("path", "relative", "model", "revision", "file")
"""Fields that say where something is, and not what it finds."""


class OpenSettings(Settings):
    """How an index is opened and searched. What is none is taken as it was built."""

    kind: Kind | None = None
    """Which index of the directory; none means the one built last."""
    corpus: Path | None = None
    """Where the plain corpus is now, if it was moved."""
    verify: bool = False
    """Whether whole files are compared with their checksums, rather than samples of them; minutes for large ones."""
    probes: int | None = Field(default=None, ge=1)
    """Inverted lists that a query looks into."""
    ef_search: int | None = Field(default=None, ge=1)
    """Candidates while HNSW is searched."""
    rescore: int | None = Field(default=None, ge=0)
    """How many times k candidates are compared exactly."""
    rrf: int | None = Field(default=None, ge=1)
    """The constant of a hybrid's rank fusion."""
    flat_device: str = "cpu"
    """On which of cpu, cuda or cuda:N a flat index is searched; on CUDA in float16 in the GPU's memory."""
    encoder: EncoderSettings = EncoderSettings()
    """Where the encoder is now and how it runs; it has to be the one that the index was built with."""
    rerank: RerankSettings = RerankSettings()
    """A cross-encoder that looks at what was found."""


def open_retriever(where: str | Path, settings: OpenSettings = OpenSettings()) -> Retriever:  # noqa: B008 - frozen
    """Open what is at `where`: an index directory, or the http(s) address of a service.

    Blocking; may be called in many processes over one directory, which then share its mapped files.

    Raises:
        ConfigError: there is nothing, or it is not what its manifest says.
    """
    if str(where).startswith(("http://", "https://")):
        from recall.retriever.client import open_client

        retriever = open_client(str(where))
    else:
        retriever = open_index(Path(where), settings)
    if settings.rerank.model:
        return Reranked(retriever, CrossEncoder(settings.rerank), settings.rerank.candidates)
    return retriever


def open_index(directory: Path, settings: OpenSettings = OpenSettings()) -> IndexedRetriever:  # noqa: B008 - frozen
    """Open an index directory.

    Raises:
        ConfigError: there is none, or it is not what its manifest says.
    """
    known = manifest.read(directory)
    facts = known.of(settings.kind, directory)
    corpus = open_corpus(known.corpus, directory, at=settings.corpus, verify=settings.verify)
    opener = _Opener(directory, known, corpus, settings)
    finder = opener.finder(facts.kind)
    return IndexedRetriever(corpus, finder, _card(facts.kind, opener.identity, known, opener.encoder))


def open_flashrag(
    index: Path,
    corpus: Path,
    encoder: EncoderSettings,
    *,
    settings: OpenSettings = OpenSettings(),  # noqa: B008 - frozen
    scratch: Path | None = None,
    report: Report = silent,
) -> IndexedRetriever:
    """Open FlashRAG's files as they are: a faiss file whose row i is line i of a corpus.

    Args:
        index: such as `e5_Flat.index`.
        corpus: the JSON lines.
        encoder: the model that made the vectors.
        settings: how it is searched.
        scratch: where the offsets of the corpus and the manifest go; None is `INDEX.recall`, beside the faiss file.
        report: told of the reading of the corpus, once.

    Raises:
        ConfigError: a file is missing or damaged, or they do not belong together.
    """
    directory = scratch or index.with_name(f"{index.name}.recall")
    given = BuildSettings(
        corpus=corpus, index=directory, kind="faiss", encoder=encoder, vectors=VectorSettings(faiss=index)
    )
    build(given, report)
    return open_index(directory, settings.model_copy(update={"kind": "faiss", "encoder": encoder}))


class _Opener:
    """Opens the finders of one directory, and notes what decides what they find."""

    def __init__(self, directory: Path, known: Manifest, corpus: Corpus, settings: OpenSettings) -> None:
        self.directory, self.known, self.corpus, self.settings = directory, known, corpus, settings
        self.identity: list[Any] = []
        """The parameters of all that was opened."""
        self.encoder: Encoder | None = None
        """The encoder, where one was wanted."""

    def finder(self, kind: Kind) -> Finder:
        """The finder of one kind."""
        facts = self.known.of(kind, self.directory)
        for name, file in facts.files.items():
            path = self.directory / name
            if kind == "faiss" and not path.is_file():
                path = Path(facts.parameters["path"])
            file.check(path, verify=self.settings.verify)
        if kind == "hybrid":
            parts = [self.finder(part) for part in facts.parameters["of"]]
            constant = self.settings.rrf or facts.parameters["rrf"]
            self.identity.append({"rrf": constant})
            return Fused(parts, len(self.corpus), constant)
        self.identity.append({"kind": kind, **facts.parameters})
        if kind == "bm25":
            tokenizer = TokenizerSettings.model_validate(facts.parameters["tokenizer"])
            return Bm25(self.directory / kind, Tokenizer(tokenizer))
        if kind == "tantivy":
            return FullText(self.directory / kind, AnalyserSettings.model_validate(facts.parameters["analyser"]))
        return self._dense(kind, facts)

    def _dense(self, kind: Kind, facts: IndexFacts) -> Finder:
        if kind == "faiss":
            encoder = self._loaded(EncoderFacts.model_validate(facts.parameters["encoder"]))
            shape = self._shape(facts)
            name = next(iter(facts.files))
            path = self.directory / name
            return Dense(encoder, Ann(path if path.is_file() else Path(facts.parameters["path"]), shape))
        about = VectorFacts.model_validate(facts.parameters["vectors"])
        if about.corpus_sha256 != self.corpus.facts.file.sha256:
            raise ConfigError(f"{self.directory}: its vectors are of another corpus; build the index again")
        encoder = self._loaded(about.encoder)
        if kind in get_args(AnnKind):
            shape = self._shape(facts)
            vectors = map_vectors(about, self.directory) if shape.rescore else None
            return Dense(encoder, Ann(self.directory / kind / "index.faiss", shape, vectors))
        return Dense(encoder, exact(map_vectors(about, self.directory), self.settings.flat_device))

    def _shape(self, facts: IndexFacts) -> AnnSettings:
        """How the index is searched; what differs from the build is part of the identity."""
        asked = {name: getattr(self.settings, name) for name in ("probes", "ef_search", "rescore")}
        changed = {name: value for name, value in asked.items() if value is not None}
        self.identity.append(changed)
        return AnnSettings.model_validate(facts.parameters["ann"] | changed)

    def _loaded(self, facts: EncoderFacts) -> Encoder:
        if self.encoder is None:
            self.encoder = Encoder(facts.again(self.settings.encoder))
            if problems := facts.differences(self.encoder.facts):
                raise ConfigError(f"{self.encoder.facts.model}: not the encoder of {self.directory}: {problems[0]}")
        return self.encoder


def _card(kind: Kind, identity: Any, known: Manifest, encoder: Encoder | None) -> Card:
    sha256 = known.corpus.file.sha256
    text = json.dumps([_plain(identity), sha256], sort_keys=True)
    model = "" if encoder is None else encoder.facts.model
    short = "/".join(Path(model).parts[-2:])
    return Card(f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", kind, known.corpus.rows, sha256, short)


def _plain(value: Any) -> Any:
    """The value without what says where things are."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in _STORAGE}
    return [_plain(item) for item in value] if isinstance(value, list) else value
