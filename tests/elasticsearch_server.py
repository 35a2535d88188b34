"""A small server that answers like Elasticsearch, or OpenSearch, over passages in memory, and refuses what they refuse.

It is no Elasticsearch: it checks the form of requests as the reference of both describes it, scores by BM25 or by inner
products, and answers in their form.
"""

import http.server
import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

BODY_KEYS = {"size", "_source", "query", "knn"}


class RefusedError(Exception):
    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.body = {
            "error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason},
            "status": status,
        }


class Engine(http.server.ThreadingHTTPServer):
    """One index, `wiki`."""

    def __init__(self, documents: Mapping[str, Mapping[str, Any]], *, distribution: str, auth: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents, self.distribution, self.auth = documents, distribution, auth
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.troubles: list[Any] = []
        """What the next searches of `_msearch` are answered instead, in turn: a dict, or a status for all."""

    def about(self) -> dict[str, Any]:
        version = {"number": "9.2.0", "build_flavor": "default", "lucene_version": "10.3.1"}
        if self.distribution == "opensearch":
            version = {"distribution": "opensearch", "number": "3.3.0", "lucene_version": "10.3.1"}
        return {"name": "node", "cluster_name": "c", "version": version, "tagline": "You Know, for Search"}

    def search(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict) or body.keys() - BODY_KEYS:
            raise RefusedError(400, "parsing_exception", f"unknown key for a START_OBJECT in {body!r:.60}")
        size = body.get("size", 10)
        if not 0 <= size <= 10_000:
            raise RefusedError(400, "illegal_argument_exception", "Result window is too large, size must be <= [10000]")
        scores = self._knn(body["knn"]) if "knn" in body else self._query(body["query"])
        best = sorted(scores.items(), key=lambda hit: -hit[1])[:size]
        hits = [
            {
                "_index": "wiki",
                "_id": id,
                "_score": score,
                "_source": {name: self.documents[id][name] for name in body["_source"] if name in self.documents[id]},
            }
            for id, score in best
        ]
        return {
            "took": 1,
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"total": {"value": len(scores), "relation": "eq"}, "max_score": None, "hits": hits},
            "status": 200,
        }

    def _query(self, query: dict[str, Any]) -> dict[str, float]:
        ((kind, about),) = query.items()
        if kind == "match" and len(about) == 1:
            return self._bm25(str(*about.values()), list(about))
        asked = {name: about[name] for name in about.keys() & {"type", "operator"}}
        if kind == "multi_match" and asked == {"type": "cross_fields", "operator": "or"}:
            return self._bm25(about["query"], about["fields"])
        if kind == "knn" and self.distribution == "opensearch":
            ((name, knn),) = about.items()
            if knn.keys() != {"vector", "k"}:
                raise RefusedError(400, "parsing_exception", "[knn] query malformed")
            return self._nearest(name, knn["vector"], knn["k"])
        raise RefusedError(400, "parsing_exception", f"unknown query [{kind}]")

    def _knn(self, knn: Any) -> dict[str, float]:
        if self.distribution == "opensearch":
            raise RefusedError(400, "parsing_exception", "Unknown key for a START_OBJECT in [knn].")
        if knn.keys() != {"field", "query_vector", "k", "num_candidates"}:
            raise RefusedError(400, "x_content_parse_exception", "[knn] unknown or missing field")
        if not 1 <= knn["k"] <= knn["num_candidates"] <= 10_000:
            raise RefusedError(400, "illegal_argument_exception", "[num_candidates] cannot be less than [k]")
        return self._nearest(knn["field"], knn["query_vector"], knn["k"])

    def _nearest(self, name: str, vector: list[float], k: int) -> dict[str, float]:
        found = {}
        for id, document in self.documents.items():
            if len(document[name]) != len(vector):
                raise RefusedError(400, "illegal_argument_exception", "the query vector has a different dimension")
            found[id] = (1 + sum(a * b for a, b in zip(document[name], vector, strict=True))) / 2
        return dict(sorted(found.items(), key=lambda hit: -hit[1])[:k])

    def _bm25(self, text: str, names: list[str]) -> dict[str, float]:
        texts = {id: words(" ".join(str(document[n]) for n in names)) for id, document in self.documents.items()}
        mean = sum(map(len, texts.values())) / len(texts)
        found: dict[str, float] = {}
        for word in set(words(text)):
            having = [id for id, all_words in texts.items() if word in all_words]
            idf = math.log(1 + (len(texts) - len(having) + 0.5) / (len(having) + 0.5))
            for id in having:
                count = texts[id].count(word)
                norm = 1.2 * (0.25 + 0.75 * len(texts[id]) / mean)
                found[id] = found.get(id, 0.0) + idf * count * 2.2 / (count + norm)
        return found


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, self.server.about())
        elif self.path == "/wiki/_count":
            self._answer(200, {"count": len(self.server.documents), "_shards": {"total": 1, "failed": 0}})
        else:
            refusal = RefusedError(404, "index_not_found_exception", f"no such index [{self.path.split('/')[1]}]")
            self._answer(404, refusal.body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            self._answer(200, {"took": 2, "responses": self._searches(body)})
        except RefusedError as refusal:
            self._answer(refusal.status, refusal.body)

    def _searches(self, body: bytes) -> list[Any]:
        if self.headers["content-type"] not in ("application/x-ndjson", "application/json"):
            raise RefusedError(406, "media_type_header_exception", "Content-Type is not supported")
        if self.path != "/wiki/_msearch":
            raise RefusedError(404, "index_not_found_exception", "no such index")
        if not body.endswith(b"\n"):
            raise RefusedError(400, "illegal_argument_exception", "The msearch request must be terminated by a newline")
        lines = body[:-1].split(b"\n")
        if len(lines) % 2:
            raise RefusedError(400, "illegal_argument_exception", "a header without a body")
        answers = []
        for header, search in zip(lines[::2], lines[1::2], strict=True):
            if json.loads(header) != {}:
                raise RefusedError(400, "illegal_argument_exception", "key is not supported in the metadata section")
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
            if isinstance(trouble, int):
                raise RefusedError(trouble, "es_rejected_execution_exception", "rejected execution")
            try:
                answers.append(trouble or self.server.search(json.loads(search)))
            except RefusedError as refusal:
                answers.append(refusal.body)
        return answers

    def _answer(self, status: int, value: Any) -> None:
        if self.server.auth is not None and self.headers["authorization"] != self.server.auth:
            status, value = 401, RefusedError(401, "security_exception", "missing authentication credentials").body
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def engine(
    documents: Mapping[str, Mapping[str, Any]], *, distribution: str = "elasticsearch", auth: str | None = None
) -> Iterator[Engine]:
    """The server, in a thread."""
    with Engine(documents, distribution=distribution, auth=auth) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
