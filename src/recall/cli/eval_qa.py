"""`recall eval qa` measures question answering with search; `recall eval compare` puts such runs side by side."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from recall.config import Positional, Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.engines import ServedPolicySettings
from recall.evaluation.local import SandboxSettings
from recall.evaluation.qa.judge import JudgeSettings
from recall.evaluation.qa.setup import QA_LIMITS, MethodName, Plan
from recall.retriever.open import OpenSettings

if TYPE_CHECKING:
    from recall.datasets.qa import Question
    from recall.evaluation.qa.results import Results, Row
    from recall.retriever.base import Retriever


class EvalQa(Settings):
    """Ask a policy the questions of multi-hop benchmarks, with a method that may search, and measure its answers.

    What was answered is kept in --out; the same command goes on there after an interruption. The last line printed is
    the result as JSON.
    """

    dataset: tuple[str, ...]
    """Files of questions, in FlashRAG's format or task rows, or names of benchmarks that `recall data download` put
    below --data."""
    method: MethodName = "recall"
    """How questions are answered, the first two being agents that search as they like, the oracles what a retriever
    allows, and the others what agents are compared with."""
    out: Path
    """The folder of the results, one below it for each dataset."""
    data: Path = Path("data")
    """Where benchmarks called by name are."""
    questions: int | None = Field(default=None, ge=1)
    """Ask only so many of each dataset, the first ones."""
    retriever: str = ""
    """What is searched, an index directory or the http(s) address of a service."""
    top_k: int = Field(default=5, ge=1, le=100)
    """Passages of a search that names no number."""
    tool: Literal["native", "row"] = "native"
    """How an agent's searches reach the retriever, directly or by the published row's source in the sandbox."""
    at_once: int = Field(default=64, ge=1, le=4096)
    """Questions under way at the same time."""
    temperature: float = Field(default=0.0, ge=0)
    """Of sampling; 0 is greedy, as the published tables are."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Of sampling."""
    seed: int = 0
    """Of sampling."""
    policy: ServedPolicySettings = ServedPolicySettings()
    judge: JudgeSettings = JudgeSettings()
    save_trajectories: bool = True
    """Keep the episodes behind the answers, for recall view and recall show."""
    limits: Limits = QA_LIMITS
    open: OpenSettings = OpenSettings()
    sandbox: SandboxSettings = SandboxSettings()

    def main(self) -> int:
        """Measure and print; 1 where questions failed through a fault of ours, so that asking again makes sense."""
        return asyncio.run(self._main())

    async def _main(self) -> int:
        from rich.console import Console

        from recall.evaluation.qa.summary import table

        files = [self._file(name) for name in self.dataset]
        names = [file.parent.name if file.stem in ("dev", "test", "train") else file.stem for file in files]
        if len(set(names)) < len(names):
            raise ConfigError(f"--dataset: two are called {max(names, key=names.count)!r}")
        retriever = await self._retriever()
        try:
            found = {name: await self._measure(name, file, retriever) for name, file in zip(names, files, strict=True)}
        finally:
            if retriever is not None:
                await retriever.close()
        shown = retriever.card if retriever is not None else None
        by = "" if self.method.startswith("oracle") else f", {self.policy.model}"
        title = f"{self.method}{by}" + (f", {shown.id} top {self.top_k}" if shown else "")
        print(title)
        Console().print(table(found))
        if shown is not None:
            print(f"corpus: {shown.passages:,} passages, sha256 {shown.corpus_sha256 or 'unknown'}")
        print(json.dumps({"method": self.method, "model": self.policy.model, "datasets": found}))
        faults = sum(summary["faults"] for summary in found.values())
        if faults:
            print(f"{faults} questions failed through a fault of ours; the same command asks them again")
        return int(faults > 0)

    async def _measure(self, name: str, file: Path, retriever: "Retriever | None") -> dict[str, Any]:
        """Ask what was not answered yet; the summary of the whole."""
        from recall.datasets.qa import read_questions
        from recall.evaluation.qa.results import open_results
        from recall.evaluation.qa.summary import summarize

        questions = read_questions(file)[: self.questions]
        plan = Plan(
            method=self.method,
            policy=self.policy,
            retriever=retriever,
            service=self.retriever,
            tool=self.tool,
            top_k=self.top_k,
            limits=self.limits,
            temperature=self.temperature,
            top_p=self.top_p,
            sandbox=self.sandbox,
        )
        plan.check()
        with open_results(self.out / name, {**plan.facts(questions, file), "seed": self.seed}) as results:
            await self._ask(plan, questions, results, name)
            rows = [results.rows[question.id] for question in questions]
            marks = await self._judge(rows, results, name) if self.judge.url else None
            summary = summarize(rows, marks)
            results.write_json("summary.json", summary)
        return summary

    async def _ask(self, plan: Plan, questions: "list[Question]", results: "Results", name: str) -> None:
        from recall.evaluation.kept import Kept
        from recall.evaluation.qa.run import run
        from recall.evaluation.qa.setup import open_method

        todo = sum(question.id not in results.rows for question in questions)
        if not todo:
            return
        async with open_method(plan, questions) as method:
            with _Progress(name, len(questions), len(questions) - todo) as progress:
                kept = Kept(results.path)
                try:
                    await run(
                        method,
                        questions,
                        results,
                        seed=self.seed,
                        at_once=self.at_once,
                        told=progress.advance,
                        kept=kept if self.save_trajectories else None,
                    )
                finally:
                    kept.close()

    async def _judge(self, rows: "list[Row]", results: "Results", name: str) -> dict[str, bool]:
        from recall.evaluation.qa.judge import judge

        cache = self.judge.cache or results.path / "judgements.jsonl"
        with _Progress(f"{name}, judged", len(rows), 0) as progress:
            marks = await judge(rows, self.judge.endpoint(), cache, told=progress.advance)
        results.write_json("judgements.json", marks)
        return marks

    def _file(self, name: str) -> Path:
        """The file of a dataset.

        Raises:
            ConfigError: there is none.
        """
        from recall.datasets.download import BENCHMARKS

        if Path(name).is_file():
            return Path(name)
        if name in BENCHMARKS:
            found = [self.data / name / f"{split}.jsonl" for split in ("dev", "test")]
            for file in found:
                if file.is_file():
                    return file
            raise ConfigError(
                f"--dataset {name}: {found[0]} is not there; get it with: recall data download {name} --to {self.data}"
            )
        raise ConfigError(f"--dataset: {name!r} is no file; accepted: a file, or one of {', '.join(BENCHMARKS)}")

    async def _retriever(self) -> "Retriever | None":
        if not self.retriever:
            return None
        from recall.retriever.open import open_retriever

        return await asyncio.to_thread(open_retriever, self.retriever, self.open)


