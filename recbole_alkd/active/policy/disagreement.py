"""Query by committee (Seung et al., 1992) with a committee of two: student and teacher recommender."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.policy.base import Policy, Pool, Selection, take_highest
from recbole_alkd.registry import policies


@policies.register("disagreement")
class Disagreement(Policy):
    """Needs how far student and teacher recommender disagree.
    Takes the instances where they do most; no guarantee."""

    needs = frozenset({"disagreement"})

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        return take_highest(pool.disagreement(), size)
