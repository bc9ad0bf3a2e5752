"""The policy of ALKDRec (AAAI 2025) with k* exactly as printed, to reproduce what the text says."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.game import Counts
from recbole_alkd.active.policy.drawn import DrawnPolicy, Odds, best_upper
from recbole_alkd.active.policy.paper import definition_1
from recbole_alkd.registry import policies


@policies.register("paper_printed")
class PaperPrinted(DrawnPolicy):
    """Needs the difficulty. As ``paper``, with k* = argmax (g_k - n_incorrect) / H_k, which takes the whole
    pool as soon as two labels are incorrect.

    Guarantee: the value it reports, the true worst case of these probabilities;
    it is often far below the best one.
    """

    def odds(self, gain: np.ndarray, counts: Counts, size: int) -> Odds:
        return Odds(definition_1(gain, counts, printed=True), best_upper(gain, counts))
