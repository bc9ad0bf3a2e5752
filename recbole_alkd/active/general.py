"""The exact max-min selection policy for gains of any shape: effective, similar and incorrect gains given one
by one.

The game of ALKDRec (AAAI 2025), Eq. 3, without the assumption that a similar or an incorrect label is worth a
fixed share of an effective one. Seen from the adversary: the value is the smallest z at which it can hold
every instance to an expected gain of at most z while using up its counts.
With P(effective) = e and P(similar) = q, an instance allows

    e, q >= 0,   e + q <= 1,   (g_ef + g_in) e + (g_si + g_in) q <= z + g_in,

and Q_z(E), the largest total of q when the e sum to E, is a concave chain of segments whose order does not
depend on z. h(z) = Q_z(n_effective) - n_similar is concave, increasing and piecewise linear, so Newton's
method from the left finds its root in a few steps; the slopes of the last one are the policy.
O(N log N), one sort.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_alkd.active.game import Counts, MaxMinSolution, Strategy, check_counts
from recbole_alkd.settings.error import AlkdError

# measured: 4 to 10; rounding may add one
_MAX_STEPS = 100
# a similar label that is worth less than this above an incorrect one is worth the same;
# its inverse is still a float
_NOTHING = 1e-290
_EPS = float(np.finfo(np.float64).eps)


def solve_general(
    gain_effective: np.ndarray,
    gain_similar: np.ndarray,
    loss_incorrect: np.ndarray,
    n_effective: int,
    n_similar: int,
    n_incorrect: int,
) -> MaxMinSolution:
    """Solve the game whose instance s gains ``gain_effective[s]``,
    ``gain_similar[s]`` or -``loss_incorrect[s]``.

    Args:
        gain_effective, gain_similar, loss_incorrect: (N,) each, in any order, with
            gain_effective >= gain_similar >= -loss_incorrect and gain_effective > -loss_incorrect.
        n_effective, n_similar, n_incorrect: how many labels of each kind there are; they sum to N.

    Raises:
        AlkdError (a ValueError): shapes that differ, numbers that are not finite or not in that order,
            bad counts.
    """
    columns = [np.asarray(c, dtype=np.float64) for c in (gain_effective, gain_similar, loss_incorrect)]
    if columns[0].ndim != 1 or len({c.shape for c in columns}) > 1:
        raise AlkdError(
            "gain_effective, gain_similar, loss_incorrect: "
            f"shapes {', '.join(str(c.shape) for c in columns)} were given; "
            "allowed: (N,) each"
        )
    counts = check_counts(len(columns[0]), n_effective, n_similar, n_incorrect)
    for name, column in zip(("gain_effective", "gain_similar", "loss_incorrect"), columns, strict=True):
        if not np.isfinite(column).all():
            bad = int((~np.isfinite(column)).sum())
            raise AlkdError(
                f"{name}: {bad} of {len(column)} values are NaN or infinite; allowed: finite numbers"
            )
    high, middle, loss = columns
    if not ((high >= middle).all() and (middle >= -loss).all() and (high > -loss).all()):
        bad = int(np.argmin((high >= middle) & (middle >= -loss) & (high > -loss)))
        raise AlkdError(
            f"gains of instance {bad}: {high[bad]} effective, {middle[bad]} similar, {-loss[bad]} incorrect; "
            "allowed: effective >= similar >= incorrect, and effective > incorrect"
        )
    return _Game(high, middle, loss, counts).solve()


class _Chain(NamedTuple):
    """The adversary's play at one z: e and q with e summing to n_effective and q to as much as z allows; the
    slope of that total in z, by instance; and what Newton adds to z.
    """

    effective: np.ndarray
    similar: np.ndarray
    slope: np.ndarray
    step: float


class _Game:
    """Gains in the order of the chain: by (g_ef + g_in) / (g_si + g_in), ascending."""

    def __init__(self, high: np.ndarray, middle: np.ndarray, loss: np.ndarray, counts: Counts) -> None:
        with np.errstate(divide="ignore", over="ignore"):
            ratio = (high + loss) / (middle + loss)
        self.order = np.argsort(ratio, kind="stable")
        self.ratio, self.high, self.middle, self.loss = (c[self.order] for c in (ratio, high, middle, loss))
        self.rise_high, self.rise_middle = self.high + self.loss, self.middle + self.loss
        self.rise_middle[self.rise_middle < _NOTHING] = 0.0
        self.counts = counts
        # what the rounding of a sum of N probabilities may hide
        self.slack = 8 * _EPS * len(high)

    def solve(self) -> MaxMinSolution:
        floor = float(-self.loss.min())
        z, chain = floor, self._walk(floor)
        # where the adversary can hold everything to the floor: the instances that lose least,
        # which never gain less
        slope = (self.loss == self.loss.min()).astype(np.float64)
        for _ in range(_MAX_STEPS):
            if not z + chain.step > z:
                break
            # the constraint that made the last step is the one that binds
            slope = chain.slope
            z += chain.step
            chain = self._walk(z)
        if abs(z) <= 4 * _EPS * abs(floor):
            z = 0.0
        log_p = np.full(len(self.order), -np.inf)
        held = slope > 0
        log_p[self.order[held]] = np.log(slope[held]) - np.log(slope.sum())

        def strategy() -> Strategy:
            return (*self._mixed(chain), z)

        sign = int(np.sign(z))
        return MaxMinSolution(
            log_p, int(held.sum()), sign, float(np.log(abs(z))) if sign else -np.inf, strategy
        )

    def _walk(self, z: float) -> _Chain:
        """Q_z(n_effective) with its maximisers, and the Newton step towards h = 0 (or towards room for
        n_effective)."""
        n_effective, n_similar, _ = self.counts
        room = z + self.loss
        full, low = self.high <= z, (self.middle > z) & (self.rise_middle > 0)
        kink = ~(full | low)
        most = np.where(full, 1.0, room / self.rise_high)  # e when q = 0
        effective = np.where(full, 1.0, 0.0)  # e when e + q is largest
        effective[kink] = (z - self.middle[kink]) / (self.high[kink] - self.middle[kink])
        similar = 1 - effective
        similar[low] = room[low] / self.rise_middle[low]
        slope = np.zeros_like(room)

        possible, free = float(most.sum()), float(effective.sum())
        if possible < n_effective - self.slack:
            slope[~full] = 1 / self.rise_high[~full]
            return _Chain(most, np.zeros_like(most), slope, (n_effective - possible) / float(slope.sum()))
        slope[low] = 1 / self.rise_middle[low]
        if free >= n_effective - self.slack:
            # e turns into q one for one
            total = float(similar.sum()) + free - n_effective
            turned = effective * (n_effective / free if free else 0.0)
            similar, effective = similar + effective - turned, turned
        else:
            walked = np.cumsum(most - effective)
            joint = min(
                int(np.searchsorted(walked, n_effective - free)), int(np.flatnonzero(most > effective)[-1])
            )
            price = self.ratio[joint]
            part = n_effective - free - (walked[joint - 1] if joint else 0.0)
            slope[kink] = (price - 1) / (self.high[kink] - self.middle[kink])
            slope[: joint + 1] = np.where(full[: joint + 1], 0.0, price / self.rise_high[: joint + 1])
            effective[:joint], similar[:joint] = most[:joint], 0.0
            effective[joint] += part
            similar[joint] = max(0.0, similar[joint] - price * part)
            total = float(similar.sum())
        gap = n_similar - total
        steepness = float(slope.sum())
        return _Chain(
            effective, similar, slope, gap / steepness if gap > self.slack and steepness > 0 else 0.0
        )

    def _mixed(self, chain: _Chain) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities in the caller's order. What the counts leave of the similar ones becomes
        incorrect."""
        total = chain.similar.sum()
        similar = chain.similar * min(1.0, self.counts[1] / total if total else 0.0)
        parts = np.empty((3, len(self.order)))
        parts[:, self.order] = np.clip((chain.effective, similar, 1 - chain.effective - similar), 0, 1)
        return parts[0], parts[1], parts[2]
