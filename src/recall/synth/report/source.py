"""What a report says of where its tasks come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.datasets.sets import MANIFEST, checksum, is_set, read_manifest


def source_of(path: Path) -> dict[str, Any]:
    """The recipe, seed, counts and checksums of a set, or of one of its splits; the checksum of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    if not is_set(path):
        return {"path": str(path), "kind": "file", "sha256": checksum(path)}
    directory, split = (path, None) if (path / MANIFEST).is_file() else (path.parent, path.name)
    manifest = read_manifest(directory)
    shards = [shard for shard in manifest.shards if split in (None, shard.split)]
    rejected: dict[str, dict[str, int]] = {}
    for shard in shards:
        for gate, reasons in shard.rejected.items():
            _add(rejected.setdefault(gate, {}), reasons)
    return {
        "path": str(path),
        "kind": manifest.kind,
        "made_with_recall": manifest.version,
        "seed": manifest.seed,
        "complete": manifest.complete,
        "made": sum(shard.rows for shard in shards),
        "tried": sum(shard.tried for shard in shards),
        "rejected": dict(sorted(rejected.items())),
        "recipe": dict(manifest.recipe),
        "shards": [{"file": s.file, "split": s.split, "rows": s.rows, "sha256": s.sha256} for s in shards],
    }


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        counts[reason] = counts.get(reason, 0) + count
