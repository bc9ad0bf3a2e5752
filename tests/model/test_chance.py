"""Intervals of differences over sessions: draws are the same however they are counted."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_alkd.model.chance import paired_intervals


@pytest.mark.parametrize("sessions", [1, 7, 1001])
def test_the_draws_are_those_of_one_array(sessions):
    values = np.random.default_rng(3).random((sessions, 2)).astype(np.float32)
    rng, means = np.random.default_rng(0), []
    for _ in range(10):
        drawn = rng.integers(sessions, size=(100, sessions))
        times = np.stack([np.bincount(one, minlength=sessions) for one in drawn])
        means.append(times.astype(np.float32) @ values / sessions)
    low, high = paired_intervals(values)
    assert np.array_equal([low, high], np.quantile(np.concatenate(means), [0.025, 0.975], axis=0))


def test_an_interval_is_around_the_mean():
    values = np.random.default_rng(1).normal(0.3, 1, size=(2000, 1))
    (low,), (high,) = paired_intervals(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.1)
