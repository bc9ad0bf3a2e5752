"""What the tables of a grid are worth: ranks of targets under any of them, from scores with shared places.

The scores of the validation sessions are the product of one sparse matrix with a table's weights
(``grid_tables.py``). Settings with the same decay are summed side by side, and so are decays of the same
weights. All numbers are those that ``target_ranks`` gives by itself, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.grid_tables import Tables
from recbole_alkd.model.neighbours import PRIOR, present, profiles, ranks_of, rows_of

AT_ONCE = 1 << 18  # scores that are compared together, so that they stay in the processor's cache


class Block(NamedTuple):
    """Some rows of sessions, and where the scores of their items come from.

    Attributes:
        indptr, items: (rows + 1,), (S,) the items that have a score, by row. hidden: of these, the ones that
            are never recommended.
        start, edge, speaker: (S + 1,), (M,), (M,) the edges that a score is the sum of, and the entry of the
            profiles that each counts by, in the order of the session's items.
        own: (rows,) where the target's score is, -1 where it has none.
    """

    indptr: np.ndarray
    items: np.ndarray
    hidden: np.ndarray
    start: np.ndarray
    edge: np.ndarray
    speaker: np.ndarray
    own: np.ndarray


class Near(NamedTuple):
    """Of some rows of sessions what says the ranks of their targets under one table.

    Attributes:
        some: (rows,) bool, the rows whose target can be within the cutoff. size: (some,) how many scores each
            of these has here. items, scores: those, by row.
    """

    some: np.ndarray
    size: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class SharedScores:
    """Ranks of targets under any of the tables.

    Args:
        tables: of the grid. item_seq, length, target: (rows, L), (rows,), (rows,). last_items: that count.
            masked: whether items of the session are never recommended.
    """

    def __init__(
        self,
        tables: Tables,
        item_seq: np.ndarray,
        length: np.ndarray,
        target: np.ndarray,
        last_items: int,
        masked: bool,
    ) -> None:
        self._tables, self._item_seq, self._length, self._last = tables, item_seq, length, last_items
        self._target = target
        prior = PRIOR * tables.counts
        self._prior, self._by_prior = prior, np.sort(prior[1:])
        self._most = 1.001 * prior.max(initial=0)  # what popularity adds at most, and rounding
        profile = self._profile(1.0)
        excluded = present(item_seq, tables.n_items) if masked else None
        size = (
            np.bincount(
                rows_of(profile), np.diff(tables.start)[profile.indices], minlength=len(target)
            ).cumsum()
            // AT_ONCE
        )
        cuts = np.append(np.unique(size, return_index=True)[1], len(target)).tolist()
        self._blocks = [self._block(profile, excluded, target, a, b) for a, b in pairwise(cuts)]
        self._votes: tuple[float, list[csr_array]] = (np.nan, [])

    @staticmethod
    def entries(tables: Tables, item_seq: np.ndarray, length: np.ndarray, last_items: int) -> int:
        """How many edges the sessions have together, which the memory goes by: about 16 bytes each."""
        age = length[:, None] - 1 - np.arange(item_seq.shape[1])
        return int(np.diff(tables.start)[item_seq[(age >= 0) & (age < last_items)]].sum())

    def ranks(self, weights: Sequence[np.ndarray], decays: Sequence[float], cutoff: int) -> list[np.ndarray]:
        """``target_ranks``, (rows,), under each of several ``Tables.weights`` with one decay, or under each
        of several decays with one ``Tables.weights``; inf where they are above ``cutoff``, or what they are.
        """
        scores_of = (
            self._of_weights(weights, decays[0]) if len(decays) == 1 else self._of_decays(weights[0], decays)
        )
        near: list[list[Near]] = [[] for _ in range(max(len(weights), len(decays)))]
        for block, beside in zip(self._blocks, scores_of, strict=True):
            for parts, scores in zip(near, np.ascontiguousarray(beside.T), strict=True):
                scores[block.hidden] = -np.inf
                parts.append(self._near(block, scores, cutoff))
        return [self._ranks(parts) for parts in near]

    def _of_weights(self, weights: Sequence[np.ndarray], decay: float) -> Iterator[np.ndarray]:
        """The scores of each block, (S, weights)."""
        if self._votes[0] != decay:
            data = np.append(self._profile(decay).data, np.float32(0))
            edges = len(self._tables.indices) + 1
            self._votes = (
                decay,
                [
                    csr_array(
                        (_at(data, block.speaker), block.edge, block.start), shape=(len(block.items), edges)
                    )
                    for block in self._blocks
                ],
            )
        # edges are looked up at places all over a table: once for the weights of all settings, side by side
        beside = np.zeros((len(self._tables.indices) + 1, len(weights)), dtype=np.float32)
        for column, one in enumerate(weights):
            beside[:-1, column] = one
        for votes in self._votes[1]:
            yield votes @ beside

    def _of_decays(self, weights: np.ndarray, decays: Sequence[float]) -> Iterator[np.ndarray]:
        """The scores of each block, (S, decays): the same products, of what the edges weigh with the votes of
        their items under all decays."""
        weights = np.append(weights, np.float32(0))
        beside = np.stack([np.append(self._profile(one).data, np.float32(0)) for one in decays], axis=1)
        for block in self._blocks:
            shape = (len(block.items), len(beside))
            yield csr_array((_at(weights, block.edge), block.speaker, block.start), shape=shape) @ beside

    def _near(self, block: Block, scores: np.ndarray, cutoff: int) -> Near:
        """Only scores that can stand at or above the target's are looked at: the others lack more than any
        popularity adds.
        """
        own = np.where(block.own < 0, np.float32(0), scores[block.own])
        least = np.nextafter(own - np.float32(self._most), np.float32(-np.inf), dtype=np.float32)
        close = scores >= np.repeat(least, np.diff(block.indptr))
        close[block.hidden] = True
        near = np.flatnonzero(close)
        size = np.diff(np.searchsorted(near, block.indptr))
        row = np.repeat(np.arange(len(own)), size)
        value = _at(scores, near)
        above = np.bincount(row[value > (own + np.float32(self._most))[row]], minlength=len(own))
        some = above < cutoff  # the others are behind it, whatever popularity adds
        kept = some[row]
        return Near(some, size[some], block.items[near[kept]], value[kept])

    def _ranks(self, parts: Sequence[Near]) -> np.ndarray:
        if not parts:
            return np.zeros(0)
        some, size, items, scores = (np.concatenate(one) for one in zip(*parts, strict=True))
        ranks = np.full(len(some), np.inf)
        indptr = np.append(0, np.cumsum(size))
        ranks[some] = ranks_of(indptr, items, scores, self._prior, self._by_prior, self._target[some])
        return ranks

    def _profile(self, decay: float) -> csr_array:
        return profiles(self._item_seq, self._length, decay, self._last, self._tables.n_items)

    def _block(
        self, profile: csr_array, excluded: csr_array | None, target: np.ndarray, begin: int, end: int
    ) -> Block:
        tables, n_items = self._tables, np.int64(self._tables.n_items)
        speaker = np.arange(profile.indptr[begin], profile.indptr[end])
        row = np.repeat(np.arange(end - begin), np.diff(profile.indptr[begin : end + 1]))
        first = tables.start[profile.indices[speaker]]
        degree = tables.start[profile.indices[speaker] + 1] - first
        edge = np.arange(degree.sum()) + np.repeat(first - (np.cumsum(degree) - degree), degree)
        key = np.repeat(row * n_items, degree) + _at(tables.indices, edge)
        speaker = np.repeat(speaker, degree)
        hidden = key[:0]
        if excluded is not None:  # an edge of no weight, from nobody, so that they stand among the scores
            some = slice(excluded.indptr[begin], excluded.indptr[end])
            hidden = (
                np.repeat(np.arange(end - begin), np.diff(excluded.indptr[begin : end + 1])) * n_items
                + excluded.indices[some]
            )
            key = np.concatenate([key, hidden])
            edge = np.append(edge, np.full(len(hidden), len(tables.indices)))
            speaker = np.append(speaker, np.full(len(hidden), profile.nnz))
        order = np.argsort(
            key, kind="stable"
        )  # the session's items keep their order, in which scores are summed
        key = key[order]
        new = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        wanted = key[new]
        indptr = np.searchsorted(wanted, np.arange(end - begin + 1) * n_items)
        aim = np.arange(end - begin) * n_items + target[begin:end]
        at = np.searchsorted(wanted, aim)
        own = np.where(np.append(wanted, -1)[at] == aim, at, -1)
        return Block(
            indptr,
            (wanted % n_items).astype(np.int32),
            np.searchsorted(wanted, np.sort(hidden)),
            np.append(new, len(key)).astype(np.int32),
            edge[order].astype(np.int32),
            speaker[order].astype(np.int32),
            own,
        )


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``values[places]`` of places that are there, which numpy need not look at first."""
    return np.take(values, places, mode="clip")
