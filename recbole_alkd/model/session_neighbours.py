"""Session neighbours (VSTAN): training sessions that are like the one at hand, and what their items say.

    sim(s, n) = sum over common items i of w(i) / (|w| sqrt(items of n)) * exp(-age(n) / recency),  w(i) =
    exp(-age(i) / position) score(j)  = sum over the k most similar n of sim(s,
    n) * exp(-d(j) / distance) * exp(-a(n) / common) * (1 + idf * log(N / n_j))

age(i): how many items came after i in the session. age(n): the share of the training sessions that came after
n. d(j): how far j stands from the last common item inside of n. a(n): how old the newest common item is in
the session at hand. Ludewig, Mauro, Latifi & Jannach, "Empirical analysis of session-based recommendation
algorithms" (UMUAI 2020); V-SKNN (Ludewig & Jannach, UMUAI 2018) and STAN (Garg et al., SIGIR 2019) leave out
some of the weights. A weight of 0 is left out here. Pure functions on arrays;
nothing of the size sessions x sessions or sessions x items is dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.counting import session_counts

_ENTRIES = 1 << 22  # items of neighbours that are looked at together: about 200 MiB
_CELLS = 1 << 25  # rows x items of one block


class Vstan(NamedTuple):
    """The settings ``vstan_...`` of these names; see the module's text.
    0: no such weight (``neighbors`` apart)."""

    neighbors: int = 500
    position: float = 1.0
    distance: float = 1.0
    common: float = 0.0
    idf: float = 1.0
    recency: float = 0.0


class SessionMemory:
    """Training sessions in the form that neighbours are found in.

    Args:
        flat, offsets: items of all sessions, oldest first, (N,), and where each begins, (sessions + 1,).
            Sessions are in the order in which they came.
        n_items: the padding 0 included.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray, n_items: int) -> None:
        self.n_items, self.sessions = n_items, len(offsets) - 1
        session = np.repeat(np.arange(self.sessions), np.diff(offsets))
        place = np.arange(len(flat)) - offsets[:-1][session]
        key = session * n_items + flat
        order = np.lexsort((-place, key))
        last = order[
            np.unique(key[order], return_index=True)[1]
        ]  # each item of a session once, where it stands last
        self.item, self.place = flat[last].astype(np.int64), place[last]
        self.start = np.searchsorted(session[last], np.arange(self.sessions + 1))
        self.counts = session_counts(flat, offsets, n_items)

    @cached_property
    def by_item(self) -> csr_array:
        """(n_items, sessions): 1 / sqrt(distinct items of the session) where the item is in it."""
        size = np.diff(self.start)
        session = np.repeat(np.arange(self.sessions), size)
        matrix = csr_array(
            ((1 / np.sqrt(size[session])).astype(np.float32), (self.item, session)),
            shape=(self.n_items, self.sessions),
        )
        matrix.sort_indices()
        return matrix

    def scores(self, how: Vstan, item_seq: np.ndarray, length: np.ndarray) -> csr_array:
        """Scores (B, n_items), float32, of items that a neighbour has. item_seq (B, L), length (B,)."""
        blocks = [self._block(how, item_seq[rows], length[rows]) for rows in self._blocks(how, len(length))]
        if len(blocks) == 1:
            return blocks[0]
        start = np.cumsum([0, *(block.nnz for block in blocks)])
        parts = [block.indptr[:-1] + at for block, at in zip(blocks, start, strict=False)]
        pointers = np.concatenate([*parts, start[-1:]])
        data, indices = (
            np.concatenate([getattr(block, key) for block in blocks] or [np.zeros(0, int)])
            for key in ("data", "indices")
        )
        return csr_array((data.astype(np.float32), indices, pointers), shape=(len(length), self.n_items))

    def typical(self, neighbors: int) -> float:
        """Items of so many neighbours together, at most: those of sessions of mean length."""
        return max(1.0, len(self.item) / max(1, self.sessions) * min(neighbors, self.sessions))

    def _blocks(self, how: Vstan, rows: int) -> Iterator[slice]:
        size = max(1, int(min(_ENTRIES / self.typical(how.neighbors), _CELLS / self.n_items)))
        for start in range(0, rows, size):
            yield slice(start, start + size)

    def _block(self, how: Vstan, item_seq: np.ndarray, length: np.ndarray) -> csr_array:
        shape = (len(length), self.n_items)
        row, item, age = newest(item_seq, length)
        neighbour_row, session, similarity = self._neighbours(how, row, item, age, len(length))
        size = self.start[session + 1] - self.start[session]
        first = np.cumsum(size) - size
        entry = np.arange(size.sum()) + np.repeat(self.start[session] - first, size)
        its_item, its_place = self.item[entry], self.place[entry]
        cell = np.repeat(neighbour_row * self.n_items, size) + its_item
        ages = np.full(shape[0] * self.n_items, np.iinfo(np.int32).max, dtype=np.int32)
        ages[row * self.n_items + item] = age
        its_age = ages[cell]
        if not len(entry):
            return csr_array(shape, dtype=np.float32)
        weight = similarity * decayed(np.minimum.reduceat(its_age, first), how.common)
        common = its_age < np.iinfo(np.int32).max
        last_common = np.maximum.reduceat(np.where(common, its_place, -1), first)
        value = np.repeat(weight, size) * decayed(
            np.abs(its_place - np.repeat(last_common, size)), how.distance
        )
        block = csr_array((value, (np.repeat(neighbour_row, size), its_item)), shape=shape)
        block.sum_duplicates()
        idf = np.log(max(1, self.sessions) / np.maximum(self.counts, 1))
        data = (block.data * (1 + how.idf * idf[block.indices])).astype(np.float32)
        return csr_array((data, block.indices, block.indptr), shape=shape)

    def _neighbours(
        self, how: Vstan, row: np.ndarray, item: np.ndarray, age: np.ndarray, rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, session and similarity of the ``how.neighbors`` most similar sessions of every row;
        newer ones at ties."""
        weight = decayed(age, how.position)
        norm = np.sqrt(np.bincount(row, weight**2, minlength=rows))
        query = csr_array((weight / norm[row], (row, item)), shape=(rows, self.n_items))
        likeness = csr_array(query @ self.by_item)
        its_row = np.repeat(np.arange(rows), np.diff(likeness.indptr))
        later = (self.sessions - 1 - likeness.indices) / max(1, self.sessions)
        similarity = likeness.data * decayed(later, how.recency)
        order = np.lexsort((-likeness.indices, -similarity, its_row))
        kept = order[np.arange(len(order)) - likeness.indptr[its_row] < how.neighbors]
        return its_row[kept], likeness.indices[kept].astype(np.int64), similarity[kept]


def newest(item_seq: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, item and age of every item of each session, once, as its newest place has it;
    age 0 is the newest item."""
    row, column = np.nonzero(np.arange(item_seq.shape[1]) < length[:, None])
    item, age = item_seq[row, column].astype(np.int64), length[row] - 1 - column
    order = np.lexsort((age, item, row))
    row, item, age = row[order], item[order], age[order]
    first = np.ones(len(row), dtype=bool)
    first[1:] = (np.diff(row) != 0) | (np.diff(item) != 0)
    return row[first], item[first], age[first]


def decayed(distance: np.ndarray, scale: float) -> np.ndarray:
    """exp(-distance / scale); 1 for a scale of 0, which is no decay."""
    return np.exp(-distance / scale) if scale else np.ones(len(distance))
