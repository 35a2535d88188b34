"""Sandboxes and retrievers as Ray actors: each holds a server in a process of its own, and Ray replaces what dies.

An actor is found by its name in the namespace of its run, from every process on the cluster. It ends with the
connection of `recall train`, so a run leaves none behind.
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recall.errors import ConfigError, RolloutError
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.child import die_with_parent
from recall.trainers.verl.named import Lookup

STARTING_S = 300.0
"""Seconds in which every service has to be ready before training starts."""
_ASKING_S = 10.0
_TOKENS = {"sandbox": "RECALL_SANDBOX_TOKEN", "retriever": "RECALL_RETRIEVER_TOKEN"}


class ServerActor:
    """What runs as a Ray actor: one server, whose death is the actor's."""

    def __init__(self, kind: str, arguments: Sequence[str]) -> None:
        """Start the server and wait until it says that it is ready.

        Args:
            kind: `sandbox` or `retriever`.
            arguments: of `recall KIND serve`, without its address.

        Raises:
            RuntimeError: it did not start; Ray tries again, here or on another node.
        """
        import ray

        here = ray.get_runtime_context().get_node_id()
        (host,) = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here]
        command = [sys.executable, "-m", "recall.cli", kind, "serve", *arguments, "--host", host, "--port", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent())
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"ready at (http://[^\s;]+)", line)
        if found is None:
            self._process.kill()
            raise RuntimeError(f"recall {kind} serve did not start on {host}: {line!r}")
        self._url = found[1]
        threading.Thread(target=self._die_with_it, daemon=True).start()

    def url(self) -> str:
        """Where the server listens."""
        return self._url

    def pid(self) -> int:
        """The process of the server, on its node."""
        return self._process.pid

    def _die_with_it(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:  # an unread pipe would stop the server
            pass
        self._process.wait()
        os._exit(1)  # Ray starts the actor anew


class Services:
    """The actors of a run, started and known to be well. A context manager that ends them."""

    def __init__(self, recipe: TrainRecipe, run: Path) -> None:
        """Connect to the cluster, or start Ray on this machine, and start the actors.

        Raises:
            ConfigError: the cluster cannot be reached, or servers would listen to others without a token.
            RolloutError: a server did not get ready.
        """
        import ray

        cluster = recipe.cluster
        namespace = namespace_of(run)
        try:
            ray.init(
                address=cluster.ray_address or None, namespace=namespace, log_to_driver=False, configure_logging=False
            )
        except ConnectionError as error:
            raise ConfigError(f"cluster.ray_address: {cluster.ray_address}: no Ray there: {error}") from error
        self.address: str = ray.get_runtime_context().gcs_address
        """Of the cluster, for others to join."""
        self._actors: list[Any] = []
        try:
            self._start("sandbox", cluster.sandboxes, cluster.sandbox_cpus, _sandbox_flags(recipe))
            index = str(Path(recipe.sandbox.search).resolve())
            self._start("retriever", cluster.retrievers, cluster.retriever_cpus, [index])
            asyncio.run(_wait_until_ready(namespace, {"sandbox": cluster.sandboxes, "retriever": cluster.retrievers}))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        ray.shutdown()

    def _start(self, kind: str, count: int, cpus: float, arguments: Sequence[str]) -> None:
        import ray

        addresses = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
        alone = all(address.startswith("127.") for address in addresses)
        if count and not alone and not os.environ.get(_TOKENS[kind]):
            raise ConfigError(
                f"cluster: {kind} servers listen to other machines, and want {_TOKENS[kind]} in the environment of "
                "every node"
            )
        # A server's own death is the actor's, so Ray may start it as often as it takes, on whatever node is left.
        remote = ray.remote(ServerActor)
        options = {"num_cpus": cpus, "max_restarts": -1, "scheduling_strategy": "SPREAD", "max_concurrency": 8}
        self._actors += [
            remote.options(name=f"{kind}-{number}", **options).remote(kind, list(arguments)) for number in range(count)
        ]


def namespace_of(run: Path) -> str:
    """Where the names of a run's actors are known."""
    return f"recall:{run}"


def lookup(kind: str, count: int, namespace: str) -> Lookup:
    """Who knows where the servers of a kind are: their actors, found by name in a process that is connected to Ray."""

    async def look() -> list[str]:
        urls = await asyncio.gather(*[_url(f"{kind}-{number}", namespace) for number in range(count)])
        return [url for url in urls if url is not None]

    return look


async def _url(name: str, namespace: str) -> str | None:
    """Where a server is; None while it is being replaced."""
    import ray
    import ray.exceptions

    try:
        actor = ray.get_actor(name, namespace=namespace)
        return str(await asyncio.wait_for(actor.url.remote(), _ASKING_S))
    except (ValueError, TimeoutError, ray.exceptions.RayError):
        return None


async def _wait_until_ready(namespace: str, counts: dict[str, int]) -> None:
    deadline = time.monotonic() + STARTING_S
    for kind, count in counts.items():
        look = lookup(kind, count, namespace)
        while True:
            urls = await look()
            well = [url for url in urls if problem_of(url) is None]
            if len(well) == count:
                break
            if time.monotonic() > deadline:
                raise RolloutError(f"{count - len(well)} of {count} {kind} servers were not ready in {STARTING_S:g} s")
            await asyncio.sleep(0.5)


def problem_of(url: str) -> str | None:
    """Why a server is not well, or None. Both kinds answer one of these without a token."""
    said = ""
    for path in ("/healthz", "/health"):
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}{path}", timeout=_ASKING_S):
                return None
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return None  # it is there, and wants a token
            said = f"status {error.code}"
        except (urllib.error.URLError, OSError, ValueError) as error:
            said = str(getattr(error, "reason", error))
    return said


def check_addresses(recipe: TrainRecipe) -> None:
    """Ask every server that the recipe names by its address whether it is well.

    Raises:
        ConfigError: one is not; the line names the setting.
    """
    settings = recipe.sandbox
    named = [("sandbox.urls", url) for url in settings.urls if url.startswith("http")]
    for name in ("search", "search_url"):
        where = getattr(settings, name)
        if where.startswith("http"):
            named.append((f"sandbox.{name}", where))
    for setting, url in named:
        problem = problem_of(url)
        if problem is not None:
            raise ConfigError(f"{setting}: {url} is not well: {problem}")


def _sandbox_flags(recipe: TrainRecipe) -> list[str]:
    require = recipe.sandbox.require
    return ["--require", ",".join(require)] if require else []
