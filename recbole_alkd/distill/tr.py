"""TR: imitation of the teacher recommender's own ranking, the ablation of ALKDRec that asks no LLM."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.registry import losses


@losses.register("tr")
class TeacherRanking(DistillationLoss):
    """In-batch BPR on the items that the teacher recommender ranks highest, all with the same weight.

    Source: Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based
    Recommendation" (AAAI 2025), variant (1), a fine-tuning of the trained student (``kd_init: student``,
    ``kd_rec_weight: 0``) on every training session. Each row draws one of its teacher's top items per batch,
    so that a batch has as many (session, item) pairs as rows. Session items are left out;
    the row's target is not. An item of one row is a negative of all others.

    Inputs: ``item_seq`` (B, L), the teacher's scores (B, n_items). Memory: those scores and one (B, B)
    matrix. Options: ``top`` (50) items of the teacher; ``weight`` (1).
    """

    needs = frozenset({"teacher_scores"})
    defaults: ClassVar[dict[str, Any]] = {"top": 50}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"top": (1, float("inf"))}

    def listed(self, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        """The teacher's top items, all with the same weight."""
        top = batch.teacher_top(self.options["top"], with_target=True)
        return top, torch.ones(top.shape[1])

    def forward(self, batch: DistillBatch) -> Tensor:
        top = batch.teacher_top(self.options["top"], with_target=True)
        place = (torch.rand(len(batch), device=top.device) * (top > 0).sum(1)).long()
        item = top.gather(1, place.unsqueeze(1)).squeeze(1)
        return in_batch_bpr(batch.student_session, batch.student_items[item])
