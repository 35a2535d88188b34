"""Prints the report on a set as tables of a terminal. Charts are left to the page."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from recall.viewer.dataset.layout import Table, sections, verdict
from recall.viewer.text import visible


def renderables(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The report in the order in which it is read: details first, gates and verdict last, where a terminal ends."""
    gates, *others = sections(report)
    for section in (*others, gates):
        yield Text(f"\n{section.title}", style="bold")
        if section.lead:
            yield Text(visible(section.lead), style="dim")
        for table in section.tables:
            if table.rows:
                yield _table(table)
    broken = any(gate["broken"] for gate in report["gates"])
    yield Text(f"\n{verdict(report)}", style="bold red" if broken else "bold green")


def _table(table: Table) -> RichTable:
    shown = RichTable(
        title=table.title or None, title_justify="left", title_style="", caption=visible(table.note) or None, box=None,
        caption_justify="left", pad_edge=False, header_style="dim", padding=(0, 2, 0, 0),
    )  # fmt: skip
    for place, name in enumerate(table.head):
        words = place == 0 or name.endswith(" ")
        least = max((len(row[0]) for row in table.rows), default=0) if place == 0 else None
        width = min(least, 36) if least is not None else None
        shown.add_column(name.strip(), justify="left" if words else "right", overflow="fold", min_width=width)
    for place, row in enumerate(table.rows):
        cells = [Text(visible(cell)) for cell in row]
        shown.add_row(*cells, style="red" if place in table.bad else "")
    return shown
