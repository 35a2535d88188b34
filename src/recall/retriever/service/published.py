"""The published `retriever_config.yaml`, and the retrieval part of FlashRAG's configuration, as settings of ours.

Every field means something here or is refused by name: none is passed over in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field, ValidationError

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever.encoder import EncoderSettings
from recall.retriever.families import Pooling
from recall.retriever.open import OpenSettings
from recall.retriever.rerank import RerankSettings

_MODELS = MappingProxyType(
    {"e5": "intfloat/e5-base-v2", "bge": "BAAI/bge-base-en-v1.5", "contriever": "facebook/contriever"}
)
"""What FlashRAG's own table says the names of methods stand for."""
_REFUSED = MappingProxyType(
    {
        "use_sentence_transformer": "encoders are loaded by transformers",
        "save_retrieval_cache": "hits are remembered in memory: --cache-mb",
        "use_retrieval_cache": "hits are remembered in memory: --cache-mb",
        "use_multi_retriever": "a hybrid is built by recall retriever build --kind hybrid",
        "use_remote_retriever": "point clients at that server",
    }
)
"""Switches that must be off, and why."""
_INERT = MappingProxyType(
    {
        "retrieval_cache_path": "use_retrieval_cache",
        "multi_retriever_setting": "use_multi_retriever",
        "remote_retriever_url": "use_remote_retriever",
        "rerank_model_name": "use_reranker",
        "rerank_model_path": "use_reranker",
        "rerank_topk": "use_reranker",
        "rerank_max_length": "use_reranker",
        "rerank_batch_size": "use_reranker",
        "rerank_use_fp16": "use_reranker",
        "rerank_pooling_method": "use_reranker",
        "silent_retrieval": "nothing: there are no progress bars",
    }
)
"""Fields that mean nothing while the switch beside them is off."""


class Published(Settings):
    """The fields that are accepted. Those of the published file are the first five."""

    gpu_id: str | int | None = None
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them."""
    retrieval_method: str
    """`bm25`; a name such as `e5`; or the encoder, as a path or a name on the hub."""
    index_path: Path
    """A directory made by `recall retriever build`, or a faiss file such as `e5_Flat.index`."""
    faiss_gpu: bool = False
    """Whether a flat index is searched in a GPU's memory."""
    corpus_path: Path | None = None
    """The corpus, as JSON lines."""
    retrieval_model_path: str | None = None
    instruction: str | None = None
    retrieval_topk: int | None = Field(default=None, ge=1)
    retrieval_batch_size: int | None = Field(default=None, ge=1)
    retrieval_use_fp16: bool | None = None
    retrieval_query_max_length: int | None = Field(default=None, ge=4)
    retrieval_pooling_method: Pooling | None = None
    bm25_backend: str = "bm25s"
    multimodal_index_path_dict: None = None
    model2path: dict[str, str] = Field(default_factory=dict)
    model2pooling: dict[str, Pooling] = Field(default_factory=dict)
    use_sentence_transformer: bool = False
    save_retrieval_cache: bool = False
    use_retrieval_cache: bool = False
    retrieval_cache_path: Any = None
    use_multi_retriever: bool = False
    multi_retriever_setting: Any = None
    use_remote_retriever: bool = False
    remote_retriever_url: Any = None
    silent_retrieval: bool = True
    use_reranker: bool = False
    rerank_model_name: str | None = None
    rerank_model_path: str | None = None
    rerank_pooling_method: str | None = None
    rerank_topk: int | None = Field(default=None, ge=1)
    rerank_max_length: int | None = Field(default=None, ge=8)
    rerank_batch_size: int | None = Field(default=None, ge=1)
    rerank_use_fp16: bool | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file comes to."""

    index: Path
    """The directory, or the faiss file."""
    corpus: Path | None
    """The corpus of a faiss file."""
    opening: OpenSettings
    """How it is opened."""
    serving: Mapping[str, int]
    """Settings of the server, by their names: `topk`, `batch`."""
    gpus: str | None
    """What CUDA_VISIBLE_DEVICES should be; None leaves it."""
    meanings: Mapping[str, str]
    """For each field of the file, what it stands for here."""


def read(file: Path) -> Plan:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, is no such file, or a field is refused; one line that names it.
    """
    import yaml

    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--config {file}: not a table of fields")
    try:
        known = Published.model_validate({str(name): field for name, field in value.items() if field is not None})
    except ValidationError as error:
        raise ConfigError(f"--config {file}: {_first(error)}") from None
    for name, why in _REFUSED.items():
        if getattr(known, name):
            raise ConfigError(f"--config {file}: {name}: not supported: {why}")
    return _plan(known, [str(name) for name in value], file)


