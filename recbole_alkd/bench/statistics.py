"""Paired comparisons: what a difference between two arms is worth over seeds and sessions.

The null hypothesis is everywhere that an arm and the reference have the same expected metric;
tests are two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbole_alkd.statistics import (
    LEVEL,
    bootstrap_interval,
    detectable_difference,
    paired_t,
    sign_flips,
    variances,
)

# a standard error over seeds below this share of that over sessions: seeds say nothing,
# and sessions are tested
STILL = 0.1
NO_VERDICT, SAME = "no verdict", "no measurable difference"


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference, in units of the metric.

    Attributes:
        difference: mean over seeds of (arm - reference). relative: as a share of the reference's mean.
        low, high: bootstrap interval at 95 % over sessions and seeds.
        p: of the test (nan where none can be made). p_holm: after Holm's correction, where one was made.
        detectable: the smallest true difference that a t-test on the same numbers finds with a probability of
            80 % (nan likewise).
        test: what was tested: "seeds" by a paired t-test, "sessions" by sign flips (where seeds hardly
            differ), "" where nothing was.
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
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high

    @property
    def sure(self) -> bool:
        """Whether the corrected test and the interval agree on a difference."""
        return self.p_holm < LEVEL and self.apart

    @property
    def direction(self) -> str:
        return "better" if self.difference > 0 else "worse"

    @property
    def verdict(self) -> str:
        """better or worse where the corrected test and the interval agree;
        else what they say in words that claim no more.

        A corrected test that does not reject what the interval shows has too few seeds (or sessions) for it:
        at a true difference of this size it would reject about half the time at most.
        """
        if np.isnan(self.p_holm):
            return NO_VERDICT
        if self.sure:
            return self.direction
        if self.apart:
            return f"{self.direction} by the interval; too few {self.test} for the test"
        return f"{self.direction} by the test; the interval holds 0" if self.p_holm < LEVEL else SAME


def paired_differences(arm: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(sessions,) differences of per-session gains, a seed each."""
    return [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(arm, reference, strict=True)]


def choose_test(differences: Sequence[np.ndarray], crossed: bool) -> str:
    """What is tested, a word of ``Comparison.test``: the t-test over seeds, or sign flips over sessions where
    seeds are still.

    Where seeds hardly change the difference (counted arms do not know seeds at all) a t-test over them would
    take any difference for real, however few sessions it rests on; there the sessions decide.
    """
    of_seeds, of_sessions, _ = variances(differences, crossed)
    if len(differences) < 2:
        return ""
    if of_seeds > STILL**2 * of_sessions:
        return "seeds"
    return "sessions" if crossed else ""


def compare(
    arm: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    crossed: bool,
    rng: np.random.Generator,
    test: str | None = None,
) -> Comparison:
    """Compare per-session gains, one array (sessions,) a seed, paired by seed and session.

    Args:
        crossed: whether all seeds are evaluated on the same sessions in the same order;
            otherwise each has its own.
        test: ``choose_test`` of the metric that decides, for another metric of the same arm;
            None: that of these gains.
    """
    differences = paired_differences(arm, reference)
    test = choose_test(differences, crossed) if test is None else test
    per_seed = np.array([difference.mean() for difference in differences])
    base = float(np.mean([b.mean() for b in reference]))
    low, high = bootstrap_interval(differences, crossed, rng)
    p = detectable = float("nan")
    if test == "seeds":
        p, detectable = paired_t(per_seed), detectable_difference(per_seed)
    elif test == "sessions":
        per_session = np.mean(differences, axis=0)
        p, detectable = sign_flips(per_session, rng), detectable_difference(per_session)
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
    """Holm's step-down correction (1979) of p values, in their order;
    nan is left out of the count and stays nan."""
    p = np.asarray(p_values, float)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    corrected = np.full(len(p), np.nan)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p[index]))
        corrected[index] = highest
    return corrected.tolist()
