"""A world with its rows in another order, which no answer may depend on."""

import random
from typing import Any


def _shuffled(world: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same tables with the same rows, each table's rows in an order drawn from the seed."""
    mixed = {}
    for table, rows in world.items():
        order = list(rows)
        random.Random(f"{seed}/{table}").shuffle(order)
        mixed[table] = {row: rows[row] for row in order}
    return mixed
