"""`recall synth llm` and `recall synth paraphrase`: what needs a language model behind an endpoint."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from recall.config import Positional
from recall.errors import ConfigError
from recall.synth.llm.client import EndpointSettings
from recall.synth.llm.make import SIDECAR, CostSettings, make_set
from recall.synth.llm.recipe import LLMRecipe


class LLM(EndpointSettings, CostSettings, LLMRecipe):
    """Have a language model write worlds, tools and tasks, and keep what holds, as a set of task rows.

    Any OpenAI-compatible endpoint will do. What is written runs in the sandbox only. The directory can be
    interrupted at any moment and made again with the same settings: no request is sent twice. The exit status
    is 1 where there are fewer rows than asked for.
    """

    takes_recipe: ClassVar[bool] = True

    out: Path
    """The directory of the set."""
    rows: int = Field(default=100, ge=1)
    """Rows in all splits together."""
    seed: int = 0
    """Decides what is asked for."""
    second_model: str | None = None
    """The model that writes programs of its own; none takes the same one."""
    second_base_url: str | None = None
    """Where the second model is; none takes the same place."""
    second_api_key_env: str | None = None
    """The environment variable of its key; none takes the same one."""

    def main(self) -> int:
        """Make the set, and say what came of it."""
        from recall.cli.synth import summary

        recipe = LLMRecipe.model_validate({name: getattr(self, name) for name in LLMRecipe.model_fields})
        with _watching(self.rows) as on_world:
            outcome = asyncio.run(
                make_set(
                    self.out,
                    self._endpoint(),
                    self._endpoint(self.second_model, self.second_base_url, self.second_api_key_env),
                    recipe,
                    CostSettings.model_validate({name: getattr(self, name) for name in CostSettings.model_fields}),
                    rows=self.rows,
                    seed=self.seed,
                    on_world=on_world,
                )
            )
        print("\n".join(summary(self.out, outcome.manifest)))
        print(
            f"  {outcome.worlds} worlds, {outcome.tokens} tokens in all; {outcome.requests} requests sent in this run"
        )
        print(f"  what was said of each: {self.out / SIDECAR}")
        if outcome.ended:
            print(f"recall: ended early: {outcome.ended}", file=sys.stderr)
        return 1 if outcome.ended else 0

    def _endpoint(
        self, model: str | None = None, base_url: str | None = None, api_key_env: str | None = None
    ) -> EndpointSettings:
        given = {"model": model, "base_url": base_url, "api_key_env": api_key_env}
        return _endpoint_of(self, {name: value for name, value in given.items() if value is not None})


class Paraphrase(EndpointSettings):
    """Say the questions of tasks in other words, and keep only what still says the same.

    Every value that the question states must survive, and none may be added. A task of which no paraphrase holds
    is written as it was.
    """

    source: Positional[Path]
    """A set, DIR/SPLIT of one, or a file of tasks."""
    out: Positional[Path]
    """The .parquet or .jsonl file to write; one that exists is not replaced."""
    attempts_each: int = Field(default=3, ge=1, le=20)
    """Paraphrases of a task that are tried."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Of the sampling."""
    agree: bool = False
    """Whether a program that the model writes from each paraphrase must come to the task's answer."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens that all runs on this file may use, prompts included; none sets no limit."""
    max_requests: int | None = Field(default=None, ge=1)
    """Requests that this run may send, failed ones included; none sets no limit."""

    def main(self) -> int:
        """Write the file, and say how many were kept."""
        from recall.datasets.rows import iter_tasks, write_tasks
        from recall.synth.llm.paraphrase import ParaphraseSettings, paraphrased_with

        if self.out.exists():
            raise ConfigError(f"{self.out}: exists; choose another name")
        settings = ParaphraseSettings(
            attempts=self.attempts_each, temperature=self.temperature, at_once=self.concurrency
        )
        with paraphrased_with(
            _endpoint_of(self, {}),
            settings,
            self.out.with_name(f"{self.out.name}.replies.jsonl"),
            agree=self.agree,
            max_tokens=self.max_tokens,
            max_requests=self.max_requests,
        ) as run:
            write_tasks(self.out, run.tasks(iter_tasks(self.source)))
        kept = f"{run.changed} in other words, {run.kept} as they were"
        print(f"{self.out}: {run.changed + run.kept} tasks, {kept}")
        for (gate, reason), count in run.rejected.most_common():
            print(f"  {gate}: {reason} {count}")
        return 0


def _endpoint_of(settings: EndpointSettings, given: dict[str, str]) -> EndpointSettings:
    """The endpoint that a command names, with some of it replaced."""
    names = EndpointSettings.model_fields
    return EndpointSettings.model_validate({name: getattr(settings, name) for name in names} | given)


@contextmanager
def _watching(rows: int) -> Iterator[Callable[[int, int], None]]:
    """Show the rows and worlds on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[worlds]} worlds"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("rows", total=rows, worlds=0)
        yield lambda worlds, made: bars.update(bar, completed=min(made, rows), worlds=worlds)
