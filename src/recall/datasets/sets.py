"""A set of tasks on disk: a directory of parquet shards and the manifest that says what they are.

`manifest.json` names every shard with its checksum, and what the set was made from. A shard is whole or absent. Who
makes sets is `recall.synth.writer`'s business, and what stands in a row `recall.datasets.rows`'.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.store import write_atomic

MANIFEST = "manifest.json"
"""The file that makes a directory a set."""
FORMAT = 1
"""The version of the manifest."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "version": (str,),
    "recipe": (dict,),
    "seed": (int,),
    "splits": (dict,),
    "shard_rows": (int,),
    "shards": (list,),
}
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a set."""

    file: str
    """Its name in the directory."""
    split: str
    """The split of all its rows."""
    rows: int
    """How many there are."""
    sha256: str
    """Of the whole file, in hexadecimal."""
    start: int
    """The number of the first attempt that went into it."""
    stop: int
    """One more than that of its last."""
    tried: int
    """Attempts in all."""
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Attempts thrown away, by certificate and reason."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a set is, and which of its shards are there."""

    kind: str
    """What made it: `procedural`, `llm`, …"""
    recipe: Mapping[str, Any]
    """The settings that it was made with."""
    seed: int
    """The seed that it was made with."""
    version: str
    """The version of ReCall that made it."""
    splits: Mapping[str, int]
    """The rows wanted of each split, in the order in which they are made."""
    shard_rows: int
    """The rows of every shard but the last of a split."""
    shards: tuple[Shard, ...] = ()
    """Those that are done, in the order in which they are made."""

    @property
    def rows(self) -> int:
        """How many rows are there."""
        return sum(shard.rows for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether every row that is wanted is there."""
        return self.rows == sum(self.splits.values())

    @property
    def tried(self) -> int:
        """Attempts in all."""
        return sum(shard.tried for shard in self.shards)

    @property
    def rejected(self) -> dict[str, dict[str, int]]:
        """Attempts thrown away, by certificate and reason, in alphabetical order."""
        return merge_rejected(shard.rejected for shard in self.shards)

    def shard(self, file: str) -> Shard | None:
        """The shard of this name, if it is done."""
        return next((shard for shard in self.shards if shard.file == file), None)

    def write(self, directory: Path) -> None:
        """Put the manifest into its directory, whole or not at all."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "version": self.version,
            "seed": self.seed,
            "rows": sum(self.splits.values()),
            "splits": dict(self.splits),
            "shard_rows": self.shard_rows,
            "tried": self.tried,
            "rejected": self.rejected,
            "recipe": self.recipe,
            "shards": [asdict(shard) for shard in self.shards],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomic(directory / MANIFEST, lambda file: file.write(text.encode()))


def merge_rejected(counts: Iterator[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The sum of counts by certificate and reason, in alphabetical order."""
    total: dict[str, Counter[str]] = {}
    for gates in counts:
        for gate, reasons in gates.items():
            total.setdefault(gate, Counter()).update(reasons)
    return {gate: dict(sorted(reasons.items())) for gate, reasons in sorted(total.items())}


def is_set(path: Path) -> bool:
    """Whether `path` is the directory of a set, or that directory and the name of a split: `DIR/train`."""
    return not path.is_file() and ((path / MANIFEST).is_file() or (path.parent / MANIFEST).is_file())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a set.

    Raises:
        ConfigError: there is none, or it is damaged; one line that names the field.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{directory}: no set of tasks (it has no {MANIFEST})") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read: {fault}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise ConfigError(f"{path}: format: got {found!r}; accepted: {FORMAT}")
    for name, types in _TYPES.items():
        if not isinstance(content.get(name), types):
            raise ConfigError(f"{path}: {name}: got {content.get(name)!r}; accepted: {types[0].__name__}")
    if not all(isinstance(rows, int) for rows in content["splits"].values()):
        raise ConfigError(f"{path}: splits: accepted: a number of rows each")
    shards = tuple(_shard(shard, f"{path}: shards[{i}]") for i, shard in enumerate(content["shards"]))
    return Manifest(**{name: content[name] for name in _TYPES if name != "shards"}, shards=shards)


def shard_files(path: Path, *, verify: bool = True, on_bytes: Callable[[int], None] | None = None) -> Iterator[Path]:
    """The files of a set, or of one of its splits, in order, each verified just before it is given out.

    Args:
        path: the directory, or the directory and a split.
        verify: compare each file with its checksum.
        on_bytes: told how many bytes were verified, for progress.

    Raises:
        ConfigError: there is no such set or split, a file is missing, or it is not what was written.
    """
    directory, split = _located(path)
    manifest = read_manifest(directory)
    if split is not None and split not in manifest.splits:
        raise ConfigError(f"{directory}: no split {split!r}; accepted: {', '.join(manifest.splits)}")
    for shard in manifest.shards:
        if split in (None, shard.split):
            if verify:
                verify_shard(directory, shard, on_bytes=on_bytes)
            yield directory / shard.file


def verify_shard(directory: Path, shard: Shard, *, on_bytes: Callable[[int], None] | None = None) -> None:
    """Check that a shard is what was written.

    Raises:
        ConfigError: it is missing, or its checksum differs; one line that names it.
    """
    path = directory / shard.file
    found = checksum(path, on_bytes=on_bytes)
    if found != shard.sha256:
        raise ConfigError(
            f"{path}: torn or changed: its SHA-256 is {found[:12]}…, the manifest says {shard.sha256[:12]}…; "
            "delete the file and make the set again to restore it"
        )


def checksum(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        ConfigError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk))
    except OSError as fault:
        raise ConfigError(f"{path}: cannot be read: {fault.strerror}") from None
    return digest.hexdigest()


def _located(path: Path) -> tuple[Path, str | None]:
    if (path / MANIFEST).is_file() or not (path.parent / MANIFEST).is_file():
        return path, None
    return path.parent, path.name


def _shard(content: Any, where: str) -> Shard:
    names = [each.name for each in fields(Shard)]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        raise ConfigError(f"{where}: accepted: an object with {', '.join(names)}")
    if not all(isinstance(content[name], str) for name in ("file", "split", "sha256")) or not all(
        isinstance(content[name], int) for name in ("rows", "start", "stop", "tried")
    ):
        raise ConfigError(f"{where}: a value is of the wrong type")
    if Path(content["file"]).name != content["file"]:
        raise ConfigError(f"{where}.file: got {content['file']!r}; accepted: the name of a file of the directory")
    return Shard(**content)
