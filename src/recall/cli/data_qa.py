"""`recall data download`, `data qa`, `data corpus`: benchmarks from the hub, as task rows, and as a closed corpus."""

from pathlib import Path

from pydantic import Field

from recall.config import Positional, Settings
from recall.errors import ConfigError


class Download(Settings):
    """Get a benchmark of questions (hotpotqa, 2wikimultihopqa, musique, bamboogle), or the corpus wiki-18.

    Files that are there already are left alone; one that broke off goes on.
    """

    names: Positional[tuple[str, ...]]
    """What to get."""
    to: Path = Path("data")
    """The folder; each gets one of its own in it."""
    from_: Path | None = Field(default=None, alias="from")
    """A folder that has the files already, to copy instead of asking the hub."""

    def main(self) -> int:
        """Get them, and say what is where."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        from recall.datasets.download import KNOWN, download

        for name in self.names:
            if name not in KNOWN:
                raise ConfigError(f"{name!r} is not known; accepted: {', '.join(KNOWN)}")
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        for name in self.names:
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
                bars = {}

                def told(file: str, done: int, size: int | None) -> None:
                    if file not in bars:  # noqa: B023 - called within this round only
                        bars[file] = progress.add_task(file, total=size)  # noqa: B023
                    progress.update(bars[file], completed=done, total=size)  # noqa: B023

                files = download(name, self.to, source=self.from_, told=told)
            for file in files:
                print(f"{file}: {file.stat().st_size:,} bytes")
        return 0


class Rows(Settings):
    """Make task rows with the search tool of a file of questions: parquet or JSONL, in the published format."""

    file: Positional[Path]
    """Questions in FlashRAG's format, or task rows, whose tools are then replaced by the search tool."""
    to: Positional[Path]
    """The file to write; one that exists is not replaced."""
    data_source: str = ""
    """What the rows are said to come from; the name of the file's folder without it."""
    split: str = ""
    """What split they are said to be, such as train; the name of the file without it."""
    search_url: str | None = None
    """The address of a retriever service to put into the rows; without it they hold the published placeholder."""
    top_k: int = Field(default=5, ge=1, le=100)
    """Passages of a search that names no number."""

    def main(self) -> int:
        """Convert, and say how many rows were written."""
        from recall.datasets.convert import checked_url, search_tasks
        from recall.datasets.qa import read_questions
        from recall.datasets.rows import write_tasks
        from recall.tools.search import SEARCH_URL

        if self.to.exists():
            raise ConfigError(f"{self.to}: exists; choose another name")
        url = SEARCH_URL if self.search_url is None else checked_url(self.search_url)
        questions = read_questions(self.file)
        source = self.data_source or self.file.resolve().parent.name
        split = self.split or self.file.stem
        tasks = search_tasks(questions, data_source=source, split=split, url=url, top_k=self.top_k)
        write_tasks(self.to, tasks)
        print(f"{self.to}: {len(questions):,} tasks of {source}")
        return 0


class Corpus(Settings):
    """Make a corpus in FlashRAG's format of the paragraphs that came with questions, and of further corpora.

    A closed corpus: small enough for a laptop, with the evidence of every question in it.
    """

    files: Positional[tuple[Path, ...]]
    """Files of questions with paragraphs, and of passages ({"id", "contents"}), in any order."""
    to: Path
    """The file to write; one that exists is not replaced."""

    def main(self) -> int:
        """Gather, and say how many passages were written."""
        from recall.datasets.closed import write_corpus

        if self.to.exists():
            raise ConfigError(f"{self.to}: exists; choose another name")
        count, twice = write_corpus(self.files, self.to)
        print(f"{self.to}: {count:,} passages; {twice:,} more were there already")
        return 0
