"""Paired statistics of per-session values: tests, intervals, and the smallest difference that could have been
found.

Pure functions on numpy arrays, below every room that trains: a run compares two of its stages with
``paired_difference``, and a benchmark compares arms over seeds as well (``bench.statistics``, which imports
these). The trainer never imports ``bench``. Tests are two-sided; the null hypothesis is a mean difference of
0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.05
POWER = 0.8
FLIPS = 9999
RESAMPLES = 2000


def paired_difference(
    values_a: np.ndarray, values_b: np.ndarray, seed: int = 2020, resamples: int = RESAMPLES
) -> tuple[float, float, float, float]:
    """What ``a`` gains over ``b`` on the same sessions, within one run:
    (difference, low, high, smallest_detectable).

    One run has one seed, so the interval speaks of sessions alone: how another training would come out is not
    in it. It lives below the trainer, since imports run upward only and ``bench`` imports the trainer.

    Args:
        values_a, values_b: (sessions,) values of one metric (``model.scoring.gains``), paired by place.
        seed: of the bootstrap; the same input gives the same numbers. resamples: bootstrap draws.

    Returns:
        In units of the metric: the mean of a - b; its 95 % percentile bootstrap interval over sessions; and
        the true difference that a paired t-test on as many sessions, with the deviation of these, finds with
        a probability of 80 % (nan where there is no deviation, as for two equal rankings or one session).

    Raises:
        ValueError: shapes that differ, no session, a value that is not finite.
    """
    a, b = np.asarray(values_a, float), np.asarray(values_b, float)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(
            f"paired values of at least one session are needed, shapes {a.shape} and {b.shape} are not"
        )
    difference = a - b
    if not np.isfinite(difference).all():
        raise ValueError(
            f"{int((~np.isfinite(difference)).sum())} of {len(difference)} differences are not finite"
        )
    low, high = bootstrap_interval([difference], True, np.random.default_rng(seed), resamples)
    return float(difference.mean()), low, high, detectable_difference(difference)


def paired_t(differences: np.ndarray) -> float:
    """p of the two-sided paired t-test on (seeds,) differences; 1 when all are 0.

    nan where there is no deviation to test against: one seed, or the same difference for every seed.
    """
    if not differences.any():
        return 1.0
    if np.ptp(differences) == 0:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_flips(differences: np.ndarray, rng: np.random.Generator, draws: int = FLIPS) -> float:
    """p of the two-sided paired randomisation test on (sessions,) differences:
    within a session the arms could be swapped.

    Args:
        draws: random assignments; the smallest p is 1 / (draws + 1).
    """
    unequal = differences[differences != 0]  # a swap changes nothing elsewhere
    total = abs(unequal.sum())
    as_large = 0
    for start in range(0, draws, 200):
        count = min(200, draws - start)
        signs = np.unpackbits(
            rng.integers(256, size=(count, len(unequal) // 8 + 1), dtype=np.uint8), axis=1, count=len(unequal)
        )
        as_large += int(
            (np.abs(unequal.sum() - 2 * (signs.astype(float) @ unequal)) >= total * (1 - 1e-9)).sum()
        )
    return (1 + as_large) / (1 + draws)


def bootstrap_interval(
    differences: Sequence[np.ndarray],
    crossed: bool,
    rng: np.random.Generator,
    draws: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Interval of the mean difference: a percentile bootstrap over seeds and one over sessions,
    corrected for few seeds.

    Seeds are resampled by their means, sessions by their means over seeds (as all seeds share them; with
    sessions of their own the means of seeds hold what sessions add), and the deviations of both are added. A
    plain bootstrap over few seeds is too narrow where seeds decide, and too wide where neither seeds nor
    sessions do. So a seed's deviation is enlarged by sqrt(S / (S - 1)); the variance of single results, which
    the means of seeds and of sessions both hold, is taken off once; and quantiles are stretched to those of a
    t distribution with Satterthwaite's (1946) degrees of freedom for the sum of the two variances.
    With one seed only sessions vary.
    """
    seeds = len(differences)
    means = np.array([difference.mean() for difference in differences])
    mean = float(means.mean())
    of_seeds, of_sessions, of_both = variances(differences, crossed)
    total = of_seeds + of_sessions
    if not total:
        return mean, mean
    deviations = np.zeros(draws)
    spread = 0.0  # 1 / degrees of freedom
    if of_seeds:
        deviations += (means[rng.integers(seeds, size=(draws, seeds))].mean(1) - mean) * np.sqrt(
            seeds / (seeds - 1)
        )
        spread += (of_seeds / total) ** 2 / (seeds - 1)
    if of_sessions:
        per_session = np.mean(differences, axis=0)
        sessions = len(per_session)
        for start in range(0, draws, 100):  # (100, sessions) at once
            rows = slice(start, min(start + 100, draws))
            deviations[rows] += (
                per_session[rng.integers(sessions, size=(rows.stop - rows.start, sessions))].mean(1) - mean
            )
        spread += (of_sessions / total) ** 2 / (sessions - 1)
    wider = stats.t.ppf(1 - level / 2, 1 / spread) / stats.norm.ppf(1 - level / 2)
    wider *= np.sqrt(max(total - of_both, of_seeds, of_sessions) / total)
    low, high = mean + wider * np.quantile(deviations, [level / 2, 1 - level / 2])
    return float(low), float(high)


def variances(differences: Sequence[np.ndarray], crossed: bool) -> tuple[float, float, float]:
    """Variance of the mean difference as the means of seeds show it, as those of sessions do,
    and what is in both of these.

    The mean squares of a two-way table without repetition, each divided by its size.
    A source that is not there gives 0.
    """
    seeds, sessions = len(differences), len(differences[0])
    means = np.array([difference.mean() for difference in differences])
    of_seeds = float(means.var(ddof=1)) / seeds if seeds > 1 else 0.0
    if not crossed and seeds > 1:
        return of_seeds, 0.0, 0.0
    per_session = np.mean(differences, axis=0)
    of_sessions = float(per_session.var(ddof=1)) / sessions if sessions > 1 else 0.0
    if seeds == 1 or sessions == 1:
        return of_seeds, of_sessions, 0.0
    left = sum(float(((d - per_session - d.mean() + means.mean()) ** 2).sum()) for d in differences)
    return of_seeds, of_sessions, left / ((seeds - 1) * (sessions - 1)) / (seeds * sessions)


def detectable_difference(differences: np.ndarray, level: float = LEVEL, power: float = POWER) -> float:
    """The true difference at which a t-test on as many numbers with the deviation of these rejects with
    ``power``."""
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
