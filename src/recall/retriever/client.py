"""A retriever behind HTTP, in the dialect that its server speaks: ReCall's and FlashRAG's, or Search-R1's.

A search changes nothing, so it is asked again whenever an answer does not come: of the next server where there are
several, of the same after a pause. What each dialect looks like on the wire is at the end.
"""

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Card, Passage, Retriever
from recall.retriever.patience import FailedError, check, json_or_none, patiently
from recall.serving.connections import Connections, Reply, split_secret

TOKEN_VARIABLE = "RECALL_RETRIEVER_TOKEN"
"""The environment variable that holds what servers ask for."""
_HEALTH_TIMEOUT_S = 10.0

Found = list[list[Passage]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server is asked, and how its answers are read."""

    one: str
    """The address for a single query."""
    many: str
    """The address for several."""
    write: Callable[[Sequence[str], int, bool], object]
    """The body for queries, k, and whether it is for the address of a single query."""
    read: Callable[[Any, bool], Found]
    """The passages of each query; `ValueError`, `TypeError` or `KeyError` where the answer is of another form."""


class RemoteRetriever:
    """Asks one server, or several of the same index in turns. See `recall.retriever.base.Retriever`."""

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        dialect: str = "recall",
        token: str | None = None,
        card: Card | None = None,
        batch: int = 256,
        timeout_s: float = 120.0,
        patience_s: float = 120.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        """Take the servers; nothing is sent yet.

        Args:
            urls: `http://host:port`, with what stands before `/search` or `/retrieve`; one or several.
            dialect: `recall`, `flashrag` or `search-r1`.
            token: what the servers ask for; None takes the environment's `RECALL_RETRIEVER_TOKEN`, if there is one.
                A URL of the form `http://anything:TOKEN@host` brings its own.
            card: what is behind them; `open_client` asks the server.
            batch: queries of one request at most.
            timeout_s: seconds to wait for an answer.
            patience_s: seconds for which a search is repeated before it fails.
            connect_timeout_s: seconds to wait for a connection.

        Raises:
            ConfigError: there is no address, or one is none, or no such dialect.
        """
        urls = [urls] if isinstance(urls, str) else list(urls)
        if not urls or len(set(urls)) < len(urls):
            raise ConfigError("retriever: at least one server, each named once")
        if dialect not in DIALECTS:
            raise ConfigError(f"retriever: {dialect!r} is no dialect; accepted: {', '.join(DIALECTS)}")
        addresses = [_address(url, token) for url in urls]
        self._servers = [Connections(url, headers, connect_timeout_s=connect_timeout_s) for url, headers in addresses]
        self._dialect = DIALECTS[dialect]
        self._card = card or Card(urlsplit(addresses[0][0]).netloc, dialect, 0)
        self._batch, self._timeout_s, self._patience_s = batch, timeout_s, patience_s
        self._turn = 0
        self._closed = False

    @property
    def card(self) -> Card:
        """What is behind the servers, as far as they say."""
        return self._card

    async def search(self, queries: Sequence[str], k: int) -> Found:
        """The best passages for each query; equal queries are sent once, blank ones not at all.

        Raises:
            ConfigError: a server refuses the token, or is none of this dialect.
            RetrieverBusy: no server had room for as long as patience lasts.
            RetrieverError: no server could be reached for as long, or one failed or answered something else.
            ValueError: k is less than 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 passage has to be wanted")
        texts = [query.encode("utf-8", "replace").decode() for query in queries]  # halves of surrogate pairs become ?
        wanted = [text for text in dict.fromkeys(texts) if text and not text.isspace()]
        parts = [wanted[start : start + self._batch] for start in range(0, len(wanted), self._batch)]
        answers = await asyncio.gather(*[self._ask(part, k) for part in parts])
        found = dict(zip(wanted, (passages for answer in answers for passages in answer), strict=True))
        return [list(found.get(text, ())) for text in texts]

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._closed = True
        for server in self._servers:
            await server.close()

    async def _ask(self, queries: Sequence[str], k: int) -> Found:
        one = len(queries) == 1
        path = self._dialect.one if one else self._dialect.many
        body = json.dumps(self._dialect.write(queries, k, one)).encode()

        async def attempt() -> Found:
            if self._closed:
                raise RetrieverError("the retriever is closed")
            server = self._servers[self._turn % len(self._servers)]
            self._turn += 1
            return self._read(server, await server.request("POST", path, body, self._timeout_s), queries, k)

        return await patiently(attempt, patience_s=self._patience_s, servers=len(self._servers))

    def _read(self, server: Connections, reply: Reply, queries: Sequence[str], k: int) -> Found:
        check(server.url, reply)
        try:
            found = self._dialect.read(json.loads(reply.body), len(queries) == 1)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RetrieverError(f"{server.url}: an answer of another form; does it speak this dialect?") from None
        if len(found) != len(queries):
            raise RetrieverError(f"{server.url}: {len(found)} answers to {len(queries)} queries")
        return [passages[:k] for passages in found]


def open_client(url: str) -> Retriever:
    """The retriever behind a URL, which is asked once what it is.

    Args:
        url: `http://host:port` for ReCall's or FlashRAG's dialect, `http://host:port/retrieve` for Search-R1's.

    Raises:
        ConfigError: it is no such URL, or the server refuses the token.
        RetrieverError: the server cannot be reached, or is not ready.
    """
    base, _, last = url.rstrip("/").rpartition("/")
    if last == "retrieve":
        return RemoteRetriever(base, dialect="search-r1", card=_card(base))
    return RemoteRetriever(url, card=_card(url))


def _card(url: str) -> Card | None:
    """What the server says that it is; None where it does not say."""
    address, headers = _address(url, None)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{address}/health", headers=headers)
    try:
        with opener.open(request, timeout=_HEALTH_TIMEOUT_S) as response:
            reply = Reply(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            reply = Reply(error.code, error.read())
    except (OSError, ValueError) as error:
        raise RetrieverError(f"{address}: cannot be reached: {error}") from error
    if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return None  # a server of a dialect that has no such address
    try:
        check(address, reply)
    except FailedError as error:
        raise RetrieverError(str(error)) from error
    match json_or_none(reply.body):
        case {"retriever": {"id": str(id), "kind": str(kind), "passages": int(passages), **more}}:
            return Card(id, kind, passages, str(more.get("corpus_sha256", "")), str(more.get("encoder", "")))
    return None


def _address(url: str, token: str | None) -> tuple[str, dict[str, str]]:
    """A URL without the secret in it, and the headers that bring the secret: its own, or the token."""
    address, headers = split_secret(url)
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    return address, headers or ({} if token is None else {"authorization": f"Bearer {token}"})


def _passage(document: Any, score: Any) -> Passage:
    """A document as the three dialects have it; pyserini's come without `id`, others with `title` and `text`."""
    if not isinstance(document, dict):
        raise TypeError("a document is an object")
    contents = document.get("contents")
    if contents is None:
        contents = f'"{document["title"]}"\n{document["text"]}'
    if not isinstance(contents, str):
        raise TypeError("contents")
    return Passage(str(document.get("id", "")), contents, float(score))


def _passages(documents: Sequence[Any], scores: Sequence[Any]) -> list[Passage]:
    return [_passage(document, score) for document, score in zip(documents, scores, strict=True)]


def _write_recall(queries: Sequence[str], k: int, one: bool) -> object:
    return {"query": queries[0] if one else list(queries), "top_n": k, "return_score": True}


def _read_recall(value: Any, one: bool) -> Found:
    documents, scores = value
    if one:
        return [_passages(documents, scores)]
    return [_passages(*pair) for pair in zip(documents, scores, strict=True)]


def _write_search_r1(queries: Sequence[str], k: int, one: bool) -> object:
    return {"queries": list(queries), "topk": k, "return_scores": True}


def _read_search_r1(value: Any, one: bool) -> Found:
    return [[_passage(hit["document"], hit["score"]) for hit in hits] for hits in value["result"]]


_RECALL = Dialect("/search", "/batch_search", _write_recall, _read_recall)

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "recall": _RECALL,
        "flashrag": _RECALL,  # what FlashRAG's remote retriever sends, and unpacks
        "search-r1": Dialect("/retrieve", "/retrieve", _write_search_r1, _read_search_r1),
    }
)
"""The dialects by name."""
