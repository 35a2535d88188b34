"""Writes a copy of the window that opens from disk: one file with the page, and in it what the server would answer.

It holds everything about runs, evaluations and sets, but of trajectories a choice, in whole groups. It loads nothing,
and its policy lets no script run but the page's own.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from recall.errors import ConfigError
from recall.store import write_atomic
from recall.viewer.index.fetch import group_rows
from recall.viewer.index.find import alive, brief
from recall.viewer.index.index import Snapshot
from recall.viewer.index.rows import STATUSES
from recall.viewer.window.app import to_json
from recall.viewer.window.assets import STYLES, bundle, page_files, sha256
from recall.viewer.window.views import Views

MAX_PAIRED = 8
"""With more runs than this, their tasks are not put side by side in the copy."""


def write_export(views: Views, out: Path, per_run: int) -> Path:
    """Write the copy.

    Args:
        views: of the directory that is copied; they must wait for their indexes.
        out: a directory, made if it is not there.
        per_run: trajectories of each run at most.

    Returns:
        The file, `index.html`.

    Raises:
        ConfigError: the directory cannot be written.
    """
    answers = {key: packed(value) for key, value in _answers(views, per_run).items()}
    path = out / "index.html"
    text = page(answers)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def page(answers: Mapping[str, str]) -> str:
    """The page with packed answers in it, by what would be asked."""
    files = {name: content.decode() for name, (content, _) in page_files().items()}
    script, library = bundle(files, "app"), files["vendor/uplot.js"]
    style = "".join(files[name] for name in STYLES)
    hashes = " ".join(f"'{sha256(text)}'" for text in (script, library))
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src '{sha256(style)}'; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(answers).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    body = files["index.html"].partition("<body>")[2]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>ReCall window</title>\n'
        f"<style>{style}</style>\n<script>{library}</script>\n"
        f'<script type="application/json" id="copy">{data}</script>\n'
        f'<script type="module">{script}</script>\n</head>\n<body>{body}'
    )


def packed(value: Any) -> str:
    """JSON, compressed, in letters."""
    return base64.b64encode(gzip.compress(to_json(value), 6, mtime=0)).decode()


def _answers(views: Views, per_run: int) -> dict[str, Any]:
    told = views.runs()
    answers: dict[str, Any] = {"runs||": told}
    runs = [run["name"] for run in told["runs"]]
    for run in runs:
        answers |= _trajectories(views, run, per_run)
        answers |= {f"metrics|{run}|": views.metrics(run), f"health|{run}|": views.health(run)}
    if len(runs) <= MAX_PAIRED:
        answers |= {f"pair|{run}|{other}": views.pair(run, other) for run, other in permutations(runs, 2)}
    for name in (each["name"] for each in told["evaluations"]):
        answers[f"evaluation|{name}|"] = found = views.evaluation(name)
        if found["trajectories"]:
            answers |= _trajectories(views, name, per_run)
    answers |= {f"dataset|{each['name']}|": views.dataset(each["name"]) for each in told["sets"]}
    return answers


def _trajectories(views: Views, name: str, per_run: int) -> dict[str, Any]:
    """Some trajectories of a run or an evaluation, with what a list and its filters ask about them."""
    index = views.index(name)
    rows = chosen(index, per_run)
    about = views.run(name)
    if len(rows) < about["trajectories"]:
        kept = f"This copy holds {len(rows):,} of its {about['trajectories']:,} trajectories, spread over the steps."
        about["notes"] = [*about["notes"], kept]
    return {
        f"run|{name}|": about,
        f"rows|{name}": _rows(views, name, index, rows),
        **{f"trajectory|{name}|{row}": views.trajectory(name, row) for row in rows},
    }


def chosen(index: Snapshot, count: int) -> list[int]:
    """Rows of whole groups, at most `count`, spread over the files of a run."""
    files = [file for file in index.files if file.alive and file.rows]
    picked: dict[int, list[int]] = {}
    room = count
    queues = []
    for file in files:
        groups = index.columns["group"][file.first : file.first + file.rows]
        queues.append((file.first, np.unique(groups, return_index=True)[1].tolist()))
    for place in range(max((len(firsts) for _, firsts in queues), default=0)):
        for first, firsts in queues:
            if place < len(firsts):
                rows = group_rows(index, first + firsts[place])
                if len(rows) <= room:
                    room -= len(rows)
                    picked[rows[0]] = rows
    return sorted(row for rows in picked.values() for row in rows if alive(index)[row])


def _rows(views: Views, run: str, index: Snapshot, rows: list[int]) -> list[dict[str, Any]]:
    shown = []
    for start in range(0, len(rows), 500):
        some = rows[start : start + 500]
        for row, short in zip(some, brief(index, some), strict=True):
            bits = int(index.columns["statuses"][row])
            segments = views.raw(run, row).get("segments") or []
            said = " ".join(str(segment.get("text", "")) for segment in segments[1:])[:20_000]
            statuses = [name for at, name in enumerate(STATUSES) if bits >> at & 1]
            shown.append({**short, "statuses": statuses, "words": f"{short['question']} {short['task']} {said}"})
    return shown
