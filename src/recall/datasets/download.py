"""Files of public benchmarks from the hub that has them, or from a folder: fetched whole, checked, with their source.

A file is fetched under a temporary name, goes on where it broke off, and takes its own name when it is complete: its
size is what the server announced, its rows are as many as the benchmark has, its checksum is the one that the hub
states or that is known, where there is one. `SOURCE.json` beside the files says where each came from.
"""

import hashlib
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recall.errors import ConfigError
from recall.store import write_atomic

HUB_VARIABLE = "HF_ENDPOINT"
"""The environment variable with the address of a mirror of the hub."""
_HUB = "https://huggingface.co"
_CHUNK = 1 << 20
_TIMEOUT_S = 60.0
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a benchmark."""

    name: str
    """What it is called here."""
    path: str
    """Where it is on the hub: `datasets/OWNER/NAME/resolve/REVISION/FILE`."""
    rows: int | None = None
    """Its lines, where they are known."""
    sha256: str | None = None
    """Its checksum, where it is known beforehand."""


_FLASHRAG = "datasets/RUC-NLPIR/FlashRAG_datasets/resolve/main"


def _flashrag(name: str, **rows: int) -> tuple[File, ...]:
    return tuple(File(f"{split}.jsonl", f"{_FLASHRAG}/{name}/{split}.jsonl", count) for split, count in rows.items())


BENCHMARKS: Mapping[str, tuple[File, ...]] = MappingProxyType(
    {
        "hotpotqa": _flashrag("hotpotqa", train=90_447, dev=7405),
        "2wikimultihopqa": _flashrag("2wikimultihopqa", train=15_000, dev=12_576),
        "musique": _flashrag("musique", train=19_938, dev=2417),
        "bamboogle": _flashrag("bamboogle", test=125),
    }
)
"""The benchmarks of questions."""
CORPORA: Mapping[str, tuple[File, ...]] = MappingProxyType(
    {
        "wiki-18": (File("wiki-18.jsonl.gz", "datasets/PeterJinGo/wiki-18-corpus/resolve/main/wiki-18.jsonl.gz"),),
    }
)
"""Corpora to search, in FlashRAG's format."""
KNOWN: Mapping[str, tuple[File, ...]] = MappingProxyType({**BENCHMARKS, **CORPORA})
"""All that can be asked for by name."""


def download(
    name: str,
    to: Path,
    *,
    source: Path | None = None,
    told: Callable[[str, int, int | None], None] | None = None,
) -> list[Path]:
    """Get the files of a benchmark or corpus into `to/NAME`. Files that are there, whole, are left alone.

    Args:
        name: one of `KNOWN`.
        to: the folder; made if it is not there.
        source: a folder with the files, or with a folder `name` of them, to copy instead; some of them are enough.
        told: called with a file's name, its bytes so far, and all its bytes where they are known.

    Returns:
        The files.

    Raises:
        ConfigError: the name is unknown, a file cannot be had or is not the one that it should be.
    """
    files = KNOWN.get(name)
    if files is None:
        raise ConfigError(f"{name!r} is not known; accepted: {', '.join(KNOWN)}")
    folder = to / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
    records = _read_records(folder)
    found = []
    for file in files:
        target = folder / file.name
        if target.is_file() and records.get(file.name, {}).get("sha256") == _sha256(target):
            found.append(target)
            continue
        if source is None:
            origin = f"{os.environ.get(HUB_VARIABLE, _HUB).rstrip('/')}/{file.path}"
            _fetch(origin, target, told)
            stated = _stated(origin)
        else:
            stated = None
            local = next((p for p in (source / name / file.name, source / file.name) if p.is_file()), None)
            if local is None:
                continue
            origin = str(local)
            _copy(local, target)
        records[file.name] = _checked(file, target, origin, stated)
        write_atomic(folder / "SOURCE.json", lambda out: out.write(json.dumps(records, indent=1).encode() + b"\n"))
        found.append(target)
    if not found:
        names = " or ".join(file.name for file in files)
        raise ConfigError(f"{source}: there is no {names} in it, nor in a folder {name}")
    return found


