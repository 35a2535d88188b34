"""`recall data`: looks into a file of tasks, rewrites it, reports on a set. Rows are the business of `datasets/`."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from recall.config import Positional, Settings
from recall.errors import ConfigError
from recall.types import Task

if TYPE_CHECKING:
    from rich.progress import TaskID

    from recall.synth.report.asked import Asking


class Inspect(Settings):
    """Say what is in a file of tasks: how many, of which kinds, and one as the policy would meet it.

    Bad rows are listed by row and field; the exit status is then 1.
    """

    file: Positional[Path]
    """A parquet or JSONL file of task rows, a set, or DIR/SPLIT of one."""
    row: int = 1
    """The task to print, counted from 1 over the good rows; 0 prints none."""

    def main(self) -> int:
        """Print the summary, the task, and the bad rows."""
        from recall.datasets.rows import iter_tasks

        skipped: list[str] = []
        counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        rows, shown = 0, None
        for task in iter_tasks(self.file, skip_bad=True, on_skip=skipped.append):
            rows += 1
            for name, part in _COUNTED.items():
                counts[name][part(task)] += 1
            shown = task if rows == self.row else shown
        if shown is None and self.row != 0:
            raise ConfigError(f"--row: {self.row} is not accepted; {self.file} has rows 1 to {rows}, or 0 for none")
        print(f"{self.file}: {rows} tasks, {len(skipped)} bad rows")
        for name, counted in counts.items():
            print(_counts(name, counted))
        if shown is not None:
            print("\n".join(["", *_shown(shown)]))
        for line in skipped:
            print(f"bad: {line}", file=sys.stderr)
        return 1 if skipped else 0


class Convert(Settings):
    """Rewrite a file of tasks in the published row format; the suffix of the new file says parquet or JSONL."""

    file: Positional[Path]
    """A parquet or JSONL file of task rows, a set, or DIR/SPLIT of one."""
    to: Positional[Path]
    """The file to write; one that exists is not replaced."""
    skip_bad: bool = False
    """Leave bad rows out, and list them, instead of refusing the file."""

    def main(self) -> int:
        """Convert, and say how many rows were written."""
        from recall.datasets.rows import iter_tasks, write_tasks

        if self.to.exists():
            raise ConfigError(f"{self.to}: exists; choose another name")
        skipped: list[str] = []
        written = 0

        def counted() -> Iterator[Task]:
            nonlocal written
            for task in iter_tasks(self.file, skip_bad=self.skip_bad, on_skip=skipped.append):
                written += 1
                yield task

        write_tasks(self.to, counted())
        for line in skipped:
            print(f"left out: {line}", file=sys.stderr)
        print(f"{self.to}: {written} tasks written, {len(skipped)} left out")
        return 0


class Report(Settings):
    """Measure a set of tasks, and say whether it holds: replays, determinism, provenance, guesses, overlaps, sizes.

    Every number comes from the rows themselves, except where it is marked as claimed. The exit status is 1 when a
    gate is broken; docs/data-report.md says what each means.
    """

    source: Positional[Path]
    """A set, DIR/SPLIT of one, or a file of tasks."""
    html: Path | None = None
    """Write the report as a page, too."""
    as_json: bool = Field(default=False, alias="json")
    """Print the report as JSON instead of tables."""
    sample: int = Field(default=2000, ge=0)
    """Tasks to replay in the sandbox and to count the tokens of, of all; 0 replays none."""
    seed: int = 0
    """Decides which tasks these are."""
    against: tuple[Path, ...] = ()
    """Files of tasks or questions to look for overlaps with: sets, parquet, JSONL."""
    reward: str = "row"
    """The reward that guesses are judged by, beside equality."""
    tokenizer: Path | None = None
    """A tokenizer.json, or a directory with one; none counts with the tokenizer of nano."""
    max_prompt_tokens: int = Field(default=1536, ge=1)
    """Prompts above this are counted as too long; the published training had room for so many tokens."""

    base_url: str | None = None
    """An OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1, whose model is asked about tasks, too."""
    model: str | None = None
    """The model's name there."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; where it is not set, no key is sent."""
    asked: int = Field(default=100, ge=1)
    """Tasks that the model is asked about."""
    samples: int = Field(default=4, ge=1)
    """Episodes with tools of each, and answers without tools."""
    concurrency: int = Field(default=16, ge=1)
    """Requests at once."""
    replies: Path | None = None
    """The file of what the model answered, which is not asked again; none stands beside the page or here."""

    def main(self) -> int:
        """Print the report."""
        from recall import rewards
        from recall.datasets.questions import iter_questions
        from recall.datasets.rows import iter_tasks
        from recall.datasets.sets import is_set
        from recall.synth.report.overlap import Against
        from recall.synth.report.report import Options, broken, make_report
        from recall.synth.report.source import source_of

        rewards.get(self.reward)
        against = [Against(str(file), iter_questions(file)) for file in self.against]
        source = source_of(self.source)
        count, tokenizer = _counter(self.tokenizer)
        asking = self._asking()
        with _progress(source.get("made"), self.sample, self.asked if asking else 0) as (on_row, on_replay, on_asked):
            report = make_report(
                iter_tasks(self.source, parse_env=not is_set(self.source)),
                source=source,
                against=against,
                options=Options(
                    sample=self.sample,
                    seed=self.seed,
                    reward=self.reward,
                    max_prompt_tokens=self.max_prompt_tokens,
                    tokenizer=tokenizer,
                    count=count,
                    on_row=on_row,
                    on_replay=on_replay,
                    asking=asking,
                    on_asked=on_asked,
                ),
            )
        if self.html is not None:
            from recall.viewer.dataset.page import write_page

            write_page(report, self.html)
        if self.as_json:
            print(json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
        else:
            from rich.console import Console

            from recall.viewer.dataset.terminal import renderables

            console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
            for shown in renderables(report):
                console.print(shown)
            if self.html is not None:
                console.print(f"page: {self.html}", soft_wrap=True)
        return 1 if broken(report) else 0

    def _asking(self) -> "Asking | None":
        """What a model is asked, where one is named.

        Raises:
            ConfigError: it is half named, or there is no sample to ask about.
        """
        if self.base_url is None and self.model is None:
            return None
        if self.base_url is None or self.model is None:
            raise ConfigError("--base_url and --model: a model is named by both")
        if not self.sample:
            raise ConfigError("--sample: a model is asked about tasks of the sample, which is empty")
        from recall.synth.llm.client import EndpointSettings
        from recall.synth.report.asked import Asking

        named = {"base_url": self.base_url, "model": self.model, "api_key_env": self.api_key_env}
        try:
            endpoint = EndpointSettings.model_validate({**named, "concurrency": self.concurrency})
        except ValidationError as fault:
            raise ConfigError(f"--base_url: {fault.errors()[0]['msg']}") from None
        beside = self.html or Path("report.html")
        replies = self.replies or beside.with_name(f"{beside.stem}.replies.jsonl")
        return Asking(endpoint, replies, self.asked, self.samples, self.samples)


def _counter(tokenizer: Path | None) -> tuple[Callable[[str], int] | None, str]:
    """What counts tokens, and its name; None and why not where `tokenizers` is not installed.

    Raises:
        ConfigError: there is no such tokenizer.
    """
    from importlib import resources, util

    if util.find_spec("tokenizers") is None:
        if tokenizer is not None:
            raise ConfigError("--tokenizer: tokenizers is not installed; it comes with: pip install 'recall[train]'")
        return None, "tokenizers is not installed"
    from tokenizers import Tokenizer

    file = tokenizer or Path(str(resources.files("recall.nano").joinpath("weights")))
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(f"--tokenizer: {file}: no such file; it takes a tokenizer.json, or a directory with one")
    try:
        loaded = Tokenizer.from_file(str(file))
    except Exception as fault:  # noqa: BLE001 - the library raises plain Exception for a file that is no tokenizer
        raise ConfigError(f"--tokenizer: {file}: no tokenizer: {fault}") from None
    name = "the tokenizer of nano" if tokenizer is None else str(tokenizer)
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids), name


