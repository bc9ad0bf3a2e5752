"""The exact max-min selection policy for gains that are proportional to each other, with a certificate.

The game of ALKDRec (AAAI 2025), Eq. 3: of N instances ``n_effective`` turn out effective (gain g_s), ``n_similar``
similar (a g_s) and ``n_incorrect`` incorrect (-b g_s); which ones, an adversary decides. The policy p maximises the
smallest expected gain. The paper's closed form (Definition 1, Theorems 1-3) is not optimal in general; the solution
here is, and ``docs/selection.md`` proves it in a page. Everything is computed in log space: gains such as rank^-60 are
no floats, their logarithms are.

With g sorted descending and a_i = -b for the first n_incorrect, a for the next n_similar, 1 for the rest:
A_k = a_1 + ... + a_k, C_k = 1/g_1 + ... + 1/g_k, and

    value = max_k A_k / C_k,           p_s = 1 / (g_s C_k) on the k instances with the largest gains,      if A_N >= 0
    value = max(A_N / C_N, -b g_N),    p_s = 1 / (g_s C_N), or all mass on the smallest gain,              if A_N < 0
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from recbole_alkd.config import AlkdError

# values whose logarithms differ by less are tied: the rounding of a running log-sum of 10^7 terms stays below
_TIE = 1e-12
_EPS = float(np.finfo(np.float64).eps)

Strategy = tuple[np.ndarray, np.ndarray, np.ndarray, float]


@dataclass(frozen=True, eq=False)
class MaxMinSolution:
    """The optimal policy of one game, in the order of the instances that were given.

    Attributes:
        log_p: (N,) logarithms of the probabilities, normalised; -inf off the support.
        cutoff: size of the support. Where several supports are optimal it is the smallest that treats equal gains alike.
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
        """The adversary's optimal mixed strategy: probabilities (effective, similar, incorrect), each (N,) in [0, 1].

        The three sum to 1 in every row, and over the instances to the three counts. No instance is worth more than the
        value against it, which proves that no policy gains more.
        """
        return self._played[:3]


def solve_max_min(
    log_gain: np.ndarray, n_effective: int, n_similar: int, n_incorrect: int, similar: float = 0.5, incorrect: float = 0.5
) -> MaxMinSolution:
    """Solve the game in O(N log N); 10^7 instances take seconds.

    Args:
        log_gain: (N,) logarithms of the gains of effective labels, in any order.
        n_effective, n_similar, n_incorrect: how many labels of each kind there are; they sum to N.
        similar: gain of a similar label in units of the effective one, in [0, 1] (the paper: 0.5).
        incorrect: loss of an incorrect label in the same units, >= 0 (the paper: 0.5).

    Raises:
        AlkdError (a ValueError): the pool is empty, a gain is not finite, a count is no integer or negative, the counts do
            not sum to N, or ``similar`` and ``incorrect`` are out of range or both 0.
    """
    log_gain = np.asarray(log_gain, dtype=np.float64)
    if log_gain.ndim != 1:
        raise AlkdError(f"log_gain: an array of shape {log_gain.shape} was given; allowed: (N,)")
    counts = check_counts(len(log_gain), n_effective, n_similar, n_incorrect)
    a, b = check_shares(similar, incorrect)
    if not np.isfinite(log_gain).all():
        bad = int((~np.isfinite(log_gain)).sum())
        raise AlkdError(f"log_gain: {bad} of {len(log_gain)} values are NaN or infinite; allowed: finite numbers")

    loss = -log_gain
    order = np.argsort(loss, kind="stable")
    loss = loss[order]  # log(1 / g), ascending
    support, sign, log_total = _support(loss, counts, a, b)
    log_norm = _log_sum(loss[support])
    log_p = np.full(len(loss), -np.inf)
    log_p[order[support]] = loss[support] - log_norm
    log_value = log_total - log_norm if sign else -np.inf

    def strategy() -> Strategy:
        effective, level, upper = _adversary(loss, support, sign, log_value, counts, a, b)
        similar_ = np.clip((level - effective + b * (1 - effective)) / (a + b), 0, 1 - effective)
        parts = np.empty((3, len(loss)))
        parts[:, order] = effective, similar_, 1 - effective - similar_
        return parts[0], parts[1], parts[2], upper

    return MaxMinSolution(log_p, support.stop - support.start, sign, log_value, strategy)


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
        p: (N,) probabilities >= 0 (or any other weights, such as inclusion probabilities divided by the number of picks).
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
    log_p: np.ndarray, log_gain: np.ndarray, counts: tuple[int, int, int], similar: float = 0.5, incorrect: float = 0.5
) -> tuple[int, float]:
    """``worst_case_gain`` in log space: sign and logarithm of its size, for arguments that are no floats themselves."""
    weight = log_p + log_gain
    top = weight.max()
    value = _spoil(np.exp(weight - top), counts, similar, incorrect)
    return (0, -np.inf) if value == 0 else (int(np.sign(value)), float(np.log(abs(value)) + top))


