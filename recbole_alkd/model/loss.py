"""The recommendation losses that the paper's backbones share, and the uniform draw of negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus


def in_batch_bpr(session: Tensor, target: Tensor) -> Tensor:
    """BPR in which the targets of the other rows are the negatives: mean over i,
    j of -log sigmoid(P_ii - P_ij).

    Args:
        session: (B, d) session vectors.
        target: (B, d) score-side vectors of the rows' targets.

    Returns:
        A scalar. The diagonal is part of the mean, as in the paper's backbones, and adds the constant ln 2 /
        B; equal scores give ln 2. Memory: one (B, B) matrix.
    """
    scores = session @ target.T
    return softplus(scores - scores.diagonal().unsqueeze(1)).mean()


def sampled_bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """mean of -log sigmoid(positive - negative), scores (B,) of the targets and (B, m) of drawn items."""
    return softplus(negative - positive.unsqueeze(1)).mean()


def sampled_bce(positive: Tensor, negative: Tensor) -> Tensor:
    """mean of -log sigmoid(positive) + mean of -log(1 - sigmoid(negative)), scores (B,) and (B, m)."""
    return softplus(-positive).mean() + softplus(negative).mean()


def draw_items(excluded: Tensor, count: int, n_items: int) -> Tensor:
    """Uniform draws, with replacement, from each row's items that are not excluded.

    Args:
        excluded: (B, e) item ids; 0 and repeated ids do no harm.
        count: draws a row.
        n_items: size of the item table, the padding 0 included; items are 1 ... n_items - 1.

    Returns:
        (B, count) item ids. Memory: O(B (e + count)), nothing of the size of the item table.
    """
    excluded = excluded.sort(dim=1).values
    new = excluded > 0
    new[:, 1:] &= excluded[:, 1:] != excluded[:, :-1]
    distinct = new.cumsum(1)
    place = (
        torch.rand(len(excluded), count, device=excluded.device, dtype=torch.float64)
        * (n_items - 1 - distinct[:, -1:])
    ).long()
    # Below the i-th smallest excluded id e_i there are e_i - i allowed ids;
    # place p moves up by one for each e_i - i <= p.
    passed = torch.searchsorted(excluded - distinct, place, right=True)
    moved = pad(distinct, (1, 0)).gather(1, passed)
    return (place + 1 + moved).clamp_max(n_items - 1)
