"""Session FPMC, the paper's first backbone: the mean of the session's item vectors, scored against a second item table.

Rendle et al., "Factorizing Personalized Markov Chains" (WWW 2010), without the user factor, as ALKDRec (AAAI 2025) uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_alkd.config import AlkdError
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.registry import backbones


@backbones.register("SessionFPMC")
class SessionFPMC(SequentialRecommender):
    """Order-free session encoder with separate input and output tables.

    Settings: ``embedding_size`` (d), ``loss_type``: ``BPR_INBATCH`` (the paper's) or ``CE``. It also runs alone, with
    ``--model=SessionFPMC`` and RecBole's stock trainer.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.loss_type = config["loss_type"]
        if self.loss_type not in ("BPR_INBATCH", "CE"):
            raise AlkdError(f"loss_type: {self.loss_type!r} is not allowed for SessionFPMC; allowed: BPR_INBATCH | CE")
        size = config["embedding_size"]
        self.input_embedding = nn.Embedding(self.n_items, size, padding_idx=0)
        self.output_embedding = nn.Embedding(self.n_items, size)
        nn.init.xavier_normal_(self.input_embedding.weight)
        nn.init.xavier_normal_(self.output_embedding.weight)
        with torch.no_grad():
            self.input_embedding.weight[0].zero_()

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Mean input vector of the session, (B, L), (B,) -> (B, d). A repeated item counts as often as it stands there."""
        return self.input_embedding(item_seq).sum(1) / item_seq_len.unsqueeze(1)

    def item_table(self) -> Tensor:
        """Output vectors (n_items, d)."""
        return self.output_embedding.weight

    def calculate_loss(self, interaction: Any) -> Tensor:
        session = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        target = interaction[self.POS_ITEM_ID]
        if self.loss_type == "CE":
            return nn.functional.cross_entropy(session @ self.item_table().T, target)
        return in_batch_bpr(session, self.output_embedding(target))

    def predict(self, interaction: Any) -> Tensor:
        session = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (session * self.output_embedding(interaction[self.ITEM_ID])).sum(-1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]) @ self.item_table().T
