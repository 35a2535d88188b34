"""`recall retriever serve`: an index as a service. What it serves is `retriever/`'s; here are its flags."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from recall.config import Positional, Settings
from recall.errors import ConfigError
from recall.retriever.elasticsearch import ElasticsearchSettings
from recall.retriever.open import OpenSettings
from recall.retriever.qdrant import QdrantSettings

if TYPE_CHECKING:
    from recall.retriever.base import Retriever
    from recall.retriever.service.published import Plan

TOKEN_VARIABLE = "RECALL_RETRIEVER_TOKEN"
"""The environment variable that holds the token where no file is named."""


class Serve(Settings):
    """Search an index for others, over HTTP: POST /search, /batch_search, /retrieve; GET /health, /metrics.

    Listens on this machine only, unless there is a token: in --token-file, or in the environment variable
    RECALL_RETRIEVER_TOKEN. SIGTERM lets requests in flight finish; a second one does not.
    """

    index: Positional[Path | None] = None
    """An index directory made by `recall retriever build`."""
    config: Path | None = None
    """A published retriever_config.yaml, or FlashRAG's, that names the index instead."""
    open: OpenSettings = OpenSettings()
    """How the index is opened and searched."""
    qdrant: QdrantSettings | None = None
    """A collection in Qdrant to put this server in front of, instead of an index."""
    elasticsearch: ElasticsearchSettings | None = None
    """An index of Elasticsearch or OpenSearch to put this server in front of, instead of an index of ours."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8901, ge=0, le=65535)
    """The port; 0 takes a free one."""
    token_file: Path | None = None
    """A file with the token that requests must bring."""
    workers: int = Field(default=1, ge=1, le=64)
    """Searches at once: 1 in this process, more in as many processes over the same memory-mapped index."""
    batch: int = Field(default=64, ge=1, le=4096)
    """Queries of one search at most."""
    window_ms: float = Field(default=3.0, ge=0, le=1000)
    """Milliseconds that queries gather at most while others are searched; a query that comes alone never waits."""
    cache_mb: int = Field(default=256, ge=0)
    """MiB of the hits found that are remembered; 0 remembers nothing."""
    topk: int = Field(default=3, ge=1)
    """Passages for a query of /retrieve that names no number."""
    max_k: int = Field(default=1000, ge=1)
    """Passages for a query at most."""
    max_queries: int = Field(default=16384, ge=1)
    """Queries of one request at most, more being answered 413."""
    max_queue: int = Field(default=16384, ge=1)
    """Queries that may wait, requests beyond being answered 503."""
    queue_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds in which the search of a request must have begun, before it is answered 503."""
    max_body_mb: int = Field(default=64, ge=1, le=1024)
    """MiB of a request's body, larger ones being answered 413."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds in which the head, and then the body, of a request must have come in."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight get to finish when the server is told to stop."""

    def main(self) -> int:
        """Serve."""
        import logging
        from collections.abc import Callable
        from functools import partial

        from recall.retriever.service.app import App
        from recall.retriever.service.batcher import BatchLimits
        from recall.retriever.service.dialects import BodyLimits
        from recall.retriever.service.service import Service
        from recall.retriever.service.workers import Workers
        from recall.serving.access import read_token
        from recall.serving.requests import RequestLimits
        from recall.serving.server import Listening, serve

        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        plan = self._plan()
        token = read_token(self.token_file, TOKEN_VARIABLE)
        told = {} if plan is None else {k: v for k, v in plan.serving.items() if k not in self.model_fields_set}
        batch, topk = told.get("batch", self.batch), told.get("topk", self.topk)
        limits = BatchLimits(self.workers, batch, self.window_ms / 1e3, self.max_queue, self.queue_timeout_s)
        opener: Callable[[], Retriever] = partial(self._opened, plan)
        if self.workers > 1:
            opener = partial(Workers, opener, self.workers)
        service = Service(opener, limits=limits, cache_bytes=self.cache_mb << 20)
        requests = RequestLimits(self.max_body_mb << 20, self.body_timeout_s)
        app = App(service, token, requests, BodyLimits(self.max_queries, self.max_k, topk))
        listening = Listening(
            name="retriever",
            host=self.host,
            port=self.port,
            uds=None,
            token=token,
            token_variable=TOKEN_VARIABLE,
            head_timeout_s=self.body_timeout_s,
            grace_s=self.grace_s,
        )
        serve(app, service, listening)
        return 0

    def _plan(self) -> "Plan | None":
        """What the file of `--config` comes to; each of its fields is said with what it stands for."""
        ways = (self.index, self.config, self.qdrant, self.elasticsearch)
        if sum(way is not None for way in ways) != 1:
            raise ConfigError(
                "recall retriever serve: give one of an index directory, --config FILE, --qdrant.collection NAME, "
                "--elasticsearch.index NAME"
            )
        if self.index is None and self.open != OpenSettings():
            raise ConfigError("recall retriever serve: --open goes with an index directory and nothing else")
        if self.config is None:
            return None
        import os
        import sys

        from recall.retriever.service.published import read

        plan = read(self.config)
        for name, meaning in plan.meanings.items():
            print(f"{self.config}: {name}: {meaning}", file=sys.stderr)
        if plan.gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = plan.gpus  # before torch looks, as FlashRAG does it
        return plan

    def _opened(self, plan: "Plan | None") -> "Retriever":
        from recall.retriever.elasticsearch import open_elasticsearch
        from recall.retriever.open import open_flashrag, open_retriever
        from recall.retriever.qdrant import open_qdrant

        if self.qdrant is not None:
            return open_qdrant(self.qdrant)
        if self.elasticsearch is not None:
            return open_elasticsearch(self.elasticsearch)
        if plan is None:
            assert self.index is not None, "_plan has seen to it"
            return open_retriever(self.index, self.open)
        if plan.corpus is None:
            return open_retriever(plan.index, plan.opening)
        return open_flashrag(plan.index, plan.corpus, plan.opening.encoder, settings=plan.opening)
