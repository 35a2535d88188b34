"""An index of Elasticsearch or OpenSearch as a retriever: by words, by vectors, or by both with their ranks fused.

The index is there already; nothing is written to it. The two servers share everything asked here but the form of a
vector search.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from recall.config import Settings
from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Card, Passage
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.patience import FailedError, check, json_or_none, patiently
from recall.retriever.qdrant import QueryEncoder
from recall.serving.connections import BrokenError, Connections, Reply, UnreachableError, split_secret

KEY_VARIABLE = "RECALL_ELASTICSEARCH_API_KEY"
"""The environment variable that holds an API key; a name and a password can stand in the URL instead."""
_PART = 64
"""Searches of one request."""
_DEPTH = 100
"""Passages that each of two searches is asked for, at least, before their ranks are fused."""


class ElasticsearchSettings(Settings):
    """Which index, and what is what in it."""

    index: str
    """The index, or an alias."""
    url: str = "http://127.0.0.1:9200"
    """The server's address."""
    by: Literal["words", "vectors", "both"] = "words"
    """What is compared: words by BM25, vectors, or both, fused by rank."""
    contents: str = "contents"
    """The field with the passage."""
    title: str = ""
    """The field with the title, where `contents` holds the text alone; it is searched too."""
    id: str = ""
    """The field with the passage's id; empty takes the document's."""
    vector: str = "vector"
    """The field with the vectors."""
    candidates: int = Field(default=100, ge=1)
    """Vectors that each shard looks at, at least."""
    rrf: int = Field(default=60, ge=1)
    """The constant of the rank fusion; see `recall.retriever.fusion`."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for an answer."""
    patience_s: float = Field(default=120.0, ge=0)
    """Seconds for which a search is repeated before it fails."""
    encoder: EncoderSettings = EncoderSettings()
    """The model that made the vectors."""

    @model_validator(mode="after")
    def _an_encoder_for_vectors(self) -> "ElasticsearchSettings":
        if self.by != "words" and not self.encoder.model:
            raise ValueError(f"by {self.by} needs encoder.model, the model that made the vectors")
        return self


