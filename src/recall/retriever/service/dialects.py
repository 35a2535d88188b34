"""The three dialects: what their requests look like, and their answers, byte for byte what their clients read.

- ReCall: `/search {query, top_n, return_score}`, `/batch_search {query: [...], top_n, return_score}`.
- FlashRAG: its remote retriever posts to the same two, with `return_score: true`, and unpacks documents and scores.
- Search-R1: `/retrieve {queries: [...], topk, return_scores}`.

A field that is unknown is refused by name rather than ignored: `top_k` for `top_n` would otherwise go unnoticed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall.retriever.service.hits import Hits

TOP_N = 10
"""Passages for a query where a request of ReCall's or FlashRAG's dialect names no number."""


class BodyError(Exception):
    """A body that cannot be meant: an HTTP status and one line that says which field, never what it held."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status
        """400 for an empty query, as the published server has it; 413 for too many; 422 for all else."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one request may ask for."""

    queries: int = 16384
    """Queries of one request."""
    k: int = 1000
    """Passages for each."""
    topk: int = 3
    """Passages for each where a request of Search-R1's dialect names no number; its own launcher's default."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    queries: list[str]
    k: int
    """Passages for each query."""
    write: Callable[[Sequence[Hits]], bytes]
    """Puts the answer together from the hits of each query."""


def parse(data: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        BodyError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BodyError("the body is not JSON") from None


def search_body(value: Any, limits: BodyLimits, passages: int) -> Asked:
    """Read a `/search`.

    Args:
        value: the JSON value.
        limits: what may be asked for.
        passages: how many there are; 0 where that is not known.

    Raises:
        BodyError: the query is empty, or a field is missing, unknown, of the wrong type or out of range.
    """
    body = _fields(value, {"query", "top_n", "return_score"})
    query = _text(_required(body, "query"), "query")
    if not query or query.isspace():
        raise BodyError("query: it is empty", 400)
    k = _count(body.get("top_n", TOP_N), "top_n", limits.k, passages)
    return Asked([query], k, _scored_one if _flag(body, "return_score") else _plain_one)


def batch_body(value: Any, limits: BodyLimits, passages: int) -> Asked:
    """Read a `/batch_search`; as `search_body`, but an empty query finds nothing and spoils nothing."""
    body = _fields(value, {"query", "top_n", "return_score"})
    queries = _texts(_required(body, "query"), "query", limits)
    k = _count(body.get("top_n", TOP_N), "top_n", limits.k, passages)
    return Asked(queries, k, _scored_many if _flag(body, "return_score") else _plain_many)


def retrieve_body(value: Any, limits: BodyLimits, passages: int) -> Asked:
    """Read a `/retrieve`; as `batch_body`. A `topk` of null or 0 is the server's own number, as there."""
    body = _fields(value, {"queries", "topk", "return_scores"})
    queries = _texts(_required(body, "queries"), "queries", limits)
    topk = body.get("topk")
    if topk is None or (topk == 0 and topk is not False):
        topk = limits.topk
    k = _count(topk, "topk", limits.k, passages)
    return Asked(queries, k, _result_scored if _flag(body, "return_scores") else _result_plain)


def _plain_one(found: Sequence[Hits]) -> bytes:
    return _array(found[0].documents)


def _scored_one(found: Sequence[Hits]) -> bytes:
    return b"[%b,%b]" % (_array(found[0].documents), _scores(found[0]))


def _plain_many(found: Sequence[Hits]) -> bytes:
    return _array([_array(hits.documents) for hits in found])


def _scored_many(found: Sequence[Hits]) -> bytes:
    return b"[%b,%b]" % (_plain_many(found), _array([_scores(hits) for hits in found]))


def _result_plain(found: Sequence[Hits]) -> bytes:
    return b'{"result":%b}' % _plain_many(found)


def _result_scored(found: Sequence[Hits]) -> bytes:
    rows = [
        _array(
            [
                b'{"document":%b,"score":%r}' % (document, score)
                for document, score in zip(hits.documents, hits.scores, strict=True)
            ]
        )
        for hits in found
    ]
    return b'{"result":%b}' % _array(rows)


def _array(items: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(items)


def _scores(hits: Hits) -> bytes:
    return b"[%b]" % b",".join([b"%r" % score for score in hits.scores])


def _fields(value: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BodyError("the body should be an object")
    for name in value.keys() - known:
        raise BodyError(f"{_shown(name)}: no such field; accepted are {', '.join(sorted(known))}")
    return value


def _shown(name: str) -> str:
    return ascii(name[:100])[1:-1]


def _required(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise BodyError(f"{name}: it is missing")
    return body[name]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BodyError(f"{where}: it should be a string")
    # Half a surrogate pair is JSON, and no text that a tokenizer takes.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _texts(value: Any, name: str, limits: BodyLimits) -> list[str]:
    if not isinstance(value, list):
        raise BodyError(f"{name}: it should be an array of strings")
    if len(value) > limits.queries:
        raise BodyError(f"{name}: there are {len(value)}, and at most {limits.queries} are accepted", 413)
    return [_text(item, f"{name}[{place}]") for place, item in enumerate(value)]


def _count(value: Any, name: str, most: int, passages: int) -> int:
    """How many passages; `"5"` and 5.0 are 5, as the published servers read them."""
    if isinstance(value, str) and len(value) < 20 and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BodyError(f"{name}: it should be an integer")
    if value < 1:
        raise BodyError(f"{name}: it should be at least 1")
    count = min(value, passages) if passages else int(value)
    if count > most:
        raise BodyError(f"{name}: it should be at most {most}")
    return count


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise BodyError(f"{name}: it should be true or false")
    return value
