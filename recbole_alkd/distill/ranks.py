"""Weights and draws over ranks that several losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_weights(count: int, temperature: float, like: Tensor) -> Tensor:
    """exp(-r / temperature) of the ranks r = 1 ... count, normalised, (count,),
    with the dtype and device of ``like``."""
    return torch.softmax(
        -torch.arange(1, count + 1, dtype=like.dtype, device=like.device) / temperature, dim=0
    )


def gumbel_like(values: Tensor) -> Tensor:
    """Standard Gumbel noise: adding it to log-weights and taking the largest k draws k without
    replacement."""
    return -torch.empty_like(values).exponential_().clamp_min(1e-20).log()
