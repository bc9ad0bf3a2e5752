"""What the paper's three backbones share: two item tables, inner-product scores, and a choice of losses."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_alkd.model.full_softmax import full_softmax_loss
from recbole_alkd.model.loss import draw_items, in_batch_bpr, sampled_bce, sampled_bpr
from recbole_alkd.settings.field import NO_DEFAULT, Field

LOSSES = ("BPR_INBATCH", "CE", "BPR", "BCE")
_LOSS = Field(NO_DEFAULT, str, choices=LOSSES)


def last_items(item_seq: Tensor, item_seq_len: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The same sessions in exactly ``width`` columns, their last items where they are longer:
    (B, width), (B,)."""
    if item_seq.shape[1] <= width:
        return pad(item_seq, (0, width - item_seq.shape[1])), item_seq_len
    start = (item_seq_len - width).clamp_min(0).unsqueeze(1)
    columns = start + torch.arange(width, device=item_seq.device)
    return item_seq.gather(1, columns), item_seq_len.clamp_max(width)


def item_weights(item_seq: Tensor, item_seq_len: Tensor, decay: float) -> Tensor:
    """What every item counts in the mean of its session, (B, L), (B,) -> (B, L):
    decay^t, t = 0 the newest, over their sum."""
    age = item_seq_len.unsqueeze(1) - 1 - torch.arange(item_seq.shape[1], device=item_seq.device)
    weight = torch.where(age >= 0, decay ** age.clamp_min(0), 0.0)
    return weight / weight.sum(1, keepdim=True)


class SessionModel(SequentialRecommender):
    """A RecBole sequential model; a subclass adds ``forward``: (B, L) items, (B,) lengths -> (B,
    d) session vectors.

    Settings: ``embedding_size`` (d) and ``loss_type``, one of

    - ``BPR_INBATCH`` (the paper's): the targets of the batch's other rows are the negatives;
    - ``CE``: softmax over all items;
    - ``BPR``, ``BCE``: against ``loss_negatives`` items a row, drawn uniformly outside of the session and the
      target.

    The last two draw their negatives themselves, so a batch carries none with any of them
    (``train_neg_sample_args: ~``), and the model trains the same under RecBole's stock trainer and inside
    ALKDRec.
    """

    input_type = InputType.POINTWISE
    draws_negatives = True

    def __init__(self, config: Any, dataset: Any, tie: bool = False) -> None:
        super().__init__(config, dataset)
        self.loss_type = _LOSS.checked(f"{type(self).__name__}: loss_type", config["loss_type"])
        self.loss_negatives = config["loss_negatives"] or 1
        size = config["embedding_size"]
        self.input_embedding = nn.Embedding(self.n_items, size, padding_idx=0)
        self.output_embedding = self.input_embedding if tie else nn.Embedding(self.n_items, size)

    def item_table(self) -> Tensor:
        """Score-side item vectors (n_items, d)."""
        return self.output_embedding.weight

    def calculate_loss(self, interaction: Any) -> Tensor:
        item_seq, target = interaction[self.ITEM_SEQ], interaction[self.POS_ITEM_ID]
        session, table = self.forward(item_seq, interaction[self.ITEM_SEQ_LEN]), self.item_table()
        if self.loss_type == "CE":
            return full_softmax_loss(session, table, target)
        if self.loss_type == "BPR_INBATCH":
            return in_batch_bpr(session, table[target])
        drawn = draw_items(
            torch.cat([item_seq, target.unsqueeze(1)], dim=1), self.loss_negatives, self.n_items
        )
        negative = torch.einsum("bd,bmd->bm", session, table[drawn])
        return (sampled_bpr if self.loss_type == "BPR" else sampled_bce)(
            (session * table[target]).sum(1), negative
        )

    def predict(self, interaction: Any) -> Tensor:
        session = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (session * self.item_table()[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]) @ self.item_table().T
