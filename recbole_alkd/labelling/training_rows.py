"""From training rows to what policies and LLM teachers see, and from labels back to tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from recbole_alkd.active.difficulty import difficulty
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.labelling.examples import LoraExamples
from recbole_alkd.labelling.folds import Folds
from recbole_alkd.labelling.rows import Rows
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.teacher.base import Instance

HINT_LIST = 20  # items of the teacher recommender that a case shows, as in the paper


class TrainingRows(Rows):
    """The training part of a data set, seen row by row.

    Attributes:
        item_seq (n, L), item_seq_len (n,), target (n,): the rows on the CPU.
    """

    unit = "session"

    def __init__(self, train_data: Any, settings: Settings, recommender_config: Any = None) -> None:
        self.dataset = self.part = train_data._dataset
        # what the teacher recommender was trained with, where it was tuned
        self.recommender_config = self.dataset.config if recommender_config is None else recommender_config
        self.settings = settings
        feat = self.dataset.inter_feat
        self.uid_field, self.item_field = self.dataset.uid_field, self.dataset.iid_field
        self.item_seq = feat[self.item_field + self.dataset.config["LIST_SUFFIX"]]
        self.item_seq_len = feat[self.dataset.config["ITEM_LIST_LENGTH_FIELD"]]
        self.target = feat[self.item_field]
        self.tokens = np.asarray(self.dataset.field2id_token[self.item_field])
        self.session_ids = feat[self.uid_field].numpy()
        self.sessions = np.asarray(self.dataset.field2id_token[self.uid_field])[self.session_ids]

    def fingerprint(self) -> str:
        """A hash of every training row in tokens."""
        digest = hashlib.sha256("\x1f".join(self.tokens.tolist()).encode())
        digest.update("\x1f".join(self.sessions.tolist()).encode())
        for column in (self.item_seq, self.item_seq_len, self.target):
            digest.update(column.numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_candidates(self) -> None:
        """AlkdError when some row's session leaves fewer items than ``llm_candidates``."""
        size, items = self.settings.teacher.llm_candidates, len(self.tokens) - 1
        if items - self.item_seq.shape[1] >= size:
            return  # however long a session is
        ordered = self.item_seq.sort(dim=1).values
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        left = items - int((first & (ordered > 0)).sum(1).max())
        if left < size:
            raise AlkdError(
                f"llm_candidates: {size} is more than the {left} items outside a session; "
                f"allowed: at most {left}"
            )

    def check_budget(self) -> None:
        """PoolExhausted when ``budget_labels`` is more than the training sessions (or rows) that may be
        labelled."""
        selection = self.settings.selection
        pool = int(np.asarray(self.dataset.row_is_last).sum()) if selection.alkd_pool == "last" else len(self)
        if selection.budget_labels > pool:
            raise PoolExhausted(pool, selection.budget_labels)

    def pool_rows(self, can_label: Callable[[Sequence[str]], list[bool]]) -> np.ndarray:
        """Row ids that may be labelled, under ``alkd_pool`` and the teacher's own limits.
        AlkdError when there are none."""
        rows = np.arange(len(self))
        if self.settings.selection.alkd_pool == "last":
            rows = rows[np.asarray(self.dataset.row_is_last)]
        rows = rows[np.asarray(can_label(self.sessions[rows].tolist()), dtype=bool)]
        if not len(rows):
            raise AlkdError(
                f"the pool is empty: llm_teacher {self.settings.teacher.llm_teacher!r} can label none of the "
                "training sessions "
                "(for replay: are the recorded session ids those of this data set?)"
            )
        return rows

    def hint_cases(self, teacher: Backbone, device: torch.device) -> list[Instance]:
        """Random training sessions, each with the teacher recommender's own best items as candidates;
        no target is put in.

        A session stands with its longest history, the one before its last item.
        """
        rng = np.random.default_rng(stage_seed(self.dataset.config["seed"], "hints"))
        rows = np.flatnonzero(np.asarray(self.dataset.row_is_last))
        rows = rng.permutation(rows)[: self.settings.teacher.llm_hint_cases]
        outside = len(self.tokens) - 1 - int(self.item_seq_len[torch.as_tensor(rows)].max())
        return self.instances(rows, teacher, device, min(HINT_LIST, outside), inject=False)

    def examples(self, folds: Folds) -> LoraExamples:
        return LoraExamples(self, folds)

    def _difficulty(self, rows: np.ndarray, teacher: Backbone, device: torch.device) -> np.ndarray:
        index = torch.as_tensor(rows)
        seq, length, target = (
            self.item_seq[index].to(device),
            self.item_seq_len[index].to(device),
            self.target[index].to(device),
        )
        return difficulty(self.settings.selection.alkd_difficulty, teacher, seq, length, target)

    def _fold_of(self, rows: np.ndarray, folds: Folds) -> np.ndarray:
        return folds.fold_of_row[rows]
