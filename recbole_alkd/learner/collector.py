"""RecBole's evaluation collector without its dense matrix of positives, for rows that have one
target each."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from torch import Tensor

from recbole_alkd.processes.group import Group

ROWS = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")  # what grows with every batch


class SingleTargetCollector(Collector):
    """Collects what RecBole's collector collects, to the bit.

    collector.py builds a (B, n_items) integer matrix to mark one target a row; comparing the top-k ids with
    the target gives the same columns. Whatever needs more than the top k (mean ranks,
    scores) goes the way of RecBole.

    Args:
        group: the processes that share the batches; each collects some, in order, and the data of all come
            together where they are asked for.
    """

    def __init__(self, config: Any, group: Group | None = None) -> None:
        super().__init__(config)
        self.group = group or Group()

    def get_data_struct(self) -> Any:
        if self.group.size > 1:
            every = self.group.gather(
                {name: self.data_struct[name].cpu() for name in ROWS if name in self.data_struct}
            )
            for name in {name for one in every for name in one}:
                self.data_struct.set(name, torch.cat([one[name] for one in every if name in one]))
        return super().get_data_struct()

    def eval_batch_collect(
        self, scores_tensor: Tensor | None, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        if scores_tensor is None:  # of another process
            return
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
