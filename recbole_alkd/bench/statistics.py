"""Paired comparisons: what a difference between two arms is worth over seeds and sessions.

The null hypothesis is everywhere that an arm and the reference have the same expected metric; tests are two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbole_alkd.statistics import LEVEL, bootstrap_interval, detectable_difference, paired_t, sign_flips, variances

# a standard error over seeds below this share of that over sessions: seeds say nothing, and sessions are tested
STILL = 0.1


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
    of_seeds, of_sessions, _ = variances(differences, crossed)
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
