"""How many labels are effective, similar and incorrect, from evidence instead of an assumption.

The paper takes the ratio as known. Here a pilot of m uniformly drawn labels bounds it: with joint confidence
1 - alpha at least L instances of the pool are effective and at most U are incorrect (Clopper and Pearson,
1934; alpha / 2 each). The value of the game never falls when a label becomes better, so the worst counts in
that box are (L, N - L - U, U), and the policy solved for them holds its value against every ratio in the box.
Counts are facts about a finite pool: whatever was labelled later, and however it was chosen,
can be subtracted (``CountBounds.after``).

Only uniform draws may go into a pilot. Draws with the policy's own probabilities are biased towards one side
of the difficulty; weighting them back leaves next to no effective draws at the paper's mu = 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from recbole_alkd.active.game import Counts
from recbole_alkd.settings.error import AlkdError

KINDS = ("effective", "similar", "incorrect")


def classify(
    llm_rank: np.ndarray, recommender_rank: np.ndarray, band_ends: Sequence[int] = (5, 15, 25)
) -> np.ndarray:
    """What each label turned out to be: 0 effective, 1 similar, 2 incorrect (indices into ``KINDS``).

    The rule: the ranks of the true next item are compared by the bands in which Eq. 1 gives them the same
    weight. A label is effective when the LLM puts the item into a better band than the recommender does,
    incorrect when into a worse one, and similar when both use the same band, or neither has it.

    Args:
        llm_rank: (m,) rank of the true next item in the LLM's ranking, 1 = first,
            0 = not in it (or no answer).
        recommender_rank: (m,) its rank by the recommender, before the item was put among the candidates; 0 =
            unknown. Items with equal scores share the mean of their ranks, so a rank may end in a half:
            5.5 is behind a band that ends with 5.
        band_ends: the last rank of each band (``kd_position_weight``); everything behind is one more band.

    Returns:
        (m,) int64.
    """
    bands = []
    for name, rank in (("llm_rank", llm_rank), ("recommender_rank", recommender_rank)):
        ranks = np.asarray(rank)
        if (ranks < 0).any():
            raise AlkdError(
                f"{name}: {ranks.min()} is not allowed; allowed: ranks from 1, and 0 for an item that is not "
                "ranked"
            )
        bands.append(np.where(ranks == 0, len(band_ends), np.searchsorted(np.asarray(band_ends), ranks)))
    return 1 + np.sign(bands[0] - bands[1])


def count_kinds(kinds: np.ndarray) -> Counts:
    """Numbers of (effective, similar, incorrect) among the answers of ``classify``."""
    counts = np.bincount(kinds, minlength=3)
    return int(counts[0]), int(counts[1]), int(counts[2])


@dataclass(frozen=True)
class CountBounds:
    """What is known of a pool of ``n`` instances: at least ``effective`` effective ones,
    at most ``incorrect`` incorrect ones."""

    n: int
    effective: int
    incorrect: int

    @property
    def counts(self) -> Counts:
        """The worst counts within the bounds, for the solver: (effective, similar, incorrect),
        which sum to ``n``."""
        effective = min(self.effective, self.n)
        incorrect = min(self.incorrect, self.n - effective)
        return effective, self.n - effective - incorrect, incorrect

    def after(self, seen: Counts) -> CountBounds:
        """Bounds for the rest of the pool once ``seen`` (effective, similar,
        incorrect) of it have been labelled."""
        rest = self.n - sum(seen)
        if rest < 0 or min(seen) < 0:
            raise AlkdError(
                f"seen: {seen} labels of a pool of {self.n} instances; "
                f"allowed: three counts >= 0, at most {self.n} in all"
            )
        return CountBounds(
            rest, min(rest, max(0, self.effective - seen[0])), min(rest, max(0, self.incorrect - seen[2]))
        )

    def joined(self, other: CountBounds) -> CountBounds:
        """Both bounds at once, for two pilots of the same pool (each at a confidence that leaves room for the
        other)."""
        if self.n != other.n:
            raise AlkdError(
                f"bounds of pools of {self.n} and {other.n} instances cannot be joined; "
                "allowed: the same pool"
            )
        return CountBounds(self.n, max(self.effective, other.effective), min(self.incorrect, other.incorrect))


@dataclass(frozen=True)
class RatioEstimate:
    """What a pilot says about the pool it was drawn from.

    Attributes:
        seen: labels of each kind in the pilot.
        shares: their shares, the plain estimate (it over-claims about every second time; not for the solver).
        effective_low, incorrect_high: bounds on the shares in the pool, joint confidence ``confidence``.
        bounds: the same as counts of the whole pool, the pilot included.
    """

    seen: Counts
    shares: tuple[float, float, float]
    effective_low: float
    incorrect_high: float
    confidence: float
    bounds: CountBounds

    def __str__(self) -> str:
        shares = " : ".join(f"{share:.3f}" for share in self.shares)
        counts = " : ".join(map(str, self.bounds.counts))
        return (
            f"pilot of {sum(self.seen)} labels: effective : similar : incorrect = {shares}; "
            f"with confidence {self.confidence:g} "
            f"effective >= {self.effective_low:.3f} and incorrect <= {self.incorrect_high:.3f}, "
            f"that is {counts} of {self.bounds.n}"
        )


def estimate_ratio(seen: Counts, n: int, confidence: float = 0.95, pilots: int = 1) -> RatioEstimate:
    """Bounds from one uniform pilot.

    Args:
        seen: numbers of (effective, similar, incorrect) labels in the pilot.
        n: instances in the pool the pilot was drawn from, the pilot included.
        confidence: joint confidence of all bounds of all pilots.
        pilots: how many pilots share that confidence (one fresh pilot a round).

    Raises:
        AlkdError: an empty pilot, negative counts, more labels than instances, a confidence outside of (0,
            1).
    """
    m = sum(seen)
    if len(seen) != 3 or min(seen) < 0 or not 1 <= m <= n:
        raise AlkdError(
            f"seen: {seen} labels of a pool of {n} instances; allowed: three counts >= 0 with 1 to {n} in all"
        )
    if not 0 < confidence < 1:
        raise AlkdError(f"alkd_confidence: {confidence!r} is not allowed; allowed: a number between 0 and 1")
    if pilots < 1:
        raise AlkdError(f"pilots: {pilots!r} is not allowed; allowed: an integer >= 1")
    error = (1 - confidence) / pilots / 2
    effective_low = lower_bound(seen[0], m, error)
    incorrect_high = 1 - lower_bound(m - seen[2], m, error)
    # a share of a finite pool is a whole number of instances; the labels that were seen are certain
    effective = max(int(np.ceil(n * effective_low - 1e-9)), seen[0])
    incorrect = min(int(np.floor(n * incorrect_high + 1e-9)), n - seen[0] - seen[1])
    shares = (seen[0] / m, seen[1] / m, seen[2] / m)
    return RatioEstimate(
        seen, shares, effective_low, incorrect_high, confidence, CountBounds(n, effective, incorrect)
    )


def lower_bound(successes: int, trials: int, error: float) -> float:
    """Clopper-Pearson lower bound of a probability: the true one is smaller in at most a share ``error`` of
    all samples."""
    return float(beta.ppf(error, successes, trials - successes + 1)) if successes else 0.0
