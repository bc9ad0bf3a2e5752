"""The max-min policy when no probability may exceed 1 / size, exactly, in O(N log N).

Needed for ``alkd_draw: pps``, whose inclusion probabilities size * p must not exceed 1. The same game as
``max_min``, but the support may have to be wider and the gains p_s g_s are no longer level.

With w_s = p_s g_s and S_k(w) the sum of the k largest, the worst case is F(w) = S_N - (1 - a) S_K - (a + b)
S_{n_incorrect}, K = n_similar + n_incorrect. Since S_k(w) = min_t k t + sum (w_s - t)_+, the multiplier
``lam`` of sum w_s / g_s = 1 splits the problem into one small choice for each instance,

    w_s = 0 if lam > g_s,   min(t1, g_s / size) if a g_s < lam <= g_s,
    min(t2, g_s / size) if -b g_s < lam <= a g_s,
    g_s / size beyond,

and two independent ones for the levels t1 <= t2. The dual function of ``lam`` is convex; its minimum is
bracketed to the last digits, and a mixture of the two sides, which are both optimal there,
satisfies the constraint.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_alkd.active.game import Counts, check_counts, check_shares, log_worst_case
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.settings.error import AlkdError

# a multiplier of this size, in units of the smallest gain, is 0
_TINY = 1e-30
# beyond this range of log gains the hardest and the easiest gain are no floats of one scale
_MAX_RANGE = 600.0


class CappedSolution(NamedTuple):
    """``log_p`` (N,), at most -log(size), normalised; ``upper``: no policy with p <= 1 / size gains more."""

    log_p: np.ndarray
    upper: float


def solve_capped(
    log_gain: np.ndarray,
    size: int,
    n_effective: int,
    n_similar: int,
    n_incorrect: int,
    similar: float = 0.5,
    incorrect: float = 0.5,
) -> CappedSolution:
    """Solve the game of ``solve_max_min`` under p_s <= 1 / ``size``.

    Raises:
        PoolExhausted: ``size`` > N.
        AlkdError: as in ``solve_max_min``; or log gains that span more than 600 (rank^-mu: mu log N > 600).
    """
    log_gain = np.asarray(log_gain, dtype=np.float64)
    counts = check_counts(len(log_gain), n_effective, n_similar, n_incorrect)
    a, b = check_shares(similar, incorrect)
    if size > len(log_gain):
        raise PoolExhausted(len(log_gain), size)
    spread = float(log_gain.max() - log_gain.min())
    if not spread <= _MAX_RANGE:
        raise AlkdError(
            f"alkd_mu: log gains that span {spread:.4g} (mu * log N) cannot be solved under the cap p <= "
            f"1/{size}; "
            f"allowed: at most {_MAX_RANGE:g}; lower alkd_mu, or use alkd_draw: gumbel"
        )
    if size == len(log_gain):
        uniform = np.full(size, -np.log(size))
        sign, log_abs = log_worst_case(uniform, log_gain, counts, a, b)
        return CappedSolution(uniform, sign * float(np.exp(log_abs)))
    order = np.argsort(-log_gain, kind="stable")
    scale = log_gain[order[-1]]
    game = _Lagrangian(np.exp(log_gain[order] - scale), 1 / size, counts, a, b)
    low, high = _bracket(game)
    p_low, p_high = game.policy(low), game.policy(high)
    above, below = p_low.sum() - 1, 1 - p_high.sum()
    mixture = p_high if above + below <= 0 else (below * p_low + above * p_high) / (above + below)
    with np.errstate(divide="ignore"):
        log_p = np.empty(len(order))
        log_p[order] = np.log(mixture / mixture.sum())
    return CappedSolution(log_p, float(np.exp(scale)) * min(game.dual(low), game.dual(high)))


class _Lagrangian:
    """The problem at one multiplier; gains ``g`` sorted descending, in units of the smallest."""

    def __init__(self, g: np.ndarray, cap: float, counts: Counts, a: float, b: float) -> None:
        self.g, self.cap, self.a, self.b = g, cap, a, b
        self.most = cap * g
        _, n_similar, n_incorrect = counts
        self.target1, self.target2 = (1 - a) * (n_similar + n_incorrect), (a + b) * n_incorrect

    def _slopes(self, lam: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What one more unit of w is worth below t1 (over the next), between t1 and t2 (over the next),
        and beyond."""
        cost = lam / self.g
        first, second, third = (np.clip(height - cost, 0, None) for height in (1, self.a, -self.b))
        return first - second, second - third, third

    def _levels(self, below1: np.ndarray, below2: np.ndarray) -> tuple[float, float]:
        t1, t2 = self._level(below1, self.target1), self._level(below2, self.target2)
        if t1 > t2:
            t1 = t2 = self._level(below1 + below2, self.target1 + self.target2)
        return t1, t2

    def _level(self, slope: np.ndarray, target: float) -> float:
        """The maximum of the concave sum of slope * min(t, most) - target * t."""
        reached = int(np.searchsorted(np.cumsum(slope), target))
        return float(self.most[reached]) if reached < len(slope) else 0.0

    def policy(self, lam: float) -> np.ndarray:
        """The maximising p, not normalised: its sum falls as ``lam`` rises."""
        t1, t2 = self._levels(*self._slopes(lam)[:2])
        level = np.select(
            [lam > self.g, lam > self.a * self.g, lam > -self.b * self.g], [0.0, t1, t2], np.inf
        )
        return np.minimum(level / self.g, self.cap)

    def dual(self, lam: float) -> float:
        """An upper bound on the value, for every ``lam``."""
        below1, below2, beyond = self._slopes(lam)
        t1, t2 = self._levels(below1, below2)
        gained = below1 @ np.minimum(t1, self.most) + below2 @ np.minimum(t2, self.most) + beyond @ self.most
        return float(lam + gained - self.target1 * t1 - self.target2 * t2)


def _bracket(game: _Lagrangian) -> tuple[float, float]:
    """Neighbouring multipliers between which the sum of p crosses 1."""
    sign = 1.0 if game.policy(_TINY).sum() > 1 else -1.0
    if sign < 0 and game.policy(-_TINY).sum() > 1:
        return -_TINY, _TINY
    small, large = np.log(_TINY), np.log(2 * max(1.0, game.b) * game.g[0])
    for _ in range(200):
        middle = (small + large) / 2
        if middle in (small, large):
            break
        if (game.policy(sign * np.exp(middle)).sum() > 1) == (sign > 0):
            small = middle
        else:
            large = middle
    ends = sorted((sign * float(np.exp(small)), sign * float(np.exp(large))))
    return ends[0], ends[1]
