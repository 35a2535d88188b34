"""Has a model write a world part by part, and checks each part before the next is asked for.

A part that does not hold goes back with what is wrong with it, a few times at most. Everything that was said of every
part is kept for the file of verdicts.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from recall.config import Settings
from recall.programs import OPERATIONS
from recall.synth.llm.bench import Bench
from recall.synth.llm.blueprint import Blueprint, read_blueprint
from recall.synth.llm.certify import Certified, Certifier
from recall.synth.llm.certify_world import CertificateSettings, certify_tests, certify_tools, certify_world
from recall.synth.llm.client import Ask, ChatClient, ChatMessage
from recall.synth.llm.errors import RefusedError, RejectedError
from recall.synth.llm.lint import MODULES
from recall.synth.llm.prompts import prompt
from recall.synth.llm.questions import check_phrasings, form_in_words, stated_literals, steps_in_words
from recall.synth.llm.replies import code_in, json_in
from recall.synth.llm.source import World
from recall.synth.llm.state import StateSchema
from recall.synth.llm.stubs import stubs
from recall.synth.llm.together import together
from recall.synth.llm.topics import Topic

T = TypeVar("T")

_EXAMPLE_ROWS = 3
_ATTEMPT = 1 << 24
_WHOLE = "Write the whole part again, in the format asked for at first."
_BLUEPRINTS = (
    "Answer in the format asked for at first, with a list of new tasks in place of those that do not hold, and of "
    "tasks for the tools that none uses. Leave out those that hold."
)


class AuthorSettings(Settings):
    """How a model is asked for worlds."""

    temperature: float = Field(default=0.8, ge=0, le=2)
    """Of the author."""
    max_tokens: int = Field(default=8192, ge=64)
    """The longest reply of the author."""
    repairs: int = Field(default=2, ge=0, le=10)
    """How often a part that does not hold goes back to the author."""
    tasks: int = Field(default=6, ge=1, le=24)
    """Tasks asked for in each world."""
    least_calls: int = Field(default=2, ge=1, le=24)
    """Calls of a task at least, as the author is told."""
    most_calls: int = Field(default=6, ge=1, le=24)
    """Calls of a task at most, as the author is told."""
    phrasings: int = Field(default=3, ge=1, le=10)
    """Ways to ask for each task."""


@dataclass
class Log:
    """What was said of each part that a model wrote."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    """In order."""

    def accept(self, step: str, reply: str, **facts: Any) -> None:
        """A part that holds; `reply` is the key of the reply that it stands in."""
        self.entries.append({"step": step, "accepted": True, "reply": reply, **facts})

    def reject(self, step: str, reply: str, problem: RejectedError, **facts: Any) -> None:
        """A part that does not."""
        said = {"gate": problem.gate, "reason": problem.reason, "detail": problem.detail}
        self.entries.append({"step": step, "accepted": False, "reply": reply, **said, **facts})


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a world plays."""

    title: str
    """In a few words."""
    text: str
    """In a few sentences."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A task that holds, and the ways to ask for it."""

    certified: Certified
    """The task."""
    phrasings: tuple[str, ...]
    """With placeholders for its anchors."""


