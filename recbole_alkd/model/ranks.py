"""The rank of a target among all items: the one definition that all metrics and difficulties follow from."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each row's target among all items, 1 = best; at ties the mean rank, as of a random order of the
    tied.

    Args:
        scores: (B, n_items); column 0 is the padding and does not count, -inf is an item that is never
            recommended.
        target: (B,) item ids. A target that is -inf itself shares the last places with all others that are.

    Returns:
        (B,) float64. A score that is not a number counts as -inf.
    """
    items = torch.nan_to_num(scores[:, 1:], nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    own = items.gather(1, target.unsqueeze(1) - 1)
    return (items > own).sum(1).double() + ((items == own).sum(1).double() + 1) / 2
