"""Checks of what a run stands on: versions, room on disk, ports, and servers that have to answer."""

import json
import shutil
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from recall.doctor.findings import Finding, ok, skipped, wrong
from recall.trainers.recipe import TrainRecipe

_TOKEN_BYTES = 8
"""Of a token in a compressed trajectory: its id, its log-probability and its share of the text."""
_PARAMETER_BYTES = 12
"""Of a parameter in a checkpoint: the weight in float32, and AdamW's two moments."""


def check_versions(
    extras: Sequence[str], requirements: Sequence[str] | None = None, installed: Mapping[str, str] | None = None
) -> Finding:
    """What ReCall and the extras need is installed, and new enough.

    Args:
        extras: that the recipe needs, such as `train`.
        requirements: what is needed, as in a package's metadata; None takes ReCall's own.
        installed: versions by name; None looks them up.
    """
    from packaging.requirements import Requirement

    try:
        needed = requirements if requirements is not None else metadata.requires("recall") or []
    except metadata.PackageNotFoundError:
        return skipped("versions", "ReCall runs from its source and says nothing of what it needs")
    seen = []
    for line in needed:
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        version = installed.get(requirement.name) if installed is not None else _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            state = version or "not installed"
            found = f"{requirement.name} is {state}, and {requirement.name}{requirement.specifier} is needed"
            return wrong(
                "versions",
                found,
                cost="a failure in the middle of a run, or numbers that nobody can repeat",
                cure=f"pip install '{requirement.name}{requirement.specifier}'",
            )
        seen.append(f"{requirement.name} {version}")
    shown = [one for one in seen if one.split()[0] in ("torch", "transformers", "verl", "trl", "vllm")]
    return ok("versions", f"{len(seen)} packages are new enough{': ' if shown else ''}{', '.join(shown)}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_disk(directory: Path, needed_bytes: int, free: Callable[[Path], int] | None = None) -> Finding:
    """There is room for the run.

    Args:
        directory: where it goes; it need not be there yet.
        needed_bytes: what it will take at most.
        free: bytes that are free at a directory; None asks the system.
    """
    there = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    room = free(there) if free is not None else shutil.disk_usage(there).free
    if room < needed_bytes:
        return wrong(
            "disk",
            f"{there} has {_size(room)} free, and the run may take {_size(needed_bytes)}",
            cost="a run that dies when the disk is full, at a checkpoint",
            cure="make room, keep fewer checkpoints (keep_checkpoints), or set save_trajectories to false",
        )
    return ok("disk", f"the run may take {_size(needed_bytes)}, and {_size(room)} are free at {there}")


def run_bytes(recipe: TrainRecipe, parameters: int) -> int:
    """What a run directory may take at most: checkpoints, one more than are kept, and trajectories.

    Args:
        recipe: of the run.
        parameters: of the model that are trained.
    """
    tokens = recipe.steps * recipe.rollout.groups * recipe.rollout.group_size * recipe.rollout.limits.max_tokens
    trajectories = tokens * _TOKEN_BYTES if recipe.save_trajectories else 0
    return parameters * _PARAMETER_BYTES * (recipe.keep_checkpoints + 1) + trajectories


def parameters_of(model: Path) -> int:
    """How many parameters the weights of a directory in Hugging Face's format have; 0 where it has none.

    Source: the header of a safetensors file, https://github.com/huggingface/safetensors.
    """
    total = 0
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for side in tensor["shape"]:
                    count *= side
                total += count
    return total


def check_ports(ports: Sequence[int], host: str = "127.0.0.1") -> Finding:
    """Ports that something of the run will listen on are free."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as fault:
                return wrong(
                    "ports",
                    f"port {port} cannot be listened on: {fault.strerror or fault}",
                    cost="a server that does not start, and a run that waits for it",
                    cure="stop what holds it, or choose another port",
                )
    if not ports:
        return skipped("ports", "nothing of this recipe listens")
    return ok("ports", f"free: {', '.join(map(str, ports))}")


def check_servers(addresses: Sequence[str], timeout_s: float = 3.0) -> Finding:
    """Servers that the recipe names accept a connection; what they answer is not looked at."""
    for address in addresses:
        parts = urlsplit(address if "//" in address else f"//{address}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()
        except OSError as fault:
            return wrong(
                "servers",
                f"{address} does not answer: {fault}",
                cost="episodes that all end in a fault",
                cure="start it, or name another address",
            )
    if not addresses:
        return skipped("servers", "this recipe names none")
    return ok("servers", f"{len(addresses)} accept connections")


def addresses_of(recipe: TrainRecipe) -> list[str]:
    """The servers that the recipe names."""
    sandbox = recipe.sandbox
    found = [*sandbox.urls, *(where for where in (sandbox.search, sandbox.search_url) if where.startswith("http"))]
    if ":" in recipe.cluster.ray_address:
        found.append(recipe.cluster.ray_address.removeprefix("ray://"))
    return found


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
