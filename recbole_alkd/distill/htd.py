"""HTD: topology within groups of similar sessions and items, and between the groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.distill.entities import batch_items, entities
from recbole_alkd.distill.experts import Experts, temperature
from recbole_alkd.registry import losses


def entity_topology(student: Tensor, teacher: Tensor, group: Tensor, positive_only: bool) -> Tensor:
    """sum (cos(s_i, s_j) - cos(t_i, t_j))^2 over ordered pairs of one group;
    pairs with cos(t_i, t_j) > 0 only, if asked.

    Shapes (n, d_s), (n, d_t), (n,). Memory: one matrix a group, together at most (n, n).
    """
    s, t = normalize(student, dim=1), normalize(teacher, dim=1)
    total = student.new_zeros(())
    for members in torch.split(torch.argsort(group), torch.unique(group, return_counts=True)[1].tolist()):
        cosine = t[members] @ t[members].T
        difference = s[members] @ s[members].T - cosine
        if positive_only:
            difference = difference.masked_fill(cosine <= 0, 0)
        total = total + difference.square().sum()
    return total


def group_topology(student: Tensor, teacher: Tensor, group: Tensor) -> Tensor:
    """sum_{g, i} (cos(S_g, s_i) - cos(T_g, t_i))^2 over groups g and all entities i,
    S_g and T_g the means of g's members.

    Shapes (n, d_s), (n, d_t), (n,). The means carry no gradient, as published. Memory: (groups, n).
    """
    _, place, count = torch.unique(group, return_inverse=True, return_counts=True)
    share = one_hot(place, len(count)).T.to(student.dtype) / count.unsqueeze(1)

    def cosines(vectors: Tensor) -> Tensor:
        return normalize(share @ vectors.detach(), dim=1) @ normalize(vectors, dim=1).T

    return (cosines(student) - cosines(teacher)).square().sum()


@losses.register("htd")
class HierarchicalTopologyDistillation(DistillationLoss):
    """(1 / B) [ alpha (entity + group topology) + (1 - alpha) group assignment ].

    Source: Kang et al., "Topology Distillation for Recommender System" (KDD 2021). Group assignment is the
    loss of DE (``de.py``) with one expert a group, items taken once; an entity's group is the one its gate
    prefers, and sessions and items share none. Entity topology compares cosines within groups, group topology
    those between each group's mean and every entity (the authors' second choice;
    their first, between means only, has no gradient).

    ``positive_only``: the authors' code leaves out pairs of a group whose teacher cosine is not above 0,
    probably without meaning to. True follows it.

    Inputs: session vectors (B, d_s), (B, d_t) and both item tables. Memory: that of DE, one (n, groups)
    matrix, and one matrix of pairs a group, at most (n, n) together, for n <= 3 B entities. Extra parameters
    as in DE. Options: ``groups`` (30), ``alpha`` (0.5), ``temperature`` (1), ``temperature_end`` (1e-10),
    ``positive_only`` (True), ``weight`` (0.001).
    """

    needs = frozenset({"teacher_vectors"})
    defaults: ClassVar[dict[str, Any]] = {
        "weight": 1e-3,
        "groups": 30,
        "alpha": 0.5,
        "temperature": 1.0,
        "temperature_end": 1e-10,
        "positive_only": True,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "groups": (1, float("inf")),
        "alpha": (0, 1),
        "temperature": (1e-10, float("inf")),
        "temperature_end": (1e-10, float("inf")),
    }

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.session_experts = Experts(*context.vector_sizes(), self.options["groups"])
        self.item_experts = Experts(*context.vector_sizes(), self.options["groups"])
        self.temperature = self.options["temperature"]

    def epoch_start(self, epoch: int) -> None:
        self.temperature = temperature(
            self.options["temperature"], self.options["temperature_end"], epoch, self.context.epochs
        )

    def forward(self, batch: DistillBatch) -> Tensor:
        items, size = batch_items(batch), len(batch)
        student, teacher = entities(batch, items)
        kinds = [
            (self.session_experts, student[:size], teacher[:size]),
            (self.item_experts, student[size:], teacher[size:]),
        ]
        sessions, item_groups = (experts.group(t) for experts, _, t in kinds)
        group = torch.cat([sessions, self.options["groups"] + item_groups])
        topology = entity_topology(student, teacher, group, self.options["positive_only"]) + group_topology(
            student, teacher, group
        )
        assignment = sum(experts(s, t, self.temperature) for experts, s, t in kinds)
        alpha = self.options["alpha"]
        return (alpha * topology + (1 - alpha) * assignment) / size
