"""Counting which item follows which in training sessions, with a direction and a gap.

    F_ij = sum over training sessions and places a < b with items i and j of g^(b - a - 1),    C = F + r F^T

g is ``knn_gap_decay`` and r ``knn_backward``. g = r = 1 counts the pairs of places that two items have in
sessions, whatever lies between them and whichever came first; g = r = 0 counts transitions, a Markov chain of
the first order. Pairs are counted by their gap (``data/pairs.py``), as whole numbers, and F is made of these:
the sum over gaps, the smallest first, in float64, kept as float32. So F is the same to the last bit, however
the sessions were cut into parts. Pure functions on scipy matrices; time and memory grow with the clicks,
since a place counts with the ``LONGEST_GAP`` places after it at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

# where tables have always found it
from recbole_alkd.data.count_sessions import session_counts as session_counts
from recbole_alkd.data.pairs import LONGEST_GAP, PairCounts, count_pairs
from recbole_alkd.model.neighbours import only, repeat_weight


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
    if hasattr(dataset, "items_of_sessions"):
        flat, offsets = dataset.items_of_sessions(np.unique(session))
        return flat, offsets
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


def forward_counts(
    flat: np.ndarray, offsets: np.ndarray, n_items: int, gap_decays: Sequence[float]
) -> list[csr_array]:
    """F (n_items, n_items), float32, for every gap decay. An item is no neighbour of itself;
    the diagonal is empty."""
    return weighed_gaps(count_pairs(flat, offsets, n_items, LONGEST_GAP), gap_decays)


def weighed_gaps(
    pairs: PairCounts, gap_decays: Sequence[float], n_items: int | None = None
) -> list[csr_array]:
    """F, float32, rows in order, for every gap decay.

    Args:
        pairs: the counts, of all items or of some rows of them.
            n_items: all items, where they are of some rows.
    """
    start, target, values = gap_edges(pairs, gap_decays)
    tables = []
    for data in values:
        whole = csr_array((data, target, start), shape=(pairs.n_items, n_items or pairs.n_items))
        tables.append(whole if data.all() else only(whole, data > 0))
    return tables


def gap_edges(
    pairs: PairCounts, gap_decays: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Where F has entries, (n_items + 1,) starts of rows and (E,) columns, and for every gap decay their
    values, (E,) float32."""
    new = np.append(True, pairs.target[1:] != pairs.target[:-1])[: len(pairs.target)]
    new[pairs.start[:-1][pairs.start[:-1] < len(new)]] = True
    edge = np.cumsum(new)
    start, target = np.append(0, edge)[pairs.start], pairs.target[new]
    edge -= 1
    worth = [float(decay) ** np.arange(256) for decay in gap_decays]  # gaps are uint8
    sums = (np.bincount(edge, weights=pairs.count * one[pairs.gap], minlength=len(target)) for one in worth)
    return start, target, [one.astype(np.float32) for one in sums]


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
    weight = repeat_weight(repeat, np.median(table.data))
    own = np.arange(1, table.shape[0])
    repeated = csr_array(table + csr_array((np.repeat(weight, len(own)), (own, own)), shape=table.shape))
    repeated.sort_indices()
    return repeated
