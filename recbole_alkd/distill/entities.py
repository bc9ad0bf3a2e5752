"""Which items stand for a batch where a method works on entities: sessions and items together."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillBatch
from recbole_alkd.model.loss import draw_items


def batch_items(batch: DistillBatch) -> Tensor:
    """Distinct items (v,) of the rows: their targets and one negative a row, v <= 2 B.

    The methods were published with a sampled negative in every row. Where the batch carries none, one is
    drawn among the items outside of the row's session.
    """
    negatives = batch.negatives
    if negatives is None:
        seen = torch.cat([batch.item_seq, batch.target.unsqueeze(1)], dim=1)
        negatives = draw_items(seen, 1, batch.context.n_items)
    return torch.unique(torch.cat([batch.target, negatives.flatten()]))


def entities(batch: DistillBatch, items: Tensor) -> tuple[Tensor, Tensor]:
    """Student (n, d_s) and teacher (n, d_t) vectors of the B sessions, then of ``items``; n = B + v."""
    student = torch.cat([batch.student_session, batch.student_items[items]])
    teacher = torch.cat([batch.teacher_session, batch.teacher_items[items]])
    return student, teacher
