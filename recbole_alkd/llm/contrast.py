"""Telling the right target of a pair apart from the other targets of its batch (InfoNCE): van den Oord et
al., 2018.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

TEMPERATURE = 0.1  # of cosines, where learning begins


def info_nce(source: Tensor, target: Tensor, scale: Tensor, log_q: Tensor, items: Tensor) -> Tensor:
    """Mean of -log p(target of the row | its source) among the targets of the batch, a scalar with gradient.

    Args:
        source, target: (B, k), the vectors of each pair; their cosine counts. scale: of the cosines.
        log_q: (B,) log share of each target among the targets of all pairs; logits lose half of it, so that
            some popularity is learnt and not all of it. items: (B,) which target it is: the same one in
            another row is no wrong answer.
    """
    logits = scale * normalize(source, dim=1) @ normalize(target, dim=1).T - 0.5 * log_q
    same = (items.unsqueeze(1) == items) & ~torch.eye(len(items), dtype=torch.bool, device=items.device)
    return cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(items), device=items.device))


def log_shares(target: np.ndarray, size: int) -> Tensor:
    """log of how often each of ``size`` things is a target, (size,) float32; finite where it never is."""
    share = np.bincount(target, minlength=size) / max(1, len(target))
    return torch.from_numpy(np.log(np.maximum(share, 1e-9)).astype(np.float32))
