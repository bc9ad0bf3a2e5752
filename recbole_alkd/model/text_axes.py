"""Axes of title vectors: principal components, whitened by a power of the spectrum, and led by what sessions
hold together.

Vectors of a language model lie in a narrow cone: a few axes hold most of their variance, whatever a title
says. With X the centred vectors of the items that have one and S their co-occurrence graph with its degrees
taken out (S = D^-1/2 C D^-1/2), the axes v are the eigenvectors of

    X^T ((1 - share) I + share S) X,

which is PCA for share = 0; otherwise an axis counts for more where items that sessions hold together lie
alike on it. A coordinate is x . v / sd^power, sd the standard deviation of x . v over the items: power 0
leaves lengths as they are, 1 is full whitening.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.settings.groups import TextSettings

AXES = 128  # that are kept of whitened vectors, where item_text_dim says nothing
_NOTHING = 1e-9  # of the largest variance: an axis with less says nothing, and whitening would blow it up


def principal_axes(
    centred: np.ndarray, size: int | None = None, graph: csr_array | None = None, share: float = 0.0
) -> np.ndarray:
    """The ``size`` leading axes (None: all), (m, d) -> (d, min(size, d)), the first one largest.

    Args:
        centred: (m, d) float64, with mean 0. graph: S (m, m), symmetric; share: in [0, 1], what it counts.
    """
    moment = centred.T @ centred
    if share:
        assert graph is not None
        agreement = centred.T @ (graph @ centred)
        moment = (1 - share) * moment + share * (agreement + agreement.T) / 2
    _, axes = np.linalg.eigh(moment)  # rising
    return axes[:, ::-1][:, : centred.shape[1] if size is None else size]


def whitened(
    vectors: np.ndarray,
    power: float,
    size: int | None = None,
    graph: csr_array | None = None,
    share: float = 0.0,
) -> np.ndarray:
    """Vectors in their principal axes, (n_items, d) -> (n_items, at most size) float32; rows of 0 stay.

    Args:
        vectors: an item whose row is 0 has no vector. power: of the spectrum, in [0, 1].
        size: axes that are kept, None: all. Axes without any variance are left out.
        graph: S (n_items, n_items) of all items. share: what it counts in the choice of axes, in [0, 1].
    """
    known = np.flatnonzero(vectors.any(1))
    centred = vectors[known].astype(np.float64)
    if not len(known):
        return np.zeros((len(vectors), 1), dtype=np.float32)
    centred -= centred.mean(0)
    among = None if graph is None else csr_array(graph[known][:, known])
    moved = centred @ principal_axes(centred, size, among, share)
    variance = (moved**2).mean(0)
    kept = variance > _NOTHING * max(1e-30, float(variance.max(initial=0)))
    coordinates = np.zeros((len(vectors), max(1, int(kept.sum()))), dtype=np.float32)
    if kept.any():
        coordinates[known] = moved[:, kept] * variance[kept] ** (-power / 2)
    return coordinates


def in_axes(vectors: np.ndarray, text: TextSettings, graph: csr_array | None = None) -> np.ndarray:
    """Vectors (n_items, d) as ``item_text_whiten``, ``item_text_dim`` and ``item_text_graph`` ask for them;
    themselves where these ask for nothing. ``graph`` is needed for the last of them.
    """
    if not (text.item_text_whiten or text.item_text_graph or text.item_text_dim):
        return vectors
    return whitened(vectors, text.item_text_whiten, text.item_text_dim or AXES, graph, text.item_text_graph)


def co_occurrence(together: csr_array) -> csr_array:
    """S = D^-1/2 C D^-1/2 of symmetric counts C (n_items, n_items); an item without a neighbour keeps an
    empty row.
    """
    degree = np.asarray(together.sum(1), dtype=np.float64).ravel()
    scale = np.zeros_like(degree)
    scale[degree > 0] = degree[degree > 0] ** -0.5
    row = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    data = together.data * scale[row] * scale[together.indices]
    return csr_array((data, together.indices, together.indptr), shape=together.shape)