class Author:
    """Asks one model for worlds, with the help of a bench that tries what it writes."""

    def __init__(
        self, client: ChatClient, bench: Bench, settings: AuthorSettings, certificates: CertificateSettings
    ) -> None:
        """Take the model, the bench, how it is asked, and how much is asked of what it writes."""
        self._client, self._bench = client, bench
        self._settings, self._certificates = settings, certificates

    async def setting(self, topic: Topic, number: int, log: Log) -> Setting:
        """A setting for a topic.

        Raises:
            RejectedError: none was written.
        """

        async def check(text: str) -> Setting:
            match json_in(text, dict):
                case {"title": str(title), "setting": str(said)} if title.strip() and said.strip():
                    return Setting(title.strip(), said.strip())
            raise RejectedError("reply", "not JSON", 'an object with the texts "title" and "setting" is wanted')

        text = prompt("setting", domain=topic.domain, angle=topic.angle, twist=topic.twist)
        return await self._part("setting", text, check, log, number)

    async def world(self, setting: Setting, number: int, seeds: Sequence[int], log: Log) -> World:
        """A world for a setting: its tables, the code that makes it, its tools, and tests of these that pass.

        Raises:
            RejectedError: a part did not hold, and was not mended.
        """
        words = f"{setting.title}. {setting.text}"
        modules = ", ".join(sorted(MODULES))

        async def check_schema(text: str) -> StateSchema:
            try:
                return StateSchema.model_validate(json_in(text, dict))
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in fault["loc"])
                raise RejectedError("schema", "not a schema", f"{where}: {fault['msg']}") from None

        schema = await self._part("schema", prompt("schema", setting=words), check_schema, log, number)
        tables = schema_in_words(schema)

        async def check_world(text: str) -> World:
            world = World(schema, code_in(text))
            await certify_world(self._bench, world, seeds)
            return world

        text = prompt("world", setting=words, schema=tables, modules=modules)
        bare = await self._part("world", text, check_world, log, number)

        async def check_tools(text: str) -> World:
            return await certify_tools(self._bench, bare, code_in(text), self._certificates, seeds[0])

        least, most = str(self._certificates.least_tools), str(self._certificates.most_tools)
        text = prompt(
            "tools", setting=words, schema=tables, world=bare.world_code, least=least, most=most, modules=modules
        )
        world = await self._part("tools", text, check_tools, log, number)

        async def check_tests(text: str) -> int:
            return await certify_tests(self._bench, world, code_in(text), self._certificates, seeds[:2])

        wanted = str(self._certificates.least_tests)
        text = prompt(
            "tests", schema=tables, world=bare.world_code, tools=world.tool_code, least=wanted, modules=modules
        )
        await self._part("tests", text, check_tests, log, number)
        return world

    async def tasks(
        self, setting: Setting, world: World, certifier: Certifier, number: int, log: Log
    ) -> list[Certified]:
        """Tasks that hold; each tool that none of them uses was asked for again.

        Raises:
            RejectedError: none holds, or too many tools are used by none.
        """
        held: list[Certified] = []
        messages = self._opening(await self._tasks_prompt(setting, world, certifier))
        problem = RejectedError("tasks", "none holds")
        for attempt in range(self._settings.repairs + 1):
            reply, text = await self._ask("tasks", messages, number, attempt)
            try:
                problems = await self._certified(text, certifier, held, reply, log)
            except RejectedError as fault:
                log.reject("tasks", reply, fault)
                problem, problems = fault, [str(fault)]
            unused = unused_tools(world, [each.blueprint for each in held])
            problems += [f"no task that holds uses the tool {name!r}" for name in unused]
            if not problems:
                break
            messages = _answered(messages, text, "\n".join(f"- {each}" for each in problems), _BLUEPRINTS)
        if not held:
            raise problem
        unused = unused_tools(world, [each.blueprint for each in held])
        for name in unused:
            log.reject("tools", "", RejectedError("tools", "used by no task", name))
        if len(unused) > self._certificates.most_unused * len(world.tools):
            raise RejectedError("tools", "too many used by no task", ", ".join(unused))
        return held

    async def phrasings(self, setting: Setting, world: World, certified: Certified, number: int, log: Log) -> Asked:
        """Ways to ask for a task, written from its program without the answer.

        Raises:
            RejectedError: none holds.
        """
        blueprint = certified.blueprint
        shown = certified.instances[0]

        async def check(text: str) -> Asked:
            said = [str(phrasing) for phrasing in json_in(text, list)]
            return Asked(certified, check_phrasings(said, certified, world.tools))

        text = prompt(
            "question",
            setting=setting.text,
            intent=blueprint.intent,
            program=steps_in_words(blueprint, world.tools),
            anchors="\n".join(f"{{{name}}}, such as {value}" for name, value in shown.anchors.items()),
            count=str(self._settings.phrasings),
            form=form_in_words(blueprint.answer_type),
            literals=", ".join(map(str, stated_literals(blueprint, world.tools))) or "there are none",
        )
        return await self._part("question", text, check, log, number)

    async def _certified(
        self, text: str, certifier: Certifier, held: list[Certified], reply: str, log: Log
    ) -> list[str]:
        """Put the tasks of a reply that hold into `held`; what is wrong with the others."""
        written = json_in(text, list)

        async def one(place: int, value: Any) -> Certified | RejectedError:
            try:
                return await certifier.certify(read_blueprint(value, certifier.world), len(held) + place)
            except RejectedError as problem:
                return problem

        most = 2 * self._settings.tasks  # what is beyond was not asked for
        problems = []
        for place, outcome in enumerate(await together(one(*each) for each in enumerate(written[:most]))):
            if isinstance(outcome, RejectedError):
                log.reject("task", reply, outcome, place=place)
                problems.append(f"task {place + 1} of the list: {outcome}")
            elif any(each.blueprint.program == outcome.blueprint.program for each in held):
                log.reject("task", reply, RejectedError("tasks", "the same program twice"), place=place)
            else:
                log.accept("task", reply, place=place)
                held.append(outcome)
        return problems

    async def _tasks_prompt(self, setting: Setting, world: World, certifier: Certifier) -> str:
        seed = certifier.seeds[0]
        tables = await certifier.tables(seed)
        example = {name: dict(list(rows.items())[:_EXAMPLE_ROWS]) for name, rows in tables.items()}
        return prompt(
            "tasks",
            setting=f"{setting.title}. {setting.text}",
            schema=schema_in_words(world.schema),
            tools=stubs(world.tool_code),
            example=json.dumps(example, ensure_ascii=False),
            count=str(self._settings.tasks),
            operations=", ".join(OPERATIONS),
            least_calls=str(self._settings.least_calls),
            most_calls=str(self._settings.most_calls),
        )

    async def _part(self, step: str, text: str, check: Callable[[str], Awaitable[T]], log: Log, number: int) -> T:
        """Ask for a part until it holds.

        Raises:
            RejectedError: it does not, after all repairs.
        """
        messages = self._opening(text)
        problem = RejectedError(step, "not asked for")
        for attempt in range(self._settings.repairs + 1):
            reply, said = await self._ask(step, messages, number, attempt)
            try:
                part = await check(said)
            except RejectedError as fault:
                problem = fault
                log.reject(step, reply, fault)
                messages = _answered(messages, said, str(fault), _WHOLE)
                continue
            log.accept(step, reply)
            return part
        raise problem

    async def _ask(self, step: str, messages: Sequence[ChatMessage], number: int, attempt: int) -> tuple[str, str]:
        """The key and the text of a reply.

        Raises:
            RejectedError: the endpoint refuses the request.
        """
        settings = self._settings
        # Without the attempt, a model that repeats its mistake would be remembered and never asked again.
        seed = number + attempt * _ATTEMPT
        ask = Ask(tuple(messages), settings.temperature, settings.max_tokens, seed, step)
        try:
            reply = await self._client.ask(ask)
        except RefusedError as refusal:
            raise RejectedError("endpoint", "refused", str(refusal)) from None
        return reply.key, reply.text

    def _opening(self, text: str) -> list[ChatMessage]:
        return [{"role": "system", "content": prompt("system")}, {"role": "user", "content": text}]


def unused_tools(world: World, blueprints: Sequence[Blueprint]) -> list[str]:
    """The tools that no blueprint calls."""
    used = {item["name"] for blueprint in blueprints for item in blueprint.calls}
    return [tool.name for tool in world.tools if tool.name not in used]


def schema_in_words(schema: StateSchema) -> str:
    """The tables as a prompt shows them."""
    lines = []
    for table in schema.tables:
        lines.append(f"{table.name}: {table.description}")
        lines += [f"  {each.name}: {each.type}. {each.description}".rstrip(". ") for each in table.fields]
    return "\n".join(lines)


def _answered(messages: Sequence[ChatMessage], said: str, problem: str, advice: str) -> list[ChatMessage]:
    """The conversation after a reply that does not hold: the first request, the reply, and what is wrong with it.

    Earlier attempts are left out, so that a conversation stays short.
    """
    repair = prompt("repair", problem=problem, advice=advice)
    return [*messages[:2], {"role": "assistant", "content": said}, {"role": "user", "content": repair}]
