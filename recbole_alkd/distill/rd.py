"""RD: the teacher's top items as further positives, weighted by position and by how badly the student ranks
them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.distill.ranks import rank_weights
from recbole_alkd.model.loss import draw_items
from recbole_alkd.registry import losses


@losses.register("rd")
class RankingDistillation(DistillationLoss):
    """mean_b sum_k w_k (-log sigmoid(s_k)) over the teacher's best K items of each row.

    Source: Tang and Wang, "Ranking Distillation" (KDD 2018). Position weight: w_k = exp(-k / temperature),
    normalised. From ``start_epoch`` on it is multiplied by max(0, tanh(mu (r_k - k))), k from 0, where r_k
    estimates the student's rank of the item as floor((N - 1) share of sampled items that the student scores
    higher); the product is not normalised again and carries no gradient.
    The row's session items and target are not in the teacher's list.

    There are only positives here: use it with ``kd_rec_weight`` above 0.

    Inputs: the teacher's scores (B, n_items). Memory: those scores, (B, K, samples) booleans and (B, samples,
    d). Options: ``top`` (K, 10), ``temperature`` (1), ``mu`` (0.1), ``samples`` (100), ``start_epoch`` (10,
    from 0), ``weight`` (1).
    """

    needs = frozenset({"teacher_scores"})
    defaults: ClassVar[dict[str, Any]] = {
        "top": 10,
        "temperature": 1.0,
        "mu": 0.1,
        "samples": 100,
        "start_epoch": 10,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "top": (1, float("inf")),
        "temperature": (1e-6, float("inf")),
        "samples": (1, float("inf")),
    }
    epoch = 0

    def epoch_start(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, batch: DistillBatch) -> Tensor:
        top = batch.teacher_top(self.options["top"])
        scores = batch.student_scores(top)
        weights = rank_weights(top.shape[1], self.options["temperature"], scores) * (top > 0)
        if self.epoch >= self.options["start_epoch"]:
            weights = weights * self._discrepancy(batch, scores.detach())
        return (weights * softplus(-scores)).sum(1).mean()

    @torch.no_grad()
    def _discrepancy(self, batch: DistillBatch, scores: Tensor) -> Tensor:
        seen = torch.cat([batch.item_seq, batch.target.unsqueeze(1)], dim=1)
        drawn = draw_items(seen, self.options["samples"], batch.context.n_items)
        above = (scores.unsqueeze(2) < batch.student_scores(drawn).unsqueeze(1)).to(scores.dtype).mean(2)
        rank = torch.floor((batch.context.n_items - 2) * above)  # n_items counts the padding
        position = torch.arange(scores.shape[1], device=scores.device)
        return torch.tanh(self.options["mu"] * (rank - position)).clamp_min(0)
