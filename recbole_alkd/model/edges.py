"""What a neighbour table can learn besides counts: weighted edges from rankings of sessions and from vectors
of items.

Pure functions on scipy matrices. An edge (i, j) of weight w adds w to the score of item j for a session that
ends with item i.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.neighbours import cut, only, rows_of, weigh

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Weighing:
    """How a table weighs and sums its edges: popularities (n_items,), the two exponents of ``weigh``, decay,
    newest items.

    As it stands, every item of a session counts alike and nothing is weighed by popularity. ``table`` holds
    the table's own edges, before any others were added; None for a model that has none.
    """

    counts: np.ndarray
    source_exponent: float = 0.0
    target_exponent: float = 0.0
    decay: float = 1.0
    last_items: int = sys.maxsize
    table: csr_array | None = field(default=None, compare=False, repr=False)
    weighed: list[csr_array] = field(default_factory=list, compare=False, repr=False)
    borrowed: list[tuple[csr_array, int]] = field(default_factory=list, compare=False, repr=False)

    def __call__(self, together: csr_array) -> csr_array:
        """``weigh`` under these exponents. ``weighed`` keeps what was given, for whoever weighs it with other
        counts."""
        self.weighed.append(together)
        return weigh(together, self.counts, self.source_exponent, self.target_exponent)

    def borrow(self, alike: csr_array, most: int) -> csr_array:
        """``borrowed_edges`` of the table itself. ``borrowed`` keeps what was given, for whoever borrows from
        another table.
        """
        assert self.table is not None
        self.borrowed.append((alike, most))
        return borrowed_edges(alike, self.table, most)

    def edges(self, make: EdgeMaker) -> tuple[csr_array, Weighing]:
        """What ``make`` makes, and what it was made of: ``weighed`` and ``borrowed`` of a ``Weighing`` of its
        own.
        """
        own = replace(self, weighed=[], borrowed=[])
        return make(own), own


# Edges (n_items, n_items), made once it is known how the table weighs its own.
EdgeMaker = Callable[[Weighing], csr_array]
# name -> what makes a set of edges, or several makers from which validation chooses
Edges = Mapping[str, "EdgeMaker | Sequence[EdgeMaker]"]


def variants_of(makers: EdgeMaker | Sequence[EdgeMaker]) -> Sequence[EdgeMaker]:
    """The makers of one entry of ``Edges``."""
    return (makers,) if callable(makers) else makers


def list_edges(profile: csr_array, lists: np.ndarray, weights: np.ndarray) -> csr_array:
    """Edges from each session's items to the items that were listed for it:
    E_ij = sum over sessions of p_si w_sj.

    Args:
        profile: (B, n_items) how much each item of a session speaks (``neighbours.profiles``).
        lists: (B, n) listed items; 0 is no item.
        weights: (B, n) or (n,) what a position counts.
    """
    row, place = np.nonzero(lists)
    weight = np.broadcast_to(weights, lists.shape)[row, place].astype(np.float32)
    listed = csr_array((weight, (row, lists[row, place])), shape=profile.shape)
    edges = csr_array(profile.T @ listed)
    edges.sort_indices()
    return only(edges, rows_of(edges) != edges.indices)


def nearest_edges(vectors: np.ndarray, neighbors: int, least: float) -> csr_array:
    """Edges from each item to those with the nearest vectors; the weight is the cube of the centred cosine.

    Args:
        vectors: (n_items, d); an item whose row is 0 has no vector and no edge (the padding is one).
        neighbors: edges an item, at most.
        least: only cosines above it, in [0, 1).
    """
    n_items = len(vectors)
    unit = unit_rows(vectors)
    known = np.flatnonzero(unit.any(1))
    compared = unit[known]
    neighbors = min(neighbors, len(known) - 1)
    if neighbors < 1:
        return csr_array((n_items, n_items), dtype=np.float32)
    source, target, cosine = [], [], []
    for start in range(0, len(known), _ROWS_AT_ONCE):
        cosines = compared[start : start + _ROWS_AT_ONCE] @ compared.T
        row = np.arange(len(cosines))
        cosines[row, start + row] = -np.inf
        best = np.argpartition(-cosines, neighbors - 1, axis=1)[:, :neighbors]
        value = np.take_along_axis(cosines, best, axis=1)
        at, place = np.nonzero(value > least)
        source.append(known[start + at])
        target.append(known[best[at, place]])
        cosine.append(value[at, place])
    weight = np.concatenate(cosine).astype(np.float32) ** 3
    return csr_array((weight, (np.concatenate(source), np.concatenate(target))), shape=(n_items, n_items))


def borrowed_edges(alike: csr_array, table: csr_array, most: int) -> csr_array:
    """Edges to the neighbours of like items: S W, S = ``alike`` with rows that sum to 1, W = ``table``
    without its diagonal.

    Args:
        alike: (n_items, n_items) how like two items are, at least 0. table: (n_items, n_items) edges of a
            table.
        most: edges of an item that are kept, the largest.
    """
    total = np.asarray(alike.sum(1)).ravel()
    row = rows_of(alike)
    shares = csr_array((alike.data / total[row], alike.indices, alike.indptr), shape=alike.shape)
    product = csr_array(shares @ only(table, rows_of(table) != table.indices))
    product.sort_indices()
    product = only(product, (rows_of(product) != product.indices) & (product.data > 0))
    return cut(
        csr_array((product.data.astype(np.float32), product.indices, product.indptr), shape=product.shape),
        most,
    )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows less the mean of all that are not 0, at length 1, float32; rows of 0 stay."""
    known = np.asarray(vectors.any(axis=1))
    if not known.any():
        return vectors.astype(np.float32)
    centred = np.where(known[:, None], vectors - vectors[known].mean(0), 0).astype(np.float32)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(
        centred, length, out=np.zeros_like(centred), where=length > 1e-6 * max(1e-30, float(length.max()))
    )


def permuted(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same vectors, each at another item: the control that says what the vectors' meaning is worth.
    Rows of 0 stay."""
    known = np.flatnonzero(vectors.any(1))
    order = rng.permutation(known)
    shuffled = vectors.copy()
    shuffled[order] = vectors[np.roll(order, 1)]  # one cycle, so that no item keeps its own
    return shuffled


def like(edges: csr_array, table: csr_array) -> csr_array:
    """The edges at a scale where their median is that of the table; as they are where either has none."""
    if not edges.nnz or not table.nnz:
        return edges
    factor = np.float32(np.median(table.data) / np.median(edges.data))
    return csr_array((edges.data * factor, edges.indices, edges.indptr), shape=edges.shape)


def added(table: csr_array, edges: csr_array, weight: float) -> csr_array:
    """table + weight * edges, as float32 in the order that tables have."""
    if not weight or not edges.nnz:
        return table
    total = csr_array(table + np.float32(weight) * edges)
    total.sort_indices()
    return total
