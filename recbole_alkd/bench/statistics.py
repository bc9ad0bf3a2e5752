"""Paired comparisons: what a difference between two arms is worth over seeds and sessions.

The null hypothesis is everywhere that an arm and the reference have the same expected metric; tests are two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference, in units of the metric.

    Attributes:
        difference: mean over seeds of (arm - reference). relative: as a share of the reference's mean.
        low, high: bootstrap interval at 95 % over sessions and seeds.
        p: of the paired t-test over seeds (nan where it cannot be made). p_holm: after Holm's correction, where one was made.
        detectable: the smallest true difference that this t-test finds with a probability of 80 % (nan likewise).
        seeds, sessions: what it rests on.
    """

    difference: float
    relative: float
    low: float
    high: float
    p: float
    detectable: float
    seeds: int
    sessions: int
    p_holm: float = float("nan")

    @property
    def verdict(self) -> str:
        """better, worse, or no measurable difference: the corrected test and the interval have to agree."""
        if not self.p_holm < LEVEL or self.low <= 0 <= self.high:
            return "no measurable difference"
        return "better" if self.difference > 0 else "worse"


def compare(arm: Sequence[np.ndarray], reference: Sequence[np.ndarray], crossed: bool, rng: np.random.Generator) -> Comparison:
    """Compare per-session gains, one array (sessions,) a seed, paired by seed and session.

    Args:
        crossed: whether all seeds are evaluated on the same sessions in the same order; otherwise each has its own.
    """
    differences = [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(arm, reference, strict=True)]
    per_seed = np.array([difference.mean() for difference in differences])
    base = float(np.mean([b.mean() for b in reference]))
    low, high = bootstrap_interval(differences, crossed, rng)
    return Comparison(
        difference=float(per_seed.mean()),
        relative=float(per_seed.mean() / base) if base else float("nan"),
        low=low,
        high=high,
        p=paired_t(per_seed),
        detectable=detectable_difference(per_seed),
        seeds=len(per_seed),
        sessions=len(differences[0]),
    )


def paired_t(differences: np.ndarray) -> float:
    """p of the two-sided paired t-test on (seeds,) differences; 1 when all are 0.

    nan where there is no deviation to test against: one seed, or the same difference for every seed.
    """
    if not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def bootstrap_interval(
    differences: Sequence[np.ndarray], crossed: bool, rng: np.random.Generator, draws: int = 2000, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean difference, seeds and sessions resampled with replacement.

    With ``crossed`` one draw takes the same sessions for all seeds, as they share them. A seed's deviation from the mean is
    enlarged by sqrt(S / (S - 1)), by which a bootstrap over S seeds is too narrow. With one seed only sessions vary.
    """
    seeds, sessions = len(differences), len(differences[0])
    means = np.empty((draws, seeds))
    for start in range(0, draws, 100):  # (100, sessions) weights at once
        rows = slice(start, min(start + 100, draws))
        count = rows.stop - rows.start
        weights = _weights(count, sessions, rng)
        for seed, difference in enumerate(differences):
            if seed and not crossed:
                weights = _weights(count, len(difference), rng)
            means[rows, seed] = weights @ difference
    if seeds > 1:
        grand = np.mean([difference.mean() for difference in differences])
        shift = np.array([difference.mean() for difference in differences]) - grand
        means += shift * (np.sqrt(seeds / (seeds - 1)) - 1)
        means = np.take_along_axis(means, rng.integers(seeds, size=(draws, seeds)), axis=1)
    low, high = np.quantile(means.mean(1), [level / 2, 1 - level / 2])
    return float(low), float(high)


def _weights(draws: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, size) shares of a resample of ``size`` out of ``size``."""
    picked = rng.integers(size, size=(draws, size))
    return np.stack([np.bincount(row, minlength=size) for row in picked]) / size


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of p values, in their order; nan is left out of the count and stays nan."""
    p = np.asarray(p_values, float)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    corrected = np.full(len(p), np.nan)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p[index]))
        corrected[index] = highest
    return corrected.tolist()


def detectable_difference(differences: np.ndarray, level: float = LEVEL, power: float = POWER) -> float:
    """The true difference at which the t-test on as many seeds, with the deviation seen here, rejects with ``power``."""
    n = len(differences)
    if np.ptp(differences) == 0:
        return float("nan")
    critical = stats.t.ppf(1 - level / 2, n - 1)

    def missing(shift: float) -> float:
        # the other tail underflows to nan where it is 0
        other = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
        return float(stats.nct.sf(critical, n - 1, shift) + other) - power

    high = critical
    while missing(high) < 0:
        high *= 1.5
    return float(brentq(missing, 0, high) * np.std(differences, ddof=1) / np.sqrt(n))
