"""RRD: the teacher's order among interesting items, and those above all uninteresting ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.distill.ranks import gumbel_like
from recbole_alkd.model.loss import draw_items
from recbole_alkd.registry import losses


@losses.register("rrd")
class RelaxedRankingDistillation(DistillationLoss):
    """mean_b sum_k [ log( sum_{j >= k} exp(s_j) + sum_l exp(u_l) ) - s_k ], a list-wise likelihood.

    Source: Kang et al., "DE-RRD" (CIKM 2020). s: the student's scores of K interesting items, in the
    teacher's order; u: those of L uninteresting ones, in no order. Interesting items are drawn without
    replacement among the teacher's best ``top`` with probability ~ exp(-rank / temperature), or are its best
    K (``sample: False``, which the authors later found better); uninteresting ones are uniform among the
    rest. Both are new in every batch. Neither holds session items or the target.
    ``top`` is cut to half of the items on small data sets.

    Inputs: the teacher's scores (B, n_items). Memory: those scores, (B, top), (B, K + L, d).
    Options: ``interesting`` (K, 40), ``uninteresting`` (L, 40), ``temperature`` (10), ``top`` (500),
    ``sample`` (True), ``weight`` (0.001).
    """

    needs = frozenset({"teacher_scores"})
    defaults: ClassVar[dict[str, Any]] = {
        "weight": 1e-3,
        "interesting": 40,
        "uninteresting": 40,
        "temperature": 10.0,
        "top": 500,
        "sample": True,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "interesting": (1, float("inf")),
        "uninteresting": (1, float("inf")),
        "temperature": (1e-6, float("inf")),
        "top": (1, float("inf")),
    }

    def forward(self, batch: DistillBatch) -> Tensor:
        interesting, uninteresting = self.draw(batch)
        there = interesting > 0
        # a row with fewer: adds nothing to any sum
        ranked = batch.student_scores(interesting).masked_fill(~there, -1e30)
        others = torch.logsumexp(batch.student_scores(uninteresting), dim=1, keepdim=True)
        behind = torch.logcumsumexp(ranked.flip(1), dim=1).flip(1)
        return ((torch.logaddexp(behind, others) - ranked) * there).sum(1).mean()

    @torch.no_grad()
    def draw(self, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        """Interesting items (B, K), best first, 0 at the end of rows that have fewer;
        uninteresting items (B, L)."""
        options, n_items = self.options, batch.context.n_items
        top = batch.teacher_top(min(options["top"], max(1, (n_items - 1) // 2)))
        count = min(options["interesting"], top.shape[1])
        interesting = top[:, :count]
        if options["sample"]:
            keys = -torch.arange(1, top.shape[1] + 1, device=top.device) / options["temperature"]
            keys = (keys + gumbel_like(keys.expand(top.shape))).masked_fill(top == 0, -torch.inf)
            interesting = top.gather(1, keys.topk(count, dim=1).indices.sort(dim=1).values)
        known = torch.cat([batch.item_seq, batch.target.unsqueeze(1), top], dim=1)
        return interesting, draw_items(known, options["uninteresting"], n_items)
