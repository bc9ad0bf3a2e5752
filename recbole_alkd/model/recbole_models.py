"""RecBole's own sequential models as backbones: those whose score is an inner product and that know no user.

The others cannot work on sessions of their own (FPMC, Caser, HGN, NPE, SHAN, TransRec look a user up) or have
no session vector (RepeatNet); they are in no registry, and naming one is an error that lists those that are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.model import sequential_recommender as recbole_models
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding, normalize, pad

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.full_softmax import full_softmax_loss
from recbole_alkd.model.session_model import last_items
from recbole_alkd.registry import backbones

for _model in ("GRU4Rec", "NARM", "STAMP", "SASRec", "SRGNN", "GCSAN"):
    backbones.register(_model)(getattr(recbole_models, _model))


class _FixedWidth:
    """For models whose layers have the shape of ``MAX_ITEM_LIST_LENGTH``:
    they see that width whatever the batch has."""

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return super().forward(*last_items(item_seq, item_seq_len, self.max_seq_length))  # type: ignore[misc, attr-defined]


@backbones.register("LightSANs")
class LightSANs(_FixedWidth, recbole_models.LightSANs):
    """RecBole's LightSANs."""


@backbones.register("SINE")
class SINE(_FixedWidth, recbole_models.SINE):
    """RecBole's SINE."""


@backbones.register("FEARec")
class FEARec(_FixedWidth, recbole_models.FEARec):
    """RecBole's FEARec, without work that its default loss does not use (samples for ``contrast``) or that
    grows with rows^2."""

    def get_same_item_index(self, dataset: Any) -> dict[int, np.ndarray]:
        """item -> rows that have it as target."""
        target = np.asarray(dataset.inter_feat[self.ITEM_ID])
        order = np.argsort(target, kind="stable")
        items, starts = np.unique(target[order], return_index=True)
        return dict(zip(items.tolist(), np.split(order, starts[1:]), strict=True))

    def calculate_loss(self, interaction: Any) -> Tensor:
        if self.ssl or self.loss_type != "CE":
            return super().calculate_loss(interaction)
        session = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return full_softmax_loss(session, self.item_embedding.weight, interaction[self.POS_ITEM_ID])


@backbones.register("NextItNet")
class NextItNetView(Backbone):
    """NextItNet reads the last column, padding or not; it is given no lengths."""

    model_class = recbole_models.NextItNet

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return self.model(item_seq)


@backbones.register("CORE")
class COREView(Backbone):
    """CORE scores by cosine over a temperature, which its item table holds here."""

    model_class = recbole_models.CORE

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return self.model(item_seq)

    def item_table(self) -> Tensor:
        return normalize(self.model.item_embedding.weight, dim=1) / self.model.temperature

    def item_vectors(self, items: Tensor, sparse: bool = False) -> Tensor:
        return (
            normalize(embedding(items, self.model.item_embedding.weight, sparse=sparse), dim=1)
            / self.model.temperature
        )


@backbones.register("BERT4Rec")
class BERT4RecView(Backbone):
    """BERT4Rec predicts at a mask put behind the session; item biases are one more coordinate of the vectors.

    RecBole masks in its data loader, which here serves ALKDRec; the view masks for itself. A row is trained
    on its session with the target behind it: with probability ``ft_ratio`` the target is masked, as in
    prediction, otherwise each item with probability ``mask_ratio``.
    """

    model_class = recbole_models.BERT4Rec

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        mask = torch.full_like(item_seq_len, self.model.mask_token)
        hidden = self.model(self._with_last(item_seq, item_seq_len, mask))
        session = self.model.gather_indexes(hidden, item_seq_len - 1)
        return torch.cat([session, torch.ones_like(session[:, :1])], dim=1)

    def item_table(self) -> Tensor:
        n_items = self.model.n_items  # the table's last row is the mask
        return torch.cat(
            [self.model.item_embedding.weight[:n_items], self.model.output_bias.unsqueeze(1)], dim=1
        )

    def loss(self, interaction: Any) -> Tensor:
        model = self.model
        item_seq, length = interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN]
        items = self._with_last(item_seq, length, interaction[model.POS_ITEM_ID])
        last = torch.arange(items.shape[1], device=items.device) == (length - 1).unsqueeze(1)
        scattered = (torch.rand(items.shape, device=items.device) < model.mask_ratio) & (items > 0)
        only_last = torch.rand(len(items), 1, device=items.device) < self.config["ft_ratio"]
        masked = torch.where(only_last | ~scattered.any(1, keepdim=True), last, scattered)
        hidden = model(items.masked_fill(masked, model.mask_token))[masked]
        logits = hidden @ model.item_embedding.weight[: model.n_items].T + model.output_bias
        return cross_entropy(logits, items[masked])

    @staticmethod
    def _with_last(item_seq: Tensor, item_seq_len: Tensor, last: Tensor) -> Tensor:
        """The session without its first item and with ``last`` (B,) behind it, in the same width,
        as RecBole predicts."""
        return pad(item_seq, (0, 1)).scatter(1, item_seq_len.unsqueeze(1), last.unsqueeze(1))[:, 1:]
