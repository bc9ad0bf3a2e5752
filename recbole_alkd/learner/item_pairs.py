"""Pairs of items that sessions hold together, for what is learnt of title vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.data.pairs import LONGEST_GAP, count_pairs
from recbole_alkd.model.choosing import Sessions
from recbole_alkd.model.counting import both_ways, forward_counts, training_sessions
from recbole_alkd.model.text_axes import co_occurrence
from recbole_alkd.model.text_map import Pairs

_GAP_DECAY = 0.8  # what a pair of the graph counts for every item between the two


class ItemPairs:
    """Pairs of the sessions of a training part, and of a validation part or None."""

    def __init__(self, train: Any, valid: Any = None) -> None:
        self._train, self._valid = train, valid

    @cached_property
    def _sessions(self) -> tuple[np.ndarray, np.ndarray]:
        return training_sessions(self._train)

    @cached_property
    def graph(self) -> csr_array:
        """S (n_items, n_items) of ``text_axes.co_occurrence``: counts of training sessions, both ways, near
        items more.
        """
        (forward,) = forward_counts(*self._sessions, self._train.item_num, [_GAP_DECAY])
        return co_occurrence(both_ways(forward, 1.0))

    @cached_property
    def together(self) -> Pairs:
        """All pairs of different items of one training session, both ways."""
        source, target, _ = self._all
        return np.concatenate([source, target]), np.concatenate([target, source])

    @cached_property
    def consecutive(self) -> Pairs:
        """Items of training sessions, and those clicked right after them."""
        source, target, gap = self._all
        return source[gap == 0], target[gap == 0]

    @cached_property
    def valid(self) -> Pairs | None:
        """The newest items of validation sessions, and their targets."""
        if self._valid is None or not len(self._valid):
            return None
        rows = Sessions.of(self._valid, 1, False).with_earlier()
        newest = rows.item_seq[np.arange(len(rows.target)), np.maximum(rows.length, 1) - 1]
        kept = (newest > 0) & (newest != rows.target)
        return newest[kept], rows.target[kept]

    def among(self, items: Sequence[int]) -> tuple[Pairs, Pairs]:
        """``consecutive`` and ``valid`` as places in ``items``; pairs with any other item are left out."""
        place = np.full(self._train.item_num, -1, dtype=np.int64)
        place[np.asarray(items, dtype=np.int64)] = np.arange(len(items))
        nothing = np.zeros(0, dtype=np.int64)
        return _kept(place, self.consecutive), _kept(place, self.valid or (nothing, nothing))

    @cached_property
    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of places of one session with different items: the earlier item, the later one, the places
        between them."""
        pairs = count_pairs(*self._sessions, self._train.item_num, LONGEST_GAP)
        entries = (pairs.source(), pairs.target, pairs.gap)
        source, target, gap = (np.repeat(one, pairs.count) for one in entries)
        return source, target.astype(np.int64), gap


def _kept(place: np.ndarray, some: Pairs) -> Pairs:
    source, target = place[some[0]], place[some[1]]
    both = (source >= 0) & (target >= 0)
    return source[both], target[both]
