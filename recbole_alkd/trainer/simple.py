"""The two recommenders that need no training: popularity and item-kNN, on the same instances as every other one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from recbole_alkd.memory import rows_at_once
from recbole_alkd.trainer.ranks import mean_ranks

DECAY = 0.7  # weight of an item against the one after it
KINDS = {"popularity": "popularity", "item_knn": "item-kNN"}


class SimpleRecommender:
    """Scores from counts over the training sessions (their targets included).

    ``popularity``: in how many training sessions an item is. ``item_knn``: the sum over the session's items, newest first, of
    0.7^t times the cosine of co-occurrence, C_ij / sqrt(n_i n_j); nothing about it is tuned.

    Args:
        kind: which of the two.
        train: the training part (ALKDRecDataset); its sessions count once, however they are augmented.
    """

    def __init__(self, kind: str, train: Any) -> None:
        self.kind, self.iid = kind, train.iid_field
        self.list_field = train.iid_field + train.config["LIST_SUFFIX"]
        self.length_field = train.config["ITEM_LIST_LENGTH_FIELD"]
        sessions = [np.unique(train.session_items(session)) for session in np.unique(train.inter_feat[train.uid_field].numpy())]
        row = np.repeat(np.arange(len(sessions)), [len(items) for items in sessions])
        shape = (len(sessions), train.item_num)
        holds = sparse.csr_matrix((np.ones(len(row)), (row, np.concatenate(sessions))), shape=shape)
        self.count = np.asarray(holds.sum(0)).ravel()
        if kind == "item_knn":
            scale = sparse.diags(1 / np.sqrt(np.maximum(self.count, 1)))
            together = scale @ (holds.T @ holds) @ scale
            self.similarity = (together - sparse.diags(together.diagonal())).tocsr()

    @property
    def parameters(self) -> int:
        """Numbers that it keeps."""
        return int(self.similarity.nnz if self.kind == "item_knn" else (self.count > 0).sum())

    @property
    def bytes(self) -> int:
        """Memory of these numbers."""
        if self.kind == "popularity":
            return int(self.count.nbytes)
        return int(sum(part.nbytes for part in (self.similarity.data, self.similarity.indices, self.similarity.indptr)))

    def scores(self, item_seq: np.ndarray, length: np.ndarray) -> np.ndarray:
        """(B, L) histories padded with 0 on the right, (B,) lengths -> (B, n_items)."""
        if self.kind == "popularity":
            return np.tile(self.count, (len(item_seq), 1))
        age = length[:, None] - 1 - np.arange(item_seq.shape[1])
        weight = np.where(age >= 0, DECAY ** np.maximum(age, 0), 0.0)
        row = np.repeat(np.arange(len(item_seq)), item_seq.shape[1])
        shape = (len(item_seq), len(self.count))
        session = sparse.csr_matrix((weight.ravel(), (row, item_seq.ravel())), shape=shape)
        return (session @ self.similarity).toarray()

    def ranks(self, part: Any, mask_session_items: bool, batch: int = 1024) -> np.ndarray:
        """``mean_ranks`` of the targets of a part, (rows,)."""
        found = []
        batch = rows_at_once(batch, part.item_num, number=8)
        for start in range(0, len(part), batch):
            rows = part.inter_feat[start : start + batch]
            item_seq = rows[self.list_field]
            scores = torch.from_numpy(self.scores(item_seq.numpy(), rows[self.length_field].numpy()))
            if mask_session_items:
                scores = scores.scatter(1, item_seq, -torch.inf)
            found.append(mean_ranks(scores, rows[self.iid]).numpy())
        return np.concatenate(found)
