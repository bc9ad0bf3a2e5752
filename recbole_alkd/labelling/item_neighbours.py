"""What counts and titles say about each item by themselves, before an LLM is asked (``alkd_unit: item``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.choosing import Counting, Tables
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.edges import nearest_edges, unit_rows
from recbole_alkd.model.neighbours import rows_of

LEAST = 0.0  # centred cosine above which a title is near
_EDGES_AT_ONCE = 1 << 18


class ItemNeighbours:
    """Counted and title neighbours of every item.

    Args:
        train: the training part of a RecBole sequential data set; it is counted plainly (``Counting()``),
            without a choice.
        vectors: (n_items, d) title vectors, a row of 0 for an item without a title; None where there are no
            titles.
        size: title neighbours of an item, at most.

    Attributes:
        times: (n_items,) in how many training sessions an item is.
        counted, titles: (n_items, n_items) weights; ``titles`` is None without titles.
        agreement: (n_items,) mean title cosine (0 where negative) of an item and its counted neighbours,
            weighted by their counts, in [0, 1]; 0 where it has none. None without titles.
    """

    def __init__(self, train: Any, vectors: np.ndarray | None, size: int) -> None:
        tables = Tables(*training_sessions(train), train.item_num, [Counting().gap_decay])
        self.times, self.counted = tables.counts, tables(Counting())
        self.titles = None if vectors is None else nearest_edges(vectors, size, LEAST)
        self.agreement = None if vectors is None else _agreement(self.counted, unit_rows(vectors))

    def best(self, item: int, size: int) -> list[list[int]]:
        """The ``size`` best counted neighbours of an item, and its nearest by title: one list, or two, best
        first.
        """
        return [_best(table, item, size) for table in (self.counted, self.titles) if table is not None]


def merged(lists: list[list[int]], size: int) -> list[int]:
    """The first ``size`` different entries of the lists, taken in turn: the best of each, the second of
    each, and so on."""
    in_order: dict[int, None] = {}
    for place in range(max(map(len, lists), default=0)):
        for one in lists:
            if place < len(one):
                in_order.setdefault(one[place])
                if len(in_order) == size:
                    return list(in_order)
    return list(in_order)


def _best(table: csr_array, item: int, size: int) -> list[int]:
    part = slice(table.indptr[item], table.indptr[item + 1])
    order = np.argsort(-table.data[part], kind="stable")[:size]
    return table.indices[part][order].tolist()


def _agreement(counted: csr_array, unit: np.ndarray) -> np.ndarray:
    source, near = rows_of(counted), np.zeros(counted.nnz)
    for start in range(0, counted.nnz, _EDGES_AT_ONCE):
        part = slice(start, start + _EDGES_AT_ONCE)
        near[part] = np.einsum("ed,ed->e", unit[source[part]], unit[counted.indices[part]])
    n_items = counted.shape[0]
    total = np.bincount(source, counted.data, minlength=n_items)
    overlap = np.bincount(source, counted.data * np.clip(near, 0, 1), minlength=n_items)
    return np.divide(overlap, total, out=np.zeros(n_items), where=total > 0)
