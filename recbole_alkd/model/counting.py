"""Counting which item follows which in training sessions, with a direction and a gap.

    F_ij = sum over training sessions and places a < b with items i and j of g^(b - a - 1),    C = F + r F^T

g is ``knn_gap_decay`` and r ``knn_backward``. g = r = 1 counts the pairs of places that two items have in
sessions, whatever lies between them and whichever came first; g = r = 0 counts transitions, a Markov chain of
the first order. Pure functions on scipy matrices; time and memory grow with the clicks,
since a place counts with the ``LONGEST_GAP`` places after it at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.neighbours import only, rounded

# A place of a session is counted together with so many places after it, at most: one endless session costs no
# more than many short ones. Sessions up to this length are counted whole.
LONGEST_GAP = 100
_PAIRS_AT_ONCE = 1 << 22


def training_sessions(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Items of all training sessions, oldest first, one session after the other, (N,), and where each begins,
    (sessions + 1,).

    Args:
        dataset: the training part of a RecBole sequential data set. All rows of one ``USER_ID_FIELD`` are one
            session, so that prefixes give what whole sessions give. ``ALKDRecDataset`` gives sessions before
            they were cut to ``MAX_ITEM_LIST_LENGTH``; with any other, rows that continue one another are put
            together, and rows that do not are counted as sessions of their own.
    """
    feat, config = dataset.inter_feat, dataset.config
    session = feat[dataset.uid_field].numpy()
    if hasattr(dataset, "session_items"):
        items = [dataset.session_items(one) for one in np.unique(session)]
        return np.concatenate(items), np.cumsum([0, *map(len, items)])
    length = feat[config["ITEM_LIST_LENGTH_FIELD"]].numpy()
    order = np.lexsort((length, session))
    session, length = session[order], length[order]
    history = feat[dataset.iid_field + config["LIST_SUFFIX"]].numpy()[order]
    target = feat[dataset.iid_field].numpy()[order]
    newest = history[np.arange(len(length)), np.maximum(length, 1) - 1]
    again = np.zeros(len(session), dtype=bool)  # the row adds its target to the session of the row before
    longer = (length[1:] == length[:-1] + 1) | (
        (length[1:] == length[:-1]) & (length[1:] == history.shape[1])
    )
    again[1:] = (session[1:] == session[:-1]) & longer & (newest[1:] == target[:-1])
    inside = np.pad(
        (np.arange(history.shape[1]) < length[:, None]) & ~again[:, None],
        ((0, 0), (0, 1)),
        constant_values=True,
    )
    flat = np.concatenate([history, target[:, None]], axis=1)[inside]
    size = np.where(again, 1, length + 1)
    return flat, np.append((np.cumsum(size) - size)[~again], size.sum())


def session_counts(flat: np.ndarray, offsets: np.ndarray, n_items: int) -> np.ndarray:
    """In how many sessions each item is, (n_items,) int64."""
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(np.unique(session * n_items + flat) % n_items, minlength=n_items)


def forward_counts(
    flat: np.ndarray, offsets: np.ndarray, n_items: int, gap_decays: Sequence[float]
) -> list[csr_array]:
    """F (n_items, n_items), float32, for every gap decay. An item is no neighbour of itself;
    the diagonal is empty."""
    totals: list[csr_array] = []
    for source, target, gap in pairs(flat, offsets):
        key, place = np.unique(source * n_items + target, return_inverse=True)
        start = np.searchsorted(key, np.arange(n_items + 1) * n_items)
        parts = []
        for decay in gap_decays:
            data = np.bincount(place, weights=float(decay) ** gap, minlength=len(key)).astype(np.float32)
            part = csr_array((data, key % n_items, start), shape=(n_items, n_items))
            parts.append(only(part, part.data > 0))
        totals = [csr_array(a + b) for a, b in zip(totals, parts, strict=True)] if totals else parts
    return totals or [csr_array((n_items, n_items), dtype=np.float32) for _ in gap_decays]


def both_ways(forward: csr_array, backward: float) -> csr_array:
    """C = F + backward * F^T, rows in order."""
    if not backward:
        return forward
    table = csr_array(forward + np.float32(backward) * csr_array(forward.T))
    table.sort_indices()
    return table


def with_repeats(table: csr_array, repeat: float) -> csr_array:
    """The table with an edge from every item to itself, ``repeat`` times the median weight of the table;
    its diagonal is empty."""
    if not repeat or not table.nnz:
        return table
    weight = rounded(np.array([repeat * np.median(table.data)]))
    own = np.arange(1, table.shape[0])
    repeated = csr_array(table + csr_array((np.repeat(weight, len(own)), (own, own)), shape=table.shape))
    repeated.sort_indices()
    return repeated


def pairs(flat: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of places of one session with different items: the earlier item, the later one,
    the places between them."""
    end = np.repeat(offsets[1:], np.diff(offsets))
    after = np.minimum(end - np.arange(len(flat)) - 1, LONGEST_GAP)
    block = np.cumsum(after) // _PAIRS_AT_ONCE
    for number in np.unique(block):
        place = np.flatnonzero(block == number)
        earlier = np.repeat(place, after[place])
        gap = np.arange(len(earlier)) - np.repeat(np.cumsum(after[place]) - after[place], after[place])
        source, target = flat[earlier].astype(np.int64), flat[earlier + 1 + gap]
        kept = source != target
        yield source[kept], target[kept], gap[kept]
