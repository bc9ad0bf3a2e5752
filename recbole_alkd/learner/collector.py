"""RecBole's evaluation collector without its dense matrix of positives, for rows that have one
target each."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from torch import Tensor


class SingleTargetCollector(Collector):
    """Collects what RecBole's collector collects, to the bit.

    collector.py builds a (B, n_items) integer matrix to mark one target a row; comparing the top-k ids with
    the target gives the same columns. Whatever needs more than the top k (mean ranks,
    scores) goes the way of RecBole.
    """

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        rows = torch.arange(len(scores_tensor), device=positive_u.device)
        others = ("rec.meanrank", "rec.score", "data.label")
        if any(self.register.need(name) for name in others) or not torch.equal(positive_u, rows):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        top = torch.topk(scores_tensor, max(self.topk), dim=-1).indices
        if self.register.need("rec.items"):
            self.data_struct.update_tensor("rec.items", top)
        if self.register.need("rec.topk"):
            hits = (top == positive_i.to(top.device).unsqueeze(1)).long()  # as the sum over RecBole's matrix
            self.data_struct.update_tensor("rec.topk", torch.cat((hits, torch.ones_like(hits[:, :1])), dim=1))
