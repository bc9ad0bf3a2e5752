"""Uncertainty sampling (Lewis and Gale, 1994): ask where the student hesitates."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.policy.base import Policy, Pool, Selection, take_highest
from recbole_alkd.registry import policies


@policies.register("uncertainty")
class Uncertainty(Policy):
    """Needs the entropy of the student's scores. Takes the instances of largest entropy; no guarantee."""

    needs = frozenset({"entropy"})

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        return take_highest(pool.entropy(), size)
