"""Slow solvers that share nothing with the package: linear programming and the Hungarian method.

``worth``: (3, N) what each instance is worth as effective, similar and incorrect.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog


def worst_assignment(p, worth, counts):
    """The adversary's best assignment of kinds, one instance at a time (Hungarian method)."""
    cost = (worth * p)[np.repeat(np.arange(3), counts)].T
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum()


def linear_program(worth, counts, cap=None):
    """max sum alpha_s + sum n_t beta_t  s.t.  alpha_s + beta_t <= p_s worth_ts, sum p = 1, 0 <= p <= cap."""
    n = worth.shape[1]
    eye = np.eye(n)
    rows = np.block([[-np.diag(worth[t]), eye, np.eye(3)[[t] * n]] for t in range(3)])
    objective = -np.concatenate([np.zeros(n), np.ones(n), counts])
    total = np.concatenate([np.ones(n), np.zeros(n + 3)])[None]
    solution = linprog(
        objective,
        rows,
        np.zeros(3 * n),
        total,
        [1],
        [(0, cap)] * n + [(None, None)] * (n + 3),
        method="highs",
    )
    return -solution.fun
