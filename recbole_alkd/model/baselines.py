"""The two baselines that need no training: popularity and item-kNN, on the same rows as every other one."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recbole_alkd.model.backbone import model_defaults, property_folders
from recbole_alkd.model.choosing import Counting, Sessions, fit_counts
from recbole_alkd.model.counting import session_counts, training_sessions
from recbole_alkd.model.neighbours import table_bytes

KINDS = {"popularity": "popularity", "item_knn": "item-kNN"}


class Baseline:
    """Scores from counts over the training sessions (their targets included).

    ``popularity``: in how many training sessions an item is. ``item_knn``: the whole table of SessionKNN,
    chosen on validation from the grid that is shipped with it, whatever the run's own student counts:
    a rival that is tuned as well as a table is.

    Args:
        kind: which of the two.
        train: the training part (ALKDRecDataset); its sessions count once, however they are augmented.
        valid: the validation part. Without it item-kNN takes the setting where the search would start.
        mask_session_items: whether items of the session are never recommended.
    """

    def __init__(self, kind: str, train: Any, valid: Any = None, mask_session_items: bool = False) -> None:
        self.kind, self.masked = kind, mask_session_items
        if kind == "popularity":  # a table without a neighbour
            self.count = session_counts(*training_sessions(train), train.item_num)
            self.last_items, self.decay = 1, 0.0
            self.table = csr_array((train.item_num, train.item_num), dtype=np.float32)
            return
        defaults = model_defaults("SessionKNN", property_folders())
        grid = {name: np.atleast_1d(defaults[f"knn_{name}"]).tolist() for name in Counting._fields}
        self.last_items = defaults["knn_last_items"]
        fitted = fit_counts(train, valid, grid, self.last_items, mask_session_items)
        self.count, self.table, self.decay = fitted.counts, fitted.table, fitted.how.decay

    @property
    def parameters(self) -> int:
        """Numbers that it keeps."""
        return int(self.table.nnz if self.kind == "item_knn" else (self.count > 0).sum())

    @property
    def bytes(self) -> int:
        """Memory of these numbers."""
        if self.kind == "item_knn":
            return table_bytes(len(self.count), self.table.nnz)
        return int(self.count.nbytes)

    def ranks(self, part: Any) -> np.ndarray:
        """Mean ranks at ties of the targets of a part, (rows,)."""
        return Sessions.of(part, self.last_items, self.masked).ranks(self.table, self.count, self.decay)


SimpleRecommender = Baseline  # its name in earlier versions
