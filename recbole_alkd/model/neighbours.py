"""Tables of item neighbours from counts in sessions (``counting.py``): weighing, cutting,
and the ranks they give.

Item-based k nearest neighbours for sessions, as Ludewig & Jannach compare it in "Evaluation of Session-based
Recommendation Algorithms" (UMUAI 2018). Pure functions on scipy matrices;
nothing of the size n_items x n_items is dense.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from recbole_alkd.settings.error import AlkdError

# Items are told apart by their popularity where no neighbour speaks for them.
PRIOR = 1e-7
# What a table keeps: (int32, float16) for an edge; for an item the start of its edges and its count (int32
# each); the decay.
EDGE_BYTES, ITEM_BYTES, FIXED_BYTES = 6, 8, 8


def weigh(
    together: csr_array, counts: np.ndarray, source_exponent: float, target_exponent: float, first: int = 0
) -> csr_array:
    """W_ij = C_ij / ((n_i + 1)^source_exponent (n_j + 5)^target_exponent), rounded to float16 and kept as
    float32.

    What rounds to 0 is no edge. ``first``: the item of the first row, where there are some rows only.
    """
    source = (counts[first : first + together.shape[0]] + 1.0) ** -source_exponent
    target = (counts + 5.0) ** -target_exponent
    weights = rounded(together.data * source[rows_of(together)] * target[together.indices])
    table = csr_array((weights, together.indices, together.indptr), shape=together.shape)
    return table if weights.all() else only(table, weights > 0)


def rounded(weights: np.ndarray) -> np.ndarray:
    """The float16 numbers next to the weights, as float32."""
    return as_singles(in_halves(weights))


def in_halves(weights: np.ndarray) -> np.ndarray:
    """The float16 numbers next to the weights; the largest one for what is larger.

    What numpy gives, in a fraction of its time: torch has the processor do it, which takes float32 numbers.
    """
    weights = np.minimum(weights, np.finfo(np.float16).max)
    single = weights.astype(np.float32)
    halves: np.ndarray = torch.from_numpy(single).half().numpy()
    if weights.dtype == np.float64:
        # rounded twice, a number can go astray where the first rounding put it in the middle of two halves;
        # below 2^-14 halves have fewer digits, and their middles lie elsewhere
        middle = (single.view(np.int32) & 0x1FFF) == 0x1000
        tiny = (single < 2.0**-14) & (single > -(2.0**-14)) & (single != 0)
        unsure = np.flatnonzero(middle | tiny)
        halves[unsure] = weights[unsure].astype(np.float16)
    return halves


def as_singles(halves: np.ndarray) -> np.ndarray:
    """float16 numbers as float32."""
    singles: np.ndarray = torch.from_numpy(halves).float().numpy()
    return singles


def repeat_weight(repeat: float, middle: np.floating) -> np.ndarray:
    """What an edge from an item to itself weighs, (1,) float32: ``repeat`` times the median of the others."""
    with np.errstate(over="ignore"):  # the largest float16 number is taken for what is larger
        return rounded(np.array([repeat * middle]))


def served(
    table: csr_array, neighbors: int | None = None, size: int | None = None, use: np.ndarray | None = None
) -> csr_array:
    """A table as it is kept: its weights rounded to float16, and ``cut``."""
    kept = csr_array((rounded(table.data), table.indices, table.indptr), shape=table.shape)
    return cut(kept, neighbors, size, use)


def cut(
    table: csr_array, neighbors: int | None = None, size: int | None = None, use: np.ndarray | None = None
) -> csr_array:
    """The table with each item's ``neighbors`` largest weights, or with as many edges as ``size`` bytes hold.

    For ``size`` every item keeps equally many, and the bytes that are left go to the largest of the next
    weights. Of equal weights the smaller item id is kept. Neither: the table itself.

    Args:
        use: (n_items,) above 0, what an edge of each item is worth beside its weight. As many edges are kept
            as without it, those of the largest use * weight, wherever they stand: some items keep more, some
            fewer. Of equal ones those that come earlier in their row, then those of smaller item ids, are
            kept.

    Raises:
        AlkdError: ``size`` does not hold even an empty table.
    """
    if neighbors is None and size is None:
        return table
    place = places(table)
    if neighbors is not None:
        if use is None:
            return only(table, place < neighbors)
        return _most_useful(table, place, int((place < neighbors).sum()), use)
    assert size is not None
    room = (size - table_bytes(table.shape[0], 0)) // EDGE_BYTES
    if room < 0:
        raise AlkdError(
            f"student_bytes: {size} does not hold the empty table of {table.shape[0]} items; "
            "allowed: at least "
            f"{table_bytes(table.shape[0], 0)}"
        )
    if use is not None:
        return _most_useful(table, place, room, use)
    kept = np.zeros(table.nnz, dtype=bool)
    kept[np.lexsort((-table.data, place))[:room]] = True
    return only(table, kept)


def _most_useful(table: csr_array, place: np.ndarray, room: int, use: np.ndarray) -> csr_array:
    """The table with the ``room`` edges of the largest use * weight."""
    kept = np.zeros(table.nnz, dtype=bool)
    kept[np.lexsort((place, -table.data * use[rows_of(table)]))[:room]] = True
    return only(table, kept)


def places(table: csr_array) -> np.ndarray:
    """The place of every entry in its row, from 0, the largest weight first and the smaller item
    id at ties."""
    row = rows_of(table)
    begin = table.indptr[:-1].astype(np.int64)[row]
    half = table.data.astype(np.float16)
    place = np.empty(len(row), dtype=np.int64)
    widest = int(np.diff(table.indptr).max(initial=0))
    if (
        table.has_sorted_indices and len(row) and not np.signbit(half).any() and (half == table.data).all()
        and table.shape[0] < 1 << 23 and widest < 1 << 24
    ):  # fmt: skip
        # one integer says row, weight and place among the ids: sorting it takes a tenth of sorting by three
        # keys
        falling = 0xFFFF - half.view(np.uint16).astype(np.int64)
        key = (row.astype(np.int64) << 40) | (falling << 24) | (np.arange(len(row)) - begin)
        key.sort()
        place[begin + (key & 0xFFFFFF)] = np.arange(len(row)) - begin
        return place
    order = np.lexsort((table.indices, -table.data, row))
    place[order] = np.arange(len(order)) - begin
    return place


def table_bytes(n_items: int, edges: int) -> int:
    """What a table of so many items and edges takes, in memory and (but for a header) on disk."""
    return n_items * ITEM_BYTES + edges * EDGE_BYTES + FIXED_BYTES


def profiles(
    item_seq: np.ndarray, item_seq_len: np.ndarray, decay: float, last: int, n_items: int
) -> csr_array:
    """How much each item of a session speaks: decay^t, t = 0 for the newest, for the ``last`` newest;
    (B, n_items)."""
    age = item_seq_len[:, None] - 1 - np.arange(item_seq.shape[1])
    row, place = np.nonzero((age >= 0) & (age < last))
    weight = (decay ** age[row, place]).astype(np.float32)
    return csr_array((weight, (row, item_seq[row, place])), shape=(len(item_seq), n_items))


def present(item_seq: np.ndarray, n_items: int) -> csr_array:
    """Which items are in each session, (B, n_items) of 0 and 1; all of the session's columns,
    not the last ones only."""
    row, place = np.nonzero(item_seq)
    presence = csr_array(
        (np.ones(len(row), dtype=np.float32), (row, item_seq[row, place])), shape=(len(item_seq), n_items)
    )
    presence.sum_duplicates()
    presence.data[:] = 1
    return presence


def target_ranks(
    table: csr_array,
    profile: csr_array,
    counts: np.ndarray,
    target: np.ndarray,
    excluded: csr_array | None = None,
) -> np.ndarray:
    """``score_ranks`` of the scores that a table gives: profile (B, n) @ table (n, n)."""
    return score_ranks(csr_array(profile @ table), counts, target, excluded)


def score_ranks(
    scores: csr_array, counts: np.ndarray, target: np.ndarray, excluded: csr_array | None = None
) -> np.ndarray:
    """Rank of each row's target among all items but the padding, 1 = best;
    ties share the mean of their ranks.

    Args:
        scores: (B, n), what items have above the prior. counts: (n,) popularity. target: (B,) items.
        excluded: (B, n) of 0 and 1; items that are never recommended.
            A target among them shares the last places with the others.

    Returns:
        (B,) float64. The scores are ``scores`` + ``PRIOR`` * counts; only those above the prior are made.
    """
    if excluded is not None:
        scores = csr_array(scores - np.float32(np.inf) * excluded)
    prior = PRIOR * counts
    return ranks_of(scores.indptr, scores.indices, scores.data, prior, np.sort(prior[1:]), target)


def ranks_of(
    indptr: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    prior: np.ndarray,
    by_prior: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    """``target_ranks`` from the scores that neighbours give.

    Args:
        indptr: (B + 1,) where the scores of each row begin. items, scores: of all rows one after the other;
            no item twice in a row.
        prior: (n,) what every item has beside that. by_prior: the same but for the padding, rising.
    """
    size = np.diff(indptr)
    floor = prior[items]
    value = scores + floor
    hit = np.flatnonzero(items == np.repeat(target.astype(items.dtype), size))
    own = prior[target].astype(np.float64)
    own[np.searchsorted(indptr, hit, side="right") - 1] = value[hit]
    ours = np.repeat(own, size)
    # items no neighbour speaks for: all of them by the prior, less those that have a score of their own
    low, high = (np.searchsorted(by_prior, own, side=side) for side in ("left", "right"))  # type: ignore[call-overload]
    halves = 2 * (value > ours).view(np.int8) + (value == ours).view(np.int8)
    halves -= 2 * (floor > ours).view(np.int8) + (floor == ours).view(np.int8)
    ends = np.concatenate([[0], np.cumsum(halves, dtype=np.int64)])[indptr]
    # the target ties with itself, once, by its score or by the prior
    return 1 + len(by_prior) - high + (high - low + np.diff(ends) - 1) / 2


def rows_of(table: csr_array) -> np.ndarray:
    """The row of every stored entry."""
    return np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))


def only(table: csr_array, kept: np.ndarray) -> csr_array:
    """The entries that are ``kept``, in their order."""
    start = np.concatenate([[0], np.cumsum(kept)])[table.indptr]
    return csr_array((table.data[kept], table.indices[kept], start), shape=table.shape)
