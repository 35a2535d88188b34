"""A collection in Qdrant as a retriever: queries are encoded here, compared there.

The collection is there already; nothing is written to it. Its vectors must be of the encoder named, which Qdrant does
not know: only their length can be checked.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Card, Passage
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.patience import FailedError, patiently
from recall.serving.connections import BrokenError

if TYPE_CHECKING:
    import numpy as np
    from qdrant_client import QdrantClient
    from qdrant_client.http.models import QueryRequest, ScoredPoint

KEY_VARIABLE = "RECALL_QDRANT_API_KEY"
"""The environment variable that holds the API key, where the server wants one."""
_PART = 64
"""Queries of one request."""


class QdrantSettings(Settings):
    """Which collection, and what is what in it."""

    collection: str
    """The collection."""
    url: str = "http://127.0.0.1:6333"
    """The server's address."""
    vector: str = ""
    """The name of the vectors, where the collection has several."""
    contents: str = "contents"
    """The payload field with the passage; for passages in two fields, title and text, see `title`."""
    title: str = ""
    """The payload field with the title, where `contents` holds the text alone."""
    id: str = ""
    """The payload field with the passage's id; empty takes the point's."""
    exact: bool = False
    """Whether all vectors are compared, rather than those that the graph leads to."""
    hnsw_ef: int | None = Field(default=None, ge=1)
    """Candidates while the graph is searched; none takes the collection's."""
    oversampling: float | None = Field(default=None, ge=1)
    """How many times k quantised candidates are compared with their full vectors; none leaves it to the server."""
    timeout_s: int = Field(default=30, ge=1)
    """Seconds to wait for an answer."""
    patience_s: float = Field(default=120.0, ge=0)
    """Seconds for which a search is repeated before it fails."""
    encoder: EncoderSettings = EncoderSettings()
    """The model that made the vectors."""


class QueryEncoder(Protocol):
    """What turns queries into vectors; `recall.retriever.encoder.Encoder` is one."""

    def encode(self, texts: Sequence[str], of: Literal["query", "passage"]) -> "np.ndarray[Any, Any]":
        """[n, dim] float32."""

    def close(self) -> None:
        """Let go of what it holds. Safe to call twice."""


