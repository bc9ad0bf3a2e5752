"""Draws and weights over ranks and items that several losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_weights(count: int, temperature: float, like: Tensor) -> Tensor:
    """exp(-r / temperature) of the ranks r = 1 ... count, normalised, (count,), with the dtype and device of ``like``."""
    return torch.softmax(-torch.arange(1, count + 1, dtype=like.dtype, device=like.device) / temperature, dim=0)


def gumbel_like(values: Tensor) -> Tensor:
    """Standard Gumbel noise: adding it to log-weights and taking the largest k draws k without replacement."""
    return -torch.empty_like(values).exponential_().clamp_min(1e-20).log()


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
    repeated = torch.zeros_like(excluded, dtype=torch.bool)
    repeated[:, 1:] = excluded[:, 1:] == excluded[:, :-1]
    excluded = excluded.masked_fill(repeated | (excluded == 0), n_items).sort(dim=1).values
    allowed = n_items - 1 - (excluded < n_items).sum(1, keepdim=True)
    place = (torch.rand(len(excluded), count, device=excluded.device, dtype=torch.float64) * allowed).long()
    # The i-th smallest excluded id e_i has e_i - i allowed ids below it; place p moves up by one for each e_i - i <= p.
    below = excluded - torch.arange(1, excluded.shape[1] + 1, device=excluded.device)
    below = below.masked_fill(excluded == n_items, n_items)
    return (place + 1 + torch.searchsorted(below, place, right=True)).clamp_max(n_items - 1)
