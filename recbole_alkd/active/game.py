"""The game between a selection policy and an adversary: its rules, its solution,
and the worst case of any policy.

ALKDRec (AAAI 2025), Eq. 3: of N instances ``n_effective`` turn out effective (gain g_s), ``n_similar``
similar (a g_s) and ``n_incorrect`` incorrect (-b g_s); which ones, an adversary decides.
A policy p is worth its smallest expected gain.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from recbole_alkd.settings.error import AlkdError

Counts = tuple[int, int, int]
Strategy = tuple[np.ndarray, np.ndarray, np.ndarray, float]


@dataclass(frozen=True, eq=False)
class MaxMinSolution:
    """The optimal policy of one game, in the order of the instances that were given.

    Attributes:
        log_p: (N,) logarithms of the probabilities, normalised; -inf off the support.
        cutoff: size of the support. Where several supports are optimal it is the smallest that treats equal
            gains alike.
        value_sign, log_abs_value: sign (-1, 0, 1) and logarithm of the size of the value of the game.
        strategy: () -> the adversary's (effective, similar, incorrect) probabilities, and its upper bound.
    """

    log_p: np.ndarray
    cutoff: int
    value_sign: int
    log_abs_value: float
    strategy: Callable[[], Strategy] = field(repr=False)

    @property
    def value(self) -> float:
        """Value of the game as a float; 0.0 where it is too small for one."""
        return self.value_sign * float(np.exp(self.log_abs_value))

    @cached_property
    def _played(self) -> Strategy:
        return self.strategy()

    @property
    def upper(self) -> float:
        """The most that any policy can gain, in expectation, against ``certificate()``."""
        return self._played[3]

    def certificate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The adversary's optimal mixed strategy: probabilities (effective, similar, incorrect),
        each (N,) in [0, 1].

        The three sum to 1 in every row, and over the instances to the three counts. No instance is worth more
        than the value against it, which proves that no policy gains more.
        """
        return self._played[:3]


def worst_case_gain(
    p: np.ndarray,
    gain: np.ndarray,
    n_effective: int,
    n_similar: int,
    n_incorrect: int,
    similar: float = 0.5,
    incorrect: float = 0.5,
) -> float:
    """Smallest expected gain of any policy: the adversary sorts p_s g_s and spoils the largest first.

    Args:
        p: (N,) probabilities >= 0 (or any other weights, such as inclusion probabilities divided by the
            number of picks).
        gain: (N,) gains of effective labels, > 0 (0 where they are too small for a float).

    Raises:
        AlkdError (a ValueError): shapes that differ, negative or non-finite numbers, counts that do not fit.
    """
    p, gain = np.asarray(p, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    if p.ndim != 1 or p.shape != gain.shape:
        raise AlkdError(f"p and gain: shapes {p.shape} and {gain.shape} were given; allowed: (N,) and (N,)")
    counts = check_counts(len(p), n_effective, n_similar, n_incorrect)
    a, b = check_shares(similar, incorrect)
    for name, values in (("p", p), ("gain", gain)):
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise AlkdError(f"{name}: a value is negative, NaN or infinite; allowed: finite numbers >= 0")
    return _spoil(p * gain, counts, a, b)


def log_worst_case(
    log_p: np.ndarray, log_gain: np.ndarray, counts: Counts, similar: float = 0.5, incorrect: float = 0.5
) -> tuple[int, float]:
    """``worst_case_gain`` in log space: sign and logarithm of its size, for arguments that are no floats
    themselves."""
    weight = log_p + log_gain
    top = weight.max()
    value = _spoil(np.exp(weight - top), counts, similar, incorrect)
    return (0, -np.inf) if value == 0 else (int(np.sign(value)), float(np.log(abs(value)) + top))


def check_counts(n: int, n_effective: int, n_similar: int, n_incorrect: int) -> Counts:
    """The counts as ints; AlkdError unless they are integers >= 0 that sum to ``n`` >= 1."""
    if n < 1:
        raise AlkdError("the pool is empty; a selection needs at least one instance")
    counts = []
    for name, count in (("n_effective", n_effective), ("n_similar", n_similar), ("n_incorrect", n_incorrect)):
        try:
            if isinstance(count, (bool, np.bool_)):
                raise TypeError
            counts.append(operator.index(count))
        except TypeError:
            raise AlkdError(f"{name}: {count!r} is not allowed; allowed: an integer >= 0") from None
        if count < 0:
            raise AlkdError(f"{name}: {count!r} is not allowed; allowed: an integer >= 0")
    if sum(counts) != n:
        raise AlkdError(
            f"n_effective + n_similar + n_incorrect = {' + '.join(map(str, counts))} = {sum(counts)}, "
            f"and the pool has {n} instances; they must be equal"
        )
    return counts[0], counts[1], counts[2]


def check_shares(similar: float, incorrect: float) -> tuple[float, float]:
    """The shares as floats; AlkdError unless 0 <= similar <= 1, incorrect >= 0 and one of them is
    positive."""
    if not 0 <= similar <= 1:
        raise AlkdError(f"similar: {similar!r} is not allowed; allowed: a number in [0, 1]")
    if not 0 <= incorrect < np.inf:
        raise AlkdError(f"incorrect: {incorrect!r} is not allowed; allowed: a number >= 0")
    if similar + incorrect == 0:
        raise AlkdError("similar and incorrect are both 0; allowed: at least one of them positive")
    return float(similar), float(incorrect)


def _spoil(weight: np.ndarray, counts: Counts, a: float, b: float) -> float:
    n_effective, n_similar, _ = counts
    ascending = np.sort(weight)
    best, middle = ascending[:n_effective], ascending[n_effective : n_effective + n_similar]
    return float(best.sum() + a * middle.sum() - b * ascending[n_effective + n_similar :].sum())
