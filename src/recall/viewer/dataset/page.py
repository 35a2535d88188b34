"""Writes the report on a set as one HTML file that loads nothing and runs no script."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from recall.store import write_atomic
from recall.viewer.dataset.bars import columns, matrix, rows
from recall.viewer.dataset.layout import Bars, Matrix, Section, Table, sections, verdict
from recall.viewer.text import escape


def write_page(report: Mapping[str, Any], out: Path) -> None:
    """Write the page, whole or not at all."""
    text = page(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, lambda file: file.write(text.encode()))


def page(report: Mapping[str, Any]) -> str:
    """The page as text."""
    made = sections(report)
    style = resources.files("recall.viewer").joinpath("report.css").read_text(encoding="utf-8")
    style += resources.files("recall.viewer.dataset").joinpath("page.css").read_text(encoding="utf-8")
    name = escape(report["source"].get("path", ""))
    nav = "".join(f'<a href="#{section.anchor}">{escape(section.title.split()[0])}</a>' for section in made)
    tone = "broken" if any(gate["broken"] for gate in report["gates"]) else "holds"
    body = f'<h1 class="{tone}">{escape(verdict(report))}</h1>' + "".join(map(_section, made))
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name} · ReCall set report</title><style>{style}</style></head><body>"
        f'<div class="bar"><span class="brand">ReCall</span><span class="run">{name}</span><nav>{nav}</nav></div>'
        f'<main class="set">{body}</main></body></html>\n'
    )


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    charts = "".join(map(_chart, section.charts))
    charted = {chart.title for chart in section.charts}
    cards = "".join(
        _card(table, section.anchor) for table in section.tables if table.rows and table.title not in charted
    )
    cards = f'<div class="cards">{cards}</div>' if cards else ""
    charts = f'<div class="charts">{charts}</div>' if charts else ""
    return f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{lead}{cards}{charts}</section>'


def _card(table: Table, anchor: str) -> str:
    gates = anchor == "gates" and not table.title
    words = [place == 0 or name.endswith(" ") for place, name in enumerate(table.head)]
    heads = "".join(
        f'<th scope="col"{_class("words" if word else "")}>{escape(name.strip())}</th>'
        for name, word in zip(table.head, words, strict=True)
    )
    body = ""
    for place, row in enumerate(table.rows):
        tone = "bad" if place in table.bad else "open" if gates and row[1] == "not measured" else ""
        cells = f'<th scope="row">{escape(row[0])}</th>'
        for at, cell in enumerate(row[1:], 1):
            kind = f"{'words' if words[at] else ''}{' state' if gates and at == 1 else ''}".strip()
            cells += f"<td{_class(kind)}>{escape(cell)}</td>"
        body += f"<tr{_class(tone)}>{cells}</tr>"
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    wide = len(table.head) > 4 or any(name.endswith(" ") for name in table.head[1:])
    kind = f"card{' wide' if wide else ''}{' gates' if gates else ''}"
    return f'<div class="{kind}">{title}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{note}</div>'


def _chart(chart: Bars | Matrix) -> str:
    if isinstance(chart, Matrix):
        drawn = matrix(chart.rows, chart.columns, chart.counts, chart.title)
    elif all(isinstance(key, str) for key, _ in chart.bars):
        drawn = rows([(str(key), count) for key, count in chart.bars], chart.title)
    else:
        drawn = columns([(float(key), count) for key, count in chart.bars], chart.title)
    kind = "chart across" if isinstance(chart, Matrix) else "chart"
    return f'<figure class="{kind}"><figcaption>{escape(chart.title)}</figcaption>{drawn}</figure>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
