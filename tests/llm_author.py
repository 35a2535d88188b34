"""A model in a script: it writes the marina, asks good questions, guesses badly, and solves its tasks with tools."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llm_marina import FEES, LICENCE, MOVE, QUESTIONS, RATE, fenced, parts
from llm_server import Fault

Said = str | Fault
_SETTINGS = (
    "harbour",
    "river",
    "lagoon",
    "lake",
    "island",
    "estuary",
    "canal",
    "fjord",
    "bay",
    "reef",
    "delta",
    "sound",
)
_SOLUTIONS = {
    RATE["intent"]: 'return get_berth(berth_id=get_boat(boat_id=find_boat(name="{0}"))["berth"])["rate"]',
    LICENCE["intent"]: 'return get_owner(owner_id=get_boat(boat_id=find_boat(name="{0}"))["owner"])["licence"]',
    FEES["intent"]: (
        'fees = [get_boat(boat_id=find_boat(name=name))["fee"] for name in ("{0}", "{1}")]\n'
        "    return abs(fees[0] - fees[1])"
    ),
    MOVE["intent"]: 'move_boat(boat_id=find_boat(name="{0}"), berth_id="{1}")',
}
GIVES_UP = 3
"""The episode that does not solve its task."""


def step_of(body: Mapping[str, Any]) -> str:
    """The step that a request is for; `solve` for a turn of an episode."""
    first = next(message["content"] for message in body["messages"] if message["role"] == "user")
    found = re.match(r"# Step: (\w+)", first)
    return found[1] if found else "solve"


class ScriptedAuthor:
    """Answers each step as a good model would, unless a step is given something else to say."""

    def __init__(self, **instead: Callable[[Mapping[str, Any]], Said] | Said) -> None:
        self.instead = instead
        self.parts = parts()

    def __call__(self, body: Mapping[str, Any]) -> Said:
        step = step_of(body)
        if step in self.instead:
            other = self.instead[step]
            return other(body) if callable(other) else other
        return self.good(step, body)

    def good(self, step: str, body: Mapping[str, Any]) -> str:
        """What a good model says."""
        text = body["messages"][1 if len(body["messages"]) > 1 else 0]["content"]
        match step:
            case "setting":
                word = _SETTINGS[body["seed"] % len(_SETTINGS)]
                said = " ".join(f"{word}{letter}" for letter in "abcdefgh")
                return json.dumps({"title": f"A {word}", "setting": f"At the {said} boats have berths and owners."})
            case "question":
                intent = next(intent for intent in QUESTIONS if intent in text)
                return json.dumps(QUESTIONS[intent])
            case "guess":
                return "I cannot know, so \\boxed{12345}"
            case "program":
                intent, names = _understood(body["messages"][-1]["content"])
                return fenced("python", f"def solve():\n    {_SOLUTIONS[intent].format(*names)}\n")
            case "solve":
                return _turn(body)
        return self.parts[step]


def _understood(text: str) -> tuple[str, list[str]]:
    """Which task a question is, and what it names."""
    for intent, (question,) in QUESTIONS.items():
        pattern = re.sub(r"\\\{\w+\\\}", r"([\\w-]+)", re.escape(question))
        found = re.search(pattern, text)
        if found:
            return intent, list(found.groups())
    raise AssertionError(f"no such question: {text}")


def _turn(body: Mapping[str, Any]) -> str:
    """The next turn of an episode."""
    messages = body["messages"]
    intent, names = _understood(messages[1]["content"])
    if body["seed"] // 1_000_003 == GIVES_UP:
        return "This is too hard. \\boxed{0}"
    results = [
        result
        for message in messages[2:]
        if message["role"] == "user"
        for result in re.findall(r"<tool_response>\n(.*?)\n</tool_response>", message["content"], re.DOTALL)
    ]
    turn = sum(message["role"] == "assistant" for message in messages)
    if turn == 0:
        return _calls(*[("find_boat", {"name": name}) for name in (names[:1] if intent != FEES["intent"] else names)])
    if intent == MOVE["intent"]:
        place = ("move_boat", {"boat_id": results[0], "berth_id": names[1]})
        return _calls(place) if turn == 1 else "It is done. \\boxed{done}"
    if turn == 1:
        return _calls(*[("get_boat", {"boat_id": code}) for code in results])
    boats = [json.loads(text) for text in results[len(names) : 2 * len(names)]]
    if intent == FEES["intent"]:
        return f"\\boxed{{{abs(boats[0]['fee'] - boats[1]['fee'])}}}"
    if turn == 2 and intent == RATE["intent"]:
        return _calls(("get_berth", {"berth_id": boats[0]["berth"]}))
    if turn == 2:
        return _calls(("get_owner", {"owner_id": boats[0]["owner"]}))
    found = json.loads(results[-1])
    return f"\\boxed{{{found['rate' if intent == RATE['intent'] else 'licence']}}}"


def _calls(*calls: tuple[str, Mapping[str, Any]]) -> str:
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in calls
    )