class ElasticsearchRetriever:
    """Searches one index. See `recall.retriever.base.Retriever`."""

    def __init__(
        self,
        settings: ElasticsearchSettings,
        encoder: QueryEncoder | None,
        card: Card,
        *,
        opensearch: bool,
    ) -> None:
        """Take the settings, the encoder where vectors are compared, and which of the two servers it is."""
        self._settings, self._encoder, self._card, self._opensearch = settings, encoder, card, opensearch
        self._server = _connections(settings, "application/x-ndjson")
        self._closed = False

    @property
    def card(self) -> Card:
        """What it is."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best passages for each query; equal queries are searched once, blank ones find nothing.

        Raises:
            RetrieverBusy: the server has no room.
            RetrieverError: it cannot be reached or failed, or answered for a part of the index only.
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
            found.update(zip(part, await self._part(part, k), strict=True))
        return [list(found.get(text, ())) for text in texts]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._closed = True
        await self._server.close()
        if self._encoder is not None:
            await asyncio.to_thread(self._encoder.close)

    async def _part(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        settings = self._settings
        if settings.by == "words":
            return await self._ask([self._words(query, k) for query in queries])
        assert self._encoder is not None, "the settings have seen to it"
        vectors = (await asyncio.to_thread(self._encoder.encode, queries, "query")).tolist()
        if settings.by == "vectors":
            return await self._ask([self._vectors(vector, k) for vector in vectors])
        depth = max(k, _DEPTH)
        by_words = [self._words(query, depth) for query in queries]
        answers = await self._ask([*by_words, *(self._vectors(vector, depth) for vector in vectors)])
        pairs = zip(answers[: len(queries)], answers[len(queries) :], strict=True)
        return [fused(pair, settings.rrf)[:k] for pair in pairs]

    def _words(self, query: str, k: int) -> dict[str, Any]:
        settings = self._settings
        fields = [name for name in (settings.title, settings.contents) if name]
        # The sum over the fields, as if they were one: a word counts by how rare it is in both.
        match = {"multi_match": {"query": query, "type": "cross_fields", "operator": "or", "fields": fields}}
        return self._body(k) | {"query": match if len(fields) > 1 else {"match": {settings.contents: query}}}

    def _vectors(self, vector: list[float], k: int) -> dict[str, Any]:
        settings = self._settings
        if self._opensearch:
            return self._body(k) | {"query": {"knn": {settings.vector: {"vector": vector, "k": k}}}}
        candidates = max(k, settings.candidates)
        knn = {"field": settings.vector, "query_vector": vector, "k": k, "num_candidates": candidates}
        return self._body(k) | {"knn": knn}

    def _body(self, k: int) -> dict[str, Any]:
        settings = self._settings
        return {"size": k, "_source": [name for name in (settings.contents, settings.title, settings.id) if name]}

    async def _ask(self, searches: Sequence[dict[str, Any]]) -> list[list[Passage]]:
        body = "".join(f"{{}}\n{json.dumps(search)}\n" for search in searches).encode()
        path = f"/{self._settings.index}/_msearch"

        async def attempt() -> list[list[Passage]]:
            reply = await self._server.request("POST", path, body, self._settings.timeout_s)
            check(self._server.url, reply)
            match json_or_none(reply.body):
                case {"responses": list(answers)} if len(answers) == len(searches):
                    return [self._answer(answer) for answer in answers]
            raise RetrieverError(f"{self._server.url}: an answer of another form; is it Elasticsearch?")

        return await patiently(attempt, patience_s=self._settings.patience_s)

    def _answer(self, answer: Any) -> list[Passage]:
        url = self._server.url
        match answer:
            case {"error": _, "status": int(status)}:
                check(url, Reply(status, json.dumps(answer).encode()))
            case {"timed_out": True}:
                raise FailedError(f"{url}: a part of the index did not answer")
            case {"_shards": {"failed": int(failed)}} if failed:
                raise FailedError(f"{url}: {failed} shards did not answer")
            case {"hits": {"hits": list(hits)}}:
                return [self._passage(hit) for hit in hits]
        raise RetrieverError(f"{url}: an answer of another form; is it Elasticsearch?")

    def _passage(self, hit: Any) -> Passage:
        settings = self._settings
        match hit:
            case {"_id": str(id), "_score": int(score) | float(score), "_source": dict(source)}:
                for name in (settings.contents, settings.title, settings.id):
                    if name and not isinstance(source.get(name), str | int):
                        raise RetrieverError(f"{settings.index}: document {id} has no text in {name!r}")
                contents = str(source[settings.contents])
                if settings.title:
                    contents = f'"{source[settings.title]}"\n{contents}'
                return Passage(str(source[settings.id]) if settings.id else id, contents, float(score))
        raise RetrieverError(f"{self._server.url}: a hit of another form; is it Elasticsearch?")


def fused(lists: Sequence[Sequence[Passage]], constant: int) -> list[Passage]:
    """Several lists as one, by the ranks in each; the score is the sum of 1 / (constant + rank).

    Source: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods".
    """
    sums: dict[str, float] = {}
    contents: dict[str, str] = {}
    for passages in lists:
        for rank, passage in enumerate(passages, 1):
            sums[passage.id] = sums.get(passage.id, 0.0) + 1 / (constant + rank)
            contents[passage.id] = passage.contents
    return [Passage(id, contents[id], sums[id]) for id in sorted(sums, key=lambda id: (-sums[id], id))]


def open_elasticsearch(settings: ElasticsearchSettings) -> ElasticsearchRetriever:
    """Open an index, and see which of the two servers it is on. Blocking; not to be called where an event loop runs.

    Raises:
        ConfigError: there is no such index, or the server wants another key.
        RetrieverError: the server cannot be reached or failed.
    """
    encoder = Encoder(settings.encoder) if settings.by != "words" else None
    about, count = asyncio.run(_about(settings))
    match about, count:
        case {"version": {"number": str(number), **version}}, {"count": int(passages)}:
            kind = "opensearch" if version.get("distribution") == "opensearch" else "elasticsearch"
            model = "" if encoder is None else encoder.facts.model
            card = Card(f"{kind}-{settings.index}-{settings.by}", f"{kind} {number}", passages, encoder=model)
            return ElasticsearchRetriever(settings, encoder, card, opensearch=kind == "opensearch")
    raise ConfigError(f"--elasticsearch.url {settings.url}: no Elasticsearch and no OpenSearch answers there")


async def _about(settings: ElasticsearchSettings) -> tuple[Any, Any]:
    """What the server says of itself, and of the index."""
    server = _connections(settings, "application/json")
    try:
        replies = []
        for path in ("/", f"/{settings.index}/_count"):
            reply = await server.request("GET", path, None, settings.timeout_s)
            check(server.url, reply)
            replies.append(json_or_none(reply.body))
        return replies[0], replies[1]
    except (UnreachableError, BrokenError, FailedError) as error:
        raise RetrieverError(str(error)) from error
    finally:
        await server.close()


def _connections(settings: ElasticsearchSettings, content: str) -> Connections:
    url, headers = split_secret(settings.url)
    key = os.environ.get(KEY_VARIABLE)
    if key and "authorization" not in headers:
        headers["authorization"] = f"ApiKey {key}"
    return Connections(url, headers | {"content-type": content}, connect_timeout_s=5.0)
