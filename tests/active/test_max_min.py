"""The closed form against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from unit_values import KNOWN

from recbole_alkd.active.max_min import solve_max_min, worst_case_gain
from recbole_alkd.config import AlkdError


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
