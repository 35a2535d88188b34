"""What an episode changed of a world of tables: the part of an environment that tells the final state."""

from typing import Any


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The changes by path: a field that differs, a whole row that is new, None for a row or a field that is gone."""
    found: dict[str, Any] = {}
    for table in {**before, **after}:
        old_rows, new_rows = before.get(table, {}), after.get(table, {})
        for row in {**old_rows, **new_rows}:
            old, new = old_rows.get(row), new_rows.get(row)
            if old is None or new is None:
                if old != new:
                    found[f"{table}/{row}"] = new
                continue
            for field in {**old, **new}:
                if field not in old or field not in new or old[field] != new[field]:
                    found[f"{table}/{row}/{field}"] = new.get(field)
    return found
