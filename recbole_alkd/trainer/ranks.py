"""The rank of every session's target, from which all metrics and all statistics follow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RANKS = "ranks.npz"


def mean_ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each row's target among all items, 1 = best; at ties the mean rank, as of a random order of the tied.

    Args:
        scores: (B, n_items); column 0 is the padding and does not count, -inf is an item that is never recommended.
        target: (B,) item ids. A target that is -inf itself shares the last places with all others that are.

    Returns:
        (B,) float64. A score that is not a number counts as -inf.
    """
    items = torch.nan_to_num(scores[:, 1:], nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    own = items.gather(1, target.unsqueeze(1) - 1)
    return (items > own).sum(1).double() + ((items == own).sum(1).double() + 1) / 2


@torch.no_grad()
def session_ranks(model: Any, eval_data: Any, device: torch.device) -> np.ndarray:
    """``mean_ranks`` of every row of a RecBole full-sort loader, (rows,), in the order of its data set."""
    model.eval()
    found = []
    for interaction, *_ in eval_data:
        interaction = interaction.to(device)
        scores = model.full_sort_predict(interaction).view(len(interaction), -1)
        found.append(mean_ranks(scores, interaction[eval_data._dataset.iid_field]).cpu().numpy())
    return np.concatenate(found)


def session_tokens(eval_data: Any) -> np.ndarray:
    """The session of every row of a loader, (rows,), in the order of ``session_ranks``."""
    dataset = eval_data._dataset
    return np.asarray(dataset.field2id_token[dataset.uid_field])[dataset.inter_feat[dataset.uid_field].numpy()].astype(str)


def gains(ranks: np.ndarray, metric: str) -> np.ndarray:
    """What each session adds to a metric ("recall@10", "hit@10", "ndcg@10", "mrr@10"), in the shape of ``ranks``.

    One target a session: recall is the hit rate, and the ideal DCG is 1. The metric itself is the mean over sessions.
    """
    name, _, k = metric.partition("@")
    value = {
        "recall": lambda rank: np.ones_like(rank),
        "hit": lambda rank: np.ones_like(rank),
        "ndcg": lambda rank: 1 / np.log2(rank + 1),
        "mrr": lambda rank: 1 / rank,
    }[name](ranks)
    return np.where(ranks <= int(k), value, 0.0)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a compressed ``.npz`` that needs no pickle, whole or not at all."""
    part = file.with_name(f"{file.stem}.{os.getpid()}.part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    os.replace(part, file)
    return file
