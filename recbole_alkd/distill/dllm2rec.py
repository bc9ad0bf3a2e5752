"""DLLM2Rec: the LLM's top items as positives, weighted by position and by agreement with the student."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.distill.ranks import rank_weights
from recbole_alkd.model.loss import draw_items
from recbole_alkd.registry import losses


@losses.register("dllm2rec")
class DLLM2Rec(DistillationLoss):
    """mean over labelled rows of sum_k w_k [ -log sigmoid(x_k) - log(1 - sigmoid(x_neg)) ] over the LLM's
    first K items.

    Source: Cui et al., "Distillation Matters: Empowering Sequential Recommenders to Match the Performance of
    Large Language Models" (RecSys 2024), importance-aware ranking distillation, in the form in which ALKDRec
    compares with it: w_k ~ position exp(-k) / sum_j exp(-j) + consistency 1[item in the student's own top K],
    weights of a row sum to 1. The weight by confidence needs an LLM that generates for all items and is left
    out there, and so is it here; embeddings and the robust (DROS) term are no part of this loss either.

    x_neg is the score of the row's sampled negative, or of an item drawn outside of session and target.
    ``official_negative``: the authors' code has sigmoid(1 - x_neg) in place of 1 - sigmoid(x_neg),
    probably a slip.

    Inputs: ``lists`` (B, n). Memory: the student's scores (B_l, n_items) of the B_l rows with a list, without
    gradient. Options: ``top`` (K, 10), ``position`` (0.3), ``consistency`` (0.1),
    ``official_negative`` (False), ``weight`` (0.8).
    """

    needs = frozenset({"lists"})
    defaults: ClassVar[dict[str, Any]] = {
        "weight": 0.8,
        "top": 10,
        "position": 0.3,
        "consistency": 0.1,
        "official_negative": False,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"top": (1, float("inf"))}

    def forward(self, batch: DistillBatch) -> Tensor:
        lists = batch.lists[:, : self.options["top"]]
        weights = self.weights(batch, lists)
        positive = softplus(-batch.student_scores(lists))
        negative = batch.student_scores(self._negatives(batch))
        negative = softplus(negative - 1) if self.options["official_negative"] else softplus(negative)
        labelled = (lists > 0).any(1).sum().clamp_min(1)
        return (weights * (positive + negative)).sum() / labelled

    @torch.no_grad()
    def weights(self, batch: DistillBatch, lists: Tensor) -> Tensor:
        """Weights (B, K) of the list positions: rows with a list sum to 1, the others are 0."""
        session, table = batch.student_session, batch.student_items
        weights = self.options["position"] * rank_weights(self.options["top"], 1.0, session)[: lists.shape[1]]
        weights = weights.expand(lists.shape).clone()
        rows = (lists > 0).any(1)
        own = (session[rows] @ table.T).index_fill(1, lists.new_zeros(1), -torch.inf)
        own = own.topk(min(self.options["top"], own.shape[1]), dim=1).indices
        agrees = (lists[rows].unsqueeze(2) == own.unsqueeze(1)).any(2)
        weights[rows] += self.options["consistency"] * (agrees + 1e-8)
        weights = weights * (lists > 0)
        return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)

    def _negatives(self, batch: DistillBatch) -> Tensor:
        if batch.negatives is not None:
            return batch.negatives.view(len(batch), -1)[:, :1]
        return draw_items(
            torch.cat([batch.item_seq, batch.target.unsqueeze(1)], dim=1), 1, batch.context.n_items
        )
