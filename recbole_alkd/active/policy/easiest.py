"""The ablation "Easiest" of ALKDRec (AAAI 2025)."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.policy.base import Policy, Pool, Selection, take_highest
from recbole_alkd.registry import policies


@policies.register("easiest")
class Easiest(Policy):
    """Needs the difficulty. Takes the instances of smallest difficulty, the easiest first; no guarantee."""

    needs = frozenset({"difficulty"})

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        return take_highest(-pool.difficulty(), size)
