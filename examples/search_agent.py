"""An agent that searches: an index over a corpus of yours, and a model that asks it.

`python examples/search_agent.py [MODEL]`; needs `pip install recall[retriever]`. Nano never learnt to search, so
without a MODEL a script plays that knows the way.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from recall import ReCall
from recall.environment import Limits
from recall.inference import transcript
from recall.inference.models import Model
from recall.policy.chat_ids import ChatRenderer
from recall.policy.scripted import ScriptedPolicy
from recall.retriever.base import Retriever
from recall.retriever.build import BuildSettings, build
from recall.retriever.open import open_retriever
from recall.tool_calls import format_call
from recall.types import ToolCall

DOCUMENTS = {
    "Analytical Engine": "The Analytical Engine was designed by Charles Babbage and never finished.",
    "Charles Babbage": "Charles Babbage was born in London in 1791.",
    "Radium": "Radium was discovered by Marie and Pierre Curie in 1898.",
}


def script(prompt: str) -> Generator[str, str, None]:
    """What a model would say that knows how to search."""
    found = yield format_call(ToolCall("wikipedia_search", {"query": "designer of the Analytical Engine", "top_n": 1}))
    person = found.split("designed by ")[1].split(" and")[0]
    found = yield format_call(ToolCall("wikipedia_search", {"query": f"{person} born", "top_n": 1}))
    yield f"\\boxed{{{found.split(' born in ')[1].split(' in ')[0]}}}"


def index(directory: Path) -> Retriever:
    """A BM25 index over the documents."""
    corpus = directory / "corpus.jsonl"
    rows = [{"id": title, "contents": f'"{title}"\n{text}'} for title, text in DOCUMENTS.items()]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build(BuildSettings(corpus=corpus, index=directory / "index", kind="bm25"))
    return open_retriever(directory / "index")


async def ask(retriever: Retriever, model: str = "") -> None:
    """Ask, and show how it went."""
    renderer = ChatRenderer()
    policy = Model(ScriptedPolicy(script, renderer), renderer)
    limits = Limits(max_turns=8, max_tokens=8192)
    async with ReCall(policy=model or policy, tools=[retriever], limits=limits) as agent:
        played = await agent.ask("Where was the designer of the Analytical Engine born?")
    await retriever.close()
    print(transcript(played))


def main(model: str = "") -> None:
    """Build the index, and ask."""
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(ask(index(Path(scratch)), model))


if __name__ == "__main__":
    main(*sys.argv[1:])
