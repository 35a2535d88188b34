"""A world as a good model would write it, part by part, with its tasks: what scripts say, and what tests break."""

import json
from typing import Any

from recall.synth.llm.schemas import tools_of
from recall.synth.llm.source import World
from recall.synth.llm.state import StateSchema

SCHEMA: dict[str, Any] = {
    "tables": [
        {
            "name": "owners",
            "description": "People who keep boats here.",
            "fields": [
                {"name": "id", "type": "string", "description": "code"},
                {"name": "name", "type": "string", "description": "full name"},
                {"name": "licence", "type": "string", "description": "licence number"},
            ],
        },
        {
            "name": "berths",
            "description": "Places at the piers.",
            "fields": [
                {"name": "id", "type": "string", "description": "code"},
                {"name": "rate", "type": "integer", "description": "cents a night"},
            ],
        },
        {
            "name": "boats",
            "description": "Boats.",
            "fields": [
                {"name": "id", "type": "string", "description": "code"},
                {"name": "name", "type": "string", "description": "painted on the hull"},
                {"name": "owner", "type": "ref:owners", "description": "who owns it"},
                {"name": "berth", "type": "ref:berths", "description": "where it lies"},
                {"name": "fee", "type": "integer", "description": "cents a year"},
            ],
        },
    ]
}

WORLD = """import random

_BOATS = ["Osprey", "Quill", "Tansy", "Marrow", "Juniper", "Wend", "Calyx", "Fennel", "Lark", "Bramble"]
_PEOPLE = ["Ada Moor", "Ben Ilic", "Cleo Hart", "Dov Arne", "Eli Sund", "Fay Okoro"]


def make_world(seed: int) -> dict:
    rng = random.Random(seed)
    codes = rng.sample(range(1000, 9999), 40)
    owners, berths, boats = {}, {}, {}
    for name in _PEOPLE:
        key = f"P{codes.pop()}"
        owners[key] = {"id": key, "name": name, "licence": f"L-{rng.randrange(10**6):06d}"}
    for number in range(1, 21):
        key = f"pier-{number}"
        berths[key] = {"id": key, "rate": rng.randint(1000, 99999)}
    places = rng.sample(sorted(berths), len(_BOATS))
    for name, place in zip(_BOATS, places):
        key = f"V{codes.pop()}"
        owner = rng.choice(sorted(owners))
        boats[key] = {"id": key, "name": name, "owner": owner, "berth": place, "fee": rng.randint(10000, 999999)}
    return {"owners": owners, "berths": berths, "boats": boats}
"""

TOOLS = '''def find_boat(name: str) -> str:
    """Find a boat by the name on its hull and return its code.

    Args:
        name: The name, as painted.
    """
    for boat in WORLD["boats"].values():
        if boat["name"] == name:
            return boat["id"]
    raise ValueError(f"no boat is called {name!r}")


def get_boat(boat_id: str) -> dict:
    """Read the register entry of a boat: owner, berth and yearly fee in cents.

    Args:
        boat_id: The code of the boat.
    """
    if boat_id not in WORLD["boats"]:
        raise ValueError(f"no boat has the code {boat_id!r}")
    return dict(WORLD["boats"][boat_id])


def get_berth(berth_id: str) -> dict:
    """Read what a berth costs, in cents a night.

    Args:
        berth_id: The code of the berth.
    """
    if berth_id not in WORLD["berths"]:
        raise ValueError(f"no berth has the code {berth_id!r}")
    return dict(WORLD["berths"][berth_id])


def get_owner(owner_id: str) -> dict:
    """Read who an owner is, with the licence number.

    Args:
        owner_id: The code of the owner.
    """
    if owner_id not in WORLD["owners"]:
        raise ValueError(f"no owner has the code {owner_id!r}")
    return dict(WORLD["owners"][owner_id])


def move_boat(boat_id: str, berth_id: str) -> str:
    """Move a boat to a free berth.

    Args:
        boat_id: The code of the boat.
        berth_id: The code of the berth.
    """
    if boat_id not in WORLD["boats"] or berth_id not in WORLD["berths"]:
        raise ValueError("no such boat or berth")
    if any(boat["berth"] == berth_id for boat in WORLD["boats"].values()):
        raise ValueError(f"berth {berth_id!r} is taken")
    WORLD["boats"][boat_id]["berth"] = berth_id
    return "moved"
'''