def _plan(known: Published, given: list[str], file: Path) -> Plan:
    meanings = {name: f"nothing, because {_INERT[name]} is off" for name in given if name in _INERT}
    meanings |= {name: "off, as here" for name in given if name in _REFUSED}
    sparse = known.retrieval_method.lower() == "bm25"
    foreign = known.index_path.is_file()
    if sparse and known.bm25_backend != "bm25s":
        raise ConfigError(f"--config {file}: bm25_backend: {known.bm25_backend!r} is not supported; accepted: bm25s")
    if sparse and foreign:
        raise ConfigError(f"--config {file}: index_path: a bm25 index is a directory; see recall retriever build")
    if foreign and known.corpus_path is None:
        raise ConfigError(f"--config {file}: corpus_path: required beside a faiss file")
    if known.faiss_gpu and foreign:
        raise ConfigError(
            f"--config {file}: faiss_gpu: a faiss file is searched on the CPU; for a GPU make a flat index of it with "
            "recall retriever build --kind flat --vectors.faiss FILE"
        )
    opening: dict[str, Any] = {"kind": "bm25"} if sparse else {"encoder": _encoder(known, meanings, foreign=foreign)}
    if known.faiss_gpu:
        opening["flat_device"] = "cuda"
    if known.corpus_path is not None and not foreign:
        opening["corpus"] = known.corpus_path
    if known.use_reranker:
        opening["rerank"] = _reranker(known, meanings, file)
    meanings |= {
        "gpu_id": "CUDA_VISIBLE_DEVICES",
        "retrieval_method": "--open.kind bm25" if sparse else "--open.encoder.model",
        "index_path": "the faiss file" if foreign else "the index directory",
        "faiss_gpu": "--open.flat-device cuda" if known.faiss_gpu else "off, as here",
        "corpus_path": "the corpus" if foreign else "--open.corpus",
        "retrieval_topk": "--topk",
        "retrieval_batch_size": "--batch",
        "bm25_backend": "the kind bm25" if sparse else "nothing, because retrieval_method is another",
        "use_reranker": "--open.rerank" if known.use_reranker else "off, as here",
        "multimodal_index_path_dict": "none, as here",
        "model2path": "the names of encoders",
        "model2pooling": "the pooling of encoders",
    }
    serving = {"topk": known.retrieval_topk, "batch": known.retrieval_batch_size}
    return Plan(
        index=known.index_path,
        corpus=known.corpus_path if foreign else None,
        opening=OpenSettings(**opening),
        serving={name: value for name, value in serving.items() if value is not None},
        gpus=None if known.gpu_id is None else str(known.gpu_id),
        meanings={name: meanings.get(name, "nothing, because retrieval_method is bm25") for name in given},
    )


def _encoder(known: Published, meanings: dict[str, str], *, foreign: bool) -> EncoderSettings:
    """The encoder that queries need; an index directory knows its own, and only where it is may be said."""
    method = known.retrieval_method
    model = known.retrieval_model_path or known.model2path.get(method) or _MODELS.get(method) or method
    pooling = known.retrieval_pooling_method or known.model2pooling.get(method)
    meanings |= {
        "retrieval_model_path": "--open.encoder.model",
        "instruction": "--open.encoder.query-prefix",
        "retrieval_use_fp16": "--open.encoder.half",
        "retrieval_query_max_length": "--open.encoder.query-tokens",
        "retrieval_pooling_method": "--open.encoder.pooling",
    }
    told = {
        "model": model if foreign or known.retrieval_model_path or Path(method).is_dir() else None,
        "query_prefix": known.instruction,
        "pooling": pooling,
        "query_tokens": known.retrieval_query_max_length,
        "half": known.retrieval_use_fp16,
    }
    return EncoderSettings.model_validate({name: value for name, value in told.items() if value is not None})


def _reranker(known: Published, meanings: dict[str, str], file: Path) -> RerankSettings:
    if known.rerank_model_path is None:
        raise ConfigError(f"--config {file}: rerank_model_path: required where use_reranker is true")
    for name in ("rerank_pooling_method", "rerank_topk"):
        if getattr(known, name) is not None:
            raise ConfigError(f"--config {file}: {name}: not supported; requests say how many passages they want")
    if known.rerank_use_fp16:
        raise ConfigError(f"--config {file}: rerank_use_fp16: not supported; a reranker runs in float32")
    meanings |= {
        "rerank_model_name": "the name of --open.rerank.model",
        "rerank_model_path": "--open.rerank.model",
        "rerank_max_length": "--open.rerank.tokens",
        "rerank_batch_size": "--open.rerank.batch",
        "rerank_use_fp16": "off, as here",
    }
    told = {"model": known.rerank_model_path, "tokens": known.rerank_max_length, "batch": known.rerank_batch_size}
    return RerankSettings(**{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]


def _first(error: ValidationError) -> str:
    """The first fault, in one line."""
    fault = error.errors(include_url=False)[0]
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"{name}: no setting of a retriever; accepted are {', '.join(Published.model_fields)}"
    if fault["type"] == "missing":
        return f"{name}: required"
    if name == "multimodal_index_path_dict":
        return f"{name}: not supported: only text is searched"
    return f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