class QdrantRetriever:
    """Searches one collection. See `recall.retriever.base.Retriever`."""

    def __init__(self, client: "QdrantClient", encoder: QueryEncoder, settings: QdrantSettings, card: Card) -> None:
        """Take a client, which is closed with this, and the encoder that made the vectors."""
        self._client, self._encoder, self._settings, self._card = client, encoder, settings, card
        self._closed = False

    @property
    def card(self) -> Card:
        """What it is."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query; equal queries are searched once, blank ones find nothing.

        Raises:
            RetrieverError: the server cannot be reached or failed, or a point lacks the fields.
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 passage has to be wanted")
        if self._closed:
            raise RetrieverError(f"{self._card.id}: searched after it was closed")
        texts = [query.encode("utf-8", "replace").decode() for query in queries]  # halves of surrogate pairs become ?
        wanted = [text for text in dict.fromkeys(texts) if text and not text.isspace()]
        found: dict[str, list[Passage]] = {}
        for start in range(0, len(wanted), _PART):
            part = wanted[start : start + _PART]
            vectors = await asyncio.to_thread(self._encoder.encode, part, "query")

            async def attempt(vectors: Any = vectors) -> list[list[Passage]]:
                return await asyncio.to_thread(self._find, vectors, k)

            answers = await patiently(attempt, patience_s=self._settings.patience_s)
            found.update(zip(part, answers, strict=True))
        return [list(found.get(text, ())) for text in texts]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._client.close)
            await asyncio.to_thread(self._encoder.close)

    def _find(self, vectors: "np.ndarray[Any, Any]", k: int) -> list[list[Passage]]:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        requests = [self._request(vector.tolist(), k) for vector in vectors]
        try:
            answers = self._client.query_batch_points(
                self._settings.collection, requests, timeout=self._settings.timeout_s
            )
        except ResponseHandlingException as error:
            raise BrokenError(f"qdrant {self._settings.url}: {error.source}") from error
        except UnexpectedResponse as error:
            reason = f"qdrant {self._settings.url}: HTTP {error.status_code}: {error.reason_phrase}"
            if error.status_code is None or error.status_code >= 500 or error.status_code == 429:
                raise FailedError(reason) from error
            raise RetrieverError(reason) from error
        return [[self._passage(point) for point in answer.points] for answer in answers]

    def _request(self, vector: list[float], k: int) -> "QueryRequest":
        from qdrant_client import models

        settings = self._settings
        params = None
        if settings.exact or settings.hnsw_ef is not None or settings.oversampling is not None:
            quantised = None
            if settings.oversampling is not None:
                quantised = models.QuantizationSearchParams(rescore=True, oversampling=settings.oversampling)
            params = models.SearchParams(hnsw_ef=settings.hnsw_ef, exact=settings.exact, quantization=quantised)
        return models.QueryRequest(
            query=vector,
            using=settings.vector or None,
            limit=k,
            with_payload=[name for name in (settings.contents, settings.title, settings.id) if name],
            params=params,
        )

    def _passage(self, point: "ScoredPoint") -> Passage:
        settings, payload = self._settings, point.payload or {}
        for name in (settings.contents, settings.title, settings.id):
            if name and not isinstance(payload.get(name), str | int):
                raise RetrieverError(f"qdrant {settings.collection}: point {point.id} has no text in {name!r}")
        contents = str(payload[settings.contents])
        if settings.title:
            contents = f'"{payload[settings.title]}"\n{contents}'
        return Passage(str(payload[settings.id] if settings.id else point.id), contents, float(point.score))


def open_qdrant(settings: QdrantSettings) -> QdrantRetriever:
    """Open a collection, and check what can be checked. Blocking.

    Raises:
        ConfigError: there is no such collection or vector, or its length is not the encoder's.
        RetrieverError: the server cannot be reached.
    """
    from qdrant_client import QdrantClient

    client = QdrantClient(
        url=settings.url,
        api_key=os.environ.get(KEY_VARIABLE) or None,
        timeout=settings.timeout_s,
        check_compatibility=False,
    )
    encoder = Encoder(settings.encoder)
    return opened(client, encoder, settings, dim=encoder.facts.dim, model=encoder.facts.model)


def opened(
    client: "QdrantClient", encoder: QueryEncoder, settings: QdrantSettings, *, dim: int, model: str
) -> QdrantRetriever:
    """The retriever over a client's collection, whose vectors must be `dim` long, as the encoder `model` makes them.

    Raises:
        ConfigError, RetrieverError: as `open_qdrant`.
    """
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    name = settings.collection
    try:
        if not client.collection_exists(name):
            raise ConfigError(f"--qdrant.collection: {name!r} is not at {settings.url}")
        vectors = client.get_collection(name).config.params.vectors
        count = client.count(name, exact=True).count
    except UnexpectedResponse as error:
        raise ConfigError(f"qdrant {settings.url}: HTTP {error.status_code}: {error.reason_phrase}") from error
    except ResponseHandlingException as error:
        raise RetrieverError(f"qdrant {settings.url}: cannot be reached: {error.source}") from error
    named = vectors if isinstance(vectors, dict) else {"": vectors}
    about = named.get(settings.vector)
    if about is None:
        there = ", ".join(filter(None, named)) or "one without a name"
        raise ConfigError(f"--qdrant.vector: {settings.vector!r} is not in {name}; it has {there}")
    if about.size != dim:
        raise ConfigError(f"--qdrant.encoder: {model} makes vectors of {dim} numbers; {name} has them of {about.size}")
    return QdrantRetriever(client, encoder, settings, Card(f"qdrant-{name}", "qdrant", count, encoder=model))
