"""The manifest of an index directory: what was built, over which corpus, by which encoder, in which files.

It is written last, so a directory without one is unfinished, and everything that opens an index compares what it finds
with what the manifest says.
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever.corpus import CorpusFacts
from recall.retriever.files import FileFacts
from recall.store import write_atomic

NAME = "manifest.json"
Kind = Literal["bm25", "tantivy", "flat", "hnsw", "ivf-sq8", "ivf-pq", "hybrid", "faiss"]


class IndexFacts(Settings):
    """One index of the directory."""

    kind: Kind
    """What it is."""
    parameters: dict[str, Any]
    """All that decides what it finds, beside the corpus and the vectors."""
    files: dict[str, FileFacts]
    """Its files, seen from the index directory."""
    versions: dict[str, str]
    """The libraries that wrote it."""
    seconds: float
    """How long it took to build, the vectors not counted."""


class Manifest(Settings):
    """All indexes of a directory."""

    format: Literal[1] = 1
    """The version of this file's layout."""
    corpus: CorpusFacts
    """What they are over."""
    indexes: dict[Kind, IndexFacts]
    """What was built, by kind."""
    default: Kind
    """The one that is opened where none is named: the last one built."""

    def of(self, kind: Kind | None, directory: Path) -> IndexFacts:
        """The facts of one index.

        Raises:
            ConfigError: there is none of that kind.
        """
        facts = self.indexes.get(kind or self.default)
        if facts is None:
            raise ConfigError(f"{directory}: has no {kind} index; it has {', '.join(self.indexes)}")
        return facts


def read(directory: Path) -> Manifest:
    """The manifest of a directory.

    Raises:
        ConfigError: there is none, or it is of another version.
    """
    path = directory / NAME
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = (directory / "corpus").is_dir()
        problem = "the index is unfinished; run the same build again to go on" if begun else "no index"
        raise ConfigError(f"{directory}: {problem} (it has no {NAME})") from None
    except NotADirectoryError:
        raise ConfigError(f"{directory}: not a directory with an index") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: not a manifest of this version: {field}: {first['msg']}") from None


def write(directory: Path, manifest: Manifest) -> None:
    """Write the manifest of a directory, whole or not at all."""
    text = manifest.model_dump_json(indent=1) + "\n"
    write_atomic(directory / NAME, lambda file: file.write(text.encode()))


def files_under(directory: Path, part: str) -> dict[str, FileFacts]:
    """The facts of all files of one part of an index directory."""
    found = sorted(path for path in (directory / part).rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): FileFacts.of(path) for path in found}


def versions(*distributions: str) -> Mapping[str, str]:
    """The versions of the libraries that are installed."""
    return {name: metadata.version(name) for name in distributions}
