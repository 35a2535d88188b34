"""Every certificate of a world and its tools lets good ones pass and rejects a planted fault, in the real sandbox."""

import asyncio
from collections.abc import Iterator

import pytest

from llm_marina import SCHEMA, TESTS, TOOLS, WORLD, marina
from recall.sandbox.limits import SandboxLimits
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.bench import Bench
from recall.synth.llm.certify_world import CertificateSettings, certify_tests, certify_tools, certify_world
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.source import World
from recall.synth.llm.state import StateSchema

SETTINGS = CertificateSettings(counterfactual_worlds=5, guess_worlds=10, most_guessed=0.2, search_calls=500)
SEEDS = list(range(1, 16))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    shared = LocalSandbox(SandboxLimits(open_timeout_s=2.0))
    yield shared
    asyncio.run(shared.close())


def bare(code: str = WORLD) -> World:
    return World(StateSchema.model_validate(SCHEMA), code)


async def test_the_good_world_holds(sandbox: LocalSandbox) -> None:
    bench = Bench(sandbox)
    await certify_world(bench, bare(), SEEDS[:5])
    world = await certify_tools(bench, bare(), TOOLS, SETTINGS, 1)
    assert [tool.name for tool in world.tools] == ["find_boat", "get_boat", "get_berth", "get_owner", "move_boat"]
    assert await certify_tests(bench, world, TESTS, SETTINGS, SEEDS[:2]) == 6


def put(code: str, old: str, new: str) -> str:
    assert old in code
    return code.replace(old, new)


RETURN = '    return {"owners": owners, "berths": berths, "boats": boats}\n'


def hidden(what: str) -> str:
    """A line that no look at the source finds, whose failure is swallowed."""
    reach = 'getattr(random, "__buil" + "tins__")'
    return f"    try:\n        {reach}{what}\n    except OSError:\n        pass\n{RETURN}"


BAD_WORLDS = {
    "endless loop": (put(WORLD, RETURN, "    while True:\n        pass\n"), "load: takes too long"),
    "raises": (put(WORLD, RETURN, '    raise KeyError("x")\n'), "load: fails"),
    "no seed": (put(WORLD, "random.Random(seed)", "random.Random(7)"), "world: does not depend on the seed"),
    "global chance": (
        put(WORLD, "rng = random.Random(seed)", "rng = random"),
        "deterministic: another world|pure: .*random",
    ),
    "unseeded": (put(WORLD, "random.Random(seed)", "random.Random(None)"), "pure: .*without a seed"),
    "clock": (put(WORLD, RETURN, f"    import time\n    time.time()\n{RETURN}"), "lint: import"),
    "today": (put(WORLD, RETURN, f"    import datetime\n    datetime.date.today()\n{RETURN}"), "lint: clock"),
    "hidden today": (
        put(WORLD, RETURN, f'    import datetime\n    getattr(datetime.date, "to" + "day")()\n{RETURN}'),
        "pure: .*the clock was read by date.today",
    ),
    "order of sets": (
        put(WORLD, RETURN, "    owners = {k: owners[k] for k in set(owners)}\n" + RETURN),
        "deterministic: another world",
    ),
    "file": (put(WORLD, RETURN, f'    open("/etc/passwd")\n{RETURN}'), "lint: forbidden name"),
    "hidden file": (put(WORLD, RETURN, hidden('["open"]("/etc/passwd")')), "pure: .*open"),
    "socket": (put(WORLD, "import random\n", "import random, socket\n"), "lint: import"),
    "hidden socket": (put(WORLD, RETURN, hidden('["__import__"]("socket").socket()')), "pure: .*socket"),
    "another table": (put(WORLD, '"berths": berths', '"places": berths'), "world: does not fit"),
    "another type": (put(WORLD, '"rate": rng.randint(1000, 99999)', '"rate": "cheap"'), "world: does not fit"),
    "dangling reference": (put(WORLD, '"berth": place,', '"berth": "pier-99",'), "world: does not fit"),
    "too large": (
        put(WORLD, '"name": name, "licence"', '"name": name * 50_000, "licence"'),
        "size: the world is too large",
    ),
    "not Python": ("def make_world(seed:\n", "lint: not Python"),
    "no function": ("def make(seed):\n    return {}\n", "lint: function missing"),
}


@pytest.mark.parametrize(("code", "fault"), BAD_WORLDS.values(), ids=BAD_WORLDS)
async def test_a_faulty_world_is_rejected(sandbox: LocalSandbox, code: str, fault: str) -> None:
    bench = Bench(sandbox)
    with pytest.raises(RejectedError, match=fault):
        await certify_world(bench, bare(code), SEEDS[:5])


HIDDEN_OPEN = 'getattr(random, "__buil" + "tins__")["open"]("/etc/hosts")'
BAD_TOOLS = {
    "no hint": (put(TOOLS, "berth_id: str) -> dict", "berth_id) -> dict"), "schema: no type hint"),
    "no docstring": (put(TOOLS, '    """Move a boat to a free berth.', '    "" """'), "schema: no docstring"),
    "undescribed": (put(TOOLS, "        name: The name, as painted.\n", ""), "schema: parameter not described"),
    "odd hint": (put(TOOLS, "name: str", "name: bytes"), "schema: type hint without a schema"),
    "too few": (TOOLS.partition("def get_boat")[0], "tools: too few"),
    "the world again": (TOOLS + "\n\ndef make_world(seed: int) -> dict:\n    return {}\n", "lint: defined twice"),
    "fails": (TOOLS + "\n\n_X = WORLD['nothing']\n", "load: fails"),
    "reads a file": (TOOLS + "\n\ntry:\n    " + HIDDEN_OPEN + "\nexcept OSError:\n    pass\n", "pure: .*open"),
}


@pytest.mark.parametrize(("code", "fault"), BAD_TOOLS.values(), ids=BAD_TOOLS)
async def test_faulty_tools_are_rejected(sandbox: LocalSandbox, code: str, fault: str) -> None:
    bench = Bench(sandbox)
    with pytest.raises(RejectedError, match=fault):
        await certify_tools(bench, bare(), code, SETTINGS, 1)


BAD_TESTS = {
    "fails": (TESTS + "\n\ndef test_more():\n    assert False\n", "self-tests: a test fails"),
    "too few": (put(TESTS, "def test_every_boat", "def _every_boat"), "self-tests: too few"),
    "no error": (
        put(TESTS, 'raises(get_owner, owner_id="P0")', 'get_owner(owner_id=_boat()["owner"])'),
        "self-tests: no test of an error",
    ),
    "no world of its own": (
        put(
            TESTS,
            "    boat = _boat()\n    assert get_b",
            "    boat = {'id': 'V1', 'owner': 'P', 'berth': 'b'}\n    assert get_b",
        ),
        "self-tests: a test fails",
    ),
}


@pytest.mark.parametrize(("code", "fault"), BAD_TESTS.values(), ids=BAD_TESTS)
async def test_faulty_self_tests_are_rejected(sandbox: LocalSandbox, code: str, fault: str) -> None:
    bench = Bench(sandbox)
    with pytest.raises(RejectedError, match=fault):
        await certify_tests(bench, marina(), code, SETTINGS, SEEDS[:2])
