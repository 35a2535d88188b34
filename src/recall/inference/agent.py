"""The agent: a model with tools that is asked, one question or many at a time.

Every question is an episode of the same `rollout()` that trains and measures. What is here is what surrounds it: where
the model and the tools come from, how many episodes run at once, what is told while they do, and who closes what.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from recall.environment import Environment, FunctionEnvironment, Limits, SourceEnvironment, ToolEnvironment
from recall.errors import ConfigError
from recall.inference.background import Background
from recall.inference.events import CallDone, EpisodeDone, Event, Observe, ObservedEnvironment, ObservedPolicy
from recall.inference.models import Model, ModelSettings, open_model
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rollout import rollout
from recall.sandbox.base import DEFAULT_OPTIONS, Sandbox, SessionOptions
from recall.tools.base import ToolSource
from recall.tools.collect import ToolLike, sources_of
from recall.types import CallRecord, Message, Sampling, Task, Trajectory

Question = str | Sequence[Message] | Task
"""A text, the messages of a conversation, or a task, which brings tools of its own."""


class ReCall:
    """A model with tools.

    As published, with the address of a model's server and that of a server of `recall sandbox serve`:

    >>> ReCall(model_url, executor_url).run(env, func_schemas, question)

    In full:

    >>> async with ReCall(policy="nano", tools=[weather, MCPTools(command="server")]) as agent:
    ...     trajectory = await agent.ask("Will it rain?")

    Without `async with`, call `close` in the end. `ask_sync`, `batch_sync` and `run` are for code without an event
    loop; an agent is used from one side or from the other.
    """

    def __init__(
        self,
        model_url: str = "",
        executor_url: str | Sequence[str] = "",
        *,
        policy: Policy | Model | ModelSettings | str | None = None,
        renderer: Renderer | None = None,
        tools: Iterable[ToolLike] = (),
        system: str = "",
        sandbox: Sandbox | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        at_once: int = 64,
        **model: Any,
    ) -> None:
        """Take what the agent is made of; nothing is loaded or connected to yet.

        Args:
            model_url: the address of the model's server, in the place of `policy`.
            executor_url: servers of `recall sandbox serve` for source that questions bring; without one it runs in the
                sandbox of this machine.
            policy: `nano`, a directory of a model, the address of a server, settings, or a `Policy` and its `renderer`.
            renderer: of a `Policy`.
            tools: functions, classes, objects, MCP servers and other sources; see `recall.tools`.
            system: a system message for every question that does not bring one.
            sandbox: in the place of `executor_url`; it stays the caller's to close.
            limits: of an episode; None takes those that fit the model.
            sampling: None samples greedily.
            at_once: episodes of `batch` that run at the same time.
            model: further settings of the model, as `ModelSettings` knows them: `model`, `tokenizer`, `dialect`, …

        Raises:
            ConfigError: these do not go together, or something in `tools` is no tool.
        """
        self._settings, self._given = _model_of(model_url, policy, renderer, model)
        self._executor_urls = [executor_url] if isinstance(executor_url, str) else list(executor_url)
        self.sources: tuple[ToolSource, ...] = sources_of(tools)
        """Where its tools come from."""
        self._system, self._sandbox, self._at_once = system, sandbox, at_once
        self.limits, self._sampling = limits, sampling
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._model: Model | None = None
        self._background: Background | None = None

    async def __aenter__(self) -> "ReCall":
        await self.model()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def model(self) -> Model:
        """The model, loaded or connected to at the first call.

        Raises:
            ConfigError: it cannot be had.
            PolicyError: its server does not answer.
        """
        async with self._opening:
            model = self._model or self._given
            if model is None:
                model = await self._stack.enter_async_context(open_model(self._settings))
            self._model = model
            return model

    async def ask(
        self,
        question: Question,
        *,
        tools: Iterable[ToolLike] | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        observe: Observe | None = None,
    ) -> Trajectory:
        """Play one episode and return it: `answer`, `turns`, `calls` with their times, `segments` with their tokens.

        Cancelling it closes the sessions of its tools.

        Args:
            question: what is asked.
            tools: in the place of the agent's; sources among them stay the caller's to close.
            limits: in the place of the agent's.
            sampling: in the place of the agent's.
            observe: told of each event as it happens.

        Raises:
            ConfigError: the model cannot be had, a tool cannot be told to it, or the prompt is too long for the limits.
        """
        sources = self.sources if tools is None else sources_of(tools)
        model = await self.model()
        limits = limits or self.limits or model.limits
        env = self._environment(question, sources, limits, observe)
        policy = model.policy
        if observe is not None:
            env, policy = ObservedEnvironment(env, observe), ObservedPolicy(policy, model.renderer, observe)
        trajectory = await rollout(
            env,
            policy,
            model.renderer,
            task_id=question.id if isinstance(question, Task) else "question",
            episode_id=uuid.uuid4().hex,
            sampling=sampling or self._sampling or Sampling(temperature=0.0, max_tokens=limits.max_turn_tokens),
            limits=limits,
        )
        if observe is not None:
            observe(EpisodeDone(trajectory))
        return trajectory

    async def stream(self, question: Question, **settings: Any) -> AsyncGenerator[Event, None]:
        """The events of one episode, `EpisodeDone` last; see `ask`. Leaving the loop early ends the episode.

        Raises:
            ConfigError: as `ask` does.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        playing = asyncio.create_task(self.ask(question, observe=queue.put_nowait, **settings))
        playing.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await playing
        finally:
            playing.cancel()
            await asyncio.wait([playing])

    async def batch(self, questions: Sequence[Question], **settings: Any) -> list[Trajectory]:
        """One trajectory for each question, in order, `at_once` of them at a time; see `ask`.

        Raises:
            ConfigError: as `ask` does; the other episodes are cancelled.
        """
        room = asyncio.Semaphore(self._at_once)
        await self.model()

        async def one(question: Question) -> Trajectory:
            async with room:
                return await self.ask(question, **settings)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(question)) for question in questions]
        except* ConfigError as refused:
            raise refused.exceptions[0] from None
        return [task.result() for task in tasks]

    async def close(self) -> None:
        """Close the model, the tools and the sandbox that were opened here. Safe to call twice."""
        self._model = None
        await self._stack.aclose()
        await asyncio.gather(*(source.close() for source in self.sources))

    def ask_sync(self, question: Question, **settings: Any) -> Trajectory:
        """`ask`, for code without an event loop."""
        return self._behind().run(self.ask(question, **settings))

    def batch_sync(self, questions: Sequence[Question], **settings: Any) -> list[Trajectory]:
        """`batch`, for code without an event loop."""
        return self._behind().run(self.batch(questions, **settings))

    def close_sync(self) -> None:
        """`close`, for code without an event loop. Safe to call twice."""
        background, self._background = self._background, None
        if background is not None:
            background.run(self.close())
            background.stop()

    def run(self, env: str, func_schemas: object, question: str) -> str:
        """The transcript of one question, as the published class returns it: everything read and written, as text.

        Args:
            env: Python source that defines the tools; it runs in the sandbox.
            func_schemas: their schemas, as JSON text or a list.
            question: what is asked.

        Raises:
            ConfigError: the schemas cannot be read, or as `ask` does.
            RolloutError: the model or the sandbox failed.
        """
        from recall.datasets.row import task_from_row
        from recall.errors import RolloutError

        info = {"id": "question", "env": env, "func_schemas": func_schemas}
        row = {"question": question, "reward_model": {"ground_truth": ["unknown"]}, "extra_info": info}
        trajectory = self.ask_sync(replace(task_from_row(row, "run"), ground_truth=()))
        if trajectory.fault is not None:
            raise RolloutError(trajectory.fault)
        return "".join(segment.text for segment in trajectory.segments)

    def _environment(
        self, question: Question, sources: Sequence[ToolSource], limits: Limits, observe: Observe | None
    ) -> Environment:
        told = None if observe is None else _calls_to(observe)
        if isinstance(question, Task):
            return ToolEnvironment(question, self.sandbox(), limits, observe=told)
        messages = [Message("user", question)] if isinstance(question, str) else list(question)
        if self._system and not any(message.role == "system" for message in messages):
            messages.insert(0, Message("system", self._system))
        return SourceEnvironment(messages, sources, limits, observe=told)

    def sandbox(self) -> Sandbox:
        """Where source that questions bring runs; opened at the first call, and closed with the agent."""
        if self._sandbox is None:
            self._sandbox = self._open_sandbox()
        return self._sandbox

    def _open_sandbox(self) -> Sandbox:
        sandbox: Sandbox
        if urls := [url for url in self._executor_urls if url]:
            from recall.sandbox.client import RemoteSandbox

            sandbox = RemoteSandbox(urls)
        else:
            from recall.sandbox.local import LocalSandbox

            sandbox = LocalSandbox()

        async def close() -> None:
            self._sandbox = None
            await sandbox.close()

        self._stack.push_async_callback(close)
        return sandbox

    def _behind(self) -> Background:
        if self._background is None:
            self._background = Background()
        return self._background


