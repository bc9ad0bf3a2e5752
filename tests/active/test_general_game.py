"""Gains of any shape, against linear programming and the closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_games import KNOWN_GENERAL, counts_of, games
from oracles import linear_program, worst_assignment

from recbole_alkd.active.max_min import solve_general, solve_max_min
from recbole_alkd.settings.error import AlkdError


@pytest.mark.parametrize(("gains", "counts", "value", "p"), KNOWN_GENERAL)
def test_known_games(gains, counts, value, p):
    solution = solve_general(*(np.array([float(g) for g in column]) for column in gains), *counts)
    assert solution.value == pytest.approx(float(value), rel=1e-14)
    assert np.exp(solution.log_p) == pytest.approx([float(x) for x in p], rel=1e-13)


@st.composite
def general_games(draw):
    n = draw(st.integers(1, 12))
    steps = st.integers(0, 12) if draw(st.booleans()) else st.floats(0, 12, allow_subnormal=False)
    columns = [draw(st.lists(steps, min_size=n, max_size=n)) for _ in range(3)]
    incorrect = np.array(columns[0]) - draw(st.sampled_from([0, 3, 12]))
    similar = incorrect + np.array(columns[1]) / 4
    effective = similar + np.array(columns[2]) / 4 + 0.25
    return np.stack([effective, similar, incorrect]), draw(counts_of(n))


@settings(deadline=None, max_examples=60)
@given(general_games())
def test_value_policy_and_certificate(game):
    worth, counts = game
    solution = solve_general(worth[0], worth[1], -worth[2], *counts)
    assert solution.value == pytest.approx(linear_program(worth, counts), abs=1e-7)
    p = np.exp(solution.log_p)
    assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).sum() == solution.cutoff
    assert worst_assignment(p, worth, counts) == pytest.approx(solution.value, abs=1e-11)
    parts = np.stack(solution.certificate())
    assert (parts >= 0).all() and (parts <= 1).all()
    assert parts.sum(0) == pytest.approx(np.ones(len(p)), abs=1e-10)
    assert parts.sum(1) == pytest.approx(counts, abs=1e-9)
    assert (parts * worth).sum(0).max() == pytest.approx(solution.value, abs=1e-10)
    assert solution.upper == pytest.approx(solution.value, rel=1e-14)


@settings(deadline=None, max_examples=60)
@given(games())
def test_proportional_gains_give_the_closed_form(game):
    gain, counts, a, b = game
    g = np.array([float(x) for x in gain])
    closed = solve_max_min(np.log(g), *counts, similar=float(a), incorrect=float(b))
    newton = solve_general(g, float(a) * g, float(b) * g, *counts)
    assert newton.value == pytest.approx(closed.value, rel=1e-11, abs=1e-14 * g.min())


@pytest.mark.parametrize("mu", [0.5, 2, 10])
def test_proportional_gains_of_the_papers_size(mu):
    log_gain = -mu * np.log(np.arange(1, 12_055))
    g = np.exp(log_gain)
    closed, newton = (
        solve_max_min(log_gain, 1205, 6027, 4822),
        solve_general(g, g / 2, g / 2, 1205, 6027, 4822),
    )
    assert newton.value == pytest.approx(closed.value, rel=1e-13)
    assert np.abs(np.exp(newton.log_p) - np.exp(closed.log_p)).sum() < 1e-12
    assert newton.cutoff == closed.cutoff


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain_effective": [1.0, np.nan]}, "gain_effective: 1 of 2 values are NaN"),
        ({"gain_similar": [0.5]}, "shapes \\(2,\\), \\(1,\\), \\(2,\\)"),
        ({"gain_similar": [0.5, 2.0]}, "gains of instance 1: 1.0 effective, 2.0 similar"),
        ({"loss_incorrect": [-0.6, 0.5]}, "gains of instance 0"),
        ({"gain_effective": [], "gain_similar": [], "loss_incorrect": []}, "the pool is empty"),
        ({"n_incorrect": 2}, "they must be equal"),
    ],
)
def test_bad_input_is_named(change, message):
    game = {"gain_effective": [1.0, 1.0], "gain_similar": [0.5, 0.5], "loss_incorrect": [0.5, 0.5]}
    game |= {"n_effective": 1, "n_similar": 1, "n_incorrect": 0}
    with pytest.raises(AlkdError, match=message):
        solve_general(**(game | change))
