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
# a standard error over seeds below this share of that over sessions: seeds say nothing, and sessions are tested
STILL = 0.1
FLIPS = 9999


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference, in units of the metric.

    Attributes:
        difference: mean over seeds of (arm - reference). relative: as a share of the reference's mean.
        low, high: bootstrap interval at 95 % over sessions and seeds.
        p: of the test (nan where none can be made). p_holm: after Holm's correction, where one was made.
        detectable: the smallest true difference that a t-test on the same numbers finds with a probability of 80 % (nan likewise).
        test: what was tested: "seeds" by a paired t-test, "sessions" by sign flips (where seeds hardly differ), "" where
            nothing was.
        seeds, sessions: what it rests on.
    """

    difference: float
    relative: float
    low: float
    high: float
    p: float
    detectable: float
    test: str
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

    The test is the t-test over seeds. Where seeds hardly change the difference (counted arms do not know seeds at all) it would
    take any difference for real, however few sessions it rests on; there the sessions decide.

    Args:
        crossed: whether all seeds are evaluated on the same sessions in the same order; otherwise each has its own.
    """
    differences = [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(arm, reference, strict=True)]
    per_seed = np.array([difference.mean() for difference in differences])
    base = float(np.mean([b.mean() for b in reference]))
    low, high = bootstrap_interval(differences, crossed, rng)
    of_seeds, of_sessions, _ = _variances(differences, crossed)
    test, p, detectable = "", float("nan"), float("nan")
    if len(per_seed) > 1 and of_seeds > STILL**2 * of_sessions:
        test, p, detectable = "seeds", paired_t(per_seed), detectable_difference(per_seed)
    elif len(per_seed) > 1 and crossed:
        per_session = np.mean(differences, axis=0)
        test, p, detectable = "sessions", sign_flips(per_session, rng), detectable_difference(per_session)
    return Comparison(
        difference=float(per_seed.mean()),
        relative=float(per_seed.mean() / base) if base else float("nan"),
        low=low,
        high=high,
        p=p,
        detectable=detectable,
        test=test,
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


def sign_flips(differences: np.ndarray, rng: np.random.Generator, draws: int = FLIPS) -> float:
    """p of the two-sided paired randomisation test on (sessions,) differences: within a session the arms could be swapped.

    Args:
        draws: random assignments; the smallest p is 1 / (draws + 1).
    """
    found = differences[differences != 0]  # a swap changes nothing elsewhere
    total = abs(found.sum())
    as_large = 0
    for start in range(0, draws, 200):
        count = min(200, draws - start)
        signs = np.unpackbits(rng.integers(256, size=(count, len(found) // 8 + 1), dtype=np.uint8), axis=1, count=len(found))
        as_large += int((np.abs(found.sum() - 2 * (signs.astype(float) @ found)) >= total * (1 - 1e-9)).sum())
    return (1 + as_large) / (1 + draws)


def bootstrap_interval(
    differences: Sequence[np.ndarray], crossed: bool, rng: np.random.Generator, draws: int = 2000, level: float = LEVEL
) -> tuple[float, float]:
    """Interval of the mean difference: a percentile bootstrap over seeds and one over sessions, corrected for few seeds.

    Seeds are resampled by their means, sessions by their means over seeds (as all seeds share them; with sessions of their own
    the means of seeds hold what sessions add), and the deviations of both are added. A plain bootstrap over few seeds is too
    narrow where seeds decide, and too wide where neither seeds nor sessions do. So a seed's deviation is enlarged by
    sqrt(S / (S - 1)); the variance of single results, which the means of seeds and of sessions both hold, is taken off once;
    and quantiles are stretched to those of a t distribution with Satterthwaite's (1946) degrees of freedom for the sum of the
    two variances. With one seed only sessions vary.
    """
    seeds = len(differences)
    means = np.array([difference.mean() for difference in differences])
    mean = float(means.mean())
    of_seeds, of_sessions, of_both = _variances(differences, crossed)
    total = of_seeds + of_sessions
    if not total:
        return mean, mean
    deviations = np.zeros(draws)
    spread = 0.0  # 1 / degrees of freedom
    if of_seeds:
        deviations += (means[rng.integers(seeds, size=(draws, seeds))].mean(1) - mean) * np.sqrt(seeds / (seeds - 1))
        spread += (of_seeds / total) ** 2 / (seeds - 1)
    if of_sessions:
        per_session = np.mean(differences, axis=0)
        sessions = len(per_session)
        for start in range(0, draws, 100):  # (100, sessions) at once
            rows = slice(start, min(start + 100, draws))
            deviations[rows] += per_session[rng.integers(sessions, size=(rows.stop - rows.start, sessions))].mean(1) - mean
        spread += (of_sessions / total) ** 2 / (sessions - 1)
    wider = stats.t.ppf(1 - level / 2, 1 / spread) / stats.norm.ppf(1 - level / 2)
    wider *= np.sqrt(max(total - of_both, of_seeds, of_sessions) / total)
    low, high = mean + wider * np.quantile(deviations, [level / 2, 1 - level / 2])
    return float(low), float(high)


def _variances(differences: Sequence[np.ndarray], crossed: bool) -> tuple[float, float, float]:
    """Variance of the mean difference as the means of seeds show it, as those of sessions do, and what is in both of these.

    The mean squares of a two-way table without repetition, each divided by its size. A source that is not there gives 0.
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
    """The true difference at which a t-test on as many numbers with the deviation of these rejects with ``power``."""
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
