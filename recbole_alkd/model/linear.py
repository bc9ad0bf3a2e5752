"""SLIST and LINK: linear item-item models of sessions in closed form.

    B = (G + l I)^-1 (R + w M),    G = a X'X + (1 - a) S'S,    R = a X'Y + (1 - a) S'T

X and Y hold the items of whole sessions (SLIS), S and T the items before and after every place of a session,
those next to the place most: exp(-places / train_decay) (SLIT). Rows of X and S sum to 1. A session's items
speak exp(-age / predict_decay) B. Choi, Kim, Lee, Shim & Lee, "Session-aware Linear Item-Item Models for
Session-based Recommendation" (WWW 2021); with M, what a teacher says of sessions that hold one item, LINK:
Choi et al., "Linear Item-Item Models with Neural Knowledge for Session-based Recommendation" (SIGIR 2025),
without its step that fills sessions up with what SLIS says of them. Pure functions; B is dense.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from recbole_alkd.model.counting import LONGEST_GAP
from recbole_alkd.model.neighbours import rows_of

Sides = tuple[csr_array, csr_array]  # inputs and targets, (rows, n_items) both


def whole_sessions(flat: np.ndarray, offsets: np.ndarray, n_items: int) -> Sides:
    """X, whose rows sum to 1, and Y, of 0 and 1; both (sessions, n_items)."""
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    target = csr_array((np.ones(len(flat)), (row, flat)), shape=(len(offsets) - 1, n_items))
    target.sum_duplicates()
    target.data[:] = 1
    return normalised(target), target


def pasts_and_futures(flat: np.ndarray, offsets: np.ndarray, n_items: int, train_decay: float) -> Sides:
    """S, whose rows sum to 1, and T; a row for every place that has one after it in its session.

    Places more than ``LONGEST_GAP`` apart do not count.
    """
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    begin, end = offsets[:-1][session], offsets[1:][session]
    place = np.arange(len(flat))
    shape = (len(flat), n_items)
    past = _around(place, np.minimum(place - begin + 1, LONGEST_GAP), flat, train_decay, -1, 0, shape)
    future = _around(place, np.minimum(end - place - 1, LONGEST_GAP), flat, train_decay, 1, 1, shape)
    some = np.flatnonzero(np.diff(future.indptr))
    return normalised(csr_array(past[some])), csr_array(future[some])


def _around(
    place: np.ndarray,
    count: np.ndarray,
    flat: np.ndarray,
    decay: float,
    step: int,
    first: int,
    shape: tuple[int, int],
) -> csr_array:
    """(places, n_items): the ``count`` items from ``place`` + ``first`` on, in direction ``step``,
    the k-th at exp(-k / decay)."""
    row = np.repeat(place, count)
    k = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    weighed = csr_array((np.exp(-k / decay), (row, flat[row + first + step * k])), shape=shape)
    weighed.sum_duplicates()
    return weighed


def normalised(rows: csr_array) -> csr_array:
    """The rows divided by their sums."""
    total = np.asarray(rows.sum(axis=1)).ravel()
    return csr_array((rows.data / total[rows_of(rows)], rows.indices, rows.indptr), shape=rows.shape)


def gram(sides: Sides) -> Sides:
    """X'X and X'Y, (n_items, n_items) both."""
    inputs, targets = sides
    turned = csr_array(inputs.T)
    return csr_array(turned @ inputs), csr_array(turned @ targets)


def mixed(whole: csr_array, parts: csr_array, alpha: float, device: torch.device) -> Tensor:
    """alpha * whole + (1 - alpha) * parts, dense, float32."""
    return torch.from_numpy((alpha * whole + (1 - alpha) * parts).toarray().astype(np.float32)).to(device)


def factor(gram_matrix: Tensor, regularization: float) -> Tensor:
    """The Cholesky factor of G + l I; G is overwritten."""
    gram_matrix.diagonal().add_(regularization)
    return torch.linalg.cholesky(gram_matrix)


def linear_scores(weights: Tensor, item_seq: Tensor, length: Tensor, predict_decay: float) -> Tensor:
    """sum over the session's items of exp(-age / predict_decay) B_i, (B, n_items);
    weights (n_items, n_items)."""
    age = length.unsqueeze(1) - 1 - torch.arange(item_seq.shape[1], device=item_seq.device)
    speaks = torch.where(age >= 0, torch.exp(-age.clamp(min=0) / predict_decay), 0.0).to(weights.dtype)
    return embedding_bag(item_seq, weights, mode="sum", per_sample_weights=speaks)
