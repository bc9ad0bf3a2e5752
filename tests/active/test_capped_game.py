"""The game with p <= 1 / size, against linear programming."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_games import games
from oracles import linear_program

from recbole_alkd.active.capped import solve_capped
from recbole_alkd.active.game import log_worst_case
from recbole_alkd.active.max_min import solve_max_min, worst_case_gain
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.settings.error import AlkdError


def mild(game):
    return max(game[0]) <= 200 * min(game[0])  # the LP's tolerances are absolute


@settings(deadline=None, max_examples=60)
@given(games().filter(mild), st.data())
def test_value_and_cap(game, data):
    gain, counts, a, b = game
    g, a, b = np.array([float(x) for x in gain]), float(a), float(b)
    size = data.draw(st.integers(1, len(gain)))
    solution = solve_capped(np.log(g), size, *counts, a, b)
    p = np.exp(solution.log_p)
    assert p.sum() == pytest.approx(1, abs=1e-12) and p.max() <= (1 + 1e-12) / size
    reached = worst_case_gain(p, g, *counts, a, b)
    assert reached == pytest.approx(linear_program(np.stack([g, a * g, -b * g]), counts, 1 / size), abs=1e-7)
    assert solution.upper == pytest.approx(reached, abs=1e-12)


@pytest.mark.parametrize("mu", [0.1, 1, 10])
@pytest.mark.parametrize("size", [500, 2000, 6000, 12_054])
def test_papers_size(mu, size):
    log_gain, counts = -mu * np.log(np.arange(1, 12_055)), (1205, 6027, 4822)
    free = solve_max_min(log_gain, *counts)
    solution = solve_capped(log_gain, size, *counts)
    sign, log_abs = log_worst_case(solution.log_p, log_gain, counts)
    reached = sign * np.exp(log_abs)
    assert solution.upper == pytest.approx(reached, rel=1e-10)
    assert solution.log_p.max() <= -np.log(size) + 1e-12
    if size * np.exp(free.log_p.max()) <= 1:
        assert reached == pytest.approx(free.value, rel=1e-10)
    else:
        assert reached < free.value


def test_more_picks_than_instances():
    with pytest.raises(PoolExhausted):
        solve_capped(np.zeros(3), 4, 1, 1, 1)


def test_gains_out_of_the_range_of_floats():
    with pytest.raises(AlkdError, match="alkd_mu: log gains that span 690"):
        solve_capped(-100 * np.log(np.arange(1, 1001)), 10, 100, 500, 400)
