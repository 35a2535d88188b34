"""The peer: a tool server of the published kind, which runs what it is sent in its own process. Isolation: none.

Written after a description of how such servers work, for comparison only. Never let it listen where others reach it.
"""

import asyncio
import contextlib
import io
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """A call with the source of its tools."""

    env: str
    call: str
    timeout: int = 5


class Response(BaseModel):
    """What came of it."""

    result: Any = None
    output: str = ""
    error: str | None = None


app = FastAPI()


@app.post("/execute", response_model=Response)
async def execute(request: Request) -> Response:
    """Run the whole source again, and the call, one request at a time; the time-out is not looked at."""
    scope: dict[str, Any] = {}
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(request.env, scope)
            exec(f"response = {request.call}", scope)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is its outcome
        return Response(output=output.getvalue(), error=str(error))
    return Response(result=scope["response"], output=output.getvalue())


def main() -> None:
    """Serve on a free port of this machine, and print the address."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # said outright, or asyncio leaves Nagle's delays on
    listener.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # The faster loop where it is there, as for ours.
    config = uvicorn.Config(app, access_log=False, log_level="error")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
