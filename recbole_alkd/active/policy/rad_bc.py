"""The ablation RAD-BC of ALKDRec (AAAI 2025): robust active distillation with correct and incorrect labels
only.

Baykal et al., "Robust Active Distillation" (ICLR 2023).
"""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.game import Counts
from recbole_alkd.active.max_min import solve_max_min
from recbole_alkd.active.policy.drawn import DrawnPolicy, Odds, best_upper
from recbole_alkd.registry import policies


@policies.register("rad_bc")
class RadBc(DrawnPolicy):
    """Needs the difficulty. The exact policy of the game in which similar labels are worth as much as
    effective ones.

    Guarantee: the value it reports, its true worst case when similar labels are worth half, as everywhere
    else; it is smaller than that of ``max_min`` unless nothing is similar.
    """

    def odds(self, gain: np.ndarray, counts: Counts, size: int) -> Odds:
        n_effective, n_similar, n_incorrect = counts
        return Odds(
            solve_max_min(gain, n_effective + n_similar, 0, n_incorrect).log_p, best_upper(gain, counts)
        )