@contextmanager
def _progress(rows: int | None, sample: int, asked: int) -> Iterator[list[Callable[[], object]]]:
    """Show how far the reading, the replaying and the asking are, on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bars:
        most = min(sample, rows) if rows else sample
        totals = {"rows": rows, "replays": most, "asked": min(asked, most)}
        shown = [bars.add_task(name, total=total, start=False, visible=total != 0) for name, total in totals.items()]

        def step(bar: "TaskID") -> Callable[[], object]:
            def done() -> None:
                bars.start_task(bar)
                bars.advance(bar)

            return done

        yield [step(bar) for bar in shown]


_COUNTED: Mapping[str, Callable[[Task], str]] = MappingProxyType(
    {
        "source": lambda task: task.data_source,
        "split": lambda task: task.split,
        "kind": lambda task: task.kind,
        "depth": lambda task: str(task.depth),
        "answer": lambda task: task.answer_type.kind,
        "tools": lambda task: str(len(task.tools)),
    }
)
"""What `inspect` counts tasks by."""


def _counts(name: str, counted: Counter[str]) -> str:
    shown = ", ".join(f"{value or '(none)'} {count}" for value, count in counted.most_common(8))
    return f"  {name:7} {shown}" + (f", and {len(counted) - 8} more" if len(counted) > 8 else "")


def _shown(task: Task) -> list[str]:
    from recall.viewer.text import visible

    lines = [f"task {task.id}", f"  question  {task.question}", f"  answer    {' | '.join(task.ground_truth)}"]
    for tool in task.tools:
        parameters = ", ".join(tool.parameters.get("properties", {}))
        lines.append(f"  tool      {tool.name}({parameters}): {' '.join(tool.description.split())[:80]}")
    for number, item in enumerate(task.reference):
        does = f"{item['name']}({item['arguments']})" if "name" in item else f"in the head: {item['value']}"
        lines.append(f"  item {number}    {does}")
    if task.changes is not None:
        lines.append(f"  changes   {dict(task.changes)}")
    return [visible(line) for line in lines]
