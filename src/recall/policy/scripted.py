"""A policy that writes what it is told to: the fake behind every test, and the agent that knows the way.

It samples nothing, so its log-probabilities are 0.0 throughout.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from recall.programs import ATTEMPTS, ProgramError, references, resolve
from recall.tool_calls import format_calls, format_results
from recall.types import Completion, Sampling, Task, ToolCall

Script = Callable[[str], Generator[str, str, None]]
"""Called with the text of the prompt; yields turns, and is sent the text that came after each."""


class TurnWriter(Protocol):
    """What a script needs of a renderer."""

    def turn(self, text: str) -> Sequence[int]:
        """[n] ids of a turn that says `text`, stop token included."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any ids."""


class ScriptedPolicy:
    """Plays the same script in every episode."""

    def __init__(self, turns: Sequence[str] | Script, renderer: TurnWriter) -> None:
        """Take the script.

        Args:
            turns: the text of each turn, or a `Script` that can react to what it reads.
            renderer: encodes the turns.
        """
        self._script = _fixed(turns) if isinstance(turns, Sequence) else turns
        self._renderer = renderer
        self._episodes: dict[str, tuple[Generator[str, str, None], int]] = {}
        self.open_episodes: set[str] = set()
        """The episodes that began and did not end."""

    def begin(self, episode_id: str) -> None:
        """Announce an episode."""
        if episode_id in self.open_episodes:
            raise ValueError(f"episode {episode_id!r} began twice")
        self.open_episodes.add(episode_id)

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        """Write the next turn, cut to `sampling.max_tokens`.

        Raises:
            ValueError: the script is over.
        """
        known = self._episodes.get(episode_id)
        try:
            if known is None:
                lines = self._script(self._renderer.decode(prompt_ids))
                text = next(lines)
            else:
                lines, read = known
                text = lines.send(self._renderer.decode(prompt_ids[read:]))
        except StopIteration:
            raise ValueError(f"episode {episode_id!r}: the script is over, and another turn was asked for") from None
        ids = tuple(self._renderer.turn(text))
        written = ids[: sampling.max_tokens]
        self._episodes[episode_id] = (lines, len(prompt_ids) + len(written))
        return Completion(written, (0.0,) * len(written), "stop" if len(written) == len(ids) else "length")

    def end(self, episode_id: str) -> None:
        """Forget the episode."""
        self.open_episodes.remove(episode_id)
        known = self._episodes.pop(episode_id, None)
        if known is not None:
            known[0].close()


def reference_script(task: Task, *, parallel: bool = False) -> Script:
    """The script that plays the task's reference program and answers with the value of its last item.

    It knows what the policy sees and no more: the text of each result, read as JSON where it is JSON. An argument that
    the tool's schema wants as text is passed on in the words of the result. A call with `retry` is made again while its
    result is an error. The answer is written bare: an object with a single key as what it holds, a list as JSON. When a
    result is not what the program expects, the script says so and ends without an answer.

    Args:
        task: has a reference program.
        parallel: put calls that do not depend on each other into one turn, instead of one call a turn.

    Raises:
        ValueError: the task has no reference program.
    """
    if not task.reference:
        raise ValueError(f"task {task.id!r} has no reference program")
    turns = turns_of(task) if parallel else [[number] for number, item in enumerate(task.reference) if "name" in item]

    def script(prompt: str) -> Generator[str, str, None]:
        seen = _Seen(task)
        try:
            for numbers in turns:
                waiting = numbers
                for _ in range(ATTEMPTS):
                    reply = yield format_calls(map(seen.call, waiting))
                    texts = _results_in(reply, len(waiting))
                    for number, text in zip(waiting, texts, strict=True):
                        seen.take(number, text)
                    pairs = zip(waiting, texts, strict=True)
                    waiting = [n for n, text in pairs if task.reference[n].get("retry") and text.startswith("error:")]
                    if not waiting:
                        break
            answer = seen.answer()
        except ProgramError as fault:
            yield f"I cannot go on: {fault}."
            return
        yield f"\\boxed{{{answer}}}"

    return script


