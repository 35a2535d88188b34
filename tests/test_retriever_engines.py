"""Engines that people already run: Qdrant in its client's local mode, Elasticsearch and OpenSearch by a likeness."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

pytest.importorskip("aiohttp")

from elasticsearch_server import engine, words
from recall.errors import ConfigError, RetrieverBusy, RetrieverError
from recall.retriever.base import Card, Passage
from recall.retriever.elasticsearch import (
    ElasticsearchRetriever,
    ElasticsearchSettings,
    fused,
    open_elasticsearch,
)
from recall.retriever.encoder import EncoderSettings
from retriever_corpora import TEXTS, many

DIM = 64


class WordsEncoder:
    """A text is the sum of its words, each a fixed direction."""

    def encode(self, texts: Sequence[str], of: Literal["query", "passage"]) -> np.ndarray[Any, Any]:
        vectors = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
                vectors[row] += np.random.default_rng(seed).standard_normal(DIM)
        unit: np.ndarray[Any, Any] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return unit

    def close(self) -> None:
        return


ROWS = [*TEXTS, *many(60)]
VECTORS = WordsEncoder().encode([f"{title} {text}" for title, text in ROWS], "passage")
CONTENTS = [f'"{title}"\n{text}' for title, text in ROWS]
QUERIES = [
    "Who designed the Analytical Engine?",
    "",
    "number17 harbour",
    "radium on watches",
    "number17 harbour",
    " \n",
]


def nearest(query: str, k: int) -> list[tuple[str, str]]:
    """Ids and contents by brute force."""
    order = np.argsort(-(VECTORS @ WordsEncoder().encode([query], "query")[0]), kind="stable")[:k]
    return [(str(row), CONTENTS[row]) for row in order] if query.strip() else []


def shown(found: Sequence[Sequence[Passage]]) -> list[list[tuple[str, str]]]:
    return [[(passage.id, passage.contents) for passage in passages] for passages in found]


# --- Qdrant


@pytest.fixture
def collection() -> Iterator[Any]:
    """A client over its own engine, with the passages in `wiki` and, under a name, in `named`."""
    qdrant_client = pytest.importorskip("qdrant_client")
    from qdrant_client import models

    client = qdrant_client.QdrantClient(":memory:")
    params = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    client.create_collection("wiki", vectors_config=params)
    client.create_collection("named", vectors_config={"text": params})
    for row, (title, text) in enumerate(ROWS):
        payload = {"contents": CONTENTS[row], "title": title, "text": text, "key": f"k{row}"}
        vector = VECTORS[row].tolist()
        client.upsert("wiki", [models.PointStruct(id=row, vector=vector, payload=payload)])
        client.upsert("named", [models.PointStruct(id=row, vector={"text": vector}, payload=payload)])
    yield client
    client.close()


def in_qdrant(client: Any, **settings: Any) -> Any:
    from recall.retriever.qdrant import QdrantSettings, opened

    return opened(client, WordsEncoder(), QdrantSettings(**{"collection": "wiki", **settings}), dim=DIM, model="words")


async def test_qdrant_finds_what_comparing_everything_finds(collection: Any) -> None:
    retriever = in_qdrant(collection)
    assert shown(await retriever.search(QUERIES, 4)) == [nearest(query, 4) for query in QUERIES]
    assert retriever.card == Card("qdrant-wiki", "qdrant", len(ROWS), encoder="words")
    (everything,) = await retriever.search(["harbour"], 1000)
    assert len(everything) == len(ROWS)
    assert [p.score for p in everything] == sorted((p.score for p in everything), reverse=True)
    await retriever.close()
    with pytest.raises(RetrieverError, match="closed"):
        await retriever.search(["a"], 1)


def test_how_qdrant_searches_is_asked_as_its_own_types_have_it(collection: Any) -> None:
    from qdrant_client import models

    plain = in_qdrant(collection)._request([1.0], 3)
    assert (plain.params, plain.using, plain.limit, plain.with_payload) == (None, None, 3, ["contents"])
    tuned = in_qdrant(collection, hnsw_ef=128, oversampling=2.0, id="key")._request([1.0], 3)
    quantised = models.QuantizationSearchParams(rescore=True, oversampling=2.0)
    assert tuned.params == models.SearchParams(hnsw_ef=128, exact=False, quantization=quantised)
    assert tuned.with_payload == ["contents", "key"]


async def test_qdrant_reads_names_titles_and_ids_where_they_are(collection: Any) -> None:
    retriever = in_qdrant(collection, collection="named", vector="text", contents="text", title="title", id="key")
    (found,) = await retriever.search(["number17 harbour"], 3)
    assert [(p.id, p.contents) for p in found] == [(f"k{id}", c) for id, c in nearest("number17 harbour", 3)]


async def test_many_queries_to_qdrant_come_back_in_order(collection: Any) -> None:
    queries = [f"number{n % 60}" for n in range(150)]
    assert shown(await in_qdrant(collection).search(queries, 1)) == [nearest(query, 1) for query in queries]


def test_a_collection_that_does_not_fit_is_the_users(collection: Any) -> None:
    from recall.retriever.qdrant import QdrantSettings, opened

    with pytest.raises(ConfigError, match="'none' is not at"):
        in_qdrant(collection, collection="none")
    with pytest.raises(ConfigError, match="it has text"):
        in_qdrant(collection, collection="named")
    with pytest.raises(ConfigError, match="makes vectors of 3 numbers; wiki has them of 64"):
        opened(collection, WordsEncoder(), QdrantSettings(collection="wiki"), dim=3, model="words")


async def test_points_without_the_fields_are_ours_and_name_the_field(collection: Any) -> None:
    with pytest.raises(RetrieverError, match="has no text in 'body'"):
        await in_qdrant(collection, contents="body").search(["harbour"], 1)


async def test_a_qdrant_that_is_not_there_is_ours(collection: Any) -> None:
    import socket

    from qdrant_client import QdrantClient

    from recall.retriever.qdrant import QdrantRetriever, QdrantSettings, opened

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        settings = QdrantSettings(collection="wiki", url=url, patience_s=0.3)
        client = QdrantClient(url=url, check_compatibility=False)
        with pytest.raises(RetrieverError, match="cannot be reached"):
            opened(client, WordsEncoder(), settings, dim=DIM, model="words")
        retriever = QdrantRetriever(client, WordsEncoder(), settings, Card("q", "qdrant", 0))
        with pytest.raises(RetrieverError, match="qdrant http"):
            await retriever.search(["a"], 1)
        await retriever.close()


# --- Elasticsearch and OpenSearch

DOCUMENTS = {
    str(row): {
        "contents": CONTENTS[row],
        "title": title,
        "text": text,
        "key": f"k{row}",
        "vector": VECTORS[row].tolist(),
    }
    for row, (title, text) in enumerate(ROWS)
}


def in_engine(server: Any, **settings: Any) -> ElasticsearchRetriever:
    known = {"index": "wiki", "url": server.url, "encoder": EncoderSettings(model="words"), "patience_s": 1.0}
    chosen = ElasticsearchSettings(**(known | settings))
    return ElasticsearchRetriever(
        chosen, WordsEncoder(), Card("e", "e", 0), opensearch=server.distribution == "opensearch"
    )


@pytest.mark.parametrize("distribution", ["elasticsearch", "opensearch"])
async def test_words_vectors_and_both(distribution: str) -> None:
    with engine(DOCUMENTS, distribution=distribution) as server:
        by_vectors = in_engine(server, by="vectors")
        assert shown(await by_vectors.search(QUERIES, 4)) == [nearest(query, 4) for query in QUERIES]
        by_words = in_engine(server)
        words_found = await by_words.search(QUERIES, 4)
        assert [len(passages) for passages in words_found] == [4, 0, 4, 3, 4, 0]
        assert words_found[2][0].contents.startswith('"Place 17"\n')
        both = in_engine(server, by="both")
        deep = [(await each.search(["number17 harbour"], 100))[0] for each in (by_words, by_vectors)]
        assert await both.search(["number17 harbour"], 5) == [fused(deep, 60)[:5]]
        for retriever in (by_vectors, by_words, both):
            await retriever.close()


async def test_titles_and_ids_where_they_are() -> None:
    with engine(DOCUMENTS) as server:
        retriever = in_engine(server, contents="text", title="title", id="key")
        ((first,),) = await retriever.search(["Place 17"], 1)
        assert (first.id, first.contents) == ("k23", CONTENTS[23])
        await retriever.close()


async def test_many_searches_come_back_in_order() -> None:
    queries = [f"number{n % 60}" for n in range(150)]
    with engine(DOCUMENTS) as server:
        retriever = in_engine(server)
        found = await retriever.search(queries, 1)
        await retriever.close()
    assert [passages[0].id for passages in found] == [str(len(TEXTS) + n % 60) for n in range(150)]


PARTIAL = {"timed_out": False, "_shards": {"total": 2, "failed": 1}, "hits": {"hits": []}, "status": 200}
LATE = {"timed_out": True, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": []}, "status": 200}
FULL = {"error": {"type": "es_rejected_execution_exception", "reason": "rejected"}, "status": 429}


@pytest.mark.parametrize("trouble", [PARTIAL, LATE, FULL, 503, 500], ids=str)
async def test_an_answer_of_a_part_is_no_answer_and_is_asked_again(trouble: Any) -> None:
    with engine(DOCUMENTS) as server:
        server.troubles = [trouble]
        retriever = in_engine(server, patience_s=60.0)
        ((first, *_),) = await retriever.search(["number17"], 2)
        assert first.id == "23"
        await retriever.close()


@pytest.mark.parametrize(
    ("trouble", "error"), [(PARTIAL, RetrieverError), (FULL, RetrieverBusy), ({"hits": {}}, RetrieverError)], ids=str
)
async def test_trouble_that_stays_is_ours(trouble: Any, error: type[Exception]) -> None:
    with engine(DOCUMENTS) as server:
        server.troubles = [trouble] * 50
        retriever = in_engine(server)
        with pytest.raises(error):
            await retriever.search(["number17"], 2)
        await retriever.close()


@pytest.mark.parametrize(
    ("settings", "k", "said"),
    [
        ({}, 20_000, "Result window is too large"),
        ({"by": "vectors", "candidates": 20_000}, 2, "cannot be less"),
        ({"contents": "text", "id": "vector"}, 2, "has no text in 'vector'"),
    ],
    ids=str,
)
async def test_what_the_engine_refuses_is_said(settings: dict[str, Any], k: int, said: str) -> None:
    with engine(DOCUMENTS) as server:
        retriever = in_engine(server, **settings)
        with pytest.raises(RetrieverError, match=said):
            await retriever.search(["number17"], k)
        await retriever.close()


def test_opening_says_which_server_and_how_many_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    for distribution in ("elasticsearch", "opensearch"):
        with engine(DOCUMENTS, distribution=distribution) as server:
            retriever = open_elasticsearch(ElasticsearchSettings(index="wiki", url=server.url))
            assert retriever.card.kind.split()[0] == distribution
            assert retriever.card.passages == len(ROWS)
    monkeypatch.setenv("RECALL_ELASTICSEARCH_API_KEY", "a-key")
    with engine(DOCUMENTS, auth="ApiKey a-key") as server:
        assert open_elasticsearch(ElasticsearchSettings(index="wiki", url=server.url)).card.passages == len(ROWS)
        with pytest.raises(ConfigError, match=r"no such index \[wiky\] \(HTTP 404\)"):
            open_elasticsearch(ElasticsearchSettings(index="wiky", url=server.url))
        monkeypatch.setenv("RECALL_ELASTICSEARCH_API_KEY", "another")
        with pytest.raises(ConfigError, match="missing authentication"):
            open_elasticsearch(ElasticsearchSettings(index="wiki", url=server.url))
    with pytest.raises(RetrieverError, match="cannot be reached"):
        open_elasticsearch(ElasticsearchSettings(index="wiki", url=server.url))
    with pytest.raises(ValueError, match=r"needs encoder\.model"):
        ElasticsearchSettings(index="wiki", by="both")


def test_an_engine_is_served_in_our_dialects(tmp_path: Path) -> None:
    for package in ("uvicorn", "httptools", "prometheus_client"):
        pytest.importorskip(package)
    from retriever_server import serving

    with engine(DOCUMENTS) as server:
        flags = "--elasticsearch.index", "wiki", "--elasticsearch.url", server.url
        with serving(*flags) as ours:
            answer = ours.ask("POST", "/search", {"query": "number17", "top_n": 1})
            assert answer.json == [{"id": "23", "contents": CONTENTS[23]}]
            assert ours.ask("GET", "/health").json["retriever"]["id"] == "elasticsearch-wiki-words"


def test_fused_ranks() -> None:
    a, b, c = (Passage(name, name.upper()) for name in "abc")
    assert [(p.id, p.score) for p in fused([[a, b], [b, c]], 60)] == [
        ("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)
    ]  # fmt: skip
