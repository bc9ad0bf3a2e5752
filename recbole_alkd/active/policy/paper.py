"""The policy of ALKDRec (AAAI 2025) as its Definition 1 gives it, with the cumulative sums that its proofs
use."""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.game import Counts
from recbole_alkd.active.policy.drawn import DrawnPolicy, Odds, best_upper
from recbole_alkd.registry import policies


@policies.register("paper")
class Paper(DrawnPolicy):
    """Needs the difficulty. p_s is proportional to 1 / (g_si + g_in) for the first N - n_effective ranks, to
    1 / (g_ef + g_in) behind them, and 0 behind k* = argmax (G_k - n_incorrect) / H_k.

    Guarantee: the value it reports, which is the true worst case of these probabilities. It equals the best
    possible one only where an optimal support ends before rank N - n_effective (docs/selection.md);
    else it is smaller.
    """

    def odds(self, gain: np.ndarray, counts: Counts, size: int) -> Odds:
        return Odds(definition_1(gain, counts), best_upper(gain, counts))


def definition_1(
    gain: np.ndarray, counts: Counts, printed: bool = False, similar: float = 0.5, incorrect: float = 0.5
) -> np.ndarray:
    """Log probabilities of Definition 1 for log gains (N,), normalised, in the caller's order.

    ``printed`` takes k* from the formula in Theorems 2-3 and line 9 of Algorithm 1, whose numerator has the
    gain g_k where the proofs have the cumulative G_k.
    """
    _, n_similar, n_incorrect = counts
    order = np.argsort(-gain, kind="stable")
    head = np.arange(len(gain)) < n_similar + n_incorrect
    weight = -gain[order] - np.log(np.where(head, similar + incorrect, 1 + incorrect))
    log_h = np.logaddexp.accumulate(weight)
    if printed:
        numerator = np.exp(gain[order]) - n_incorrect
    else:
        in_head = np.cumsum(head)
        behind = np.arange(1, len(gain) + 1) - in_head
        numerator = in_head * similar / (similar + incorrect) + behind / (1 + incorrect) - n_incorrect
        numerator[np.abs(numerator) < 1e-9] = 0  # the rounding of sums that cancel
    k = _argmax_quotient(numerator, log_h)
    log_p = np.full(len(gain), -np.inf)
    log_p[order[: k + 1]] = weight[: k + 1] - log_h[k]
    return log_p


def _argmax_quotient(numerator: np.ndarray, log_denominator: np.ndarray) -> int:
    """argmax of numerator / exp(log_denominator), which may be out of the range of floats:
    the first of the largest."""
    with np.errstate(divide="ignore"):
        size = np.log(np.abs(numerator)) - log_denominator
    best = numerator.max()
    if best > 0:
        return int(np.argmax(np.where(numerator > 0, size, -np.inf)))
    return int(np.argmax(numerator == 0)) if best == 0 else int(np.argmin(size))