def turns_of(task: Task) -> list[list[int]]:
    """The numbers of the calls of the reference program, by the turn that makes them when as much as can be is at once.

    A call stands in the turn after the last one whose result it reads. Where the task is about state, it also stands in
    no earlier turn than any call before it, so that nothing is read before it was changed; calls of one turn run in the
    order written.
    """
    turns: list[list[int]] = []
    after: list[int] = []
    """By item, the turn from which on its value is known."""
    for number, item in enumerate(task.reference):
        first = max((after[read] for read in references(item.get("arguments", item.get("value")))), default=0)
        if "name" not in item:
            after.append(first)
            continue
        if task.changes is not None:
            first = max(first, len(turns) - 1)
        turns += [[] for _ in range(first + 1 - len(turns))]
        turns[first].append(number)
        after.append(first + 1)
    return turns


def reference_turns(task: Task, results: Sequence[Any]) -> list[str]:
    """The turns of `reference_script` for results that are known beforehand.

    Args:
        task: has a reference program.
        results: the JSON value of each of its calls, in order.
    """
    script = reference_script(task)("")
    turns = [next(script)]
    for result in results:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        turns.append(script.send(format_results([text])))
    return turns


def _fixed(turns: Sequence[str]) -> Script:
    def script(prompt: str) -> Generator[str, str, None]:
        for turn in turns:
            _ = yield turn

    return script


class _Seen:
    """What the policy knows of the items of a reference program."""

    def __init__(self, task: Task) -> None:
        self._items = task.reference
        self._parameters = {tool.name: tool.parameters.get("properties", {}) for tool in task.tools}
        self._values: list[Any] = [None] * len(self._items)
        """The results, read as JSON."""
        self._texts = [""] * len(self._items)
        """The results as they were said."""
        self._worked_out: set[int] = set()

    def take(self, number: int, text: str) -> None:
        """Read the result of a call."""
        self._texts[number] = text
        try:
            self._values[number] = json.loads(text)
        except (ValueError, RecursionError):
            self._values[number] = text

    def call(self, number: int) -> ToolCall:
        """A call with its arguments worked out."""
        item = self._items[number]
        properties = self._parameters.get(item["name"], {})
        return ToolCall(
            item["name"],
            {
                name: _fitting(self._value(expression), properties.get(name, {}), self._said(expression))
                for name, expression in item["arguments"].items()
            },
        )

    def answer(self) -> str:
        """The value of the last item, in writing."""
        last = {"$ref": len(self._items) - 1}
        value = self._value(last)
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value.values()
        return _in_words(value, self._said(last))

    def _value(self, expression: Any) -> Any:
        """The value of an expression, after that of every item it reads which is worked out in the head."""
        for number in references(expression):
            item = self._items[number]
            if "name" not in item and number not in self._worked_out:
                self._worked_out.add(number)
                self._values[number] = self._value(item["value"])
                self._texts[number] = _in_words(self._values[number], self._said(item["value"]))
        return resolve(expression, self._values)

    def _said(self, expression: Any) -> list[tuple[Any, str]]:
        return [(self._values[number], self._texts[number]) for number in references(expression)]


def _fitting(value: Any, schema: Any, said: Sequence[tuple[Any, str]]) -> Any:
    """A value as the schema of its parameter wants it: what was read as a number may be a text, and the other way."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "string":
        return _in_words(value, said)
    if kind in ("number", "integer") and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if kind == "array" and isinstance(value, list):
        return [_fitting(item, schema.get("items"), said) for item in value]
    return value


def _in_words(value: Any, said: Sequence[tuple[Any, str]]) -> str:
    """A value in the words in which it was said, or in our own."""
    if isinstance(value, str):
        return value
    for known, text in said:
        if type(known) is type(value) and known == value:
            return text
    return json.dumps(value, ensure_ascii=False)


def _results_in(reply: str, count: int) -> list[str]:
    """The results in the text that came after a turn of `count` calls.

    Raises:
        ProgramError: a result looks like the border between two of them.
    """
    before, between, after = format_results(["\0", "\0"]).split("\0")
    text = reply[reply.index(before) + len(before) : reply.rindex(after)]
    found = text.split(between) if count > 1 else [text]
    if len(found) != count:
        raise ProgramError(f"{count} results were asked for, and {len(found)} are there")
    return found
