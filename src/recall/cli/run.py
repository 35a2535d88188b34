"""`recall run`: ask one question of a model with tools, and show what happens."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from recall.config import Positional, Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.local import SandboxSettings
from recall.inference.models import ModelSettings

if TYPE_CHECKING:
    from rich.console import Console

    from recall.tools.collect import ToolLike
    from recall.types import Task, Trajectory


class Run(Settings):
    """Ask a question of a model with tools, and show what happens; without a question, play a task.

    In a terminal the episode is shown while it is played; elsewhere its transcript is printed.
    """

    question: Positional[str | None] = None
    """What to ask; with a task, in the place of its own question, with the task's tools."""
    model: str = ""
    """The model: nano, a directory, or its name at --url; the same as --policy.model."""
    url: str = ""
    """The address of the model's server, such as http://127.0.0.1:8000/v1; the same as --policy.url."""
    tools: tuple[str, ...] = ()
    """Tools for the question: tools.py, mcp.json, openapi.json, a search index, the address of an MCP server, or
    tasks.parquet#7, the tools of that row, or its question where none is given."""
    system: str = ""
    """A system message for the question."""
    source: Path | None = None
    """A file of task rows to play one of; without it and without a question, a task is generated."""
    task: int = Field(default=0, ge=0)
    """Its number in the file, or of the generator."""
    kind: str = "3"
    """With a generated task: its kind."""
    split: str = "held_out"
    """With a generated task: its split."""
    temperature: float = Field(default=0.0, ge=0)
    """Of sampling; 0 is greedy."""
    seed: int = 0
    """Of sampling."""
    as_json: bool = Field(default=False, alias="json")
    """Print the trajectory as JSON instead."""
    policy: ModelSettings = ModelSettings()
    limits: Limits | None = None
    """Of the episode; those that fit the model without it."""
    sandbox: SandboxSettings = SandboxSettings()

    def main(self) -> int:
        """Ask and show."""
        import dataclasses

        from rich.console import Console

        from recall.inference.transcript import transcript

        tools, task = self._asked()
        console = Console()
        live = console.is_terminal and not self.as_json
        trajectory = asyncio.run(self._ask(tools, task, console if live else None))
        if self.as_json:
            print(json.dumps(dataclasses.asdict(trajectory)))
        elif not live:
            print(transcript(trajectory, task), end="")
        elif task is not None and task.ground_truth:
            console.print(f"accepted: {' | '.join(task.ground_truth)}", style="dim", markup=False)
        return 0 if trajectory.fault is None else 1

    def _asked(self) -> "tuple[list[ToolLike], Task | None]":
        """The tools of a question, or the task that is played."""
        import dataclasses

        from recall.datasets.rows import read_tasks
        from recall.inference.toolfiles import read_tools
        from recall.synth.tasks import ToolTasks
        from recall.types import Task

        tools: list[ToolLike] = []
        task: Task | None = None
        for named in self.tools:
            found = read_tools(named)
            if isinstance(found, Task):
                task = found
            else:
                tools += found
        if (tools and task is not None) or (self.tools and self.source is not None):
            raise ConfigError("--tools: the tools of a row go with no others; its state is the row's own")
        if self.source is not None:
            tasks = read_tasks(self.source)
            if self.task >= len(tasks):
                raise ConfigError(f"--task {self.task}: {self.source} has tasks 0 to {len(tasks) - 1}")
            task = tasks[self.task]
        if self.question is None and task is None:
            if tools:
                raise ConfigError("recall run: QUESTION is missing; --tools are for one")
            task = ToolTasks(self.kind, split=self.split, seed=0)[self.task]
        if task is not None and self.system:
            raise ConfigError("--system: is for a question; a task brings its messages")
        if self.question is not None and task is not None:
            task = dataclasses.replace(task, question=self.question, ground_truth=())
        return tools, task

    async def _ask(self, tools: "list[ToolLike]", task: "Task | None", console: "Console | None") -> "Trajectory":
        from recall.inference.agent import ReCall
        from recall.inference.live import LiveEpisode
        from recall.types import Sampling

        given = {"model": self.model, "url": self.url}
        policy = self.policy.model_copy(update={name: value for name, value in given.items() if value})
        if policy.url and "model" not in policy.model_fields_set and not self.model:
            policy = policy.model_copy(update={"model": ""})  # nano is nobody's name for a model of a server
        sandbox = self.sandbox.open_with_search() if task is not None else None
        agent = ReCall(policy=policy, tools=tools, system=self.system, sandbox=sandbox, limits=self.limits)
        try:
            limits = self.limits or (await agent.model()).limits
            sampling = Sampling(temperature=self.temperature, max_tokens=limits.max_turn_tokens, seed=self.seed)
            question = task if task is not None else self.question or ""
            if console is None:
                return await agent.ask(question, sampling=sampling)
            with LiveEpisode(console) as view:
                return await agent.ask(question, sampling=sampling, observe=view.observe)
        finally:
            await agent.close()
            if sandbox is not None:
                await sandbox.close()
