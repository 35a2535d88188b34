"""How many lines the same three agents take with ReCall and with other libraries: programs that are run, then counted.

`python benchmarks/peers.py` counts the programs in `docs/peers/`. With `--run PYTHON`, each is first run against an
endpoint that is scripted here, and one that does not answer is not counted. PYTHON is that of an environment that has
openai-agents, smolagents[mcp,openai], langchain, langchain-openai and langchain-mcp-adapters; ReCall's run in this.
"""

import argparse
import ast
import io
import json
import subprocess
import sys
import threading
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent.parent / "docs" / "peers"
LIBRARIES = ("recall", "openai_agents", "smolagents", "langgraph")
AGENTS = {
    "functions": ("two Python functions, one question", ["36"]),
    "server": ("the tools of an MCP server by stdio", ["36"]),
    "batch": ("20 questions, 8 at once, 2 s for a call", ["36", "7"] * 10),
}


def lines_of(source: str) -> int:
    """Lines with code on them: neither blank, nor only a comment or a docstring."""
    held: set[int] = set()
    idle = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in idle:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def said(body: Any) -> dict[str, Any]:
    """What a model would say that calls `get_age` once and then answers with what it was told."""
    texts = [str(message.get("content")) for message in body["messages"] if message["role"] == "user"]
    who = next(name for text in reversed(texts) for name in ("Ada", "Bob") if name in text)
    called = any(message["role"] in ("tool", "tool-response", "assistant") for message in body["messages"])
    offered = [tool["function"]["name"] for tool in body.get("tools", ())]
    age = {"Ada": "36", "Bob": "7"}[who]
    if called and "final_answer" not in offered:
        return {"role": "assistant", "content": age}
    name, arguments = ("final_answer", {"answer": age}) if called else ("get_age", {"name": who})
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


class Endpoint(BaseHTTPRequestHandler):
    """The scripted chat endpoint."""

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        """The list of models."""
        self._answer({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "nobody"}]})

    def do_POST(self) -> None:
        """One chat completion, never in pieces."""
        message = said(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        finish = "tool_calls" if "tool_calls" in message else "stop"
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        self._answer({**about, "choices": [choice], "usage": usage})

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def endpoint() -> Iterator[str]:
    """The address of the endpoint, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def check(agent: str, library: str, python: str, url: str) -> None:
    """Run one program, and stop where it does not print the answers."""
    command = [sys.executable if library == "recall" else python, f"{agent}_{library}.py", url]
    done = subprocess.run(command, cwd=PROGRAMS, capture_output=True, text=True, timeout=300, check=False)
    if done.stdout.split() != AGENTS[agent][1]:
        raise SystemExit(f"{agent}_{library}.py printed {done.stdout!r}\n{done.stderr[-2000:]}")


def main() -> None:
    """Run, count, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", metavar="PYTHON", help="run the programs first, the others' with this python")
    asked = parser.parse_args()
    if asked.run:
        with endpoint() as url:
            for agent in AGENTS:
                for library in LIBRARIES:
                    check(agent, library, asked.run, url)
                    print(f"{agent}_{library}.py answers", file=sys.stderr)
    print(f"| agent | {' | '.join(LIBRARIES)} |\n|---|{'---|' * len(LIBRARIES)}")
    for agent, (what, _) in AGENTS.items():
        counts = [lines_of((PROGRAMS / f"{agent}_{library}.py").read_text(encoding="utf-8")) for library in LIBRARIES]
        print(f"| {what} | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    main()
