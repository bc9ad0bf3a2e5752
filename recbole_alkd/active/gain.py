"""Assumed gains of a label, and how many labels of each kind are assumed.

ALKDRec (AAAI 2025), "Active selection": an effective label of the instance with difficulty rank r is worth 1
/ r^mu, and only the totals effective : similar : incorrect are taken as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from recbole_alkd.settings.error import AlkdError


def difficulty_ranks(difficulty: np.ndarray) -> np.ndarray:
    """Ranks 1..N, 1 for the hardest (largest difficulty); equal difficulties keep their order.
    (N,) -> (N,) int64.

    Raises:
        AlkdError: the pool is empty, or a difficulty is NaN.
    """
    values = np.asarray(difficulty, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise AlkdError(
            f"difficulty: an array of shape {values.shape} was given; "
            "allowed: (N,) with at least one instance"
        )
    if np.isnan(values).any():
        raise AlkdError(
            f"difficulty: {int(np.isnan(values).sum())} of {len(values)} values are NaN; allowed: numbers"
        )
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def log_gain(difficulty: np.ndarray, mu: float) -> np.ndarray:
    """Logarithm of the gain 1 / rank^mu of an effective label. (N,) -> (N,); ``mu`` >= 0 (the paper: 10).

    The gains themselves leave the range of floats (rank^-60 does at the millionth instance);
    their logarithms never do.
    """
    return -mu * np.log(difficulty_ranks(difficulty))


def counts_from_ratio(ratio: Sequence[float], n: int) -> tuple[int, int, int]:
    """Split ``n`` instances in the ratio effective : similar : incorrect, by largest remainder (ties:
    the first named).

    Raises:
        AlkdError: not three numbers >= 0 with a positive sum, or ``n`` < 1.
    """
    if n < 1:
        raise AlkdError(f"alkd_ratio: the pool has {n} instances; allowed: at least 1")
    if len(ratio) != 3 or not all(np.isfinite(r) and r >= 0 for r in ratio) or not sum(ratio) > 0:
        raise AlkdError(
            f"alkd_ratio: {ratio!r} is not allowed; allowed: three numbers >= 0 that are not all 0"
        )
    shares = [Fraction(r) for r in ratio]
    quotas = [n * share / sum(shares) for share in shares]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(3), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts[0], counts[1], counts[2]
