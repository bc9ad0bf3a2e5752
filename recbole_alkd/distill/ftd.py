"""FTD: the student keeps the teacher's cosines between all sessions and items of a batch."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.distill.entities import batch_items, entities
from recbole_alkd.registry import losses


def topology_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_{i, j} (cos(t_i, t_j) - cos(s_i, s_j))^2 over ordered pairs of n entities, from (n, d_s) and (n,
    d_t).

    With unit rows S and T this is ||T T' - S S'||^2 = ||T' T||^2 + ||S' S||^2 - 2 ||T' S||^2: matrices of the
    size of the vectors and none of n x n. Three large numbers may leave a small one,
    so they are taken in double precision.
    """
    s, t = normalize(student.double(), dim=1), normalize(teacher.double(), dim=1)
    distance = (t.T @ t).square().sum() + (s.T @ s).square().sum() - 2 * (t.T @ s).square().sum()
    return distance.to(student.dtype)


@losses.register("ftd")
class FullTopologyDistillation(DistillationLoss):
    """(1 / B) sum_{i, j} (cos(t_i, t_j) - cos(s_i, s_j))^2 over sessions and items of the batch, in one set.

    Source: Kang et al., "Topology Distillation for Recommender System" (KDD 2021). Entities: the B sessions
    and the distinct targets and negatives (one drawn per row where the batch has none). The sum grows with
    the square of the number of entities, so the authors' weight belongs to batches of 1024.

    Inputs: session vectors (B, d_s), (B, d_t) and both item tables. Memory: O(n (d_s + d_t)) for n <= 3 B
    entities. Options: ``weight`` (0.001).
    """

    needs = frozenset({"teacher_vectors"})
    defaults: ClassVar[dict[str, Any]] = {"weight": 1e-3}

    def forward(self, batch: DistillBatch) -> Tensor:
        return topology_distance(*entities(batch, batch_items(batch))) / len(batch)
