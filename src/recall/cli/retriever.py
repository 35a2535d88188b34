"""`recall retriever`: build an index over a corpus, look into it, search it. `serve` is `cli/retriever_serve.py`'s."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from recall.config import Positional, Settings
from recall.errors import ConfigError
from recall.retriever.build import BuildSettings
from recall.retriever.open import OpenSettings

if TYPE_CHECKING:
    from recall.retriever.progress import Report


class Build(BuildSettings):
    """Build an index over a corpus in FlashRAG's format: JSON lines of id and contents.

    The same command goes on after an interruption. Another --kind in the same directory takes over the corpus and the
    vectors that are there.
    """

    def main(self) -> None:
        """Build, and say what was built."""
        from recall.retriever.build import build

        with _progress() as report:
            made = build(self, report)
        facts = made.indexes[self.kind]
        print(f"{self.index}: {self.kind} over {made.corpus.rows:,} passages, {facts.seconds:.1f} s for the index")
        if encoder := facts.parameters.get("vectors", facts.parameters).get("encoder"):
            print(
                f"  encoder {encoder['model']}: {encoder['pooling']} pooling, {encoder['dim']} numbers, query prefix"
                f" {encoder['query_prefix']!r}, passage prefix {encoder['passage_prefix']!r},"
                f" cut at {encoder['query_tokens']} and {encoder['passage_tokens']} tokens"
            )
        print(f"  search it: recall retriever search {self.index} QUERY")


class Search(OpenSettings):
    """Search an index, or a service, from the command line."""

    where: Positional[str]
    """An index directory, or the http address of a service."""
    query: Positional[str]
    """What to look for."""
    top: int = Field(default=5, ge=1)
    """Passages to print."""
    width: int = Field(default=300, ge=0)
    """Characters of a passage's text to print; 0 prints all."""

    def main(self) -> None:
        """Search, and print what was found."""
        from recall.retriever.open import open_retriever
        from recall.viewer.text import visible

        retriever = open_retriever(
            self.where, OpenSettings(**{name: getattr(self, name) for name in OpenSettings.model_fields})
        )

        async def search() -> None:
            try:
                (found,) = await retriever.search([self.query], self.top)
            finally:
                await retriever.close()
            for rank, passage in enumerate(found, 1):
                text = " ".join(passage.text.split())
                cut = text if not self.width or len(text) <= self.width else f"{text[: self.width]}…"
                print(visible(f"{rank}. {passage.title}  (id {passage.id}, score {passage.score:.4f})"))
                print(visible(f"   {cut}"))
            if not found:
                print("nothing was found")

        asyncio.run(search())


class Inspect(Settings):
    """Say what is in an index directory, and check its files."""

    index: Positional[Path]
    """An index directory."""
    verify: bool = False
    """Whether whole files are compared with their checksums, rather than samples of them."""

    def main(self) -> int:
        """Print the indexes and their files; the status is 1 where a file is damaged."""
        from recall.retriever import manifest
        from recall.retriever.corpus import open_corpus
        from recall.retriever.vectors import VectorFacts, place

        known = manifest.read(self.index)
        print(f"{self.index}: {known.corpus.rows:,} passages of {known.corpus.path}")
        print(f"  corpus    {_size(known.corpus.file.bytes)}, sha256 {known.corpus.file.sha256}")
        bad: list[ConfigError] = []
        try:
            open_corpus(known.corpus, self.index, verify=self.verify).close()
        except ConfigError as error:
            bad.append(error)
        for kind, facts in known.indexes.items():
            files = {self.index / name: file for name, file in facts.files.items()}
            if "vectors" in facts.parameters:
                vectors = VectorFacts.model_validate(facts.parameters["vectors"])
                if vectors.file is not None:
                    files[place(vectors, self.index)] = vectors.file
            note = " (opened where no kind is named)" if kind == known.default else ""
            print(f"  {kind:9} {_size(sum(file.bytes for file in files.values()))} in {len(files)} files{note}")
            for path, file in files.items():
                try:
                    file.check(path, verify=self.verify)
                except ConfigError as error:
                    bad.append(error)
        for problem in bad:
            print(f"  damaged: {problem}")
        return 1 if bad else 0


@contextmanager
def _progress() -> "Iterator[Report]":
    """Show on standard error how far the work is, a bar for each stage."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        stages: dict[str, TaskID] = {}

        def report(doing: str, done: int, total: int) -> None:
            if doing not in stages:
                stages[doing] = bars.add_task(doing, total=total)
            bars.update(stages[doing], completed=done, total=total)

        yield report


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