class Compare(Settings):
    """Put runs of `recall eval qa` over the same questions side by side, and test whether they differ.

    Each run is held against the first, question by question: McNemar's exact test for EM, cover-EM and the judge, a
    paired bootstrap for F1. The last line printed is the result as JSON.
    """

    runs: Positional[tuple[Path, ...]]
    """Folders of results of one dataset each, such as runs/a/hotpotqa runs/b/hotpotqa."""
    seed: int = 0
    """Of the bootstrap."""

    def main(self) -> int:
        """Compare and print."""
        import dataclasses

        from rich.console import Console

        from recall.evaluation.qa.compare import changed_settings, differences, read_measured, table
        from recall.evaluation.qa.summary import summarize
        from recall.evaluation.qa.summary import table as overview

        if len(self.runs) < 2:
            raise ConfigError("recall eval compare: RUNS: takes at least two folders of results")
        measured = [read_measured(path, str(path)) for path in self.runs]
        first, *others = measured
        found = [(run, differences(first, run, seed=self.seed)) for run in others]
        console = Console()
        summaries = {m.name: summarize(list(m.rows.values()), m.judgements or None) for m in measured}
        print("each run over its own questions:")
        console.print(overview(summaries))
        console.print(table(first, found))
        for name, values in changed_settings(measured).items():
            print(f"differs: {name}: {' | '.join(values)}")
        pairs = {run.name: [dataclasses.asdict(one) for one in of_run] for run, of_run in found}
        print(json.dumps({"first": first.name, "against": pairs}))
        return 0


class _Progress:
    """A bar on the error output, with the EM so far; nothing where that is no terminal."""

    def __init__(self, name: str, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[em]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, em="")
        self._em: list[float] = []

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, row: "Row") -> None:
        """One more is done."""
        if row.fault is None:
            self._em.append(row.scores.em)
        em = f"EM {sum(self._em) / len(self._em):.1%}" if self._em else ""
        self._bar.update(self._task, advance=1, em=em)
