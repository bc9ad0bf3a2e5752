"""Scoring and ranking: one loop over batches, one rank of a target, one table of what a rank is worth.

All metrics and all statistics follow from the rank of every session's target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.files import write_npz
from recbole_alkd.memory import rows_at_once
from recbole_alkd.model.ranks import mean_ranks as mean_ranks
from recbole_alkd.model.view import Backbone

RANKS = "ranks.npz"
GROUPS = ("warm", "input_only", "cold")
# what a rank within the first k is worth
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall": np.ones_like,
    "hit": np.ones_like,
    "ndcg": lambda rank: 1 / np.log2(rank + 1),
    "mrr": lambda rank: 1 / rank,
}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model is in eval mode meanwhile, and no gradient is kept."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


# (item_seq (B, L), item_seq_len (B,), the rows of the batch) -> something a row, (B, ...)
Scored = Callable[[Tensor, Tensor, slice], Tensor]


def in_batches(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, scored: Scored, batch_size: int = 1024
) -> Tensor:
    """What ``scored`` says of every row, (N, ...) on the CPU; nothing larger than a batch of scores is held.

    Args:
        view: the recommender, in eval mode meanwhile. item_seq (N, L), item_seq_len (N,): sessions, 0-padded.
        scored: is given a batch of them on the recommender's device, and which rows these are.
        batch_size: rows at once, fewer where a batch of scores of all items would not fit
            (``memory.rows_at_once``).
    """
    batch_size = rows_at_once(batch_size, getattr(view.model, "n_items", 1))
    outputs, device = [], view.device
    with evaluating(view.model):
        for start in range(0, max(1, len(item_seq)), batch_size):
            rows = slice(start, start + batch_size)
            outputs.append(scored(item_seq[rows].to(device), item_seq_len[rows].to(device), rows).cpu())
    return torch.cat(outputs)


def session_ranks(model: Any, eval_data: Any, device: torch.device) -> np.ndarray:
    """``mean_ranks`` of every row of a RecBole full-sort loader, (rows,), in the order of its data set.

    Args:
        model: a ``SessionRecommender``.
    """
    ranks = []
    with evaluating(model):
        for interaction, *_ in eval_data:
            ranks.append(model.target_ranks(interaction.to(device)).cpu().numpy())
    return np.concatenate(ranks)


def session_tokens(eval_data: Any) -> np.ndarray:
    """The session of every row of a loader, (rows,), in the order of ``session_ranks``."""
    dataset = eval_data._dataset
    return np.asarray(dataset.field2id_token[dataset.uid_field])[
        dataset.inter_feat[dataset.uid_field].numpy()
    ].astype(str)


def target_groups(train: Any, target: np.ndarray) -> np.ndarray:
    """What training knows of each target: its place in ``GROUPS``, (rows,) int8.

    warm: it is the last item of a training session, which is what ``session_augmentation: last`` trains on.
    input_only: it is in training sessions, never as their last item. cold: it is in none. The same split
    whatever the augmentation is.

    Args:
        train: the training part (ALKDRecDataset). target: (rows,) item ids.
    """
    group = np.full(train.item_num, GROUPS.index("cold"), dtype=np.int8)
    feat = train.inter_feat
    sessions = np.unique(feat[train.uid_field].numpy())
    group[np.concatenate([train.session_items(session) for session in sessions])] = GROUPS.index("input_only")
    group[feat[train.iid_field].numpy()[np.asarray(train.row_is_last)]] = GROUPS.index("warm")
    return group[target]


def by_group(ranks: np.ndarray, groups: np.ndarray, metrics: Iterable[str]) -> dict[str, dict[str, float]]:
    """Group -> metric -> mean over its targets, for groups that have targets and metrics that ``gains``
    knows.
    """
    known = [metric for metric in metrics if metric.partition("@")[0] in METRICS]
    ranks_of = {name: ranks[groups == k] for k, name in enumerate(GROUPS)}
    return {
        name: {metric: round(float(gains(part, metric).mean()), 6) for metric in known}
        for name, part in ranks_of.items()
        if len(part)
    }


def worth(ranks: np.ndarray, metric: str, cutoff: int | None) -> np.ndarray:
    """What ranks are worth in a metric by its bare name ("ndcg"), those behind ``cutoff`` nothing; in their
    shape.
    """
    value = METRICS[metric](ranks)
    return value if cutoff is None else np.where(ranks <= cutoff, value, 0.0)


def gains(ranks: np.ndarray, metric: str) -> np.ndarray:
    """What each session adds to a metric ("recall@10", "hit@10", "ndcg@10", "mrr@10"), in the shape of
    ``ranks``.

    One target a session: recall is the hit rate, and the ideal DCG is 1. The metric itself is the mean over
    sessions.
    """
    name, _, k = metric.partition("@")
    return worth(ranks, name, int(k))


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a compressed ``.npz`` that needs no pickle, whole or not at all."""
    return write_npz(file, dict(arrays))
