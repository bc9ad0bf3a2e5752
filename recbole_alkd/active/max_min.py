"""The exact max-min selection policy for gains that are proportional to each other, with a certificate.

ALKDRec (AAAI 2025), Eq. 3, in the proportional case: the gains of similar and incorrect labels are fixed
shares a and -b of those of effective ones (``game``). The paper's closed form (Definition 1, Theorems 1-3) is
not optimal in general; the solution here is, and ``docs/selection.md`` proves it in a page. Everything is
computed in log space: gains such as rank^-60 are no floats, their logarithms are.

With g sorted descending and a_i = -b for the first n_incorrect, a for the next n_similar, 1 for the rest:
A_k = a_1 + ... + a_k, C_k = 1/g_1 + ... + 1/g_k, and

    if A_N >= 0:  value = max_k A_k / C_k,         p_s = 1 / (g_s C_k) on the k instances with the largest
                                                   gains
    if A_N < 0:   value = max(A_N / C_N, -b g_N),  p_s = 1 / (g_s C_N), or all mass on the smallest gain
"""

from __future__ import annotations

import numpy as np

from recbole_alkd.active.game import (
    Counts,
    MaxMinSolution,
    Strategy,
    check_counts,
    check_shares,
    worst_case_gain,
)
from recbole_alkd.active.general import solve_general
from recbole_alkd.settings.error import AlkdError

__all__ = ["MaxMinSolution", "solve_general", "solve_max_min", "worst_case_gain"]

# values whose logarithms differ by less are tied: the rounding of a running log-sum of 10^7 terms stays below
_TIE = 1e-12
_EPS = float(np.finfo(np.float64).eps)


def solve_max_min(
    log_gain: np.ndarray,
    n_effective: int,
    n_similar: int,
    n_incorrect: int,
    similar: float = 0.5,
    incorrect: float = 0.5,
) -> MaxMinSolution:
    """Solve the game in O(N log N); 10^7 instances take seconds.

    Args:
        log_gain: (N,) logarithms of the gains of effective labels, in any order.
        n_effective, n_similar, n_incorrect: how many labels of each kind there are; they sum to N.
        similar: gain of a similar label in units of the effective one, in [0, 1] (the paper: 0.5).
        incorrect: loss of an incorrect label in the same units, >= 0 (the paper: 0.5).

    Raises:
        AlkdError (a ValueError): the pool is empty, a gain is not finite, a count is no integer or negative,
            the counts do not sum to N, or ``similar`` and ``incorrect`` are out of range or both 0.
    """
    log_gain = np.asarray(log_gain, dtype=np.float64)
    if log_gain.ndim != 1:
        raise AlkdError(f"log_gain: an array of shape {log_gain.shape} was given; allowed: (N,)")
    counts = check_counts(len(log_gain), n_effective, n_similar, n_incorrect)
    a, b = check_shares(similar, incorrect)
    if not np.isfinite(log_gain).all():
        bad = int((~np.isfinite(log_gain)).sum())
        raise AlkdError(
            f"log_gain: {bad} of {len(log_gain)} values are NaN or infinite; allowed: finite numbers"
        )

    loss = -log_gain
    order = stable_order(loss)
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


def stable_order(values: np.ndarray) -> np.ndarray:
    """``np.argsort(values, kind="stable")`` of finite numbers, (N,).

    numpy's default sort uses the processor's vectors and is several times as fast; what it mixes up among
    equal values is put in order afterwards, by one number that says value and place.
    """
    order = np.argsort(values)
    rising = values[order]
    same = rising[1:] == rising[:-1]
    if not same.any():
        return order
    if len(values) >= 1 << 31:
        return np.argsort(values, kind="stable")
    group = np.append(0, np.cumsum(~same))
    keys = (group << 32) | order
    keys.sort()
    return keys & 0xFFFFFFFF


def _log_sum(values: np.ndarray) -> float:
    """log(sum(exp(values))) of ascending values."""
    return float(values[-1] + np.log(np.exp(values - values[-1]).sum()))


def _support(loss: np.ndarray, counts: Counts, a: float, b: float) -> tuple[slice, int, float]:
    """The support in sorted order, the sign of the value, and log |A| of the support (value = A / C)."""
    n_effective, n_similar, n_incorrect = counts
    n = len(loss)
    # sums of floats that should cancel may leave this much; times a gain ratio of 10^40 it would look like a
    # value
    rounding = 4 * _EPS * (n_effective + a * n_similar + b * n_incorrect)
    total = n_effective + a * n_similar - b * n_incorrect
    if abs(total) <= rounding:
        return slice(0, n), 0, -np.inf
    log_sums = np.logaddexp.accumulate(loss)
    if total < 0:
        head, last = np.log(-total) - log_sums[-1], np.log(b) - loss[-1]
        if head <= last + _TIE:
            return slice(0, n), -1, float(np.log(-total))
        # every instance with the smallest gain, so that equal gains get equal probabilities;
        # still value -b g_N
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
    loss: np.ndarray, support: slice, sign: int, log_value: float, counts: Counts, a: float, b: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The adversary's optimal strategy in sorted order, as P(effective) and the expected gain in units of g,
    and its bound.

    Given both, P(similar) and P(incorrect) follow. Kept in this form because a level of 10^-40 is lost in
    P(similar).
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
    # |V| / g_s; behind the support it may be any size, and all that matters is that it is large
    level = sign * np.exp(np.minimum(log_value + loss, np.log(max(1.0, b)))) if sign else np.zeros(n)
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