TESTS = """def _boat():
    return next(iter(WORLD["boats"].values()))


def _free():
    taken = {boat["berth"] for boat in WORLD["boats"].values()}
    return next(key for key in WORLD["berths"] if key not in taken)


def test_find_and_read():
    boat = _boat()
    assert get_boat(boat_id=find_boat(name=boat["name"])) == boat


def test_berth_and_owner():
    boat = _boat()
    assert get_berth(berth_id=boat["berth"])["rate"] > 0
    assert get_owner(owner_id=boat["owner"])["licence"].startswith("L-")


def test_move():
    boat, place = _boat(), _free()
    assert move_boat(boat_id=boat["id"], berth_id=place) == "moved"
    assert get_boat(boat_id=boat["id"])["berth"] == place


def test_every_boat():
    for boat in WORLD["boats"].values():
        assert find_boat(name=boat["name"]) == boat["id"]
        assert get_owner(owner_id=get_boat(boat_id=boat["id"])["owner"])
        assert get_berth(berth_id=boat["berth"])["id"] == boat["berth"]


def test_unknown():
    assert raises(find_boat, name="Nobody")
    assert raises(get_boat, boat_id="V0")
    assert raises(get_berth, berth_id="pier-0")
    assert raises(get_owner, owner_id="P0")
    assert raises(move_boat, boat_id="V0", berth_id="pier-1")


def test_taken():
    boat = _boat()
    assert raises(move_boat, boat_id=boat["id"], berth_id=boat["berth"])
"""

BOAT = {"table": "boats", "field": "name"}
RATE: dict[str, Any] = {
    "intent": "Know what the berth where a boat lies costs for a night.",
    "anchors": {"boat": BOAT},
    "program": [
        {"name": "find_boat", "arguments": {"name": {"$anchor": "boat"}}},
        {"name": "get_boat", "arguments": {"boat_id": {"$ref": 0}}},
        {"name": "get_berth", "arguments": {"berth_id": {"$ref": 1, "path": "berth"}}},
        {"value": {"$ref": 2, "path": "rate"}},
    ],
    "answer_type": "integer",
}
LICENCE: dict[str, Any] = {
    "intent": "Know the licence number of the owner of a boat.",
    "anchors": {"boat": BOAT},
    "program": [
        *RATE["program"][:2],
        {"name": "get_owner", "arguments": {"owner_id": {"$ref": 1, "path": "owner"}}},
        {"value": {"$ref": 2, "path": "licence"}},
    ],
    "answer_type": "entity",
}
FEES: dict[str, Any] = {
    "intent": "Know by how much the yearly fees of two boats differ.",
    "anchors": {"first": BOAT, "second": BOAT},
    "program": [
        {"name": "find_boat", "arguments": {"name": {"$anchor": "first"}}},
        {"name": "find_boat", "arguments": {"name": {"$anchor": "second"}}},
        {"name": "get_boat", "arguments": {"boat_id": {"$ref": 0}}},
        {"name": "get_boat", "arguments": {"boat_id": {"$ref": 1}}},
        {"value": {"$op": "difference", "of": [{"$ref": 2, "path": "fee"}, {"$ref": 3, "path": "fee"}]}},
    ],
    "answer_type": "integer",
}
MOVE: dict[str, Any] = {
    "intent": "Have a boat moved to a berth that is free.",
    "anchors": {"boat": BOAT, "place": {"table": "berths", "field": "id"}},
    "program": [
        {"name": "find_boat", "arguments": {"name": {"$anchor": "boat"}}},
        {"name": "move_boat", "arguments": {"boat_id": {"$ref": 0}, "berth_id": {"$anchor": "place"}}},
    ],
    "answer_type": "none",
}
TASKS = [RATE, LICENCE, FEES, MOVE]

QUESTIONS = {
    RATE["intent"]: ["What does a night cost, in cents, at the berth where the boat {boat} lies?"],
    LICENCE["intent"]: ["Which licence number does the owner of the boat {boat} have?"],
    FEES["intent"]: ["By how many cents do the yearly fees of the boats {first} and {second} differ?"],
    MOVE["intent"]: ["Please move the boat {boat} to berth {place}."],
}


def marina() -> World:
    """The world as it is when its parts have been accepted."""
    return World(StateSchema.model_validate(SCHEMA), WORLD, TOOLS, tools_of(TOOLS))


def fenced(language: str, text: str) -> str:
    """A part as a model would send it."""
    return f"Here it is.\n\n```{language}\n{text}\n```\n"


def parts() -> dict[str, str]:
    """What a good model answers to each step."""
    return {
        "setting": json.dumps(
            {"title": "A small marina", "setting": "Boats, owners and berths of a marina in winter."}
        ),
        "schema": fenced("json", json.dumps(SCHEMA)),
        "world": fenced("python", WORLD),
        "tools": fenced("python", TOOLS),
        "tests": fenced("python", TESTS),
        "tasks": fenced("json", json.dumps(TASKS)),
    }
