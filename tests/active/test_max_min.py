"""The closed form against exact arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from known_games import KNOWN, exact_value, games

from recbole_alkd.active.max_min import solve_max_min, stable_order, worst_case_gain
from recbole_alkd.settings.error import AlkdError


@pytest.mark.parametrize(("gain", "counts", "a", "b", "value", "cutoff", "p"), KNOWN)
def test_known_games(gain, counts, a, b, value, cutoff, p):
    floats = np.array([float(g) for g in gain])
    solution = solve_max_min(np.log(floats), *counts, similar=float(a), incorrect=float(b))
    assert solution.cutoff == cutoff
    assert solution.value_sign == (value > 0) - (value < 0)
    assert solution.value == pytest.approx(float(value), rel=1e-13)
    assert solution.upper == pytest.approx(float(value), rel=1e-13)
    assert worst_case_gain(np.exp(solution.log_p), floats, *counts, float(a), float(b)) == pytest.approx(
        float(value), rel=1e-12, abs=1e-16
    )
    if p is not None:
        assert np.exp(solution.log_p) == pytest.approx([float(x) for x in p], rel=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_gain": [0.0, np.nan, -1.0]}, "1 of 3 values are NaN"),
        ({"log_gain": [0.0, -np.inf, -1.0]}, "1 of 3 values are NaN or infinite"),
        ({"log_gain": []}, "the pool is empty"),
        ({"log_gain": [[0.0, 1.0, 2.0]]}, "allowed: \\(N,\\)"),
        ({"n_effective": -1, "n_similar": 3}, "n_effective: -1"),
        ({"n_similar": 2}, "1 \\+ 2 \\+ 1 = 4, and the pool has 3"),
        ({"n_incorrect": 1.0}, "n_incorrect: 1.0"),
        ({"n_effective": True}, "n_effective: True"),
        ({"similar": 1.5}, "similar: 1.5"),
        ({"incorrect": -0.5}, "incorrect: -0.5"),
        ({"similar": 0.0, "incorrect": 0.0}, "both 0"),
        ({"similar": float("nan")}, "similar: nan"),
    ],
)
def test_bad_input_is_named(change, message):
    game = {"log_gain": [0.0, -1.0, -2.0], "n_effective": 1, "n_similar": 1, "n_incorrect": 1}
    with pytest.raises(AlkdError, match=message):
        solve_max_min(**(game | change))


@settings(deadline=None, max_examples=60)
@given(games())
def test_value_is_exact(game):
    gain, counts, a, b = game
    value = exact_value(gain, counts, a, b)
    solution = solve_max_min(np.log([float(g) for g in gain]), *counts, similar=float(a), incorrect=float(b))
    assert solution.value_sign == (value > 0) - (value < 0)
    if value:
        assert solution.log_abs_value == pytest.approx(math.log(abs(value)), abs=1e-12)


def test_gains_that_are_no_floats():
    rank = np.arange(1, 10_001)
    solution = solve_max_min(-100 * np.log(rank), 1000, 5000, 4000)
    assert solution.value == 0.0
    # the same game in a scale where the gains are floats, with the same cutoff
    tail = slice(solution.cutoff - 50, solution.cutoff)
    scaled = 100 * (np.log(rank[tail]) - np.log(rank[solution.cutoff - 1]))
    assert np.isfinite(solution.log_abs_value)
    assert solution.log_p[tail] - solution.log_p[solution.cutoff - 1] == pytest.approx(scaled, abs=1e-9)
    assert np.exp(solution.log_p).sum() == pytest.approx(1, abs=1e-12)


def test_the_papers_setting():
    """N = 12,054, mu = 10, 1 : 5 : 4: the support ends at rank 11,271."""
    solution = solve_max_min(-10 * np.log(np.arange(1, 12_055)), 1205, 6027, 4822)
    assert solution.cutoff == 11_271
    assert (np.diff(solution.log_p[:11_271]) > 0).all()


@pytest.mark.parametrize("values", ["distinct", "ties", "all equal", "zeros of both signs", "one", "none"])
def test_the_quick_order_is_the_stable_one(values):
    rng = np.random.default_rng(0)
    numbers = {
        "distinct": rng.normal(size=5000), "ties": -60 * np.log(rng.integers(1, 50, size=5000)),
        "all equal": np.full(300, 2.5), "zeros of both signs": rng.choice([0.0, -0.0, 1.0], size=300),
        "one": np.ones(1), "none": np.zeros(0),
    }[values]  # fmt: skip
    np.testing.assert_array_equal(stable_order(numbers), np.argsort(numbers, kind="stable"))
