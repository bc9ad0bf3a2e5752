"""The tables of all settings of a grid, from what they share: the places of their edges.

A setting changes what edges weigh and not where they are. So sessions are counted once, and the edges of
every table are a row of numbers for the same places (``shared_scores.py`` has what they are worth). All
numbers are those that ``weigh``, ``both_ways`` and ``with_repeats`` give by themselves, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.data.pairs import count_pairs
from recbole_alkd.model.counting import LONGEST_GAP, gap_edges, session_counts
from recbole_alkd.model.neighbours import as_singles, in_halves, only, repeat_weight

_AT_ONCE = 1 << 15  # weights that are made together, so that they stay in the processor's cache


class Counting(NamedTuple):
    """How a table counts and weighs: the settings ``knn_...`` of these names."""

    repeat: float = 0.0
    backward: float = 1.0
    gap_decay: float = 1.0
    decay: float = 0.5
    source_exponent: float = 0.5
    target_exponent: float = 0.2


class Tables:
    """The tables that training sessions give, one a ``Counting``; sessions are counted once.

    Attributes:
        counts: (n_items,) in how many sessions each item is.
        start, indices: (n_items + 1,), (E,) the places of the edges of all tables, rows in order; every item
            has one to itself.
    """

    def __init__(
        self, flat: np.ndarray, offsets: np.ndarray, n_items: int, gap_decays: Sequence[float]
    ) -> None:
        self.counts, self.n_items = session_counts(flat, offsets, n_items), n_items
        start, target, values = gap_edges(count_pairs(flat, offsets, n_items, LONGEST_GAP), gap_decays)
        source = np.repeat(np.arange(n_items), np.diff(start))
        # the edges the other way round, in order: those of a transposed matrix
        other = csr_array((np.arange(len(target)), target, start), shape=(n_items, n_items)).tocsc()
        own = np.arange(1, n_items)
        rows, columns = [source, target[other.data], own], [target, source[other.data], own]
        keys = np.concatenate(rows) * np.int64(n_items) + np.concatenate(columns)
        order = np.argsort(keys, kind="stable")  # three sorted runs: merged rather than sorted
        keys = keys[order]
        new = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        place = np.empty_like(order)
        place[order] = np.cumsum(new) - 1
        at, back_at, self._own = np.split(place, [len(target), 2 * len(target)])
        every = keys[new]
        self._row = every // n_items
        self.indices = (every - self._row * n_items).astype(np.int32)
        self.start = np.searchsorted(every, np.arange(n_items + 1) * np.int64(n_items))
        self._counted: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        for decay, one in zip(gap_decays, values, strict=True):
            ahead, behind = np.zeros(len(every), dtype=np.float32), np.zeros(len(every), dtype=np.float32)
            ahead[at], behind[back_at] = one, one[other.data]
            self._counted[decay] = ahead, behind
        # what the settings before had, since a search changes one at a time
        self._last: dict[str, tuple[Any, Any]] = {}

    def widest(self) -> csr_array:
        """A table with every edge that any of them has, and one from every item to itself."""
        return csr_array(
            (np.ones(len(self.indices), dtype=np.float32), self.indices, self.start),
            shape=(self.n_items,) * 2,
        )

    def weights(self, how: Counting) -> np.ndarray:
        """What every edge weighs, (E,) float32; 0 where the table has none."""
        key = how._replace(repeat=0, decay=0)
        halves = self._kept("halves", key, self._halves)
        weights = as_singles(halves)
        if how.repeat:
            middle = self._kept("middle", key, lambda _: median(halves))
            if middle:
                weights[self._own] = repeat_weight(how.repeat, middle)
        return weights

    def _halves(self, how: Counting) -> np.ndarray:
        """The weights without repeats."""
        together = self._kept("together", (how.gap_decay, how.backward), self._together)
        source = self._kept("source", how.source_exponent, lambda e: ((self.counts + 1.0) ** -e)[self._row])
        target = self._kept(
            "target", how.target_exponent, lambda e: ((self.counts + 5.0) ** -e)[self.indices]
        )
        halves = np.empty(len(together), dtype=np.float16)
        for begin in range(0, len(together), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            halves[part] = in_halves(together[part] * source[part] * target[part])
        return halves

    def _together(self, key: tuple[float, float]) -> np.ndarray:
        ahead, behind = self._counted[key[0]]
        return ahead + np.float32(key[1]) * behind if key[1] else ahead

    def _kept(self, name: str, key: Any, make: Callable[[Any], Any]) -> Any:
        if name not in self._last or self._last[name][0] != key:
            self._last[name] = key, make(key)
        return self._last[name][1]

    def __call__(self, how: Counting) -> csr_array:
        """The whole table, rounded to float16 and kept as float32."""
        weights = self.weights(how)
        return only(csr_array((weights, self.indices, self.start), shape=(self.n_items,) * 2), weights > 0)


def median(halves: np.ndarray) -> np.float32:
    """The median of the float16 numbers above 0, as ``np.median`` has it of float32; 0 without any."""
    return median_of(np.bincount(halves.view(np.uint16), minlength=1 << 15))


def median_of(times: np.ndarray) -> np.float32:
    """``median`` from how often each float16 number is there, in the order of their bits."""
    times = times.copy()
    times[0] = 0
    total = int(times.sum())
    if not total:
        return np.float32(0)
    places = np.searchsorted(np.cumsum(times), [(total - 1) // 2, total // 2], side="right")
    return np.median(places.astype(np.uint16).view(np.float16).astype(np.float32))
