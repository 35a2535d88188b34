"""The page that shows two runs over the leaderboard side by side: one file that loads nothing and runs no script."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recall.evaluation.bfcl.compare import Comparison, Line, examples
from recall.evaluation.bfcl.play import Verdict
from recall.evaluation.bfcl.scores import Score
from recall.store import write_atomic
from recall.viewer.text import escape

_STYLE = """
.sides tr { grid-template-columns: 190px 52px 60px 60px 60px 52px 60px 76px 1fr; }
.sides td:nth-child(2) { color: var(--soft); }
.sides td:nth-child(3) { font-weight: 400; color: inherit; }
.sides td:nth-child(4) { font-weight: 650; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 8px; }
.turn { margin: 0 0 12px; } .turn .role { display: block; margin-bottom: 4px; }
.wrongness { color: var(--bad); font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 900px) {
  .sides tr { grid-template-columns: 1fr 56px 56px 56px; }
  .sides .wide { display: none; }
  .sides .track { grid-column: 1 / -1; }
}
"""
_CHARACTERS = 1200
"""Of one text that is shown."""


def write_page(path: Path, found: Comparison, count: int) -> None:
    """Write the page.

    Args:
        path: of the file.
        found: what is shown.
        count: examples of each category, of entries that were fixed and of entries that broke.
    """
    content = _page(found, count).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(content))


def _page(found: Comparison, count: int) -> str:
    style = resources.files("recall.viewer").joinpath("report.css").read_text(encoding="utf-8")
    old, new = found.groups["overall"]
    title = f"{found.before.name} → {found.after.name}"
    sections = (
        f'<h1><span class="from">{old.accuracy:.1%}</span> <span class="arrow">→</span> '
        f'<span class="{"to" if new.accuracy >= old.accuracy else "change down"}">{new.accuracy:.1%}</span></h1>'
        f'<p class="lead">overall accuracy on BFCL v4{_incomplete(old, new)}, before and after: {escape(title)}</p>'
        + _facts(found)
        + f'<section id="categories"><h2>By category</h2>{_categories(found.lines)}</section>'
        + f'<section id="groups"><h2>By group</h2>{_groups(found)}</section>'
        + f'<section id="errors"><h2>What was wrong</h2>{_errors(found)}</section>'
        + _examples("fixed", "Fixed", "Wrong before, right after.", found.fixed, count)
        + _examples("broken", "Broken", "Right before, wrong after.", found.broken, count)
    )
    nav = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in (
            ("categories", "Categories"),
            ("errors", "Errors"),
            ("fixed", "Fixed"),
            ("broken", "Broken"),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>BFCL before and after · ReCall</title><style>{style}{_STYLE}</style></head><body>"
        '<div class="bar"><span class="brand">ReCall</span><span class="run">BFCL, before and after</span>'
        f"<nav>{nav}</nav></div><main>{sections}</main></body></html>\n"
    )


def _incomplete(old: Score, new: Score) -> str:
    return "" if old.complete and new.complete else " (categories that were not played count as 0)"


def _facts(found: Comparison) -> str:
    entries = sum(line.before.entries for line in found.lines)
    facts = [
        ("entries of both runs", f"{entries:,}"),
        ("fixed", str(len(found.fixed))),
        ("broken", str(len(found.broken))),
    ]
    if found.only_one:
        facts.append(("in one run only, left out", str(found.only_one)))
    shown = "".join(f'<div class="fact"><dt>{name}</dt><dd>{value}</dd></div>' for name, value in facts)
    differing = "".join(
        f"<p class=lead>differs: {escape(key)}: {escape(json.dumps(old))} → {escape(json.dumps(new))}</p>"
        for key, (old, new) in found.differing.items()
    )
    return f'<dl class="facts-row">{shown}</dl>{differing}'


def _categories(lines: Sequence[Line]) -> str:
    heads = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (
            ("category", ""),
            ("of", ' class="wide"'),
            ("before", ""),
            ("after", ""),
            ("change", ""),
            ("fixed", ' class="wide"'),
            ("broken", ' class="wide"'),
            ("p", ' class="wide"'),
        )
    )
    axis = '<th scope="col" class="track-head"><span>0%</span><span>50%</span><span>100%</span></th>'
    rows = "".join(
        f'<tr><th scope="row">{escape(line.name)}</th><td class="wide">{line.before.entries}</td>'
        f"{_change(line.before, line.after)}<td class=wide>{line.fixed}</td><td class=wide>{line.broken}</td>"
        f"<td class=wide>{'&lt;0.001' if line.p < 0.001 else f'{line.p:.3f}'}</td>"
        f"{_track(line.before, line.after)}</tr>"
        for line in lines
    )
    return f'<table class="success sides"><thead><tr>{heads}{axis}</tr></thead><tbody>{rows}</tbody></table>'


def _groups(found: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="wide"></td>{_change(old, new)}<td class="wide"></td>'
        f'<td class="wide"></td><td class="wide">{"" if old.complete and new.complete else "incomplete"}</td>'
        f"{_track(old, new)}</tr>"
        for name, (old, new) in found.groups.items()
    )
    return f'<table class="success sides"><tbody>{rows}</tbody></table>'


def _change(old: Score, new: Score) -> str:
    points = 100 * (new.accuracy - old.accuracy)
    return (
        f'<td>{old.accuracy:.1%}</td><td>{new.accuracy:.1%}</td><td class="change {_tone(points)}">{points:+.1f}</td>'
    )


def _track(old: Score, new: Score) -> str:
    tone = _tone(100 * (new.accuracy - old.accuracy))
    low, high = sorted((100 * old.accuracy, 100 * new.accuracy))
    marks = f'<span class="span {tone}" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>'
    marks += f'<span class="mark before {tone}" style="left:{100 * old.accuracy:.1f}%"></span>'
    marks += f'<span class="mark after {tone}" style="left:{100 * new.accuracy:.1f}%"></span>'
    return f'<td class="track" aria-hidden="true"><div>{marks}</div></td>'


def _tone(points: float) -> str:
    return "up" if points >= 0.05 else "down" if points <= -0.05 else "same"


def _errors(found: Comparison) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(kind)}</th><td>{old}</td><td>{new}</td><td>{new - old:+d}</td></tr>"
        for kind, (old, new) in found.errors.items()
    )
    head = "<thead><tr><th>the leaderboard's word</th><th>before</th><th>after</th><th>change</th></tr></thead>"
    return f'<div id="settings"><div class="scroll"><table>{head}{rows}</table></div></div>'


def _examples(anchor: str, title: str, lead: str, pairs: Sequence[tuple[Verdict, Verdict]], count: int) -> str:
    shown = examples(pairs, count)
    body = "".join(_example(old, new) for old, new in shown)
    rest = f" {len(pairs) - len(shown)} more are in the verdicts of the runs." if len(pairs) > len(shown) else ""
    empty = "" if pairs else '<p class="empty">There is none.</p>'
    return (
        f'<section id="{anchor}"><h2>{title}: {len(pairs)}</h2><p class="lead">{lead}{rest}</p>{body}{empty}</section>'
    )


def _example(old: Verdict, new: Verdict) -> str:
    dots = "".join(f'<i class="{"right" if v.valid else "wrong"}">{"✓" if v.valid else "✗"}</i>' for v in (old, new))
    asked = next((said for said in old.asked if said), "")
    head = (
        f'<span class="dots2">{dots}</span><span class="question">{escape(_cut(asked, 160))}</span>'
        f'<span class="chips"><span class="chip">{escape(old.id)}</span></span>'
    )
    sides = "".join(_side(title, verdict) for title, verdict in (("Before", old), ("After", new)))
    return f'<details class="group"><summary>{head}</summary><div class="two">{sides}</div></details>'


def _side(title: str, verdict: Verdict) -> str:
    word = "right" if verdict.valid else "wrong"
    wrong = (
        ""
        if verdict.valid
        else f'<p class="wrongness">{escape(verdict.error_type)}: {escape(_cut(verdict.message))}</p>'
    )
    turns = "".join(
        f'<div class="turn"><span class="role">user</span><p class="words">{escape(_cut(asked))}</p>'
        f"{_steps(steps)}</div>"
        for asked, steps in _by_turn(verdict)
    )
    return (
        f'<article class="traj"><header><h4>{title}</h4><span class="verdict {word}">{word}</span>'
        f'<span class="facts">{verdict.turns} turns, {verdict.calls} calls</span></header>{wrong}{turns}</article>'
    )


def _by_turn(verdict: Verdict) -> list[tuple[str, Sequence[Any]]]:
    steps = list(verdict.result)
    return [
        (said or "More functions appear.", steps[number] if number < len(steps) else ["(not reached)"])
        for number, said in enumerate(verdict.asked)
    ]


def _steps(steps: Sequence[Any]) -> str:
    return f'<div class="body">{"".join(map(_step, steps))}</div>'


def _step(said: Any) -> str:
    if isinstance(said, str):
        return f'<div class="say">{escape(_cut(said) or "(nothing)")}</div>'
    return "".join(
        f'<div class="call"><div class="head"><code><span class="fn">{escape(name)}</span>('
        f"{escape(_cut(', '.join(f'{key}={value!r}' for key, value in arguments.items())))})</code></div></div>"
        for call in said
        for name, arguments in call.items()
    )


def _cut(text: str, limit: int = _CHARACTERS) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
