"""The two recommenders that need no training: popularity and item-kNN, on the same instances as every other one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recbole_alkd.memory import rows_at_once
from recbole_alkd.model.backbone import model_defaults, property_folders
from recbole_alkd.model.choosing import Counting, fit_counts
from recbole_alkd.model.counting import session_counts, training_sessions
from recbole_alkd.model.neighbours import PRIOR, profiles, table_bytes
from recbole_alkd.model.scoring import mean_ranks

KINDS = {"popularity": "popularity", "item_knn": "item-kNN"}


class SimpleRecommender:
    """Scores from counts over the training sessions (their targets included).

    ``popularity``: in how many training sessions an item is. ``item_knn``: the whole table of SessionKNN, chosen on validation from
    the grid that is shipped with it, whatever the run's own student counts: a rival that is tuned as well as a table is.

    Args:
        kind: which of the two.
        train: the training part (ALKDRecDataset); its sessions count once, however they are augmented.
        valid: the validation part. Without it item-kNN takes the setting where the search would start.
        mask_session_items: whether items of the session are never recommended.
    """

    def __init__(self, kind: str, train: Any, valid: Any = None, mask_session_items: bool = False) -> None:
        self.kind, self.iid, self.masked = kind, train.iid_field, mask_session_items
        self.list_field = train.iid_field + train.config["LIST_SUFFIX"]
        self.length_field = train.config["ITEM_LIST_LENGTH_FIELD"]
        if kind == "popularity":
            self.count = session_counts(*training_sessions(train), train.item_num).astype(float)
            return
        defaults = model_defaults("SessionKNN", property_folders())
        grid = {name: np.atleast_1d(defaults[f"knn_{name}"]).tolist() for name in Counting._fields}
        self.last_items = defaults["knn_last_items"]
        found = fit_counts(train, valid, grid, self.last_items, mask_session_items)
        self.count, self.table, self.decay = found.counts, found.table, found.how.decay

    @property
    def parameters(self) -> int:
        """Numbers that it keeps."""
        return int(self.table.nnz if self.kind == "item_knn" else (self.count > 0).sum())

    @property
    def bytes(self) -> int:
        """Memory of these numbers."""
        return table_bytes(len(self.count), self.table.nnz) if self.kind == "item_knn" else int(self.count.nbytes)

    def scores(self, item_seq: np.ndarray, length: np.ndarray) -> np.ndarray:
        """(B, L) histories padded with 0 on the right, (B,) lengths -> (B, n_items)."""
        if self.kind == "popularity":
            return np.tile(self.count, (len(item_seq), 1))
        profile = profiles(item_seq, length, self.decay, self.last_items, len(self.count))
        return (profile @ self.table).toarray() + PRIOR * self.count

    def ranks(self, part: Any, batch: int = 1024) -> np.ndarray:
        """``mean_ranks`` of the targets of a part, (rows,)."""
        found = []
        batch = rows_at_once(batch, part.item_num, number=8)
        for start in range(0, len(part), batch):
            rows = part.inter_feat[start : start + batch]
            item_seq = rows[self.list_field]
            scores = torch.from_numpy(self.scores(item_seq.numpy(), rows[self.length_field].numpy()))
            if self.masked:
                scores = scores.scatter(1, item_seq, -torch.inf)
            found.append(mean_ranks(scores, rows[self.iid]).numpy())
        return np.concatenate(found)