def check_counts(n: int, n_effective: int, n_similar: int, n_incorrect: int) -> tuple[int, int, int]:
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
    """The shares as floats; AlkdError unless 0 <= similar <= 1, incorrect >= 0 and one of them is positive."""
    if not 0 <= similar <= 1:
        raise AlkdError(f"similar: {similar!r} is not allowed; allowed: a number in [0, 1]")
    if not 0 <= incorrect < np.inf:
        raise AlkdError(f"incorrect: {incorrect!r} is not allowed; allowed: a number >= 0")
    if similar + incorrect == 0:
        raise AlkdError("similar and incorrect are both 0; allowed: at least one of them positive")
    return float(similar), float(incorrect)


def _log_sum(values: np.ndarray) -> float:
    """log(sum(exp(values))) of ascending values."""
    return float(values[-1] + np.log(np.exp(values - values[-1]).sum()))


def _spoil(weight: np.ndarray, counts: tuple[int, int, int], a: float, b: float) -> float:
    n_effective, n_similar, _ = counts
    ascending = np.sort(weight)
    best, middle = ascending[:n_effective], ascending[n_effective : n_effective + n_similar]
    return float(best.sum() + a * middle.sum() - b * ascending[n_effective + n_similar :].sum())


def _support(loss: np.ndarray, counts: tuple[int, int, int], a: float, b: float) -> tuple[slice, int, float]:
    """The support in sorted order, the sign of the value, and log |A| of the support (value = A / C)."""
    n_effective, n_similar, n_incorrect = counts
    n = len(loss)
    # sums of floats that should cancel may leave this much; times a gain ratio of 10^40 it would look like a value
    rounding = 4 * _EPS * (n_effective + a * n_similar + b * n_incorrect)
    total = n_effective + a * n_similar - b * n_incorrect
    if abs(total) <= rounding:
        return slice(0, n), 0, -np.inf
    log_sums = np.logaddexp.accumulate(loss)
    if total < 0:
        head, last = np.log(-total) - log_sums[-1], np.log(b) - loss[-1]
        if head <= last + _TIE:
            return slice(0, n), -1, float(np.log(-total))
        # every instance with the smallest gain, so that equal gains get equal probabilities; still value -b g_N
        start = int(np.searchsorted(loss, loss[-1]))
        return slice(start, n), -1, float(np.log(b * (n - start)))
    # A_k <= 0 up to n_incorrect: the best k lies behind
    numerator = np.arange(1, n - n_incorrect + 1, dtype=np.float64)
    numerator[:n_similar] *= a
    numerator[n_similar:] += a * n_similar - n_similar
    numerator -= b * n_incorrect
    numerator[numerator <= rounding] = 0
    with np.errstate(divide="ignore"):
        score = np.log(numerator)
    score -= log_sums[n_incorrect:]
    first = int(np.argmax(score >= score.max() - _TIE))
    # equal gains get equal probabilities; the wider support is as good
    cutoff = int(np.searchsorted(loss, loss[n_incorrect + first], side="right"))
    return slice(0, cutoff), 1, float(np.log(numerator[cutoff - n_incorrect - 1]))


def _adversary(
    loss: np.ndarray, support: slice, sign: int, log_value: float, counts: tuple[int, int, int], a: float, b: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The adversary's optimal strategy in sorted order, as P(effective) and the expected gain in units of g, and its bound.

    Given both, P(similar) and P(incorrect) follow. Kept in this form because a level of 10^-40 is lost in P(similar).
    """
    n_effective, n_similar, n_incorrect = counts
    n, mixed = len(loss), n_similar + n_incorrect
    value = sign * float(np.exp(log_value))
    if support.start > 0:
        # all mass on the smallest gain: levels between -b and V / g_s that sum to A_N
        room = b - b * np.exp(loss - loss[-1])  # V / g_s + b
        total = n_effective + a * n_similar - b * n_incorrect
        level = -b + room * ((total + b * n) / room.sum() if room.any() else 0.0)
        return _spread(level, n_effective, a, b), level, value
    k = support.stop
    level = sign * np.exp(log_value + loss) if sign else np.zeros(n)
    if k > mixed:
        effective = np.ones(n)
        effective[:k] = _spread(level[:k], k - mixed, a, b)
        level[k:] = 1.0
    else:
        effective = np.zeros(n)
        cap = np.ones(n - k) if a == 1 else np.clip((level[k:] - a) / (1 - a), 0, 1)
        if n_effective:
            effective[k:] = np.minimum(1, n_effective * (cap / cap.sum()))
        level[k:] = effective[k:] + a * (1 - effective[k:])
    over = np.log(level[k:]) - loss[k:] - log_value if k < n else np.zeros(1)
    return effective, level, value * float(np.exp(max(0.0, over.max())))


def _spread(level: np.ndarray, total: int, a: float, b: float) -> np.ndarray:
    """P(effective) that sums to ``total`` where each expected gain (in units of g) is ``level``."""
    most = np.clip((level + b) / (1 + b), 0, 1)
    least = np.zeros_like(level) if a == 1 else np.clip((level - a) / (1 - a), 0, 1)
    least = np.minimum(least, most)
    room = (most - least).sum()
    return least + (np.clip((total - least.sum()) / room, 0, 1) if room > 0 else 0.0) * (most - least)
