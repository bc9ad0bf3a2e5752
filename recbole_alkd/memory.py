"""How many rows are scored against all items at once.

A batch of scores is rows times items in float32. It is left whole up to ``WHOLE`` bytes; larger ones are cut
into blocks of rows of ``BLOCK`` bytes each. A row's scores, and so its metrics,
do not depend on the rows beside it.
"""

from __future__ import annotations

WHOLE = 2**30  # 1 GiB: 4,096 rows of 65,000 items
BLOCK = 2**28  # 256 MiB: 80 rows of 834,459 items


def rows_at_once(rows: int, n_items: int, number: int = 4) -> int:
    """``rows``, or as many of them (at least one) as a block holds. ``number``: bytes of one score."""
    if rows * n_items * number <= WHOLE:
        return rows
    return max(1, min(rows, BLOCK // (n_items * number)))
