"""Refining the kept weights of a neighbour table by gradients: sampled softmax on the training rows,
over the kept edges alone.

    p(target | session) = softmax over items j of s * sum over the newest items of decay^t w_ij,
    w_ij = w0_ij exp(theta_ij)

from theta = 0, so that a weight stays above 0 and no edge comes or goes; the scale s is learnt along. As in
``sampled_softmax.py`` the sum goes over the target and K drawn items, whose logits lose log(K q).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import cross_entropy

_BATCH, _NEGATIVES, _RATE, _L2 = 512, 1024, 0.004, 1e-2
_START = 5.0  # times the mean target score that is not 0: how sure the softmax is in the beginning


class EdgeLogits:
    """Logits of training rows under the kept edges of a table.

    Args:
        table: (n, n), rows in order. decay, last_items: as the table is served.
    """

    def __init__(self, table: csr_array, decay: float, last_items: int) -> None:
        self.n_items = table.shape[0]
        self.indptr = torch.from_numpy(table.indptr.astype(np.int64))
        self.indices = torch.from_numpy(table.indices.astype(np.int64))
        self.decay, self.last_items = decay, last_items

    def __call__(
        self, weights: Tensor, item_seq: Tensor, length: Tensor, target: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of the targets (B,) and of ``others`` (k,), distinct items, (B, k),
        with a gradient to ``weights`` (E,)."""
        age = length.unsqueeze(1) - 1 - torch.arange(item_seq.shape[1])
        row, column = torch.nonzero((age >= 0) & (age < self.last_items), as_tuple=True)
        item = item_seq[row, column]
        start = self.indptr[item]
        degree = self.indptr[item + 1] - start
        slot = torch.repeat_interleave(torch.arange(len(item)), degree)
        place = torch.arange(len(slot)) + (start - (degree.cumsum(0) - degree))[slot]
        row, vote, neighbour = row[slot], (self.decay ** age[row, column])[slot], self.indices[place]
        hit = neighbour == target[row]
        positive = weights.new_zeros(len(target)).index_add(0, row[hit], weights[place[hit]] * vote[hit])
        spot = torch.full((self.n_items,), -1)
        spot[others] = torch.arange(len(others))
        among = spot[neighbour] >= 0
        flat = row[among] * len(others) + spot[neighbour[among]]
        negative = weights.new_zeros(len(target) * len(others)).index_add(
            0, flat, weights[place[among]] * vote[among]
        )
        return positive, negative.view(len(target), len(others))


def refined(
    table: csr_array,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    decay: float,
    last_items: int,
    epochs: int,
    gain: Callable[[csr_array], float],
    seed: int,
) -> tuple[csr_array, int, list[float]]:
    """The table with the weights of the epoch that ``gain`` likes best.

    Args:
        table: (n, n), as it is served. rows: item_seq (R, L), length (R,) and target (R,) of the training
            rows.
        gain: what a table is worth on validation sessions.

    Returns:
        The table, its epoch (0: as it was, also where a later one is only as good),
        and the gain of every epoch from 0 on.
    """
    item_seq, length, target = (torch.from_numpy(np.asarray(part)).long() for part in rows)
    gains = [gain(table)]
    if not table.nnz or not len(target):
        return table, 0, gains
    generator = torch.Generator().manual_seed(seed)
    logits_of, n_items = EdgeLogits(table, decay, last_items), table.shape[0]
    first = torch.from_numpy(table.data.astype(np.float32))
    theta = torch.zeros_like(first, requires_grad=True)
    seen = logits_of(
        first, item_seq[:_BATCH], length[:_BATCH], target[:_BATCH], torch.zeros(0, dtype=torch.long)
    )[0]
    typical = float(seen[seen > 0].mean()) if (seen > 0).any() else 1.0
    scale = torch.tensor(math.log(_START / typical), requires_grad=True)
    log_q = (0.5 * torch.bincount(target, minlength=n_items) / len(target) + 0.5 / (n_items - 1)).log()
    optimizer, best, best_epoch = torch.optim.Adam([theta, scale], lr=_RATE), table, 0
    for epoch in range(1, epochs + 1):
        for part in torch.randperm(len(target), generator=generator).split(_BATCH):
            label = target[torch.randint(len(target), (_NEGATIVES,), generator=generator)]
            anything = torch.randint(1, n_items, (_NEGATIVES,), generator=generator)
            drawn = torch.where(torch.rand(_NEGATIVES, generator=generator) < 0.5, anything, label)
            others, times = drawn.unique(return_counts=True)
            positive, negative = logits_of(
                first * theta.exp(), item_seq[part], length[part], target[part], others
            )
            # an item that was drawn c times stands there c times
            negative = scale.exp() * negative - log_q[others] - math.log(_NEGATIVES) + times.log()
            negative = negative.masked_fill(target[part].unsqueeze(1) == others, -torch.inf)
            logits = torch.cat([(scale.exp() * positive).unsqueeze(1), negative], dim=1)
            loss = cross_entropy(
                logits, torch.zeros(len(part), dtype=torch.long)
            ) + _L2 * theta.square().sum() / len(part)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        data = (first * theta.exp()).detach().numpy().astype(np.float16).astype(np.float32)
        one = csr_array((data, table.indices, table.indptr), shape=table.shape)
        gains.append(gain(one))
        if gains[-1] > max(gains[:-1]):
            best, best_epoch = one, epoch
    return best, best_epoch, gains