def _calls_to(observe: Observe) -> Callable[[int, CallRecord], None]:
    return lambda index, record: observe(CallDone(index, record))


def _model_of(
    model_url: str,
    policy: Policy | Model | ModelSettings | str | None,
    renderer: Renderer | None,
    more: Mapping[str, Any],
) -> tuple[ModelSettings, Model | None]:
    """The settings of a model that is still to be opened, and the model that is there already."""
    if bool(model_url) == (policy is not None):
        raise ConfigError("ReCall: give either model_url or policy")
    if policy is not None and not isinstance(policy, str | ModelSettings):
        if more:
            raise ConfigError(f"ReCall: {', '.join(more)}: the policy is there already; these are for one to be opened")
        if isinstance(policy, Model):
            return ModelSettings(), policy
        if renderer is None:
            raise ConfigError("ReCall: a policy comes with the renderer of its model; give renderer too")
        return ModelSettings(), Model(policy, renderer)
    if renderer is not None:
        raise ConfigError("ReCall: renderer: goes with a policy that is there already")
    if isinstance(policy, ModelSettings):
        return policy.model_copy(update=dict(more)), None
    from pydantic import ValidationError

    where = model_url or policy or ""
    is_url = where.startswith(("http://", "https://"))
    named = {"url": where, "model": ""} if is_url else {"model": where}
    try:
        return ModelSettings.model_validate({**named, **more}), None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(f"ReCall: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


async def ask(
    question: str | Task,
    policy: Policy,
    renderer: Renderer,
    *,
    functions: Sequence[Callable[..., Any]] = (),
    sandbox: Sandbox | None = None,
    options: SessionOptions = DEFAULT_OPTIONS,
    system: str = "",
    sampling: Sampling | None = None,
    limits: Limits | None = None,
) -> Trajectory:
    """Play one episode and return it; the answer is its `answer`. `ReCall` is the same with more around it.

    Args:
        question: a text, whose tools are `functions`, or a task, whose tools are its own and run in `sandbox`.
        policy: writes the turns.
        renderer: of the policy's model.
        functions: trusted Python functions that run in this process.
        sandbox: where the tools of a task run.
        options: of the session there.
        system: a system message before the template, for a text.
        sampling: None samples greedily.
        limits: None takes the defaults.

    Raises:
        ConfigError: a task came without a sandbox, or with functions or a system message; or the prompt is too long.
    """
    limits = limits or Limits()
    env: Environment
    if isinstance(question, str):
        task_id = "question"
        env = FunctionEnvironment(question, functions, limits, system=system)
    else:
        task_id = question.id
        if sandbox is None:
            raise ConfigError(f"task {task_id!r}: its tools need a sandbox to run in")
        if functions or system:
            raise ConfigError(
                f"task {task_id!r}: brings its own tools and messages; functions and system are for a text"
            )
        env = ToolEnvironment(question, sandbox, limits, options=options)
    return await rollout(
        env,
        policy,
        renderer,
        task_id=task_id,
        episode_id=uuid.uuid4().hex,
        sampling=sampling or Sampling(temperature=0.0, max_tokens=limits.max_turn_tokens),
        limits=limits,
    )
