"""Tables of item neighbours from co-occurrence in sessions: counting, weighing, cutting, and the ranks they give.

Item-based k nearest neighbours for sessions, as Ludewig & Jannach compare it in "Evaluation of Session-based
Recommendation Algorithms" (UMUAI 2018). Pure functions on scipy matrices; nothing of the size n_items x n_items is dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.config import AlkdError

# Items are told apart by their popularity where no neighbour speaks for them.
PRIOR = 1e-7
# What a table keeps: (int32, float16) for an edge; for an item the start of its edges and its count (int32 each); the decay.
EDGE_BYTES, ITEM_BYTES, FIXED_BYTES = 6, 8, 8


def incidence(dataset: Any) -> csr_array:
    """Which item is in which training session, the label included: (sessions, n_items) of 0 and 1, float32.

    Args:
        dataset: the training part of a RecBole sequential data set. All rows of one ``USER_ID_FIELD`` are one session, so
            that prefixes give what whole sessions give. ``ALKDRecDataset`` gives sessions before they were cut to
            ``MAX_ITEM_LIST_LENGTH``; with any other, the items that the rows hold.
    """
    feat, config = dataset.inter_feat, dataset.config
    sessions, row_session = np.unique(feat[dataset.uid_field].numpy(), return_inverse=True)
    if hasattr(dataset, "session_items"):
        items = [dataset.session_items(session) for session in sessions]
        row, column = np.repeat(np.arange(len(items)), [len(part) for part in items]), np.concatenate(items)
    else:
        history = feat[dataset.iid_field + config["LIST_SUFFIX"]].numpy()
        at, place = np.nonzero(history)
        row = np.concatenate([row_session[at], row_session])
        column = np.concatenate([history[at, place], feat[dataset.iid_field].numpy()])
    found = csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(sessions), dataset.item_num))
    found.sum_duplicates()
    found.data[:] = 1
    return found


def cooccurrence(sessions: csr_array) -> tuple[csr_array, np.ndarray]:
    """C (n, n), in how many sessions two items meet, the diagonal left out; and in how many each item is, (n,)."""
    counts = np.asarray(sessions.sum(axis=0)).astype(np.int64)
    together = csr_array(sessions.T @ sessions)
    row = rows_of(together)
    return only(together, row != together.indices), counts


def weigh(together: csr_array, counts: np.ndarray, source_exponent: float, target_exponent: float) -> csr_array:
    """W_ij = C_ij / ((n_i + 1)^source_exponent (n_j + 5)^target_exponent), rounded to float16 and kept as float32."""
    source = (counts + 1.0) ** -source_exponent
    target = (counts + 5.0) ** -target_exponent
    weights = together.data * source[rows_of(together)] * target[together.indices]
    return csr_array((rounded(weights), together.indices, together.indptr), shape=together.shape)


def rounded(weights: np.ndarray) -> np.ndarray:
    """The float16 numbers next to the weights, as float32."""
    return np.minimum(weights, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)


def cut(table: csr_array, neighbors: int | None = None, size: int | None = None) -> csr_array:
    """The table with each item's ``neighbors`` largest weights, or with as many edges as ``size`` bytes hold.

    For ``size`` every item keeps equally many, and the bytes that are left go to the largest of the next weights.
    Of equal weights the smaller item id is kept. Neither: the table itself.

    Raises:
        AlkdError: ``size`` does not hold even an empty table.
    """
    if neighbors is None and size is None:
        return table
    row = rows_of(table)
    order = np.lexsort((table.indices, -table.data, row))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(table.indptr[:-1], np.diff(table.indptr))
    if neighbors is not None:
        return only(table, place < neighbors)
    assert size is not None
    room = (size - table_bytes(table.shape[0], 0)) // EDGE_BYTES
    if room < 0:
        raise AlkdError(
            f"student_bytes: {size} does not hold the empty table of {table.shape[0]} items; allowed: at least "
            f"{table_bytes(table.shape[0], 0)}"
        )
    kept = np.zeros(table.nnz, dtype=bool)
    kept[np.lexsort((-table.data, place))[:room]] = True
    return only(table, kept)


def table_bytes(n_items: int, edges: int) -> int:
    """What a table of so many items and edges takes, in memory and (but for a header) on disk."""
    return n_items * ITEM_BYTES + edges * EDGE_BYTES + FIXED_BYTES


def profiles(item_seq: np.ndarray, item_seq_len: np.ndarray, decay: float, last: int, n_items: int) -> csr_array:
    """How much each item of a session speaks: decay^t, t = 0 for the newest, for the ``last`` newest; (B, n_items)."""
    age = item_seq_len[:, None] - 1 - np.arange(item_seq.shape[1])
    row, place = np.nonzero((age >= 0) & (age < last))
    weight = (decay ** age[row, place]).astype(np.float32)
    return csr_array((weight, (row, item_seq[row, place])), shape=(len(item_seq), n_items))


def target_ranks(
    table: csr_array, profile: csr_array, counts: np.ndarray, target: np.ndarray, excluded: csr_array | None = None
) -> np.ndarray:
    """Rank of each row's target among all items but the padding, 1 = best; ties share the mean of their ranks.

    Args:
        table: (n, n) weights. profile: (B, n). counts: (n,) popularity. target: (B,) items.
        excluded: (B, n) of 0 and 1; items that are never recommended.

    Returns:
        (B,) float64. The scores are profile @ table + ``PRIOR`` * counts; only those above the prior are made.
    """
    scores = csr_array(profile @ table)
    if excluded is not None:
        scores = csr_array(scores - np.float32(1e9) * excluded)
    row, prior = rows_of(scores), PRIOR * counts
    value, floor = scores.data + prior[scores.indices], prior[scores.indices]
    hit = scores.indices == target[row]
    own = prior[target].astype(np.float64)
    own[row[hit]] = value[hit]
    ours = own[row]
    better = np.bincount(row, (value > ours) + 0.5 * ((value == ours) & ~hit), minlength=len(target))
    # items no neighbour speaks for: all of them by the prior, less those that have a score of their own
    by_prior = np.sort(prior[1:])
    low, high = (np.searchsorted(by_prior, own, side=side) for side in ("left", "right"))  # type: ignore[call-overload]
    rest = len(by_prior) - high + 0.5 * (high - low)
    rest -= np.bincount(row, (floor > ours) + 0.5 * (floor == ours), minlength=len(target))
    rest[np.bincount(row[hit], minlength=len(target)) == 0] -= 0.5  # the target does not tie with itself
    return 1 + better + rest


def rows_of(table: csr_array) -> np.ndarray:
    """The row of every stored entry."""
    return np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))


def only(table: csr_array, kept: np.ndarray) -> csr_array:
    """The entries that are ``kept``, in their order."""
    start = np.concatenate([[0], np.cumsum(kept)])[table.indptr]
    return csr_array((table.data[kept], table.indices[kept], start), shape=table.shape)
