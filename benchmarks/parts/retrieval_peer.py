"""The peer: a retrieval server of the kind that ReSearch, FlashRAG's users and Search-R1 run, over an index of ours.

Written after a reading of those servers, for comparison only. What they do is done here: a framework that checks both
bodies, one query at a time, encoded and searched where the event loop runs (`/search`), or in the framework's threads
without any batching (`/retrieve`). The index, the encoder and the code that searches are those of the server that it is
compared with, so what differs is how requests become searches.
"""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from recall.retriever.open import OpenSettings, open_index

RETRIEVER = open_index(Path(sys.argv[1]), OpenSettings.model_validate({"kind": sys.argv[2]}))
ONE_AT_A_TIME = asyncio.Semaphore(1)


class Document(BaseModel):
    """A passage."""

    id: str
    contents: str


class SearchRequest(BaseModel):
    """A query of the published server."""

    query: str
    top_n: int = 10
    return_score: bool = False


class RetrieveRequest(BaseModel):
    """Queries of Search-R1's server."""

    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


app = FastAPI()


@app.post("/search", response_model=tuple[list[Document], list[float]] | list[Document])
async def search(request: SearchRequest) -> object:
    """Search in the event loop, so that nothing else happens meanwhile."""
    if not request.query.strip():
        raise HTTPException(status_code=400, detail="empty query")
    async with ONE_AT_A_TIME:
        (passages,) = RETRIEVER.find([request.query], request.top_n)
        documents = [Document(id=passage.id, contents=passage.contents) for passage in passages]
        if request.return_score:
            return documents, [passage.score for passage in passages]
        return documents


@app.post("/retrieve")
def retrieve(request: RetrieveRequest) -> object:
    """Search in one of the framework's threads."""
    found = RETRIEVER.find(request.queries, request.topk or 3)
    documents = [[{"id": hit.id, "contents": hit.contents} for hit in hits] for hits in found]
    if not request.return_scores:
        return {"result": documents}
    pairs = [zip(row, hits, strict=True) for row, hits in zip(documents, found, strict=True)]
    return {"result": [[{"document": document, "score": hit.score} for document, hit in pair] for pair in pairs]}


def main() -> None:
    """Serve on a free port of this machine, and print the address once a query was answered."""
    RETRIEVER.find(["What is the capital of France?"], 1)
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # said outright, or asyncio leaves Nagle's delays on
    listener.bind(("127.0.0.1", 0))
    print(f"peer: ready at http://127.0.0.1:{listener.getsockname()[1]};", flush=True)
    # The faster loop where it is there, as for ours.
    config = uvicorn.Config(app, access_log=False, log_level="error")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
