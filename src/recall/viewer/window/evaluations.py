"""Evaluations and sets as their directories say: every entry with its verdict, and the trajectory behind it if kept.

Rows are shown as they were written, whatever their version; fields that one lacks are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recall.errors import ConfigError
from recall.viewer.dataset.layout import Bars, Section, sections, verdict
from recall.viewer.window.folder import Entry, flat, read_object, read_rows

_FILES = {"qa": "results.jsonl", "bfcl": "verdicts.jsonl"}
_MEASURES = ("em", "f1", "cover_em", "judge")


def summary(entry: Entry) -> dict[str, Any]:
    """One line about an evaluation."""
    rows, notes = read_rows(entry.path / _FILES[entry.kind])
    manifest, _ = read_object(entry.path / "manifest.json")
    return {
        "name": entry.name,
        "kind": entry.kind,
        "entries": len(rows),
        "scores": _scores(entry.kind, rows),
        "model": flat(manifest).get("policy.model") or flat(manifest).get("policy") or "",
        "notes": notes,
    }


def entries(entry: Entry) -> dict[str, Any]:
    """Every entry of an evaluation, in one form for both kinds."""
    rows, notes = read_rows(entry.path / _FILES[entry.kind])
    manifest, problem = read_object(entry.path / "manifest.json")
    judged, _ = read_object(entry.path / "judgements.json")
    latest = {str(row.get("id", number)): row for number, row in enumerate(rows)}
    make = _qa if entry.kind == "qa" else _bfcl
    shown = [make(row, judged) for row in latest.values()]
    if problem:
        notes.append(problem)
    kept = (entry.path / "trajectories").is_dir()
    if not kept:
        said = "what was said turn by turn" if entry.kind == "qa" else "calls and verdicts"
        notes.append(f"This evaluation kept {said}, but no trajectories: tokens and log-probabilities are not known.")
    return {
        "name": entry.name,
        "kind": entry.kind,
        "manifest": flat(manifest),
        "scores": _scores(entry.kind, list(latest.values())),
        "rows": shown,
        "notes": notes,
        "trajectories": kept,
    }


def _qa(row: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    identity = str(row.get("id", ""))
    scores = {name: row[name] for name in _MEASURES if isinstance(row.get(name), int | float)}
    if identity in judged:
        scores["judge"] = float(bool(judged[identity]))
    return {
        "id": identity,
        "kind": row.get("kind", ""),
        "asked": row.get("question", ""),
        "right": bool(scores.get("judge", scores.get("em", 0))),
        "scores": scores,
        "accepted": row.get("accepted", []),
        "answer": row.get("prediction"),
        "problem": row.get("fault") or "",
        "steps": list(row.get("texts") or []),
        "facts": {
            name: row[name] for name in ("stop", "turns", "sampled_tokens", "duration_s", "queries") if name in row
        },
    }


def _bfcl(row: Mapping[str, Any], _judged: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row.get("id", "")),
        "kind": row.get("category", ""),
        "asked": "\n".join(map(str, row.get("asked") or [])),
        "right": bool(row.get("valid")),
        "scores": {},
        "accepted": [],
        "answer": row.get("result"),
        "problem": row.get("fault") or ": ".join(filter(None, (row.get("error_type"), row.get("message")))),
        "steps": [],
        "facts": {name: row[name] for name in ("turns", "calls", "malformed", "duration_s") if name in row},
    }


def _scores(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sound = [row for row in rows if row.get("fault") is None]
    if not sound:
        return {}
    if kind == "bfcl":
        found = {"accuracy": sum(bool(row.get("valid")) for row in sound) / len(sound)}
        for category in sorted({str(row.get("category", "")) for row in sound}):
            of = [row for row in sound if row.get("category") == category]
            found[category] = sum(bool(row.get("valid")) for row in of) / len(of)
        return found
    means = {}
    for name in _MEASURES:
        values = [row[name] for row in sound if isinstance(row.get(name), int | float)]
        if values:
            means[name] = sum(values) / len(values)
    return means


def set_summary(entry: Entry) -> dict[str, Any]:
    """One line about a set."""
    report, problem = read_object(entry.path / "report.json")
    gates = report.get("gates") if isinstance(report.get("gates"), list) else []
    broken = [gate for gate in gates or [] if isinstance(gate, dict) and gate.get("broken")]
    return {"name": entry.name, "gates": len(gates or []), "broken": len(broken), "problem": problem}


def dataset(entry: Entry) -> dict[str, Any]:
    """The report on a set: a sentence, and sections of tables and charts.

    Raises:
        ConfigError: the report is not one that `recall data report --json` writes.
    """
    report, problem = read_object(entry.path / "report.json")
    if problem:
        raise ConfigError(f"{entry.name}: {problem}")
    try:
        made = sections(report)
        said = verdict(report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"{entry.name}: report.json is not of this version of recall data report: {error!r}"
        ) from error
    return {"name": entry.name, "verdict": said, "sections": [_section(section) for section in made]}


def _section(section: Section) -> dict[str, Any]:
    tables = [{**asdict(table), "bad": sorted(table.bad)} for table in section.tables]
    charts = [{"shape": "bars" if isinstance(chart, Bars) else "matrix", **asdict(chart)} for chart in section.charts]
    return {"anchor": section.anchor, "title": section.title, "lead": section.lead, "tables": tables, "charts": charts}
