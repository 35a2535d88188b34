"""A policy that writes what it is told to: the fake behind every test, and the agent that knows the way.

It samples nothing, so its log-probabilities are 0.0 throughout.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from recall.tool_calls import format_call, format_results
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


def reference_script(task: Task) -> Script:
    """The script that plays the task's reference program, one call a turn, and answers with the last result: the value
    itself where that is an object with a single key.

    A `{"$ref": i}` in an argument becomes the result of call i as the model saw it, read as JSON unless the tool's
    schema wants a string there; `{"$ref": i, "path": key}` becomes what that result holds under `key`.

    Raises:
        ValueError: the task has no reference program.
    """
    if not task.reference:
        raise ValueError(f"task {task.id!r} has no reference program")
    parameters = {tool.name: tool.parameters.get("properties", {}) for tool in task.tools}

    def script(prompt: str) -> Generator[str, str, None]:
        results: list[str] = []
        for call in task.reference:
            properties = parameters.get(call["name"], {})
            arguments = {
                name: _resolved(value, results, as_text=properties.get(name, {}).get("type") == "string")
                for name, value in call["arguments"].items()
            }
            reply = yield format_call(ToolCall(call["name"], arguments))
            results.append(_only_result(reply))
        yield f"\\boxed{{{_bare(results[-1])}}}"

    return script


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


def _resolved(value: Any, results: Sequence[str], *, as_text: bool) -> Any:
    if isinstance(value, Mapping):
        if "$ref" in value:
            return _referred(value, results[value["$ref"]], as_text=as_text)
        return {key: _resolved(item, results, as_text=as_text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, results, as_text=as_text) for item in value]
    return value


def _referred(reference: Mapping[str, Any], text: str, *, as_text: bool) -> Any:
    if "path" in reference:
        return json.loads(text)[reference["path"]]
    if as_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _bare(text: str) -> str:
    """The answer in a result."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, dict) or len(value) != 1:
        return text
    (inner,) = value.values()
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _only_result(reply: str) -> str:
    """The one result in the text that came after a turn."""
    before, after = format_results(["\0"]).split("\0")
    return reply[reply.index(before) + len(before) : reply.rindex(after)]
