from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_alkd.active.gain import counts_from_ratio, difficulty_ranks, log_gain
from recbole_alkd.settings.error import AlkdError


def test_rank_1_is_the_hardest_and_ties_keep_their_order():
    assert difficulty_ranks(np.array([-0.5, -0.1, -0.5, -0.9])).tolist() == [2, 1, 3, 4]


def test_gain_is_a_power_of_the_rank():
    assert np.exp(log_gain(np.array([1.0, 3.0, 2.0]), 2)) == pytest.approx([1 / 9, 1, 1 / 4])
    assert (log_gain(np.arange(4.0), 0) == 0).all()


@pytest.mark.parametrize(
    ("ratio", "n", "counts"),
    [
        ([1, 5, 4], 10, (1, 5, 4)),
        ([1, 5, 4], 12_054, (1205, 6027, 4822)),  # remainders .4, .0, .6
        ([1, 1, 1], 2, (1, 1, 0)),  # equal remainders: the first named
        ([0.1, 0.5, 0.4], 10, (1, 5, 4)),
        ([0, 0, 3], 7, (0, 0, 7)),
        ([1, 5, 4], 1, (0, 1, 0)),
    ],
)
def test_counts_by_largest_remainder(ratio, n, counts):
    assert counts_from_ratio(ratio, n) == counts


@given(st.lists(st.floats(0, 100), min_size=3, max_size=3).filter(sum), st.integers(1, 10_000))
def test_counts_sum_to_n_and_stay_within_one(ratio, n):
    counts = counts_from_ratio(ratio, n)
    assert sum(counts) == n
    for count, share in zip(counts, ratio, strict=True):
        assert abs(count - n * share / sum(ratio)) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: difficulty_ranks(np.array([1.0, np.nan])), "difficulty: 1 of 2 values are NaN"),
        (lambda: difficulty_ranks(np.array([])), "at least one instance"),
        (lambda: counts_from_ratio([1, -1, 2], 5), "alkd_ratio: \\[1, -1, 2\\]"),
        (lambda: counts_from_ratio([0, 0, 0], 5), "not all 0"),
        (lambda: counts_from_ratio([1, 2], 5), "three numbers"),
        (lambda: counts_from_ratio([1, float("nan"), 2], 5), "alkd_ratio"),
        (lambda: counts_from_ratio([1, 5, 4], 0), "the pool has 0 instances"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(AlkdError, match=message):
        call()
