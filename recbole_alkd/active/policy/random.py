"""Uniform selection, the control that every policy has to beat."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.policy.base import Policy, Pool, Selection
from recbole_alkd.active.sampling import draw
from recbole_alkd.registry import policies


@policies.register("random")
class Random(Policy):
    """Needs nothing. Every set of ``size`` instances is equally likely, so the labels estimate the pool
    without bias; no guarantee on gains.
    """

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        log_p = np.full(len(pool), -np.log(max(1, len(pool))))
        return Selection(draw(log_p, size, rng), log_p, support=len(pool))
