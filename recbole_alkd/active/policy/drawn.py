"""What the policies with probabilities share: gains from difficulty, the draw, the filling, the bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_alkd.active.gain import counts_from_ratio, log_gain
from recbole_alkd.active.game import Counts, log_worst_case
from recbole_alkd.active.max_min import solve_max_min
from recbole_alkd.active.policy.base import Policy, Pool, Selection
from recbole_alkd.active.sampling import PoolExhausted, draw
from recbole_alkd.settings.error import AlkdError


class Odds(NamedTuple):
    """``log_p`` (N,) to draw with, and the adversary's upper bound on the worst case of any policy."""

    log_p: np.ndarray
    upper: float


class DrawnPolicy(Policy):
    """Base of the policies that draw with the probabilities of a game. A subclass says which, in ``odds``."""

    needs = frozenset({"difficulty"})

    def odds(self, gain: np.ndarray, counts: Counts, size: int) -> Odds:
        """The probabilities for log gains (N,) and assumed counts, when ``size`` picks are wanted."""
        raise NotImplementedError

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        if size > len(pool):
            raise PoolExhausted(len(pool), size)
        gain = log_gain(pool.difficulty(), self.settings.alkd_mu)
        counts = self._counts(pool)
        log_p, upper = self.odds(gain, counts, size)
        sign, log_abs = log_worst_case(log_p, gain, counts)
        value = sign * float(np.exp(log_abs))

        support = int((log_p > -np.inf).sum())
        missing = max(0, size - support) if self.settings.alkd_fill == "next" else 0
        picks = draw(log_p, size - missing, rng, self.settings.alkd_draw)
        if missing:
            picks = np.concatenate([picks, _next_best(log_p, gain, missing)])
        return Selection(picks, log_p, value, upper, upper - value, support, missing)

    def _counts(self, pool: Pool) -> Counts:
        if pool.counts is not None:
            return pool.counts
        if self.settings.alkd_ratio == "pilot":
            raise AlkdError(
                "alkd_ratio: 'pilot' needs the counts of a pilot in Pool.counts; allowed here: three numbers"
            )
        return counts_from_ratio(self.settings.alkd_ratio, len(pool))


def _next_best(log_p: np.ndarray, gain: np.ndarray, size: int) -> np.ndarray:
    """Instances off the support, those next to it in rank first: largest gain first,
    as supports begin at the hardest."""
    order = np.argsort(-gain, kind="stable")
    outside = order[log_p[order] == -np.inf]
    starts_at_hardest = log_p[order[0]] > -np.inf
    return outside[:size] if starts_at_hardest else outside[::-1][:size]


def best_upper(gain: np.ndarray, counts: Counts) -> float:
    """The value of the game, an upper bound for every policy."""
    return solve_max_min(gain, *counts).upper
