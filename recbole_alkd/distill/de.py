"""DE: experts that rebuild the teacher's vectors from the student's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.distill.experts import Experts, temperature
from recbole_alkd.registry import losses


@losses.register("de")
class DistillationExperts(DistillationLoss):
    """(1 / B) [ sum_sessions l + 1/2 (sum_targets l + sum_negatives l) ],
    l(x) = ||t_x - sum_m z_m Expert_m(s_x)||^2.

    Source: Kang et al., "DE-RRD" (CIKM 2020). Sessions stand for users; items are the distinct targets and
    negatives of the batch, by their output vectors; where a batch has no negatives, targets count 1 in full.
    z is a Gumbel softmax of a gate on t_x whose temperature falls from 1 to 1e-10 over the epochs of the run.
    Sessions and items have their own experts and gates.

    Inputs: session vectors (B, d_s), (B, d_t) and both item tables. Memory: (n, M h) for n <= 3 B entities,
    h = (d_s + d_t) // 2. Extra parameters: 378,360 for d_s = 10, d_t = 100, M = 30, in training only.
    Options: ``experts`` (M, 30), ``temperature`` (1), ``temperature_end`` (1e-10), ``weight`` (0.01).
    """

    needs = frozenset({"teacher_vectors"})
    defaults: ClassVar[dict[str, Any]] = {
        "weight": 0.01,
        "experts": 30,
        "temperature": 1.0,
        "temperature_end": 1e-10,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "experts": (1, float("inf")),
        "temperature": (1e-10, float("inf")),
        "temperature_end": (1e-10, float("inf")),
    }

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.session_experts = Experts(*context.vector_sizes(), self.options["experts"])
        self.item_experts = Experts(*context.vector_sizes(), self.options["experts"])
        self.temperature = self.options["temperature"]

    def epoch_start(self, epoch: int) -> None:
        self.temperature = temperature(
            self.options["temperature"], self.options["temperature_end"], epoch, self.context.epochs
        )

    def forward(self, batch: DistillBatch) -> Tensor:
        loss = self.session_experts(batch.student_session, batch.teacher_session, self.temperature)
        kinds = [batch.target] if batch.negatives is None else [batch.target, batch.negatives]
        for items in map(torch.unique, kinds):
            loss = loss + self.item_experts(
                batch.student_items[items], batch.teacher_items[items], self.temperature
            ) / len(kinds)
        return loss / len(batch)
