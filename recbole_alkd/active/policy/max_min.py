"""The exact max-min policy (ALKDRec, Eq. 3, solved exactly)."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.capped import solve_capped
from recbole_alkd.active.game import Counts
from recbole_alkd.active.max_min import solve_max_min
from recbole_alkd.active.policy.drawn import DrawnPolicy, Odds
from recbole_alkd.registry import policies


@policies.register("max_min")
class MaxMin(DrawnPolicy):
    """Needs the difficulty. No other policy has a larger smallest expected gain, over all ways in which the
    assumed counts of effective, similar and incorrect labels can fall on the instances.

    The guarantee is one for a draw with p. Picks without repetition flatten p (``alkd_draw: gumbel``, as in
    the paper); ``alkd_draw: pps`` keeps it exactly. Where ``pps`` needs p <= 1 / size,
    the game is solved under that cap.
    """

    def odds(self, gain: np.ndarray, counts: Counts, size: int) -> Odds:
        solution = solve_max_min(gain, *counts)
        if self.settings.alkd_draw == "pps" and size * np.exp(solution.log_p.max()) > 1:
            return Odds(*solve_capped(gain, size, *counts))
        return Odds(solution.log_p, solution.upper)