def _fetch(url: str, target: Path, told: Callable[[str, int, int | None], None] | None) -> None:
    """Fetch a file under its temporary name, from where an earlier try broke off."""
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    try:
        done = partial.stat().st_size if partial.exists() else 0
        request = urllib.request.Request(url, headers={"User-Agent": "recall", "Range": f"bytes={done}-"})
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 416 or not done:  # 416: there is nothing beyond what we have
                    raise ConfigError(f"{url}: the server answers {error.code} {error.reason}; {_ELSEWHERE}") from None
            return
        with response:
            goes_on = response.status == 206
            total = response.headers.get("Content-Length")
            size = None if total is None else int(total) + (done if goes_on else 0)
            done = done if goes_on else 0
            with open(partial, "ab" if goes_on else "wb") as out:
                while chunk := response.read(_CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if told is not None:
                        told(target.name, done, size)
        if size is not None and done != size:
            raise ConfigError(f"{url}: broke off after {done:,} of {size:,} bytes; the same command goes on from there")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(f"{url}: cannot be reached: {reason}; {_ELSEWHERE}") from None
    except OSError as error:
        raise ConfigError(f"{partial}: cannot be written: {error.strerror}") from error


class _HereOnly(urllib.request.HTTPRedirectHandler):
    """Takes a redirection for the answer: the hub states the checksum there, and the file's store does not."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _stated(url: str) -> str | None:
    """The checksum that the hub states of a file: SHA-256 of a large one, git's of a small one, None if it has none."""
    request = urllib.request.Request(url, headers={"User-Agent": "recall"}, method="HEAD")
    try:
        headers = urllib.request.build_opener(_HereOnly).open(request, timeout=_TIMEOUT_S).headers
    except urllib.error.HTTPError as error:
        with error:
            headers = error.headers
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConfigError(f"{url}: cannot be reached: {getattr(error, 'reason', error)}; {_ELSEWHERE}") from None
    stated = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
    found = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64}|[0-9a-f]{40})"?', stated)
    return found[1] if found else None


_ELSEWHERE = f"without a network, give a folder that has the files with --from; {HUB_VARIABLE} names a mirror"


def _copy(local: Path, target: Path) -> None:
    try:
        shutil.copyfile(local, target.with_name(f".{target.name}{_PARTIAL}"))
    except OSError as error:
        raise ConfigError(f"{local}: cannot be copied to {target.parent}: {error.strerror}") from error


def _checked(file: File, target: Path, origin: str, stated: str | None) -> dict[str, Any]:
    """Give a file that is as it should be its own name; the record of it."""
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    sha256 = _sha256(partial)
    problem = ""
    if file.sha256 is not None and sha256 != file.sha256:
        problem = f"its sha256 is {sha256} and should be {file.sha256}"
    if stated is not None and stated not in (sha256, _git_sha1(partial)):
        problem = f"its checksum is not the one that the hub states, {stated}"
    rows = _rows(partial) if file.rows is not None else None
    if rows != file.rows:
        problem = f"it has {rows:,} rows and should have {file.rows:,}"
    if problem:
        partial.unlink()
        raise ConfigError(f"{origin}: not the file that it should be: {problem}")
    os.replace(partial, target)
    day = datetime.now(UTC).date().isoformat()
    return {"source": origin, "sha256": sha256, "bytes": target.stat().st_size, "rows": rows, "day": day}


def _rows(path: Path) -> int:
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def _git_sha1(path: Path) -> str:
    """What git calls a file's content by: the SHA-1 of `blob`, its size, a NUL, and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_records(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "SOURCE.json"
    try:
        value = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{path}: damaged: {error}; delete it to fetch the files anew") from None
    return value if isinstance(value, dict) else {}
