"""Sandboxes and a retriever as Ray actors: they answer by name, are replaced when they die, and end with their run."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_cluster import running_ray, short_directory, tidy_shared_memory

import retriever_server

pytestmark = pytest.mark.timeout(600)
PROGRAM = """
import asyncio, json, os, signal, sys
from pathlib import Path

import ray

from recall.config import load
from recall.errors import RolloutError
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.named import NamedRetriever, NamedSandbox
from recall.trainers.verl.services import Services, lookup, namespace_of

run = Path(sys.argv[1])
recipe = load(TrainRecipe, None, sys.argv[2:])


def pids(kind, count):
    actors = [ray.get_actor(f"{kind}-{number}", namespace=namespace_of(run)) for number in range(count)]
    return [ray.get(actor.pid.remote()) for actor in actors]


async def again(what):
    for _ in range(240):
        try:
            return await what()
        except RolloutError:
            await asyncio.sleep(0.5)
    raise AssertionError("not replaced in 120 s")


async def story():
    sandbox = NamedSandbox(lookup("sandbox", 2, namespace_of(run)))
    retriever = NamedRetriever(lookup("retriever", 1, namespace_of(run)))

    async def call():
        session = await sandbox.open("def double(number):\\n    return 2 * number\\n")
        try:
            return (await session.call("double", {"number": 21})).result
        finally:
            await session.close()

    async def search():
        ((passage, *_),) = await retriever.search(["number7"], 1)
        return passage.id

    said = {"called": await call(), "found": await search()}
    first = pids("sandbox", 2) + pids("retriever", 1)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    said["called again"], said["found again"] = await again(call), await again(search)
    await sandbox.close()
    await retriever.close()
    second = pids("sandbox", 2) + pids("retriever", 1)
    return said | {"first": first, "second": second}


with Services(recipe, run):
    said = asyncio.run(story())
print(json.dumps(said))
"""


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_services_are_found_by_name_replaced_when_they_die_and_end_with_their_run(tmp_path: Path) -> None:
    index = retriever_server.made_index(tmp_path)
    # Ray takes the machine's own address for 127.0.0.1, so the servers want tokens.
    tokens = {f"RECALL_{kind}_TOKEN": secrets.token_hex(16) for kind in ("SANDBOX", "RETRIEVER")}
    with tidy_shared_memory(), short_directory() as ray, running_ray(ray, gpus=0, env=tokens) as (address, secret):
        arguments = [f"--cluster.ray_address={address}", "--cluster.sandboxes=2", "--cluster.retrievers=1"]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), *arguments, f"--sandbox.search={index}"],
            env={**os.environ, **tokens, **secret},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["called"] == said["called again"] == 42
        assert said["found"] == said["found again"] == retriever_server.place(7)
        assert set(said["first"]).isdisjoint(said["second"])
    assert not any(is_running(pid) for pid in said["first"] + said["second"])
