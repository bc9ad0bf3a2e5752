"""The recommendation loss that the paper's backbones share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def in_batch_bpr(session: Tensor, target: Tensor) -> Tensor:
    """BPR in which the targets of the other rows are the negatives: mean over i, j of -log sigmoid(P_ii - P_ij).

    Args:
        session: (B, d) session vectors.
        target: (B, d) score-side vectors of the rows' targets.

    Returns:
        A scalar. The diagonal is part of the mean, as in the paper's backbones, and adds the constant ln 2 / B; equal
        scores give ln 2. Memory: one (B, B) matrix.
    """
    scores = session @ target.T
    return softplus(scores - scores.diagonal().unsqueeze(1)).mean()
