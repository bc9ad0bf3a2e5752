"""Drawing distinct instances with given probabilities.

``gumbel``: the law of the paper's Algorithm 1 (draw, keep if new, until there are enough), order included, in
one vectorised pass: the largest of log p + Gumbel noise (Plackett-Luce; Yellott, 1977). ``pps``: a fixed
number of picks whose inclusion probabilities are exactly size * p (systematic sampling on a random order;
Madow, 1949). Only the latter keeps a guarantee that was computed for p;
drawing without replacement flattens p.
"""

from __future__ import annotations

import numpy as np

from recbole_alkd.settings.error import AlkdError

METHODS = ("gumbel", "pps")


class PoolExhausted(AlkdError):  # noqa: N818  (a public name)
    """More picks were asked for than can be drawn. ``available`` and ``requested`` are the two numbers;
    ``fill``: whether the pool has more instances than the policy draws from."""

    def __init__(self, available: int, requested: int, fill: bool = False) -> None:
        super().__init__(available, requested, fill)
        self.available, self.requested, self.fill = available, requested, fill

    def __str__(self) -> str:
        return (
            f"budget_labels: {self.requested} instances are asked for and only {self.available} can be "
            f"drawn; lower the budget{', or set alkd_fill: next' if self.fill else ''}"
        )


class InclusionAboveOne(AlkdError):  # noqa: N818  (a public name)
    """``pps`` cannot include an instance more than once: ``largest`` = size * max p is above 1."""

    def __init__(self, largest: float, size: int) -> None:
        super().__init__(largest, size)
        self.largest, self.size = largest, size

    def __str__(self) -> str:
        return (
            f"alkd_draw: pps with {self.size} picks would include an instance {self.largest:.6g} times; "
            "allowed: at most once, "
            f"which means budget_labels <= {int(self.size / self.largest)} with these probabilities, "
            "or alkd_draw: gumbel"
        )


def draw(log_p: np.ndarray, size: int, rng: np.random.Generator, method: str = "gumbel") -> np.ndarray:
    """Draw ``size`` distinct indices, (size,) int64.

    Args:
        log_p: (N,) logarithms of probabilities, up to a constant; -inf is never drawn.
        rng: the only source of randomness.
        method: ``gumbel`` (indices in draw order) or ``pps`` (in random order).

    Raises:
        PoolExhausted: fewer than ``size`` instances have a positive probability.
        InclusionAboveOne: ``pps`` and size * max p > 1.
        AlkdError: ``log_p`` has NaN or +inf, ``size`` is negative, or the method is unknown.
    """
    log_p = np.asarray(log_p, dtype=np.float64)
    if method not in METHODS:
        raise AlkdError(f"alkd_draw: {method!r} is not allowed; allowed: {' | '.join(METHODS)}")
    if log_p.ndim != 1 or np.isnan(log_p).any() or np.isposinf(log_p).any():
        raise AlkdError("log_p: NaN, +inf or a shape other than (N,); allowed: (N,) numbers or -inf")
    if size < 0:
        raise AlkdError(f"size: {size} is not allowed; allowed: an integer >= 0")
    support = np.flatnonzero(log_p > -np.inf)
    if size > len(support):
        raise PoolExhausted(len(support), size, fill=size <= len(log_p))
    if size == 0:
        return np.empty(0, dtype=np.int64)
    picks = (
        _gumbel(log_p[support], size, rng) if method == "gumbel" else _systematic(log_p[support], size, rng)
    )
    return support[picks]


def _gumbel(log_p: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    key = log_p + rng.gumbel(size=len(log_p))
    top = np.argpartition(-key, size - 1)[:size]
    return top[np.argsort(-key[top])]


def _systematic(log_p: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    weight = np.exp(log_p - log_p.max())
    inclusion = size * (weight / weight.sum())
    if inclusion.max() > 1 + 1e-9:
        raise InclusionAboveOne(float(inclusion.max()), size)
    # taken apart, so that the rounding of the running sum cannot pick one of them twice
    certain = inclusion >= 1 - 1e-12
    order = rng.permutation(np.flatnonzero(~certain))
    wanted = size - int(certain.sum())
    if wanted == 0 or not len(order):
        return rng.permutation(np.flatnonzero(certain))
    bounds = np.cumsum(inclusion[order])
    bounds *= wanted / bounds[-1]
    drawn = order[np.searchsorted(bounds[:-1], rng.random() + np.arange(wanted), side="right")]
    return rng.permutation(np.concatenate([np.flatnonzero(certain), drawn]))
