"""unKD: ranking distillation within groups of equally popular items, so that popularity is not what is
taught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.distill.popularity import item_counts, popularity_groups
from recbole_alkd.registry import losses


def pair_counts(pairs: int, groups: int) -> list[int]:
    """How many of ``pairs`` each group gets, by the authors' rounding: 30 over 4 groups are 8 each."""
    counts = [round(pairs * max(round(1 / groups, 2), 0.1))] * groups
    for group in range(max(0, pairs - sum(counts))):
        counts[group % groups] += 1
    return counts


def draw_rank_pairs(available: Tensor, count: int, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Two different ranks for each pair, drawn with P(r) ~ exp(-r / mu) among the first ``available`` (B,) of
    each row.

    Returns:
        The better rank and the worse (B, count), from 0, and whether the pair counts (a row may have less
        than two).
    """
    n = available.to(torch.float64).unsqueeze(1)

    def draw() -> Tensor:
        # a geometric distribution cut at n, by its inverse
        uniform = torch.rand(len(available), count, dtype=torch.float64, device=available.device)
        rank = torch.floor(-mu * torch.log1p(uniform * torch.expm1(-n / mu)))
        return rank.minimum((n - 1).clamp_min(0)).long()

    first, second = draw(), draw()
    for _ in range(20):
        tied = first == second
        if not bool((tied & (n > 1)).any()):
            break
        first, second = torch.where(tied, draw(), first), torch.where(tied, draw(), second)
    return first.minimum(second), first.maximum(second), first != second


@losses.register("unkd")
class UnbiasedKnowledgeDistillation(DistillationLoss):
    """mean over pairs of -log sigmoid(s(i+) - s(i-)), both items of one popularity group,
    i+ ranked higher by the teacher.

    Source: Chen et al., "Unbiased Knowledge Distillation for Recommendation" (WSDM 2023). Items are put into
    groups of about equal total popularity (``popularity_groups``; items never seen in training are in none).
    For each row and group, two ranks are drawn among the teacher's unseen items of the group with P(r) ~
    exp(-r / mu), new in every batch. Session items and the target are left out.

    Inputs: the teacher's scores (B, n_items). Memory: those scores, one copy of a group's columns at a time,
    (B, pairs, d). Options: ``groups`` (2), ``pairs`` (30), ``mu`` (20), ``top`` (200 ranks of a group; all
    but e^-10 of the mass), ``weight`` (1).
    """

    needs = frozenset({"teacher_scores", "popularity"})
    defaults: ClassVar[dict[str, Any]] = {"groups": 2, "pairs": 30, "mu": 20.0, "top": 200}
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "groups": (1, float("inf")),
        "pairs": (1, float("inf")),
        "mu": (1e-6, float("inf")),
        "top": (2, float("inf")),
    }

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        device = context.student.item_table().device
        self.groups = [
            items.to(device) for items in popularity_groups(item_counts(context), self.options["groups"])
        ]
        self.counts = pair_counts(self.options["pairs"], len(self.groups))

    def forward(self, batch: DistillBatch) -> Tensor:
        better, worse, valid = (torch.cat(parts, dim=1) for parts in zip(*self.draw(batch), strict=True))
        loss = softplus(batch.student_scores(worse) - batch.student_scores(better)) * valid
        return loss.sum() / valid.sum().clamp_min(1)

    @torch.no_grad()
    def draw(self, batch: DistillBatch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each group: better items (B, n_g), worse items (B, n_g), and which of these pairs count."""
        drawn = []
        for items, count in zip(self.groups, self.counts, strict=True):
            top = batch.teacher_top(self.options["top"], among=items)
            first, second, valid = draw_rank_pairs((top > 0).sum(1), count, self.options["mu"])
            drawn.append((top.gather(1, first), top.gather(1, second), valid))
        return drawn
